"""Presets: the data, sizes and times that work untouched on a machine, a reason with each value.

    name, why = preset_for(hardware)                       # what `auto` means here
    preset = load_preset("rtx-4090")                       # built in, or from the config folder
    preset.settings                                        # prepare.settings.Settings
    settings = write_experiment(preset, folder, hardware)  # train.py and autoresearch.toml

A preset is a TOML file: `description`, `[requires]`, `[experiment]` (fields of Settings),
`[train]` (upper-case constants of train.py) and `[reasons]` (one sentence per value). Your own go
into the folder that `user_presets_folder()` names; a built-in's name can't be taken.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoresearch.constants import apply_constants, constants_of
from autoresearch.memory import Sizes, largest_batch
from autoresearch.workspace_files import seed_text
from backends.hardware import why_not_together
from prepare.errors import UsageError
from prepare.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from backends.hardware import Hardware

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Preset",
    "Requires",
    "apply_constants",
    "fit_device_batch",
    "fits",
    "list_presets",
    "load_preset",
    "preset_for",
    "user_presets_folder",
    "write_experiment",
]

# From the most to the least demanding: `auto` takes the first for one device that fits.
ORDER = (
    "h100x8-climbmix",
    "h200-climbmix",
    "mi300x-climbmix",
    "h100-climbmix",
    "dgx-spark",
    "rtx-5090",
    "rtx-4090",
    "rtx-3090",
    "rx-7900xtx",
    "rtx-3060-12gb",
    "rtx-2060-8gb",
    "macstudio-climbmix",
    "macbook-tinystories",
    "cpu-tinystories",
    "demo",
)
FREE_SHARE = 0.85  # of a device's memory: the driver, the desktop and fragmentation keep the rest
Constant = bool | int | float | str | tuple[float, ...]


class _Table(BaseModel):
    """A table whose unknown keys are errors that name the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _near_match(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{_nearest(str(key), cls.model_fields)}")
        return values


class Requires(_Table):
    """What a machine must have."""

    backends: tuple[str, ...] = Field(min_length=1)
    min_memory_gb: float = Field(gt=0, description="GiB of device memory, or of the host's")
    architectures: tuple[str, ...] = Field((), description="empty: any")
    systems: tuple[str, ...] = Field((), description="Linux, Darwin, Windows; empty: any")


class Preset(_Table):
    """Values for `[experiment]` and for train.py's constants, with a reason for each."""

    name: str
    description: str
    requires: Requires
    experiment: dict[str, Any]
    train: dict[str, Constant]
    reasons: dict[str, str]

    @model_validator(mode="after")
    def _check(self) -> Preset:
        for key in self.experiment:
            if key == "preset" or key not in Settings.model_fields:
                near = _nearest(key, Settings.model_fields)
                raise ValueError(f"[experiment] has no setting {key!r}{near}")
        known = constants_of(seed_text("train.py"))
        for key in self.train:
            if key not in known:
                raise ValueError(f"train.py has no constant {key!r}{_nearest(key, known)}")
        values = {**self.experiment, **self.train}
        for key in values:
            if not self.reasons.get(key, "").strip():
                raise ValueError(f"[reasons] lacks {key}")
        for key in self.reasons:
            if key not in values:
                raise ValueError(f"[reasons] has {key!r}, no value has{_nearest(key, values)}")
        tokens = self.sizes.device_batch * self.settings.max_seq_len
        if self.sizes.total_batch % tokens:
            raise ValueError(
                f"TOTAL_BATCH_SIZE {self.sizes.total_batch} is no multiple of DEVICE_BATCH_SIZE * "
                f"max_seq_len = {tokens}"
            )
        if self.sizes.device_batch % self.settings.devices:
            raise ValueError(
                f"DEVICE_BATCH_SIZE {self.sizes.device_batch} is no multiple of devices = "
                f"{self.settings.devices}, which share its rows"
            )
        return self

    @cached_property
    def settings(self) -> Settings:
        """The experiment's settings under this preset's name."""
        return Settings(**{**self.experiment, "preset": self.name})

    @cached_property
    def constants(self) -> dict[str, Any]:
        """train.py's constants with this preset's values in place of the seed's."""
        return {**constants_of(seed_text("train.py")), **self.train}

    @cached_property
    def sizes(self) -> Sizes:
        """What memory depends on."""
        return Sizes.from_constants(
            self.constants,
            self.settings.vocab_size,
            self.settings.max_seq_len,
            self.settings.devices,
        )


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def user_presets_folder() -> Path:
    """Where a user's own presets lie, `NAME.toml` each."""
    return Path(platformdirs.user_config_dir("autoresearch", appauthor=False)) / "presets"


def list_presets(folder: Path | None = None) -> list[str]:
    """Names of all presets: the built-in ones from large to small machines, then the user's.

    Raises UsageError if a file in `folder` (the user's, unless given) has a built-in's name.
    """
    return [*ORDER, *_user_files(folder)]


def load_preset(name: str, folder: Path | None = None) -> Preset:
    """The preset of that name. Raises UsageError for an unknown name or a faulty file."""
    mine = _user_files(folder)
    if name in ORDER:
        source = resources.files("autoresearch") / "presets" / f"{name}.toml"
        return _parse(name, source.read_text(encoding="utf-8"), f"preset {name}")
    if name in mine:
        return _parse(name, mine[name].read_text(encoding="utf-8"), str(mine[name]))
    near = _nearest(name, [*ORDER, *mine])
    raise UsageError(f"unknown preset {name!r}{near}", "`autoresearch presets` lists them all")


def _user_files(folder: Path | None) -> dict[str, Path]:
    folder = folder or user_presets_folder()
    files = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    for name, path in files.items():
        if name in ORDER or name == "auto":
            raise UsageError(
                f"{path}: {name!r} is the name of a built-in preset",
                "rename the file; numbers under one name must mean one thing",
            )
    return files


def _parse(name: str, text: str, where: str) -> Preset:
    try:
        return Preset.model_validate({"name": name, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: not valid TOML: {error}", "mend the line it names") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{place}: {first['msg']}" if place else first["msg"]
        raise UsageError(
            f"{where}: {message}", f"`autoresearch presets show {ORDER[-1]}` shows a complete one"
        ) from error


def fits(preset: Preset, hardware: Hardware) -> str | None:
    """None if the preset works on this hardware, else why not: names the preset and the device."""
    requires = preset.requires
    device = f"{hardware.name} ({hardware.backend})"
    if hardware.backend not in requires.backends:
        return f"preset {preset.name} is for {' or '.join(requires.backends)}, not for {device}"
    if requires.architectures and hardware.architecture not in requires.architectures:
        allowed = ", ".join(requires.architectures)
        return (
            f"preset {preset.name} is for {allowed}, and {device} has the architecture "
            f"{hardware.architecture}"
        )
    if requires.systems and hardware.os not in requires.systems:
        return f"preset {preset.name} is for {' or '.join(requires.systems)}, not {hardware.os}"
    if together := why_not_together(hardware, preset.settings.devices):
        return f"preset {preset.name} does not suit {device}: {together}"
    memory = hardware.memory_gib
    if memory < requires.min_memory_gb:
        return (
            f"preset {preset.name} needs {requires.min_memory_gb:g} GiB of memory, and {device} "
            f"has {memory:.1f}"
        )
    return None


def preset_for(hardware: Hardware) -> tuple[str, str]:
    """The preset that `auto` means on this hardware, and why."""
    for name in ORDER:
        preset = load_preset(name)
        if preset.settings.devices == 1 and fits(preset, hardware) is None:
            return name, (
                f"the largest that fits {hardware.name} ({hardware.backend}, "
                f"{hardware.architecture}, {hardware.memory_gib:.0f} GiB)"
            )
    return ORDER[-1], f"the smallest there is; {fits(preset, hardware)}"


def fit_device_batch(
    preset: Preset, free_memory_bytes: int, compute_dtype: str = "bfloat16"
) -> int:
    """Rows per forward pass that fit by `memory`'s estimate: the preset's, halved as need be.

    TOTAL_BATCH_SIZE stays a multiple of rows * max_seq_len, since the preset's own rows divide it.
    """
    return largest_batch(preset.sizes, free_memory_bytes, 4 if compute_dtype == "float32" else 2)


def free_memory(hardware: Hardware) -> int:
    """Bytes that an experiment may take: what the host has left, or a share of the device."""
    share = int(FREE_SHARE * hardware.memory_bytes)
    if hardware.backend in ("cpu", "mps", "mlx"):
        return min(share, psutil.virtual_memory().available)
    return share


def write_experiment(preset: Preset, folder: Path, hardware: Hardware, **changes: Any) -> Settings:
    """Write train.py with the preset's constants, and autoresearch.toml with `changes` applied.

    DEVICE_BATCH_SIZE is fitted to the memory of `hardware`. Returns the settings written.
    """
    settings = Settings(**{**preset.settings.model_dump(), **changes})
    dtype = "float32" if hardware.backend == "cpu" else "bfloat16"
    batch = fit_device_batch(preset, free_memory(hardware), dtype)
    source = apply_constants(seed_text("train.py"), {**preset.train, "DEVICE_BATCH_SIZE": batch})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(source, encoding="utf-8")
    (folder / FILE_NAME).write_text(settings.dumps(), encoding="utf-8")
    return settings

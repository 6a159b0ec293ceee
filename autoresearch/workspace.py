"""`init` without the command line: detect, choose a preset, write the files, commit.

made = new_workspace(Path("my-research"), "auto")
made.preset, made.why        # "rtx-4090", "the largest that fits NVIDIA GeForce RTX 4090 ..."
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.constants import constants_of
from autoresearch.init import check_target, git_version, make_workspace
from autoresearch.preset import Preset, fits, load_preset, preset_for, write_experiment
from autoresearch.workspace_files import seed_text, workspace_files
from prepare.cache import cache_root
from prepare.errors import NoData, UsageError
from prepare.settings import FILE_NAME, NAMED_CORPORA

if TYPE_CHECKING:
    from backends.hardware import Hardware


@dataclass(frozen=True)
class Made:
    """What `init` did, and why so."""

    folder: str
    preset: str
    why: str
    hardware: str
    device_batch_size: int
    batch_reason: str
    commit: str
    files: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def new_workspace(
    folder: Path,
    preset_name: str,
    *,
    backend: str | None = None,
    corpus: str | None = None,
    force: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Made:
    """Make a workspace in `folder` for this machine.

    Args:
        preset_name: a preset's name or "auto". backend: whose hardware counts, None for the best.
        corpus: other text than the preset's: a corpus' name, a file or a folder.
        force: take a preset that doesn't fit the hardware.
        settings: of the experiment, in place of the preset's.

    Raises UsageError for a folder that isn't empty, an unknown preset or one that doesn't fit;
    MissingTool without git; NoData for a corpus that isn't there.
    """
    check_target(folder)
    git_version()
    if preset_name != "auto":
        load_preset(preset_name)  # an unknown name is told before the hardware is looked at
    changes = dict(settings or {})
    if corpus is not None:
        changes["corpus"] = _corpus(corpus)
    hardware = _hardware(backend)
    preset, why, warnings = _choose(preset_name, hardware, force)
    experiment = _experiment_files(preset, hardware, changes)
    files = {**experiment, "program.md": seed_text("program.md"), **workspace_files(cache_root())}
    commit = make_workspace(folder, files, f"Start from preset {preset.name}")
    batch = int(constants_of(experiment["train.py"])["DEVICE_BATCH_SIZE"])
    asked = preset.sizes.device_batch
    return Made(
        folder=str(folder.resolve()),
        preset=preset.name,
        why=why,
        hardware=f"{hardware.name} ({hardware.backend}, {hardware.memory_gib:.0f} GiB)",
        device_batch_size=batch,
        batch_reason="the preset's" if batch == asked else f"{asked} don't fit the free memory",
        commit=commit,
        files=tuple(sorted(files)),
        warnings=warnings,
    )


def _hardware(backend: str | None) -> Hardware:
    """What is here, without running speed probes: they can wait until something is trained."""
    from backends.hardware import detect

    return detect(backend or "auto")[0]


def _choose(name: str, hardware: Hardware, force: bool) -> tuple[Preset, str, tuple[str, ...]]:
    if name == "auto":
        name, why = preset_for(hardware)
        return load_preset(name), why, ()
    preset = load_preset(name)
    misfit = fits(preset, hardware)
    if misfit is None:
        return preset, "asked for", ()
    if not force:
        better, _ = preset_for(hardware)
        raise UsageError(misfit, f"take `--preset {better}` or auto, or go on with --force")
    return preset, "asked for with --force", (misfit,)


def _experiment_files(
    preset: Preset, hardware: Hardware, changes: dict[str, Any]
) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="autoresearch-init-") as name:
        write_experiment(preset, Path(name), hardware, **changes)
        return {
            file: (Path(name) / file).read_text(encoding="utf-8")
            for file in ("train.py", FILE_NAME)
        }


def _corpus(given: str) -> str:
    """A corpus' name, or the absolute path of a file or folder: the workspace may be elsewhere."""
    if given in NAMED_CORPORA:
        return given
    path = Path(given).expanduser()
    if not path.exists():
        known = ", ".join(NAMED_CORPORA)
        guess = difflib.get_close_matches(given, NAMED_CORPORA, 1)
        near = f"did you mean {guess[0]}? " if guess else ""
        raise NoData(
            f"there is no corpus {given!r}",
            f"{near}Name one of {known}, or a file or folder that exists",
        )
    return str(path.resolve())

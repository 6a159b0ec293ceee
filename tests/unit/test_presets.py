"""Presets: each value known to train.py or Settings, with a reason, and fitting its machine."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.constants import apply_constants, constants_of
from autoresearch.memory import Sizes
from autoresearch.preset import (
    FREE_SHARE,
    ORDER,
    Preset,
    fit_device_batch,
    fits,
    list_presets,
    load_preset,
    preset_for,
    write_experiment,
)
from autoresearch.workspace_files import seed_text
from backends.hardware import GIB, Hardware
from prepare.errors import UsageError
from prepare.settings import Settings

HERE = Path(__file__).resolve().parents[2]
NAMES = [
    "h100-climbmix",
    "h100x8-climbmix",
    "h200-climbmix",
    "rtx-5090",
    "rtx-4090",
    "rtx-3090",
    "rtx-3060-12gb",
    "rtx-2060-8gb",
    "mi300x-climbmix",
    "rx-7900xtx",
    "dgx-spark",
    "macbook-tinystories",
    "macstudio-climbmix",
    "cpu-tinystories",
    "demo",
]


def hardware(
    backend: str, architecture: str, gib: float, name: str = "a device", os: str = "Linux"
) -> Hardware:
    return Hardware(backend, "", name, architecture, int(gib * GIB), 1, "", "torch", "2.13.0", os)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's presets folder of this test's own."""
    monkeypatch.setattr("autoresearch.preset.user_presets_folder", lambda: tmp_path)
    return tmp_path


def demo_text() -> str:
    return (HERE / "autoresearch" / "presets" / "demo.toml").read_text(encoding="utf-8")


def test_the_presets_of_the_hardware_table_exist_and_no_file_is_forgotten(mine: Path) -> None:
    files = sorted(path.stem for path in (HERE / "autoresearch" / "presets").glob("*.toml"))
    assert files == sorted(NAMES) == sorted(ORDER) == sorted(list_presets())


@pytest.mark.parametrize("name", NAMES)
def test_each_value_is_known_and_has_one_reason(name: str) -> None:
    preset = load_preset(name)
    assert set(preset.reasons) == {*preset.experiment, *preset.train}
    assert all(
        (text.endswith(".") and len(text) > 15) or text == "Upstream's value."
        for text in preset.reasons.values()
    )
    assert set(preset.train) <= set(constants_of(seed_text("train.py")))
    assert preset.settings.preset == name
    assert Settings(**{**preset.experiment, "preset": name}) == preset.settings


@pytest.mark.parametrize("name", NAMES)
def test_each_preset_is_consistent_and_fits_the_memory_it_asks_for(name: str) -> None:
    preset = load_preset(name)
    sizes, constants = preset.sizes, preset.constants
    assert sizes.total_batch % (sizes.device_batch * sizes.max_seq_len) == 0
    assert sizes.device_batch & (sizes.device_batch - 1) == 0
    assert set(constants["WINDOW_PATTERN"]) <= {"S", "L"}
    assert (sizes.channels // constants["HEAD_DIM"]) % constants["HEADS_PER_KV_HEAD"] == 0
    value_bytes = 4 if "cpu" in preset.requires.backends else 2
    allowed = FREE_SHARE * preset.requires.min_memory_gb * GIB
    assert sizes.total_bytes(sizes.device_batch, value_bytes) <= allowed


@pytest.mark.parametrize("name", NAMES)
def test_writing_a_preset_keeps_the_rest_of_train_py(name: str) -> None:
    source, preset = seed_text("train.py"), load_preset(name)
    written = apply_constants(source, preset.train)
    assert constants_of(written) == preset.constants
    before, after = source.splitlines(), written.splitlines()
    assert len(before) == len(after)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) <= len(preset.train)
    for old, new in changed:
        assert old.split(" = ")[0] == new.split(" = ")[0]
        assert old.partition("#")[2] == new.partition("#")[2]


def test_constants_are_replaced_where_ast_says() -> None:
    source = (
        "# é DEPTH = 1\nDEPTH: int = 8  # é\nA = B = 3\nPAIR = (\n    1,\n    2,  # two\n)  # end\n"
        'TEXT = "DEPTH = 8"; OTHER = 2\nCOMPUTED = DEPTH * 2\n\ndef f():\n    DEPTH = 7\n'
    )
    assert constants_of(source) == {"DEPTH": 8, "PAIR": (1, 2), "TEXT": "DEPTH = 8", "OTHER": 2}
    values = {"DEPTH": 4, "PAIR": [0.5], "TEXT": 'a "q" \\', "OTHER": -1.5}
    written = apply_constants(source, values)
    assert constants_of(written) == {**values, "PAIR": (0.5,)}
    assert written.startswith("# é DEPTH = 1\nDEPTH: int = 4  # é\n")
    assert ")  # end\n" in written and "    DEPTH = 7\n" in written
    ast.parse(written)
    with pytest.raises(UsageError, match="DEPHT") as caught:
        apply_constants(source, {"DEPHT": 4})
    assert "DEPTH" in caught.value.hint


def test_unknown_preset_names_the_nearest(mine: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'rtx-4090'") as caught:
        load_preset("rtx4090")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("eval_bytes =", "eval_byte =", "did you mean 'eval_bytes'"),
        ("DEPTH = 4", "DEPHT = 4", "did you mean 'DEPTH'"),
        ("min_memory_gb", "min_memory", "did you mean 'min_memory_gb'"),
        ("[experiment]", "[experimant]", "did you mean 'experiment'"),
        ("\nDEPTH = 4", "", "'DEPTH', no value has"),
        ("TOTAL_BATCH_SIZE = 1024", "TOTAL_BATCH_SIZE = 3000", "no multiple"),
        ("max_seq_len = 256", "max_seq_len = 1", "max_seq_len"),
        ("time_budget = 40", "time_budget = 40\ndevices = 3", "lacks devices"),
        ("description =", "description", "not valid TOML"),
    ],
)
def test_a_faulty_preset_says_what_and_where(mine: Path, old: str, new: str, message: str) -> None:
    assert old in demo_text()
    (mine / "mine.toml").write_text(demo_text().replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_preset("mine")
    assert "mine.toml" in caught.value.message


def test_users_add_presets_but_cannot_change_what_a_name_means(mine: Path) -> None:
    (mine / "my-lab.toml").write_text(demo_text().replace("= 40", "= 50", 1), encoding="utf-8")
    assert list_presets()[-1] == "my-lab"
    assert load_preset("my-lab").settings.time_budget == 50
    assert load_preset("my-lab").settings.preset == "my-lab"
    (mine / "demo.toml").write_text(demo_text(), encoding="utf-8")
    with pytest.raises(UsageError, match="name of a built-in preset"):
        list_presets()


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (hardware("cuda", "sm_90", 79.1, "NVIDIA H100 80GB HBM3"), "h100-climbmix"),
        (hardware("cuda", "sm_80", 79.2, "NVIDIA A100-SXM4-80GB"), "h100-climbmix"),
        (hardware("cuda", "sm_90", 139.8, "NVIDIA H200"), "h200-climbmix"),
        (hardware("cuda", "sm_100", 178.4, "NVIDIA B200"), "h200-climbmix"),
        (hardware("cuda", "sm_120", 31.4, "NVIDIA GeForce RTX 5090"), "rtx-5090"),
        (hardware("cuda", "sm_89", 23.5, "NVIDIA GeForce RTX 4090"), "rtx-4090"),
        (hardware("cuda", "sm_86", 23.6, "NVIDIA GeForce RTX 3090"), "rtx-3090"),
        (hardware("cuda", "sm_86", 11.6, "NVIDIA GeForce RTX 3060"), "rtx-3060-12gb"),
        (hardware("cuda", "sm_75", 7.6, "NVIDIA GeForce RTX 2060 SUPER"), "rtx-2060-8gb"),
        (hardware("cuda", "sm_121", 119.6, "NVIDIA GB10"), "dgx-spark"),
        (hardware("rocm", "gfx942", 191.5, "AMD Instinct MI300X"), "mi300x-climbmix"),
        (hardware("rocm", "gfx1100", 24.0, "AMD Radeon RX 7900 XTX"), "rx-7900xtx"),
        (hardware("xpu", "bmg", 11.6, "Intel Arc B580"), "rtx-3060-12gb"),
        (hardware("mlx", "applegpu_g14s", 16, "Apple M2", os="Darwin"), "macbook-tinystories"),
        (hardware("mps", "arm64", 16, "Apple M2", os="Darwin"), "macbook-tinystories"),
        (hardware("mlx", "applegpu_g16s", 128, "Apple M4 Max", os="Darwin"), "macstudio-climbmix"),
        (hardware("mlx", "x86_64", 64, "a CPU under MLX"), "cpu-tinystories"),
        (hardware("cpu", "x86_64", 23.5, "AMD EPYC"), "cpu-tinystories"),
        (hardware("cpu", "aarch64", 1.8, "a small board"), "demo"),
        (hardware("cuda", "sm_61", 3.9, "NVIDIA GeForce GTX 1050 Ti"), "demo"),
    ],
    ids=lambda value: value.name if isinstance(value, Hardware) else value,
)
def test_auto(device: Hardware, expected: str) -> None:
    name, reason = preset_for(device)
    assert name == expected
    assert device.name in reason


def test_eight_devices_for_one_trial_are_taken_only_when_asked_for() -> None:
    node = replace(hardware("cuda", "sm_90", 79.1, "NVIDIA H100 80GB HBM3"), count=8)
    assert preset_for(node)[0] == "h100-climbmix"
    assert fits(load_preset("h100x8-climbmix"), node) is None
    why = fits(load_preset("h100x8-climbmix"), replace(node, count=4))
    assert why is not None and "takes 8 devices, and this machine shows 4" in why
    uneven = load_preset("h100x8-climbmix").model_dump()
    uneven["train"]["DEVICE_BATCH_SIZE"] = 4
    with pytest.raises(ValueError, match="no multiple of devices = 8"):
        Preset.model_validate(uneven)


def test_a_preset_that_does_not_fit_names_both() -> None:
    small = hardware("cuda", "sm_86", 11.6, "NVIDIA GeForce RTX 3060")
    assert fits(load_preset("rtx-3060-12gb"), small) is None
    for preset, part in (
        ("rtx-4090", "sm_86"),
        ("rtx-3090", "20 GiB of memory"),
        ("cpu-tinystories", "cpu or mlx"),
    ):
        why = fits(load_preset(preset), small)
        assert why is not None
        assert preset in why
        assert small.name in why
        assert part in why
    why = fits(load_preset("macbook-tinystories"), hardware("mlx", "x86_64", 64))
    assert why is not None
    assert "Darwin" in why


@pytest.mark.parametrize("name", NAMES)
def test_device_batch_is_fitted_to_memory(name: str) -> None:
    preset = load_preset(name)
    sizes = preset.sizes
    assert fit_device_batch(preset, 10**15) == sizes.device_batch
    assert fit_device_batch(preset, 0) == preset.settings.devices
    sizes_seen = set()
    for share in (0.9, 0.6, 0.3, 0.2, 0.1):
        free = int(share * sizes.total_bytes(sizes.device_batch))
        batch = fit_device_batch(preset, free)
        sizes_seen.add(batch)
        assert sizes.total_batch % (batch * sizes.max_seq_len) == 0
        assert batch == preset.settings.devices or sizes.total_bytes(batch) <= free
        assert sizes.total_bytes(2 * batch) > free
    assert fit_device_batch(preset, free, "float32") <= batch
    assert len(sizes_seen) > 1


def test_memory_estimate_by_hand() -> None:
    sizes = Sizes(
        depth=1,
        channels=2,
        kv_channels=1,
        vocab_size=3,
        max_seq_len=4,
        device_batch=1,
        total_batch=4,
    )
    assert sizes.state_bytes() == 12 * (8 + 4 + 32) + 16 * 6 + 12 * (6 + 3)
    assert sizes.token_bytes() == 2 * (42 + 4 + 16)
    assert sizes.total_bytes(1) == sizes.state_bytes() + 4 * 124 + 2 * 4 * 4 * 3


def test_write_experiment_makes_a_folder_that_loads(tmp_path: Path) -> None:
    preset: Preset = load_preset("cpu-tinystories")
    device = hardware("cpu", "x86_64", 16)
    settings = write_experiment(preset, tmp_path / "w", device, time_budget=7, seed=3)
    assert Settings.load(tmp_path / "w") == settings
    assert (settings.time_budget, settings.seed, settings.preset) == (7, 3, "cpu-tinystories")
    written = constants_of((tmp_path / "w" / "train.py").read_text(encoding="utf-8"))
    assert written == preset.constants

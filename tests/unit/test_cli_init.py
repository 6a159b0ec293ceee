"""`presets` and `init`: what fits, what doesn't, and what lands in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch import cli, workspace
from backends.hardware import Hardware
from prepare.settings import Settings

GIB = 2**30


def hardware(backend: str, name: str, architecture: str, gib: float) -> Hardware:
    framework = "mlx" if backend == "mlx" else "torch"
    return Hardware(
        backend, "maker", name, architecture, int(gib * GIB), 1, "", framework, "1", "Linux"
    )


CPU = hardware("cpu", "Some CPU", "x86_64", 24)
RTX = hardware("cuda", "NVIDIA GeForce RTX 4090", "sm_89", 24)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(workspace, "_hardware", lambda backend: CPU)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = cli.run([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_presets_lists_all_and_says_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "presets")
    assert code == 0
    assert "demo" in out and "h100-climbmix" in out
    assert "autoresearch init" in out
    code, out, _ = run(capsys, "presets", "--json")
    document = json.loads(out)
    assert {"demo", "rtx-4090"} <= {row["name"] for row in document["presets"]}


def test_presets_show_gives_a_reason_per_value(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "presets", "show", "demo", "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document["reasons"]) == {*document["experiment"], *document["train"]}
    code, out, _ = run(capsys, "presets", "show", "demo")
    assert document["reasons"]["DEPTH"].split(":")[0] in out


@pytest.mark.parametrize("command", [("presets", "show"), ("init", "--preset")])
def test_an_unknown_preset_is_answered_with_the_near_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *command, "rtx4090")
    assert code == 2
    assert "'rtx4090'" in err and "'rtx-4090'" in err
    assert not list(tmp_path.glob("*.py"))


def test_init_auto(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "init", tmp_path / "w", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["preset"] == "cpu-tinystories"
    assert "Some CPU" in made["why"]
    assert Settings.load(tmp_path / "w").preset == "cpu-tinystories"
    for name in made["files"]:
        assert (tmp_path / "w" / name).is_file()
    code, _, err = run(capsys, "init", tmp_path / "w")
    assert code == 2
    assert "already a workspace" in err


def test_a_preset_for_other_hardware_names_both(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, "init", tmp_path / "w", "--preset", "rtx-4090")
    assert code == 2
    assert "rtx-4090" in err and "Some CPU" in err
    assert "--force" in err
    assert not (tmp_path / "w").exists()


def test_force_goes_on_with_a_warning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "init", tmp_path / "w", "--preset", "rtx-4090", "--force")
    assert code == 0
    assert "Warning: preset rtx-4090" in err
    assert Settings.load(tmp_path / "w").preset == "rtx-4090"


def test_force_overwrites_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = run(capsys, "init", tmp_path, "--force")
    assert code == 2
    assert "not empty" in err


def test_the_presets_constants_are_literals_in_train_py(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(workspace, "_hardware", lambda backend: RTX)
    code, out, _ = run(capsys, "init", tmp_path / "w", "--preset", "rtx-4090", "--json")
    assert code == 0
    batch = json.loads(out)["device_batch_size"]
    assert f"\nDEVICE_BATCH_SIZE = {batch} " in (tmp_path / "w/train.py").read_text()


def test_own_text(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    code, _, _ = run(capsys, "init", "w", "--corpus", "text")
    assert code == 0
    assert Settings.load(tmp_path / "w").corpus == str(tmp_path / "text")
    code, _, err = run(capsys, "init", "v", "--corpus", "texts")
    assert code == 3
    assert "'texts'" in err and "embedded" in err

"""`autoresearch bench`: files, comparisons and exit codes; what is measured is made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoresearch import cli
from autoresearch.bench import attention, loss, training
from autoresearch.bench.samples import Figure, Ratio, Report
from autoresearch.bench.worker import WorkerFailed


@pytest.fixture(autouse=True)
def no_probes(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for name, value in (("BACKEND", "cpu"), ("COMPILE", "0"), ("DTYPE", "float32")):
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `bench training` finds: its ratio's samples, and the arguments that it was called by."""
    found: dict[str, Any] = {"samples": (2.0, 2.1, 2.2)}

    def measure(selection: Any, size: Any, repeats: int, on_event: Any) -> Report:
        found.update(size=size, repeats=repeats)
        on_event("phase", {"phase": "training: made up"})
        figure = Figure("train.py", (100.0,) * repeats, "tokens/s")
        ratio = Ratio("train.py / plain", found["samples"])
        return Report("training", {"depth": size.depth}, (figure,), (ratio,), ("a note",))

    monkeypatch.setattr(training, "measure", measure)
    return found


def test_results_are_written_and_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measured: dict[str, Any]
) -> None:
    file = tmp_path / "results.json"
    command = ["bench", "training", "--depth", "2", "--repeats", "2"]
    assert cli.run([*command, "--output", str(file)]) == 0
    assert measured["size"].depth == 2 and measured["size"].rows == 8 and measured["repeats"] == 2
    out = capsys.readouterr().out
    assert "train.py / plain" in out and "2 to 2.2" in out and "a note" in out
    conditions = json.loads(file.read_text())["conditions"]
    assert conditions["cpu_count"] and len(conditions["load_average"]) == 2
    assert {"python", "torch", "numpy"} <= conditions["versions"].keys()

    assert cli.run([*command, "--against", str(file)]) == 0
    capsys.readouterr()
    measured["samples"] = (1.0, 1.1, 1.2)
    assert cli.run([*command, "--against", str(file), "--json"]) == 10
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    (line,) = last["compared"]
    assert line["regressed"] and line["before"] == 2.1 and line["now"] == 1.1
    assert cli.run([*command, "--against", str(file)]) == 10
    assert "REGRESSED" in capsys.readouterr().out

    assert cli.run(["bench", "training", "--against", str(file)]) == 0  # another depth
    assert "nothing was compared" in capsys.readouterr().err


def test_a_file_that_is_no_result_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measured: dict[str, Any]
) -> None:
    assert cli.run(["bench", "training", "--against", str(tmp_path / "none.json")]) == 3
    assert "none.json" in capsys.readouterr().err
    assert "size" not in measured


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--width", "100"], "multiple of 64"),
        (["--step-tokens", "100"], "--rows"),
        (["--step-tokens", "512", "--rows", "3"], "--rows"),
    ],
)
def test_impossible_sizes_are_usage_errors(
    capsys: pytest.CaptureFixture[str],
    measured: dict[str, Any],
    options: list[str],
    words: str,
) -> None:
    assert cli.run(["bench", "training", *options]) == 2
    assert words in capsys.readouterr().err
    assert "size" not in measured


def test_a_failing_train_module_is_exit_code_5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Report:
        raise WorkerFailed("a measuring process ended with status 1: ValueError: no luck")

    monkeypatch.setattr(training, "measure", fail)
    assert cli.run(["bench", "training"]) == 5
    assert "no luck" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "command", "made"),
    [
        (attention, ["attention", "--tokens", "64"], attention.Layer(tokens=64)),
        (loss, ["loss", "--vocab", "512"], loss.Head(vocab=512)),
    ],
)
def test_sizes_reach_the_measurement(
    monkeypatch: pytest.MonkeyPatch, module: Any, command: list[str], made: Any
) -> None:
    given: list[Any] = []

    def measure(selection: Any, size: Any, repeats: int, on_event: Any) -> Report:
        given.append((selection.hardware.backend, size, repeats))
        return Report(command[0], {}, (Figure("a", (1.0,)),))

    monkeypatch.setattr(module, "measure", measure)
    assert cli.run(["bench", *command, "--backend", "cpu", "--repeats", "3", "--json"]) == 0
    assert given == [("cpu", made, 3)]


def test_a_file_that_can_not_be_written_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, measured: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert cli.run(["bench", "training", "--output", str(tmp_path / "file" / "x.json")]) == 4
    assert "--output" in capsys.readouterr().err
    assert "size" not in measured

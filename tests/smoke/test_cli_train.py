"""`autoresearch train` as a person meets it: a score, or what went wrong with an exit code."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoresearch import cli
from autoresearch.model_folder import Weights
from autoresearch.preset import load_preset, write_experiment
from backends.hardware import Hardware
from prepare.process import child_environment
from prepare.settings import Settings
from tests.smoke.tiny import shrink

CPU = Hardware(
    "cpu", "maker", "a CPU", "x86_64", 8 * 2**30, 2, "", "torch", "2", "Linux", ("host",)
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here: whichever trains first prepares the text."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workspace(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the demo preset, with little text, a small model and half a second."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(prepared))
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    folder = tmp_path / "w"
    changes = {"corpus_bytes": 200_000, "eval_bytes": 4_000, "time_budget": 0.5}
    write_experiment(load_preset("demo"), folder, CPU, **changes)
    shrink(folder)
    monkeypatch.chdir(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(list(args))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def change(workspace: Path, old: str, new: str) -> None:
    path = workspace / "train.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# `prepare.experiment` is also a function's name.
experiment = importlib.import_module("prepare.experiment")
SUMMARY = (
    "val_bpb",
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "num_params_M",
    "depth",
)


def test_the_summary_is_upstreams_and_json_lines_end_with_the_result(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes, run_experiment = [], experiment.run_experiment

    def kept(*arguments: Any, **options: Any) -> Any:
        outcomes.append(run_experiment(*arguments, **options))
        return outcomes[-1]

    monkeypatch.setattr(experiment, "run_experiment", kept)
    code, out, err = run(capsys, "train", "--seed", "7", "--run-dir", "here")
    assert code == 0
    lines = out.split("---\n")[1].splitlines()
    assert tuple(line.split(":")[0] for line in lines[:9]) == SUMMARY
    assert len(lines[0].split(".")[-1]) == 6
    assert "true entropy" in out
    assert "training" in err
    record = json.loads((workspace / "here/result.json").read_text(encoding="utf-8"))
    assert record["seed"] == 7
    assert record["verified"] is True
    # What `autoresearch sample` needs lies beside the weights.
    assert Weights.open(workspace / "here").facts["val_bpb"] == record["val_bpb"]

    def again(script: Path, settings: Settings, **options: Any) -> Any:
        assert settings.time_budget == 1.0
        options["on_event"]("phase", {"phase": "training"})
        return outcomes[0]

    monkeypatch.setattr(experiment, "run_experiment", again)
    code, out, _ = run(capsys, "train", "--time-budget", "1s", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"event": "phase", "phase": "training"}.items() <= told[-2].items()
    assert told[-1]["event"] == "result"
    assert told[-1]["status"] == "ok"
    assert told[-1]["val_bpb"] == record["val_bpb"]
    assert told[-1]["next"]


def test_python_train_py_does_the_same(workspace: Path) -> None:
    """Whatever the candidate prints: the number is the harness' own."""
    start = "def train(model: GPT, run: Any) -> None:\n"
    change(workspace, start, f'{start}    print("val_bpb:          0.100000")\n')
    done = subprocess.run(
        [sys.executable, "train.py"], env=child_environment({}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("---\n")[1].splitlines()
    assert tuple(line.split(":")[0] for line in lines[:9]) == SUMMARY
    (number,) = [line for line in done.stdout.splitlines() if line.startswith("val_bpb:")]
    assert float(number.split()[1]) > 0.1
    assert (workspace / "runs").is_dir()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def build_model(", "def build_model((", ("import: syntax_error", "line ")),
        (
            "import gc\n",
            "import gc\nimport no_such_package\n",
            ("import: import_error", "no_such_package"),
        ),
        ("SOFTCAP = 15.0", 'SOFTCAP = float("nan")', ("warmup: nan", "nan")),
    ],
)
def test_a_broken_train_py_exits_5_with_the_reason(
    workspace: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: tuple[str, ...]
) -> None:
    change(workspace, old, new)
    code, out, err = run(capsys, "train")
    assert code == 5
    assert all(word in err for word in words), err
    assert "val_bpb" not in out


def test_a_failure_is_json_too(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(workspace, "def build_model(", "def build_model((")
    code, out, _ = run(capsys, "train", "--json")
    failure = json.loads(out.splitlines()[-1])
    assert code == 5
    assert failure["status"] == "failed"
    assert failure["kind"] == "syntax_error"


def test_no_data_exits_3(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = workspace / "autoresearch.toml"
    text = settings.read_text(encoding="utf-8")
    empty = (workspace / "empty").resolve()
    empty.mkdir()
    settings.write_text(text.replace('"embedded"', json.dumps(str(empty))), encoding="utf-8")
    code, _, err = run(capsys, "train")
    assert code == 3
    assert "empty" in err


def test_a_backend_that_is_not_here_exits_4(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = "cuda" if sys.platform == "darwin" else "mps"
    code, _, err = run(capsys, "train", "--backend", absent)
    assert code == 4
    assert f"Error: backend {absent} is not available" in err


def test_a_wrong_setting_names_file_and_field(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = workspace / "autoresearch.toml"
    settings.write_text("[experiment]\nvocab_size = 100\n", encoding="utf-8")
    code, _, err = run(capsys, "train")
    assert code == 2
    assert "autoresearch.toml" in err and "vocab_size" in err


def test_prepare_says_what_there_is(
    workspace: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "prepare", "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert result["vocab_size"] == 1024
    assert result["train_rows"] > 0
    assert 0 < result["floor_bpb"] < 1

"""`demo` and `bench mfu` end to end, on the smallest budgets that still mean something."""

from __future__ import annotations

import functools
import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autoresearch import cli, demo, demo_search, loop_parts, neighbours, pretraining, study
from autoresearch.bench import mfu
from autoresearch.engine.policy import Greedy
from autoresearch.engine.sandbox import choose
from autoresearch.verification import verify
from prepare import training


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Little text, and overrides for what would be measured: the speed probes take a minute."""
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    monkeypatch.setattr(demo, "EVAL_BYTES", 4_000)
    monkeypatch.setattr(demo, "STORY_TOKENS", 20)
    monkeypatch.setattr(mfu, "EVAL_BYTES", 2_000)


def kept(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[Any]:
    """What a function of the module returns from now on."""
    function, returned = getattr(module, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        returned.append(function(*arguments, **options))
        return returned[-1]

    monkeypatch.setattr(module, name, call)
    return returned


def test_demo_trains_tells_a_story_and_ends_with_a_search(
    capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs, as short as they get, on a machine that may be busy; one run decides.

    Candidates are kept from the cache, yet this one's own files lie in it.
    """
    monkeypatch.setattr(loop_parts, "policy_of", lambda deciding: Greedy())
    monkeypatch.setattr(demo_search, "RUN_SECONDS", 0.5)
    monkeypatch.setattr(demo_search, "EVAL_BYTES", 2_000)
    monkeypatch.setattr(neighbours, "BUSY_SHARE", math.inf)
    monkeypatch.setattr(pretraining, "SLOW_CANARY", 0.0)
    monkeypatch.setattr(training, "OVERRUN_SECONDS", 60.0)
    folder = cache / "demo"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("# mine", encoding="utf-8")
    trained = kept(monkeypatch, demo, "run_demo")
    searched = kept(monkeypatch, demo_search, "run_search")
    command = ["demo", str(folder), "--seconds", "1", "--backend", "cpu", "--trials", "1"]
    assert cli.run(command) == 0
    captured = capsys.readouterr()
    assert (folder / "train.py.before").read_text(encoding="utf-8") == "# mine"
    assert "val_bpb" in captured.out and "true entropy" in captured.out
    assert "A story by the model trained on cpu" in captured.out
    assert "cpu: training" in captured.err
    assert "trial 0  keep" in captured.out and "baseline, measured on 3 seeds" in captured.out
    assert "The same train.py scores differently from seed to seed" in captured.out
    assert f"autoresearch results --dir {folder / 'search'}" in captured.out
    made = study.Study.read(folder / "search")
    assert verify(made) == []
    trials = made.ledger.trials()
    assert [len(trial.replicates) for trial in trials[:1]] == [3] and len(trials) == 2
    assert {run.details["tier"] for run in trials[0].replicates} == {choose("auto").name}

    # The same once more, as it is told to a program.
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: trained[0])
    monkeypatch.setattr(demo_search, "run_search", lambda *arguments: searched[0])
    assert cli.run([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["next"]
    (entry,) = result["entries"]
    assert entry["backend"] == "cpu" and entry["story"].startswith("One day")
    assert entry["floor_bpb"] < entry["val_bpb"] < 8
    found = result["search"]
    assert found["before"] == 0 and found["trials"] == [trial.to_dict() for trial in trials]
    assert found["trials"][1]["status"] in {"keep", "discard", "pruned"}
    assert found["noise"] > 0 and found["meaning"]
    assert cli.run(["demo", "--seconds", "1", "--backend", "cpu", "--trials", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["search"] is None


def test_demo_with_a_train_py_that_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoresearch import preset

    def broken(source: str, constants: object) -> str:
        return source.replace(
            "def build_model(spec", 'raise RuntimeError("no luck")\n\ndef build_model(spec'
        )

    monkeypatch.setattr(preset, "apply_constants", broken)
    code = cli.run(["demo", str(tmp_path / "demo"), "--seconds", "1", "--backend", "cpu"])
    captured = capsys.readouterr()
    assert code == 5
    assert "failed" in captured.out and "no luck" in captured.out
    assert "search for" not in captured.out  # nothing trained: there is nothing to improve


def test_demo_without_git_trains_all_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = demo.Entry("cpu", "a CPU", 1.0, 0.5, tokens_per_second=1.0, training_seconds=1.0)
    trained = demo.DemoReport((entry,), str(tmp_path), 1, 256, 0.5, 1.0)
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: trained)
    monkeypatch.setattr("autoresearch.init.shutil.which", lambda name: None)
    code = cli.run(["demo", str(tmp_path / "demo"), "--backend", "cpu"])
    captured = capsys.readouterr()
    assert code == 0 and "1.0000" in captured.out
    assert "git is not installed" in captured.err and "search for" not in captured.out


def test_bench_mfu_writes_its_table_to_the_step_summary(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = importlib.import_module("prepare.experiment")  # also a function's name
    once = functools.cache(lambda: real[0]())  # the second run of two is the first again
    real: list[Any] = []
    run_experiment = experiment.run_experiment

    def run(*arguments: Any, **options: Any) -> Any:
        real.append(functools.partial(run_experiment, *arguments, **options))
        return once()

    monkeypatch.setattr(experiment, "run_experiment", run)
    summary, output = tmp_path / "summary.md", tmp_path / "mfu.json"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = ["--backend", "cpu", "--seconds", "0.5", "--repeats", "2", "--output", str(output)]
    code = cli.run(["bench", "mfu", *arguments])
    captured = capsys.readouterr()
    assert code == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    (report,) = document["reports"]
    rate = report["figures"][0]
    assert rate["unit"] == "tokens/s" and rate["lowest"] > 0
    assert len(rate["samples"]) == len(real) == 2
    (measured,) = report["ratios"]
    assert measured["name"] == "MFU of cpu, measured peak" and 0 < measured["median"] < 1
    text = summary.read_text(encoding="utf-8")
    assert "| mfu | MFU of cpu, measured peak |" in text and "runs of 0.5 s" in text
    assert "MFU of cpu" in captured.out

"""`demo` and `bench mfu` end to end, on the smallest budgets that still mean something."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from autoresearch import cli, demo, demo_search, pretraining, study
from autoresearch.engine.policy import Greedy
from autoresearch.engine.sandbox import choose
from autoresearch.verification import verify


@pytest.fixture(autouse=True)
def no_probes(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Overrides answer what would be measured: the speed probes take a minute."""
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")


def test_demo_trains_scores_and_tells_a_story(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    code = cli.run(
        ["demo", str(folder), "--seconds", "4", "--backend", "cpu", "--trials", "0", "--json"]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    result = lines[-1]
    assert result["event"] == "result"
    (entry,) = result["entries"]
    assert entry["backend"] == "cpu"
    assert entry["floor_bpb"] < entry["val_bpb"] < 8
    assert entry["story"].startswith("One day")
    assert (folder / "train.py").is_file()
    assert {"phase", "progress"} <= {line["event"] for line in lines}
    assert result["search"] is None and not (folder / "search").exists()
    assert result["next"]


def test_demo_without_a_folder_works_in_the_cache(
    capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    """Candidates are kept from the cache, yet this one's own files lie in it."""
    assert cli.run(["demo", "--seconds", "2", "--backend", "cpu", "--trials", "0"]) == 0
    assert "A story by the model trained on cpu" in capsys.readouterr().out
    assert (cache / "demo" / "train.py").is_file()


def test_demo_ends_with_a_search_that_goes_on_in_the_same_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs, as short as they get, on a machine that may be busy; one run decides."""
    monkeypatch.setattr(study, "policy_of", lambda deciding: Greedy())
    monkeypatch.setattr(demo_search, "RUN_SECONDS", 0.5)
    monkeypatch.setattr(demo_search, "EVAL_BYTES", 2_000)
    monkeypatch.setattr(pretraining, "BUSY_SHARE", math.inf)
    monkeypatch.setattr(pretraining, "SLOW_CANARY", 0.0)
    folder = tmp_path / "demo"
    command = ["demo", str(folder), "--seconds", "1", "--backend", "cpu", "--trials", "1"]
    assert cli.run(command) == 0
    captured = capsys.readouterr()
    assert "val_bpb" in captured.out and "true entropy" in captured.out
    assert "A story by the model trained on cpu" in captured.out
    assert "cpu: training" in captured.err
    assert "trial 0  keep" in captured.out and "baseline, measured on 3 seeds" in captured.out
    assert "The same train.py scores differently from seed to seed" in captured.out
    assert f"autoresearch results --dir {folder / 'search'}" in captured.out
    first = study.Study.read(folder / "search")
    assert verify(first) == []
    before = first.ledger.trials()
    assert [len(trial.replicates) for trial in before[:1]] == [3] and len(before) == 2
    assert {run.details["tier"] for run in before[0].replicates} == {choose("auto").name}

    (folder / "train.py").write_text("# mine", encoding="utf-8")
    assert cli.run([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (folder / "train.py.before").read_text(encoding="utf-8") == "# mine"
    found = result["search"]
    assert found["before"] == 2 and [trial["id"] for trial in found["trials"]] == [0, 1, 2]
    assert found["trials"][:2] == [trial.to_dict() for trial in before]
    assert found["trials"][2]["status"] in {"keep", "discard", "pruned"}
    assert found["noise"] > 0 and found["meaning"]
    assert verify(study.Study.read(folder / "search")) == []


def test_demo_with_a_train_py_that_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoresearch import preset

    def broken(source: str, constants: object) -> str:
        return source.replace(
            "def build_model(spec", 'raise RuntimeError("no luck")\n\ndef build_model(spec'
        )

    monkeypatch.setattr(preset, "apply_constants", broken)
    code = cli.run(["demo", str(tmp_path / "demo"), "--seconds", "2", "--backend", "cpu"])
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
    summary, output = tmp_path / "summary.md", tmp_path / "mfu.json"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = ["--backend", "cpu", "--seconds", "2", "--repeats", "2", "--output", str(output)]
    code = cli.run(["bench", "mfu", *arguments])
    captured = capsys.readouterr()
    assert code == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    (row,) = document["rows"]
    assert row["tokens_per_second"] > 0
    assert row["repeats"] == 2
    assert document["conditions"]["statistic"] == "median"
    text = summary.read_text(encoding="utf-8")
    assert "| backend |" in text and "| cpu |" in text and "seconds 2.0" in text
    assert "cpu" in captured.out

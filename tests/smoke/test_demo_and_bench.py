"""`demo` and `bench mfu` end to end, on the smallest budgets that still mean something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch import cli


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
    code = cli.run(["demo", str(folder), "--seconds", "4", "--backend", "cpu", "--json"])
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
    assert result["next"]


def test_demo_without_a_folder_works_in_the_cache(
    capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    """Candidates are kept from the cache, yet this one's own files lie in it."""
    assert cli.run(["demo", "--seconds", "2", "--backend", "cpu"]) == 0
    assert "A story by the model trained on cpu" in capsys.readouterr().out
    assert (cache / "demo" / "train.py").is_file()


def test_demo_again_in_the_same_folder_and_for_people(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["demo", str(tmp_path / "demo"), "--seconds", "2", "--backend", "cpu"]
    assert cli.run(command) == 0
    assert cli.run(command) == 0
    captured = capsys.readouterr()
    assert "val_bpb" in captured.out and "true entropy" in captured.out
    assert "A story by the model trained on cpu" in captured.out
    assert "cpu: training" in captured.err


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

"""`show` and `results`: all that is known of a trial, and thousands of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoresearch import cli, narration
from autoresearch.commands.export import evidence
from autoresearch.console import Output
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.state import State
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus
from autoresearch.init import make_workspace
from prepare.settings import Settings

HOLES = {"not_protected_against": ["a hole in the kernel", "the GPU's memory"]}
CURVE = tuple((float(i), 5.0 - i / 50) for i in range(100))


def trial(number: int, **more: Any) -> Trial:
    fields: dict[str, Any] = {
        "parent": 0 if number else None,
        "status": TrialStatus.DISCARD if number else TrialStatus.KEEP,
        "reason": "not better: 2.0 -> 2.1",
        "description": f"idea {number}",
        "score": 2.0 + number / 1000,
        "curve": CURVE,
        "replicates": (Replicate(3, 2.1, details=HOLES), Replicate(4, 2.2, details=HOLES)),
    }
    return Trial(id=number, **{**fields, **more})


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A workspace whose ledger has a baseline."""
    folder = tmp_path / "w"
    files = {"train.py": "X = 1\n", "autoresearch.toml": Settings().dumps()}
    make_workspace(folder, files, "begin")
    monkeypatch.chdir(folder)
    ledger = Ledger(folder / "results.jsonl")
    ledger.append({"kind": "study", "tag": "mar5"})
    ledger.append_trial(trial(0, description="baseline"))
    return ledger


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert cli.run(list(args)) == 0
    return capsys.readouterr().out


def begun(folder: Path) -> None:
    """The study's branch, which `show` asks for an edit without a file of its own."""
    from autoresearch.engine.workspace import Workspace

    Workspace.open(folder, "mar5", create=True)


def test_show_has_all_that_is_known(ledger: Ledger, capsys) -> None:
    begun(Path.cwd())
    ledger.append_trial(
        trial(
            1,
            description="gated MLP\x1b[2J",
            delta=0.1,
            confidence=0.02,
            predicted=-0.004,
            champion_replicates=(Replicate(4, 2.05, details=HOLES, disturbed="a neighbour"),),
            cost=Cost(0.0123, 1500, 200, "estimated"),
            proposer="claude",
            tier="landlock",
            backend="cpu",
            commit="ab" * 20,
            seconds={"scoring": 4.0, "startup": 1.5, "total": 325.5, "training": 320.0},
            metrics={"tokens_per_second": 30112.0, "num_steps": 900.0, "mfu_percent": 12.3},
            started_at="2026-01-01T00:00:00+00:00",
            finished_at="2026-01-01T00:05:00+00:00",
        )
    )
    edit = Path(".autoresearch/runs/mar5/0001/change.diff")
    edit.parent.mkdir(parents=True)
    edit.write_text("--- a/train.py\n+++ b/train.py\n-X = 1\n+X = 2\n")
    out = run(capsys, "show", "1")
    said = " ".join(out.split())
    for part in (
        "Trial 1: gated MLP",
        "discard: not better",
        "+0.100000 against trial 0, 2.0% sure",
        "-0.004000, it came to +0.100000",
        "0.0123 dollars, 1,500 tokens in, 200 out (estimated)",
        "tier landlock; not protected against a hole in the kernel; the GPU's memory",
        "startup 1.5 s, training 320.0 s, scoring 4.0 s, total 325.5 s",
        "3 candidate 2.1",
        "4 candidate 2.2",
        "4 champion 2.050000 a neighbour",
        "training loss 5 ",
        "+X = 2",
        "30,112",
        "12.3%",
        "claude",
        "autoresearch log 1",
    ):
        assert part in said, part
    assert said.count("a hole in the kernel") == 1 and "\x1b" not in out
    document = json.loads(run(capsys, "show", "1", "--json"))
    assert document["trial"]["curve"][-1] == [99.0, 3.02] and "+X = 2" in document["diff"]


def test_show_of_a_crash_ends_with_its_log(ledger: Ledger, capsys) -> None:
    begun(Path.cwd())
    broken = Failure("training", "exception", "it\x1b[1m broke", "step 3\nValueError: no\n")
    runs = (Replicate(0, None, failure=broken),)
    ledger.append_trial(
        trial(1, status=TrialStatus.CRASH, score=None, replicates=runs, curve=(), proposer="x")
    )
    out = run(capsys, "show", "1")
    assert "training: exception: it broke" in " ".join(out.split()) and "ValueError: no" in out
    assert "cost" in out and "unknown" in out, "a cost that nobody knows is no zero"
    assert "cost" not in run(capsys, "show", "0"), "the baseline has none"


def test_a_mended_trial_says_where_its_earlier_logs_are(ledger: Ledger, capsys) -> None:
    begun(Path.cwd())
    ledger.append_trial(trial(1, mended=2))
    place = Path(".autoresearch/runs/mar5/0001")
    for name in ("candidate-1", "attempt-1/candidate-1", "attempt-2/candidate-1", "killed-1/c-0"):
        (place / name).mkdir(parents=True)
        (place / name / "train.log").write_text(f"this is {name}")
    assert "mended 2 times, after a crash" in " ".join(run(capsys, "show", "1").split())
    assert "mended" not in run(capsys, "show", "0")
    out = run(capsys, "log", "1")
    assert "this is candidate-1" in out and out.count("this is") == 1
    assert "autoresearch log 1 --run attempt-2/candidate-1" in out and "killed-1/c-0" in out
    out = run(capsys, "log", "1", "--run", "attempt-1/candidate-1")
    assert "this is attempt-1/candidate-1" in out and out.count("this is") == 1
    assert json.loads(run(capsys, "log", "1", "--json"))["earlier"][1] == "attempt-2/candidate-1"
    assert cli.run(["log", "1", "--run", "../0001/candidate-1"]) == 2


def test_evidence_lists_the_runs_that_the_decision_knew() -> None:
    """The champion may be measured again beside later trials; that came too late to count."""
    known, late = (trial(n, champion_replicates=(Replicate(4 + n, 2.0),)) for n in (1, 2))
    state = State()
    for each in (trial(0), known, late):
        state.add(each)
    lines = evidence(SimpleNamespace(state=state), known).splitlines()
    before = next(line for line in lines if line.startswith("Before"))
    assert before.split(maxsplit=1)[1].count("seed") == 3, before
    assert "seed 5:" in before and "seed 6:" not in before
    assert "seed 6:" in evidence(SimpleNamespace(state=state), late)


def test_a_lineage_in_a_sentence() -> None:
    first = trial(0, score=2.0)
    assert "the baseline, val_bpb 2.000000. No edit" in narration.verdict("val_bpb", [first])
    kept = trial(3, score=1.9, delta=-0.11, confidence=0.987)
    said = narration.verdict("val_bpb", [first, kept])
    assert said.startswith("Best: trial 3, val_bpb 1.900000: -0.1100 (5.5%) against the baseline")
    assert said.endswith(", decided with 98.7% confidence.")
    more = [first, kept, trial(7, score=1.8, delta=-0.09, confidence=0.9991)]
    said = narration.verdict("val_bpb", more)
    assert (
        "-0.2000 (10.0%)" in said
        and "in 2 steps, each decided with at least 98.7% confidence" in said
    )
    sure = [first, trial(3, score=1.9, delta=-0.11, confidence=0.99999)]
    assert "decided with over 99.9% confidence" in narration.verdict("val_bpb", sure)
    unsure = narration.verdict("val_bpb", [first, trial(3, score=1.9, delta=-0.11)])
    assert "confidence" not in unsure, "greedy states none"


def test_results_of_thousands_of_trials(ledger: Ledger, capsys, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    with ledger:
        for number in range(1, 2001):
            ledger.append_trial(trial(number, curve=CURVE[:2], delta=number / 1e5))
    lines = run(capsys, "results").splitlines()
    assert len(lines) == 2002, "a line per trial, and the names"
    assert lines[0].split()[:4] == ["trial", "status", "score", "effect"]
    assert " ".join(lines[-1].split()) == "2000 discard 4.000000 +0.0200 - 2 idea 2000"
    assert lines[0].index("idea") == lines[1].index("baseline") == lines[-1].index("idea")
    assert len(run(capsys, "results", "--tsv").splitlines()) == 2002
    document = json.loads(run(capsys, "results", "--json"))
    assert len(document["trials"]) == 2001 and "curve" not in document["trials"][-1]
    assert document["trials"][-1]["replicates"][1]["seed"] == 4
    assert [t["id"] for t in json.loads(run(capsys, "results", "--kept", "--json"))["trials"]] == [
        0
    ]


def test_on_a_terminal_an_idea_is_broken_to_its_width(capsys, monkeypatch) -> None:
    long = trial(1, description="an idea\x1b[2J of many words " * 10)
    narration.show_trials(Output(False), [long])
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    narration.show_trials(Output(False), [long])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4 and all(len(line) <= 70 for line in lines[1:])
    assert "\x1b[2J" not in "".join(lines)
    narration.show_trials(Output(True), [long])
    narration.show_trials(Output(False), [])
    assert capsys.readouterr().out.count("trial") == 1


def test_a_task_file_has_the_same_commands(tmp_path: Path, capsys) -> None:
    folder = str(tmp_path / "my task")
    run(capsys, "task", "new", folder)
    document = json.loads(run(capsys, "status", "--dir", folder, "--json"))
    assert document["trials"] == 0 and document["next"][0].startswith("autoresearch task run '")
    ledger = Ledger(tmp_path / "my task/work/results.jsonl")
    ledger.path.parent.mkdir()
    ledger.append({"kind": "study", "tag": document["tag"]})
    edit = tmp_path / "my task/work/runs/0000/change.diff"
    edit.parent.mkdir(parents=True)
    edit.write_text("+new words\n")
    ledger.append_trial(trial(0, description="as it is", seconds={"total": 2.0, "scorer": 1.0}))
    assert "as it is" in run(capsys, "results", "--dir", folder)
    shown = run(capsys, "show", "0", "--dir", folder)
    assert "+new words" in shown and "scorer 1.0 s, total 2.0 s" in shown
    assert f"autoresearch log 0 --dir '{folder}'" in shown
    assert "left no log" in run(capsys, "log", "--dir", folder)
    assert "the loop has ended" in run(capsys, "status", "--watch", "--dir", folder)

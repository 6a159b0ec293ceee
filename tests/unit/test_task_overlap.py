"""Runs and proposals of a task that are under way at the same time: who is told of what changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autoresearch.engine.proposers.base import Proposal, ProposalRequest
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.sandbox import best_tier, choose
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.threads import ThreadPool
from autoresearch.engine.trial import Replicate, Trial
from autoresearch.taskfile.changes import Changes
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import load
from autoresearch.taskfile.mutators import WatchedProposer
from autoresearch.taskfile.score import Scored

SECONDS = 30.0  # that anything here may take on a busy machine
TASK = """\
id: demo
artifacts: {{include: a.txt}}
inputs: [data.txt]
mutator: {{type: search}}
runner: {{command: [python, run.py], env: {{PLACE: {place}}}}}
scorer: {{command: [python, score.py, "{{output}}"], parse: float, repeats: 3}}
objective: {{}}
"""
# Says that it is there, and waits until it is let go.
RUN = """\
import os, time
place, seed = os.environ["PLACE"], os.environ["AUTORESEARCH_SEED"]
open(f"{place}/here-{seed}", "w").write(str(os.getpid()))
while not os.path.exists(f"{place}/go"):
    time.sleep(0.01)
open("out", "w").write(open("data.txt").read())
"""
SCORE = "import sys; print(open(sys.argv[1] + '/out').read())"


# -- what changes --------------------------------------------------------------------------------


def test_a_change_is_told_to_all_who_were_under_way_and_to_nobody_after_them():
    new: list[str] = []

    def look() -> Iterator[str]:
        while new:
            yield new.pop()

    changes = Changes(look)
    new.append("before")
    with changes.watched() as first:
        assert changes.untold() == "before" and changes.untold() == ""
        with changes.watched() as second:
            new.append("score.py")
            with changes.watched() as third:
                assert changes.untold() == "", "it is for those who were under way"
                assert first() == "score.py" and third() == ""
            assert second() == "score.py", "that another was told of it first doesn't count"
            new.append("other.py")
            assert second() == "other.py, score.py"
        assert first() == "other.py, score.py"
    with changes.watched():
        assert changes.untold() == ""
    with changes.watched():  # one that is cancelled: it never asks
        new.append("late.py")
    with changes.watched() as last:
        assert last() == "" and changes.untold() == "late.py", "no change goes untold"
    new.extend("gfedcba")
    with changes.watched():
        assert changes.untold() == "a, b, c, d, e and 2 more"


# -- runs ----------------------------------------------------------------------------------------


class Made:
    """A task, and measurements of it in three threads."""

    def __init__(self, root: Path, tier: str = "process") -> None:
        self.root, self.folder, self.program = root, root / "task", root / "program"
        text = TASK.format(place=root)
        files = {"a.txt": "1", "data.txt": "5", "run.py": RUN, "score.py": SCORE, "task.yaml": text}
        for folder in (self.folder, self.program):
            folder.mkdir()
        for name, content in files.items():
            (self.folder / name).write_text(content)
        for name in ("a.txt", "run.py"):
            (self.program / name).write_text(files[name])
        place, task = Place.of(self.folder / "task.yaml"), load(self.folder / "task.yaml")
        self.guard = Guard.of(place, task)
        # One scoring is enough from the beginning: it spares these tests their time.
        self.measure = CommandMeasure(task, self.guard, choose(tier), "id", agreed=3)
        self.pool = ThreadPool(self.measure, 3)
        self.told: list[str] = []

    def begin(self, seed: int) -> int:
        """Submit a run, and wait until its runner is at work."""

        def hear(name: str, data: Any) -> None:
            self.told.append(str(data.get("message", name)))

        run_dir = self.root / f"run-{seed}"
        ticket = self.pool.submit(MeasureRequest(self.program, seed, run_dir, hear))
        self.wait(lambda: bool(read(self.root / f"here-{seed}")))
        return ticket

    def wait(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not enough():
            assert time.monotonic() < deadline
            assert self.pool.collect(timeout=0.02) == []

    def go(self) -> dict[int, Replicate]:
        """Let all end; what came of them, by seed."""
        (self.root / "go").touch()
        found: dict[int, Replicate] = {}
        while done := self.pool.collect(timeout=SECONDS):
            found |= {each.replicate.seed: each.replicate for each in done}
        (self.root / "go").unlink()
        return found


def read(place: Path) -> str:
    return place.read_text() if place.is_file() else ""


def alive(process: psutil.Process) -> bool:
    """Does it still do anything? Who has ended and wasn't waited for doesn't."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    with made.pool:
        yield made


def test_what_changes_on_disk_refuses_the_runs_under_way_and_none_that_begins_later(made):
    tickets = [made.begin(seed) for seed in (0, 1)]
    (made.folder / "score.py").write_text("print(9e9)")
    made.begin(2)
    made.pool.cancel(tickets[1])
    found = made.go()
    failure = found[0].failure
    assert failure is not None and failure.kind == "tampered"
    assert "score.py changed on disk while the candidate ran" in failure.message
    assert found[2].score == 5.0 and 1 not in found
    ticket = made.begin(3)
    (made.folder / "score.py").write_text("print(8e8)")
    made.pool.cancel(ticket)
    (made.root / "go").touch()
    failure = made.measure(MeasureRequest(made.program, 4, made.root / "run-4")).failure
    assert failure is not None, "nobody hears of a cancelled run, so the next one is told"
    assert "while the candidate was made" in failure.message
    made.begin(5)
    assert made.go()[5].score == 5.0, "it was told"


def test_an_input_that_changes_refuses_the_runs_under_way_and_makes_another_score_later(made):
    made.begin(0)
    first = made.go()[0]
    made.begin(1)
    made.begin(2)
    (made.folder / "data.txt").write_text("7")
    made.begin(3)
    found = made.go()
    for seed in (1, 2):
        failure = found[seed].failure
        assert failure is not None and failure.message == "inputs changed while it ran: data.txt"
    assert found[3].score == 7.0 and found[3].score_id != first.score_id
    assert not any("inputs changed since" in words for words in made.told)
    (made.folder / "data.txt").write_text("5")
    made.begin(4)
    assert made.go()[4].score_id == first.score_id
    assert sum("inputs changed since the last run: data.txt" in words for words in made.told) == 1


@pytest.mark.parametrize("tier", dict.fromkeys(["process", best_tier()[0].name]))
def test_a_cancelled_run_ends_its_command_whatever_holds_it(tier, tmp_path):
    made, others = Made(tmp_path, tier), psutil.Process().children(recursive=True)
    if choose(tier).strict:  # it can say that it is there in its own folder alone
        text = RUN.replace('f"{place}/here-{seed}"', '"here"')
        (made.program / "run.py").write_text(text)
        run_dir = tmp_path / "run-0"
        ticket = made.pool.submit(MeasureRequest(made.program, 0, run_dir))
        made.wait(lambda: bool(read(run_dir / "output" / "here")))
    else:
        ticket = made.begin(0)
    family = [each for each in psutil.Process().children(recursive=True) if each not in others]
    assert any("run.py" in " ".join(process.cmdline()) for process in family)
    made.pool.cancel(ticket)
    deadline = time.monotonic() + 5  # the kernel takes its time with a namespace
    while any(map(alive, family)):
        assert time.monotonic() < deadline
    assert not read(tmp_path / "run-0" / "run.log")
    assert made.pool.collect() == []
    made.pool.close()


def test_what_is_known_of_repeats_is_known_to_all_threads(made, monkeypatch):
    scored = iter([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(made.measure, "_score_once", lambda *_: Scored(next(scored)))
    made.measure.agreed = 0
    for seed in range(3):
        made.begin(seed)
    runs = made.go()
    agreed = sorted(run.details["agreed"] for run in runs.values())
    assert agreed[-1] == made.measure.agreed == 3 and made.measure.deterministic
    for order in (runs.values(), reversed(runs.values())):
        made.measure.agreed = 0
        assert made.measure.remember(order).deterministic, "in whatever order they were recorded"
    made.measure.agreed = 0
    noisy = Replicate(9, 1.0, score_id=runs[0].score_id, details={"agreed": 0})
    assert made.measure.remember([noisy, *runs.values()]).noisy, "once is for ever"


# -- proposals -----------------------------------------------------------------------------------


class Meeting:
    """A proposer asked in several threads: each waits for the others; the first meddles."""

    name, reentrant = "meeting", True

    def __init__(self, file: Path, together: int) -> None:
        self.file, self.asked = file, threading.Barrier(together, timeout=SECONDS)
        self.done = threading.Barrier(together, timeout=SECONDS)

    def propose(self, request: ProposalRequest) -> Proposal:
        self.asked.wait()
        if request.seed == 0:
            self.file.write_text("print(9e9)")
        self.done.wait()
        return Proposal(f"edit {request.seed}")

    def observe(self, trial: Trial) -> None:
        return


def test_of_proposals_made_together_each_is_rejected_and_no_run_beside_them(made):
    proposer = WatchedProposer(Meeting(made.folder / "score.py", 2), made.guard, 60)
    assert proposer.reentrant and not proposer.instant
    at_once = SimpleNamespace(name="search", instant=True)
    assert WatchedProposer(at_once, made.guard, 60).instant  # type: ignore[arg-type]
    assert not WatchedProposer(at_once, made.guard, 60).reentrant  # type: ignore[arg-type]
    requests = [
        ProposalRequest(made.folder, ("a.txt",), "", Digest(), 60, seed=seed) for seed in (0, 1)
    ]
    with ThreadPoolExecutor(2) as threads:
        proposals = list(threads.map(proposer.propose, requests))
    for number, proposal in enumerate(proposals):
        assert proposal.description == f"edit {number}" and not proposal.problem
        assert proposal.broke_rule.startswith("scorer: tampered: score.py changed on disk while")
    made.begin(0)
    assert made.go()[0].score == 5.0, "they were told of it"
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(proposer.propose, [requests[1], requests[1]])
        assert [proposal.broke_rule for proposal in found] == ["", ""]


def test_a_run_that_begins_while_a_proposer_meddles_is_not_blamed(made):
    inner = Meeting(made.folder / "score.py", 2)
    proposer = WatchedProposer(inner, made.guard, 60)
    request = ProposalRequest(made.folder, ("a.txt",), "", Digest(), 60)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(proposer.propose, request)
        inner.asked.wait()
        while "9e9" not in (made.folder / "score.py").read_text():
            time.sleep(0.01)
        made.begin(0)
        found = made.go()[0]
        inner.done.wait()
        assert "tampered" in asked.result().broke_rule
    assert found.score == 5.0, json.dumps(found.to_dict())

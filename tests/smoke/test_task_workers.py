"""Several runs of a task at the same time: the same decisions, and nothing lost by a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoresearch import cli
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.proposers.base import EXHAUSTED, NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.study import Options
from autoresearch.taskfile.study import TaskStudy

SECONDS = 60.0  # that anything here may take on a busy machine
TASK = """\
id: knobs
artifacts: {include: [knobs.txt]}
mutator: {type: command, command: python mutate.py}
scorer: {command: [python, score.py, "{program}"], parse: float, timeout_seconds: 60}
objective: {direction: maximize}
"""
KNOBS = 6
# Far enough apart that edits of two of them merge.
TABLE = "".join(f"k{number} 0\n\n" for number in range(KNOBS))
IDEAS = [(0, 1), (1, -1), (2, 2), (3, -2), (4, 3)]
MUTATE = f"""\
import json, sys
request = json.load(sys.stdin)
tried = [entry["description"] for entry in request["history"]["tried"]]
left = [f"k{{knob}} {{by}}" for knob, by in {IDEAS} if f"k{{knob}} {{by}}" not in tried]
if left:
    text = open("knobs.txt").read()
    open("knobs.txt", "w").write(text.replace(left[0].split()[0] + " 0", left[0]))
    print(json.dumps({{"description": left[0]}}))
else:
    print(json.dumps({{"description": "that was all", "exhausted": True}}))
"""
# Says that it is there, under a number of its own, and waits for what PLACE/wait says: so many
# others with it, or (0) a file.
SCORE = """\
import itertools, os, sys, time
place = {place!r}
values = [int(line.split()[1]) for line in open(sys.argv[1] + "/knobs.txt") if line.strip()]
for number in itertools.count(1):
    try:
        with open(f"{{place}}/here-{{number}}", "x") as file:
            file.write(f"{{os.getpid()}} {{any(values)}}")
        break
    except FileExistsError:
        pass
together = int(open(place + "/wait").read())
wanted = f"here-{{-(-number // together) * together}}" if together else "go"
waits = number <= 2 * together or (not together and any(values))
ends = time.monotonic() + 20
while waits and not os.path.exists(f"{{place}}/{{wanted}}"):
    if time.monotonic() > ends:
        sys.exit("nobody came")
    time.sleep(0.01)
print(sum(values))
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Makes the task; `wait`: see SCORE."""

    def build(name: str, wait: int, more: str = "") -> Path:
        folder = tmp_path / name / "task"
        folder.mkdir(parents=True)
        files = {"task.yaml": TASK + more, "knobs.txt": TABLE, "mutate.py": MUTATE}
        files["score.py"] = SCORE.format(place=str(folder.parent))
        for path, text in files.items():
            (folder / path).write_text(text)
        (folder.parent / "wait").write_text(str(wait))
        return folder

    return build


def trials(folder: Path) -> list[Trial]:
    return Ledger(folder / "work" / "results.jsonl").trials()


class Script:
    """Proposes the ideas in their order, at once."""

    name, instant = "script", True

    def propose(self, request: ProposalRequest) -> Proposal:
        if request.seed >= len(IDEAS):
            return Proposal("", cost=NO_COST, problem="that was all", problem_kind=EXHAUSTED)
        knob, by = IDEAS[request.seed]
        place = request.folder / "knobs.txt"
        place.write_text(place.read_text().replace(f"k{knob} 0", f"k{knob} {by}"))
        return Proposal(f"k{knob} {by}", cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        return


def test_runs_are_made_at_the_same_time_and_decisions_are_those_of_one_after_the_other(make):
    found, files = [], []
    for workers in (3, 1):
        # Of three workers the first six runs end when three are there, or never.
        folder = make(str(workers), wait=workers)
        options = Options(sandbox="process", workers=workers, combine=False)
        with TaskStudy.write(folder / "task.yaml", options) as study:
            reason = study.loop.run(Script(), Budget())  # type: ignore[call-arg]
        assert "nothing left to propose" in reason
        decided = sorted(trials(folder), key=lambda trial: trial.id)
        found.append([(trial.id, trial.description, trial.status) for trial in decided])
        files.append((folder / "knobs.txt").read_text())
        assert bool(Ledger(folder / "work/results.jsonl").records("begun")) == (workers > 1)
        assert max(trial.score or 0.0 for trial in decided) == 6.0
    assert found[0] == found[1] and files[0] == files[1] != TABLE
    kept = [number for number, _, status in found[0] if status is TrialStatus.KEEP]
    assert kept == [0, 1, 3, 5]


def started(folder: Path) -> list[int]:
    """Process ids of the scorers of candidates."""
    found = [place.read_text().split() for place in folder.parent.glob("here-*")]
    return [int(each[0]) for each in found if each and each[1] == "True"]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(enough: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not enough():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def flight(folder: Path, capsys: Any) -> set[tuple[int, str]]:
    """What `status` says is under way: trials, and what they are at."""
    capsys.readouterr()
    assert cli.run(["status", "--dir", str(folder), "--json"]) == 0
    now = json.loads(capsys.readouterr().out)["now"]
    return {(run["id"], run["phase"]) for run in now.get("flight", ())}


@pytest.mark.skipif(os.name != "posix", reason="kills are POSIX signals")
def test_killed_with_three_under_way_it_goes_on_with_all_of_them(make, capsys):
    folder = make("killed", wait=0)
    words = ["task", "run", str(folder), "--workers", "3", "--sandbox", "process"]
    process = subprocess.Popen(
        [sys.executable, "-m", "autoresearch.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(started(folder)) == 3)
        three = {(number, "scoring") for number in (1, 2, 3)}
        wait_for(lambda: flight(folder, capsys) == three)  # it hears of its runs a moment later
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any(map(alive, started(folder))))
    assert [trial.id for trial in trials(folder)] == [0] and len(started(folder)) == 3
    assert (folder / "knobs.txt").read_text() == TABLE
    (folder.parent / "go").touch()
    assert cli.run(words) == 0, capsys.readouterr()
    decided = {trial.id: trial for trial in trials(folder)}
    assert len(trials(folder)) == len(decided) == 1 + len(IDEAS)
    ideas = [decided[number].description for number in sorted(decided)][1:]
    assert ideas == [f"k{knob} {by}" for knob, by in IDEAS], "each once, none twice"
    kept = [number for number in decided if decided[number].status is TrialStatus.KEEP]
    assert sorted(kept) == [0, 1, 3, 5]
    champion = (folder / "knobs.txt").read_text()
    assert "k0 1" in champion and "k2 2" in champion and "k4 3" in champion and "-" not in champion
    assert cli.run(["verify", "--dir", str(folder)]) == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("holdout: {command: python score.py, timed: true}", "the held-out scorer measures time"),
        ("constraints: [scorer_seconds <= 2 * baseline.scorer_seconds]", "scorer_seconds"),
        ("secondary: {runner_seconds: minimize}", "runner_seconds"),
        ("timed", "the scorer measures time (`timed: true`)"),
    ],
)
def test_where_time_is_measured_several_workers_are_refused(more, why, make, capsys):
    folder = make("timed", 1, "" if more == "timed" else more)
    if more == "timed":
        text = (folder / "task.yaml").read_text()
        (folder / "task.yaml").write_text(text.replace("parse: float", "parse: float, timed: true"))
    assert cli.run(["task", "run", str(folder), "--workers", "2"]) == 2
    said = capsys.readouterr().err
    assert why in said and "leave --workers out" in said
    assert not (folder / "work").exists(), "nothing has begun"

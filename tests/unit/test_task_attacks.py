"""What a candidate leaves for its scorer, what a scorer prints, what lies in a task's folder."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autoresearch.engine.proposers.base import (
    LARGE,
    Proposal,
    ProposalRequest,
    changed_files,
    snapshot,
)
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.process import run_program
from autoresearch.engine.sandbox import choose
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate, Trial
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import Scorer, TaskFile, load
from autoresearch.taskfile.mutators import WatchedProposer
from autoresearch.taskfile.repository import Repository
from autoresearch.taskfile.score import Scored, missing_metric, read_score

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and bytes in names are POSIX")
TASK = """\
id: demo
artifacts: {include: [a.txt, empty.txt]}
mutator: {type: search}
runner: {command: [python, run.py]}
scorer: {command: [python, score.py, "{output}"], files: [labels.json]}
objective: {direction: maximize}
"""
# As scorers are written: it trusts the path that it is given.
SCORE = """\
import json, sys
from pathlib import Path
truth = json.loads(Path("labels.json").read_text())
found = json.loads(Path(sys.argv[1], "pred.json").read_text())
print(json.dumps({"score": sum(map(int.__eq__, truth, found)), "metrics": {"words": 3}}))
"""
HONEST = "from pathlib import Path; Path('pred.json').write_text('[0, 0, 3]')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "task"
    root.mkdir()
    files = {"a.txt": "1", "empty.txt": "", "run.py": HONEST, "score.py": SCORE}
    for name, text in {**files, "labels.json": "[1, 2, 3]", "task.yaml": TASK}.items():
        (root / name).write_text(text)
    return root


def measured(folder: Path, run: str = HONEST, more: str = "") -> Replicate:
    """One measurement of a candidate whose runner does this."""
    (folder / "run.py").write_text(run)
    (folder / "task.yaml").write_text(TASK + more)
    place, task = Place.of(folder / "task.yaml"), load(folder / "task.yaml")
    program = folder.parent / "program"
    shutil.rmtree(program, ignore_errors=True)
    program.mkdir()
    for path in place.programs(task):
        shutil.copy(folder / path, program / path)
    measure = CommandMeasure(task, Guard.of(place, task), choose("process"), "id")
    return measure(MeasureRequest(program, 0, folder / "work" / "runs" / "candidate-0"))


# -- what a candidate leaves for its scorer ------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "act",
    [
        "os.symlink('../scorer-0/labels.json', 'pred.json')",
        "os.symlink('/proc/self/cwd/labels.json', 'pred.json')",
        "os.mkfifo('pred.json')",
    ],
)
def test_a_runner_cant_hand_the_scorer_its_own_answers(act, folder):
    assert measured(folder).score == 1.0
    shutil.rmtree(folder / "work")
    failure = measured(folder, f"import os; {act}").failure
    assert failure is not None and (failure.phase, failure.kind) == ("runner", "tampered")
    assert "pred.json is" in failure.message


@posix
@pytest.mark.parametrize(
    ("links", "away"),
    [
        ({"x": "../../labels.json"}, True),
        ({"x": "/proc/self/fd/0"}, True),
        ({"x": "/dev/stdin"}, True),
        ({"system": "/usr", "x": "system/../proc/self/cwd/labels.json"}, True),
        ({"up": "..", "x": "up/labels.json"}, True),
        ({"x": "x"}, False),
        ({"x": "/usr/bin/env", "y": "nowhere", "z": "x"}, False),
        ({"deep": "inner/most", "x": "deep/../other"}, False),
    ],
)
def test_which_links_lead_away(links, away, folder):
    guard = Guard.of(Place.of(folder / "task.yaml"), load(folder / "task.yaml"))
    output = folder / "work" / "output"
    (output / "inner" / "most").mkdir(parents=True)
    (output / "own").symlink_to(output / "inner")
    for name, target in links.items():
        (output / name).symlink_to(target)
    assert bool(guard.leads_out(output)) == away, guard.leads_out(output)


@posix
def test_a_pipe_in_place_of_an_empty_file_stops_nobody(folder):
    run = "import os; os.remove('empty.txt'); os.mkfifo('empty.txt'); raise SystemExit(3)"
    failure = measured(folder, run).failure
    assert failure is not None and failure.kind == "exit_code"


@posix
def test_a_runners_folder_exchanged_for_a_link_costs_the_user_nothing(folder):
    before = {path.name for path in folder.iterdir()} | {"work"}
    move = f"import os; os.rename(os.getcwd(), '../x'); os.symlink({str(folder)!r}, '../output')"
    assert measured(folder, move).failure is not None
    assert {path.name for path in folder.iterdir()} == before


class Meddler:
    """Edits, and exchanges the scorer meanwhile."""

    name = "meddler"

    def __init__(self, folder: Path, times: int, problem: str = "") -> None:
        self.folder, self.times, self.problem = folder, times, problem

    def propose(self, request: ProposalRequest) -> Proposal:
        self.times -= 1
        if self.times >= 0:
            (self.folder / "score.py").write_text("print(9e9)")
        return Proposal("an edit", problem=self.problem)

    def observe(self, trial: Trial) -> None:
        return


def test_an_edit_whose_maker_exchanged_the_scorer_is_rejected_and_nobody_after_it_blamed(folder):
    guard = Guard.of(Place.of(folder / "task.yaml"), load(folder / "task.yaml"))
    (folder / "labels.json").write_text("[]")  # before anybody was asked
    proposer = WatchedProposer(Meddler(folder, times=1), guard, 60)
    request = ProposalRequest(folder, ("a.txt",), "", Digest(), 60)
    broken = proposer.propose(request).broke_rule
    assert broken.startswith("scorer: tampered: score.py changed on disk while the candidate was")
    assert proposer.propose(request) == Proposal("an edit")
    with guard.changes.watched():
        assert guard.changes.untold() == "labels.json", "whose it is nobody knows: a run tells it"
    failing = WatchedProposer(Meddler(folder, times=1, problem="no idea"), guard, 60)
    (folder / "score.py").write_text(SCORE)
    with guard.changes.watched():
        guard.changes.untold()
    said = failing.propose(request)
    assert said.problem == "no idea; meanwhile score.py changed on disk (tampered)"
    assert not said.broke_rule


# -- what a scorer prints ------------------------------------------------------------------------


def test_a_metric_that_is_needed_and_missing_is_the_scorers_failure(folder):
    assert measured(folder, more="constraints: [words <= 9]\nsecondary: {words: minimize}").score
    shutil.rmtree(folder / "work")
    failure = measured(folder, more="constraints: [words <= 2 * baseline.word]").failure
    assert failure is not None and (failure.phase, failure.kind) == ("scorer", "no_metric")
    assert "'word'" in failure.message and "scorer_seconds, words" in failure.message


def test_times_and_the_score_itself_are_metrics(folder):
    text = "constraints: [runner_seconds <= 60, score >= 0]\nsecondary: {scorer_seconds: minimize}"
    assert measured(folder, more=text).score == 1.0
    (folder / "task.yaml").write_text(TASK + "secondary: {f1: maximize}")
    task: TaskFile = load(folder / "task.yaml")
    assert missing_metric(task, {"score": 1.0, "f1": 0.5}) is None
    failure = missing_metric(task, {"score": 1.0})
    assert failure is not None and "`secondary`" in failure.message


def printed(code: str, **more: Any) -> Scored | Failure:
    """What is read of a real program's output."""
    scorer = Scorer(command=("python", "-c", code), **more)
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = run_program(argv, cwd=Path.cwd(), env={"PATH": os.defpath}, seconds=60)
    return read_score(scorer, done)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import sys; sys.stderr.write('{\"score\": 1}')", "no_score"),
        ("print('{\"score\": 1}'); print('x' * 3_000_000); print('{\"score\": 1}')", "flood"),
        ("print('x' * 3_000_000); print('{\"score\": 1}')", "flood"),
        ('print(\'[\\n{"score": 1},\\n{"score": 2}\\n]\')', "no_score"),
        ("import sys; sys.stdout.buffer.write('{\"score\": 1}'.encode('utf-16'))", "no_score"),
        ('print(\'{"score": 1, "metrics": {"a": 1}, "metrics": {"a": 2}}\')', "two_scores"),
    ],
)
def test_output_that_can_be_read_in_two_ways_or_none_is_the_scorers_failure(code, kind):
    found = printed(code)
    assert isinstance(found, Failure) and (found.phase, found.kind) == ("scorer", kind), found


def test_a_score_that_was_made_unreadable_isnt_passed_over():
    """What runs in the scorer's process could print its own score and spoil the scorer's."""
    found = printed("print('{\"score\": 99}\\n{', end=''); print('{\"score\": 1}')")
    assert isinstance(found, Failure) and (found.phase, found.kind) == ("scorer", "malformed")
    assert printed("print('{not JSON'); print('{\"score\": 1}')") == Scored(1.0)


def test_noise_beside_the_score_is_none():
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n{\"score\": 1}\\n')"
    assert printed(code) == Scored(1.0)


def test_a_sum_in_another_order_is_the_same_score():
    three = printed("print(0.1 + 0.2)", parse="float")
    assert three == printed("print(0.3)", parse="float") == Scored(0.3)
    text = 'print(\'{"score": 1e-300, "metrics": {"a": 0.7000000000000001, "b": 123456789}}\')'
    assert printed(text) == Scored(1e-300, {"a": 0.7, "b": 123456789.0})


# -- what lies in a folder -----------------------------------------------------------------------


@posix
def test_what_an_agent_left_is_told_without_reading_it(tmp_path):
    before = snapshot(tmp_path)
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(40 * LARGE * 100)  # sparse: 256 GB of nothing
    began = time.monotonic()
    after = snapshot(tmp_path)
    assert time.monotonic() - began < 5
    assert changed_files(before, after) == ("big.bin",)
    os.utime(tmp_path / "big.bin", ns=(1, 1))
    assert changed_files(after, snapshot(tmp_path)) == ("big.bin",)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 are Linux'")
def test_a_users_file_may_have_any_name(folder):
    for name in (b"caf\xe9.txt", b"a\nb.txt", b"-rf"):
        with open(os.path.join(os.fsencode(folder), name), "wb"):
            pass
    place, task = Place.of(folder / "task.yaml"), load(folder / "task.yaml")
    repository = Repository(place)
    repository.begin(place.programs(task))
    assert len(repository.support_digest(task, "begin")) == 64

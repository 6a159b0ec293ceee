"""What goes wrong while many trials are under way: devices, proposers, kills, impatient users."""

import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.commands.run import several
from autoresearch.engine import asking
from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.executor import LOST
from autoresearch.engine.flight import Flight
from autoresearch.engine.measuring import Runs
from autoresearch.engine.proposers.base import CONFLICT, FAILED, NO_COST, Proposal
from autoresearch.engine.state import State
from autoresearch.engine.steps import Wanted, made
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Cost, Failure, Replicate, TrialStatus
from tests.unit.studies import measure
from tests.unit.virtual import PROGRAM, Ideas, Virtual, move

GOOD, BAD = -0.1, 0.2


def measured(request, kind=""):
    return measure(request)


def lost(request):
    failure = Failure("worker", LOST, "3 workers died one after the other")
    return replace(measure(request), score=None, failure=failure)


@pytest.fixture
def start(make_loop, repository):
    """A loop on devices of virtual time."""
    (repository / "value.py").write_text(PROGRAM)
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "knobs"], cwd=repository, check=True)

    def make(executor=None, **more):
        executor = executor or Virtual(measured)
        return make_loop(None, executor=executor, **{"clock": executor.clock, **more})

    return make


# Proposers --------------------------------------------------------------------------------------


class Threaded(Ideas):
    """Asked in threads; `says` gives what comes of the n-th request, None for an idea."""

    instant, reentrant = False, True

    def __init__(self, says, *ideas):
        super().__init__(*ideas)
        self.says, self.asked, self.lock = says, 0, threading.Lock()

    def propose(self, request):
        with self.lock:
            self.asked += 1
            number = self.asked
        said = self.says(number, request)
        return super().propose(request) if said is None else said


def no_edit(kind, problem="no network"):
    return Proposal("", cost=NO_COST, problem=problem, problem_kind=kind)


def impatient(loop, times=20_000):
    """Ends a test that would idle for ever."""
    waited = [0]

    def sleep(seconds):
        waited[0] += 1
        assert waited[0] < times, "it waits for nothing"
        loop.executor.now += seconds

    loop.sleep = sleep
    return loop


def test_one_that_has_no_ideas_while_others_fail_does_not_keep_the_study_for_ever(start):
    failing = Threaded(lambda number, request: no_edit(FAILED))
    failing.name = "failing"
    with impatient(start(Virtual(measured, 2))) as loop:
        reason = loop.run([failing, Ideas()], Budget())
    assert reason == "failing gave no edit 12 times in a row: no network"


def test_requests_that_fail_together_count_as_one_failure(start):
    together = threading.Barrier(13)

    def says(number, request):
        if number > 13:
            return None
        together.wait(30)
        return no_edit(FAILED)

    proposer = Threaded(says, *[(n % 24, BAD + n / 1000) for n in range(64)])
    with impatient(start(Virtual(measured, 12))) as loop:
        assert loop.run(proposer, Budget(trials=13)) == "13 trials done"
    assert loop.executor.now < 2000, "a network that was away for a moment costs a moment"


def test_proposers_that_do_not_end_hold_up_the_end_once_and_not_each(start, monkeypatch):
    monkeypatch.setattr(asking, "JOIN_SECONDS", 0.5)
    until, raised = threading.Event(), []

    def says(number, request):
        if number == 6:
            raised.append(time.monotonic())
            raise KeyboardInterrupt
        until.wait(30)
        return no_edit(FAILED)

    with start(Virtual(measured, 6)) as loop:
        with pytest.raises(KeyboardInterrupt):
            loop.run(Threaded(says), Budget())
        took = time.monotonic() - raised[0]
    until.set()
    assert 0.5 <= took < 2.0, "five that don't end would take 2.5 s"


def test_what_answers_cost_that_nobody_waits_for_is_counted(start):
    def says(number, request):
        if number == 3:
            raise KeyboardInterrupt
        while not request.cancelled():
            time.sleep(0.01)
        return Proposal("", cost=Cost(1.0, 5, 5, "native"), problem="ended", problem_kind=FAILED)

    with start(Virtual(measured, 3)) as loop, pytest.raises(KeyboardInterrupt):
        loop.run(Threaded(says), Budget())
    found = loop.ledger.records("no_proposal")
    assert found and {record["problem"] for record in found} == {
        "the run was cut short while it was asked for"
    }
    assert State.of(loop.ledger.records()).dollars == len(found) >= 2


def test_what_one_thread_raises_is_told_after_what_others_answered():
    threads = asking.Threads()
    threads.start("answers", lambda: "an edit")
    threads._threads["answers"].join()
    threads.start("fails", lambda: 1 / 0)
    threads._threads["fails"].join()
    assert threads.ended() == [("answers", "an edit")] and len(threads) == 1
    with pytest.raises(ZeroDivisionError):
        threads.ended()
    assert len(threads) == 0


# Devices ----------------------------------------------------------------------------------------


def test_a_run_of_the_baseline_that_is_lost_is_made_again(start):
    gone = [2, 0]  # seeds: each is lost once

    def sometimes(request, kind=""):
        if request.run_dir.name.startswith("baseline") and request.seed in gone:
            gone.remove(request.seed)
            return lost(request)
        return measure(request)

    warnings = []
    loop = start(Virtual(sometimes, 2), on_event=lambda n, d: n == "warning" and warnings.append(d))
    with loop:
        loop.run(Ideas(), Budget())
    assert not gone
    (baseline,) = loop.ledger.trials()
    assert [run.seed for run in baseline.replicates] == [0, 1, 2]
    assert all(run.score is not None for run in baseline.replicates)
    assert loop.executor.submitted == 5, "those that came through aren't made again"


def test_a_baseline_that_is_lost_again_and_again_stops_the_study(start):
    loop = start(Virtual(lambda request, kind: lost(request), 2))
    with loop, pytest.raises(StudyStopped, match="the baseline's run was lost"):
        loop.run(Ideas((0, BAD)), Budget())
    assert 6 <= loop.executor.submitted <= 9
    assert not loop.ledger.trials()


def test_where_every_run_is_lost_ideas_are_not_spent_on_it(start):
    """Workers that die whatever they run: proposals cost money, and none of them is measured."""

    def broken(request, kind=""):
        fails = loop.executor.now < 4000 and not request.run_dir.name.startswith("baseline")
        return lost(request) if fails else measure(request)

    proposer = Ideas(*[(n % 24, BAD + n / 1000) for n in range(12)])
    with impatient(start(Virtual(broken, 2))) as loop:
        loop.run(proposer, Budget())
    statuses = [str(trial.status) for trial in loop.ledger.trials()[1:]]
    assert statuses == ["noisy"] * 5 + ["discard"] * 7, "three, and two that were under way"
    pauses = loop.ledger.records("pause")
    assert pauses and "in a row (lost)" in pauses[0]["reason"]
    assert "3 workers died" in pauses[1]["reason"], "nor does the champion's run come through"


# Kills and power cuts ---------------------------------------------------------------------------


class Cut(BaseException):
    """The power is gone."""


def remove(path):
    path.unlink()


def empty(path):
    path.chmod(0o644)
    path.write_bytes(b"")


@pytest.mark.parametrize("what", ["commit", "program"])
@pytest.mark.parametrize("left", [remove, empty])
def test_an_edit_that_a_power_cut_took_is_said_to_be_lost_and_nothing_else_is(
    start, repository, what, left
):
    """Records and what they name reach the disk in any order; a file may be there and be empty."""

    def measure_until_cut(request, kind=""):
        if request.run_dir.name.startswith("candidate"):
            raise Cut
        return measure(request)

    with start(Virtual(measure_until_cut, 2)) as loop, pytest.raises(Cut):
        loop.run(Ideas((0, GOOD), (1, BAD), (2, BAD)), Budget())
    begun = {trial.id: trial for trial in loop.state.begun.values()}
    assert set(begun) == {1, 2, 3}
    gone = str(begun[2].commit)
    if what == "commit":
        left(repository / ".git" / "refs" / "autoresearch" / "test" / "2")
    else:
        gone = subprocess.check_output(
            ["git", "rev-parse", f"{gone}:value.py"], cwd=repository, text=True
        ).strip()
    left(repository / ".git" / "objects" / gone[:2] / gone[2:])
    warnings = []
    loop = start(on_event=lambda n, d: n == "warning" and warnings.append(d["message"]))
    with loop:
        # The same idea again: of what is broken nothing is taken for it.
        loop.run(Ideas(*[(9, BAD)] * 3, (1, BAD)), Budget())
        assert not loop.state.begun
        assert not list(loop.ledger.verify())
        git = ["git", "fsck", "--no-dangling", "--no-reflogs"]
        wrong = subprocess.run(git, cwd=repository, capture_output=True, text=True).stdout
    by_id = {trial.id: trial for trial in loop.ledger.trials()}
    assert sorted(by_id) == [0, 1, 2, 3, 4]
    assert by_id[1].status is TrialStatus.KEEP
    assert by_id[2].status is TrialStatus.NOISY and by_id[2].commit is None
    assert "its edit is lost" in by_id[2].reason
    assert by_id[2].description == by_id[4].description == "P1 by +0.2"
    if what == "program":
        assert not wrong, "the program is whole again"
    assert by_id[3].status is by_id[4].status is TrialStatus.DISCARD


def test_what_a_proposer_is_to_make_anew_is_known_while_it_is_asked(start):
    """Its edit cost money, and others are told of it."""
    seen = []

    def says(number, request):
        if request.attempt:
            seen.append((dict(loop.state.begun), dict(loop.in_flight), loop.state.dollars))
            return no_edit(FAILED)
        if number > 1:
            first.wait(30)
        answer = Proposal(move(request, 0, GOOD - number / 10), cost=Cost(1.0, 1, 1, "native"))
        return answer

    first = threading.Event()

    def on_event(name, data):
        if name == "decided" and data["trial"]["id"] == 1:
            first.set()

    loop = start(Virtual(measured, 2), on_event=on_event)
    with loop:
        loop.run(Threaded(says), Budget(trials=2))
    ((begun, in_flight, dollars),) = seen
    assert [trial.description for trial in begun.values()] == ["P0 by -0.3"]
    assert list(in_flight) == [2] and dollars == 2.0
    assert loop.state.trials[2].reason.startswith(CONFLICT)
    assert loop.state.dollars == 2.0


# Impatient users --------------------------------------------------------------------------------


def test_who_stops_it_is_told_what_is_still_to_be_done_and_loses_nothing_by_not_waiting(start):
    said, stops = [], [True]

    def on_event(name, data):
        if name == "phase" and loop.flight.waiting and stops:
            stops.pop()
            said.append(several(loop))
            raise KeyboardInterrupt  # in the middle of taking a run in

    wins = Ideas((0, -0.1), (5, -0.2), (10, -0.3), (15, -0.4))
    loop = start(Virtual(measured, 6), on_event=on_event)
    with loop, pytest.raises(KeyboardInterrupt):
        loop.run(wins, Budget())
    assert several(loop) == "", "nothing is under way any more"
    assert said == [
        ": 3 trials, of which 1 beat a former champion and waits to be measured on the new one. "
        "What is cut short is judged when the study goes on"
    ]
    decided = len(loop.ledger.trials())
    with start(Virtual(measured, 6)) as loop:
        loop.run(Ideas(), Budget())
    trials = loop.ledger.trials()
    assert decided < len(trials) == 5
    assert all(trial.status is TrialStatus.KEEP for trial in trials)


# Runs that several trials need -------------------------------------------------------------------


@pytest.fixture
def flight(tmp_path):
    """Four slots; a run takes as long as its seed says, and fails on seed 1."""
    disturbed = ["a neighbour"]

    def run(request, kind):
        if request.seed == 1:
            return Replicate(1, None, failure=Failure("training", "exception", "it broke"))
        words = disturbed.pop() if request.seed == 9 and disturbed else ""
        seconds = {"training": 10.0}
        return Replicate(request.seed, 2.0, score_id="id", disturbed=words, seconds=seconds)

    executor = Virtual(run, 4, lambda request, number: float(request.seed))
    runs = Runs(tmp_path, 0, (), lambda: False)
    return Flight(executor, lambda: runs, lambda name, data: None, clock=executor.clock)


def wants(number, *seeds, label="champion", program="c0ffee", failing=False):
    """A judging of trial `number` that needs these runs."""
    wanted = [Wanted(Path(), number, seed, label, program=program) for seed in seeds]
    if failing:
        wanted.insert(0, Wanted(Path(), number, 1, "candidate"))
    return (yield from made(wanted, lambda place, run: run.failure is not None))


def whose(job):
    """By whom each of a job's runs was made; None for itself."""
    return [run.details.get("made_for") for run in job.value]


def test_a_run_that_several_trials_need_is_made_once(flight):
    jobs = [flight.begin(wants(number, 5, 6)) for number in (1, 2, 3)]
    other = flight.begin(wants(4, 5, program="another"))
    own = flight.begin(wants(5, 5, label="candidate", program=""))
    assert flight.executor.submitted == flight.count() == 4 and flight.runs == 8
    while flight.jobs:
        flight.step()
    assert [whose(job) for job in (*jobs, other, own)] == [
        [None, None], [1, 1], [1, 1], [None], [None]
    ]  # fmt: skip
    assert [run.seconds for run in jobs[1].value] == [{}, {}], "no device was busy with it"
    assert flight.finish(wants(6, 5))[0].details == {"made_for": 1}
    assert flight.executor.submitted == 4
    flight.finish(wants(1, 5))  # a trial's own is no other's
    assert flight.executor.submitted == 5 and flight.count() == 0


def test_who_follows_a_run_that_is_not_finished_makes_it(flight):
    leader = flight.begin(wants(1, 8, failing=True))
    followers = [flight.begin(wants(number, 8)) for number in (2, 3)]
    while flight.jobs:
        flight.step()
    assert leader.value[-1].failure is not None
    assert [whose(job) for job in followers] == [[None], [2]]
    assert flight.executor.submitted == 3 and flight.count() == flight.runs == 0


def test_a_shared_run_that_was_disturbed_is_made_again_once(flight):
    jobs = [flight.begin(wants(number, 9)) for number in (1, 2)]
    while flight.jobs:
        flight.step()
    assert all(job.value[0].disturbed == "" for job in jobs)
    assert [whose(job) for job in jobs] == [[None], [1]]
    assert flight.executor.submitted == 2


def test_dropping_all_makes_nothing_anew(flight):
    for number in (1, 2, 3):
        flight.begin(wants(number, 8))
    flight.close()
    assert flight.executor.submitted == 1 and flight.runs == flight.count() == 0


def test_trials_share_the_runs_of_their_champion(start):
    loop = start(Virtual(measured, 4))
    with loop:
        loop.run(Ideas((0, -0.5), *[(n, 0.001 * n) for n in range(1, 10)]), Budget())
    trials = loop.ledger.trials()
    runs = [(trial, run) for trial in trials for run in trial.champion_replicates]
    shared = [(trial, run) for trial, run in runs if "made_for" in run.details]
    made_of = [(t.parent, run.seed) for t, run in runs if "made_for" not in run.details]
    assert shared and len(set(made_of)) == len(made_of)
    for trial, run in shared:
        assert run.details["made_for"] != trial.id
        assert run.score == loop.state.scores_of(trial.parent, run.score_id)[run.seed]
    total = sum(t.extra_runs + 1 for t in trials[1:]) + len(trials[0].replicates)
    assert total == loop.executor.submitted, "each run counts once"


def test_each_run_counts_once_where_trials_are_screened(start):
    def on_kinds(request, kind):
        run = measure(request)
        return replace(run, score=run.score + (0.5 if kind == "cheap" else 0.0), score_id=kind)

    loop = start(Virtual(on_kinds, {"dear": 2, "cheap": 2}), screen="cheap", confirm="dear")
    with loop:
        loop.run(Ideas((0, GOOD), (1, BAD), (2, BAD), (3, -0.3), (4, -0.4)), Budget())
    baseline, *trials = loop.ledger.trials()
    assert any(t.champion_screening and t.replicates for t in trials)
    first = len(baseline.replicates) + len(baseline.screening)
    assert first + sum(t.extra_runs + 1 for t in trials) == loop.executor.submitted

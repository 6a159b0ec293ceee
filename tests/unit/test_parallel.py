"""Many trials under way: the same decisions whatever ends first, and nothing lost or doubled."""

import os
import random
import signal
import subprocess
import threading
import traceback
from dataclasses import replace
from types import SimpleNamespace

import pytest

from autoresearch.engine import flight
from autoresearch.engine.executor import LOST, Inline
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.proposers.base import CONFLICT, NO_COST, Proposal, ProposerUnavailable
from autoresearch.engine.state import State
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Cost, Failure, Trial, TrialStatus
from autoresearch.standing import pace
from autoresearch.verification import verify
from tests.unit.studies import measure
from tests.unit.virtual import PROGRAM, Ideas, Virtual, move

GOOD, BAD = -0.1, 0.2


def measured(request, kind=""):
    return measure(request)


@pytest.fixture
def root(repository):
    (repository / "value.py").write_text(PROGRAM)
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "knobs"], cwd=repository, check=True)
    return repository


@pytest.fixture
def start(make_loop, root):
    """A loop on devices of virtual time."""

    def make(executor=None, policy=None, **more):
        executor = executor or Virtual(measured)
        clock = getattr(executor, "clock", None)
        return make_loop(policy, executor=executor, **({"clock": clock} if clock else {}), **more)

    return make


def told(loop):
    """The decisions of a study, in their order, without times and commits (which hold times)."""
    return [
        replace(trial, commit=None, started_at="", finished_at="") for trial in loop.ledger.trials()
    ]


def again(root):
    """The same study from its beginning."""
    for command in (
        ["git", "update-ref", "-d", "refs/heads/autoresearch/test"],
        ["rm", "-rf", "results.jsonl", ".autoresearch"],
    ):
        subprocess.run(command, cwd=root, check=True)
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/autoresearch"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for ref in refs:
        subprocess.run(["git", "update-ref", "-d", ref], cwd=root, check=True)


def ideas(count, seed=0):
    """So many ideas on knobs of their own and shared ones, one in four good."""
    rng = random.Random(seed)
    return [
        (rng.randrange(24), rng.choice([GOOD, BAD, BAD, 0.05]) + 0.001 * n) for n in range(count)
    ]


def test_decisions_do_not_depend_on_which_run_ends_first(start, root):
    found = []
    for seed in range(2):
        rng = random.Random(seed)
        # All within the patience of one another.
        executor = Virtual(measured, 4, lambda request, number, rng=rng: rng.uniform(1, 14))
        with start(executor) as loop:
            loop.run(Ideas(*ideas(12)), Budget())
        assert executor.most == 4
        found.append(told(loop))
        again(root)
    assert found[0] == found[1]
    assert len(found[0]) == 13
    assert {trial.status for trial in found[0]} >= {TrialStatus.KEEP, TrialStatus.DISCARD}


def test_one_slot_gives_what_the_loop_without_an_executor_gives(start, root):
    found = []
    for executor in (Virtual(measured, 1), Inline(measured)):
        with start(executor) as loop:
            loop.run(Ideas(*ideas(6)), Budget())
        assert not loop.ledger.records("begun")
        found.append(told(loop))
        again(root)
    assert found[0] == found[1]


def test_a_run_that_ended_waits_for_an_earlier_one_and_not_for_ever(start, root):
    def duration(request, number):
        return 5000.0 if request.run_dir.parent.name == "0001" else 10.0

    executor = Virtual(measured, 2, duration)
    with start(executor) as loop:
        loop.run(Ideas((0, BAD), (1, BAD), (2, BAD), (3, BAD)), Budget())
    assert [trial.id for trial in loop.ledger.trials()] == [0, 2, 3, 4, 1]
    assert loop.state.next_id == 5
    assert executor.now < 5200, "the others were made meanwhile"
    with start(Virtual(measured, 2)) as loop:
        loop.run(Ideas(*[(9, BAD)] * 5, (4, BAD)), Budget())
    assert loop.ledger.trials()[-1].id == 5


def test_slots_stay_busy(start):
    executor = Virtual(measured, 5, lambda request, number: 300.0 + number % 7)
    with start(executor) as loop:
        loop.run(Ideas(*[(n % 24, BAD + n / 1000) for n in range(32)]), Budget(trials=32))
    assert executor.busy / (5 * executor.now) > 0.8


def test_a_keep_whose_champion_was_replaced_is_measured_on_the_new_one(start, root):
    with start(Virtual(measured, 3)) as loop:
        loop.run(Ideas((0, GOOD), (5, -0.2), (10, BAD)), Budget())
        source = loop.workspace.read(loop.workspace.champion_commit, "value.py").decode()
    by_id = {trial.id: trial for trial in loop.ledger.trials()}
    assert by_id[1].status is by_id[2].status is TrialStatus.KEEP
    first, second = (t for t in loop.ledger.trials() if t.id in (1, 2))
    assert first.won_against == () and first.parent == 0
    assert second.won_against == (0,) and second.parent == first.id
    assert "P0 = -0.1" in source and "P5 = -0.2" in source
    assert second.delta == pytest.approx(-0.1 if second.id == 1 else -0.2, abs=0.03)
    assert second.extra_runs > first.extra_runs, "runs against the former one are counted"
    kept = loop.runs / f"{second.id:04d}"
    assert list((kept / "rebased-1").glob("candidate-*.curve.json"))
    history = [kept.trial_id for kept in loop.workspace.history()]
    assert history == [first.id, second.id]


def test_many_that_win_are_measured_on_new_champions_in_turn_the_best_first(start):
    gains = [-0.1, -0.2, -0.3, -0.4]
    executor = Virtual(measured, 6)
    with start(executor) as loop:
        loop.run(Ideas(*enumerate(gains)), Budget())
    kept = [trial for trial in loop.ledger.trials() if trial.status is TrialStatus.KEEP][1:]
    assert sorted(trial.id for trial in kept) == [1, 2, 3, 4]
    assert [trial.parent for trial in kept] == [0, *(trial.id for trial in kept[:-1])]
    others = kept[1:]
    assert [trial.id for trial in others] == [2, 4, 3], "2 was the first; of the others the best"
    # Each is measured twice: against the champion it began with, and on the one before it.
    assert [len(trial.won_against) for trial in others] == [1, 1, 1]


def test_where_slots_are_many_winners_are_confirmed_sooner_and_decided_the_same(
    start, root, monkeypatch
):
    monkeypatch.setattr(flight, "TURN_SHARE", 6)
    found, hours, made = [], [], []
    for looks in (1, flight.LOOKS):
        monkeypatch.setattr(flight, "LOOKS", looks)
        executor = Virtual(measured, 6)
        with start(executor) as loop:
            loop.run(Ideas((0, -0.1), (5, -0.12), (10, -0.03), (15, -0.02)), Budget())
        found.append(told(loop))
        hours.append(executor.now)
        made.append(sum(len(t.replicates) + len(t.champion_replicates) for t in found[-1]))
        again(root)
    assert found[0] == found[1] and made[0] == made[1], "runs that nobody asked for don't count"
    assert [t.status for t in found[0]].count(TrialStatus.KEEP) >= 3
    assert any(trial.won_against for trial in found[0])
    assert hours[1] < 0.8 * hours[0]


def test_what_helps_no_more_on_the_new_champion_is_dropped(start, root):
    """Two edits of different lines that do the same: one is worth nothing after the other."""

    def either(request, kind=""):
        text = (request.folder / "value.py").read_text()
        both = "P0 = -0.1" in text and "P5 = -0.1" in text
        run = measure(request)
        return replace(run, score=run.score + 0.1) if both else run

    with start(Virtual(either, 2)) as loop:
        loop.run(Ideas((0, GOOD), (5, GOOD)), Budget())
    trials = sorted(loop.ledger.trials()[1:], key=lambda trial: bool(trial.won_against))
    assert trials[0].status is TrialStatus.KEEP
    assert trials[1].won_against == (0,) and trials[1].parent == trials[0].id
    assert trials[1].status is TrialStatus.DISCARD


class Mending(Ideas):
    """Makes an edit that conflicts anew."""

    def propose(self, request):
        if not request.attempt:
            return super().propose(request)
        self.requests.append(request)
        assert request.failure is not None and request.failure.kind == CONFLICT
        return Proposal(move(request, 7, -0.3), cost=NO_COST)


@pytest.mark.parametrize("mends", [False, True])
def test_an_edit_that_conflicts_goes_back_to_its_proposer(start, mends):
    proposer = (Mending if mends else Ideas)((0, GOOD), (0, -0.2))
    with start(Virtual(measured, 2)) as loop:
        loop.run(proposer, Budget())
    first, second = loop.ledger.trials()[1:]
    assert first.status is TrialStatus.KEEP
    failure = next(r.failure for r in proposer.requests if r.failure)
    assert failure.kind == CONFLICT and "+P0 = " in failure.log_tail
    assert second.won_against == (0,)
    if mends:
        assert second.status is TrialStatus.KEEP and second.mended == 1
        assert second.parent == first.id and second.description == "P7 by -0.3"
    else:
        assert second.status is TrialStatus.DISCARD
        assert second.reason == (
            f"conflict: the champion is trial {first.id} by now, and the two edits don't merge; "
            "it was better than trial 0"
        )
        assert second.commit in loop.workspace.trial_commits().values()


def test_a_program_that_is_under_way_is_not_measured_twice(start):
    with start(Virtual(measured, 3)) as loop:
        loop.run(Ideas((0, BAD), (0, BAD), (1, BAD)), Budget())
    by_id = {trial.id: trial for trial in loop.ledger.trials()}
    assert by_id[2].status is TrialStatus.REJECTED
    assert "trial 1, which is under way (P0 by +0.2)" in by_id[2].reason


def test_proposers_are_told_what_is_in_flight(start):
    proposer = Ideas((0, BAD), (1, BAD), (2, BAD))
    with start(Virtual(measured, 3)) as loop:
        loop.run(proposer, Budget(trials=3))
    assert [request.in_flight for request in proposer.requests] == [
        (),
        ("P0 by +0.2",),
        ("P0 by +0.2", "P1 by +0.2"),
    ]


def test_a_lost_run_says_nothing_of_its_program(start):
    lost = [Failure("device", LOST, "the worker died 3 times")]

    def sometimes(request, kind=""):
        if lost and request.run_dir.parent.name == "0002":
            return replace(measure(request), score=None, failure=lost.pop())
        return measure(request)

    with start(Virtual(sometimes, 2)) as loop:
        loop.run(Ideas((0, BAD), (1, GOOD), (2, BAD), (3, BAD), (1, GOOD)), Budget())
    by_id = {trial.id: trial for trial in loop.ledger.trials()}
    assert by_id[2].status is TrialStatus.NOISY
    assert by_id[2].reason == "device: lost: the worker died 3 times"
    assert by_id[5].status is TrialStatus.KEEP
    assert not loop.ledger.records("pause")


# Budgets and wishes ---------------------------------------------------------------------------


def test_budgets_count_what_is_under_way(start):
    class Dear(Ideas):
        def propose(self, request):
            return replace(super().propose(request), cost=Cost(1.0, 10, 10, "native"))

    executor = Virtual(measured, 4)
    with start(executor) as loop:
        assert loop.run(Ideas(*ideas(30)), Budget(trials=6)) == "6 trials done"
        assert len(loop.ledger.trials()) == 7
        reason = loop.run(Dear(*ideas(60, 1)), Budget(dollars=5.0))
        assert reason == "5.00 dollars spent"
        assert loop.state.dollars == 5.0 and len(loop.ledger.trials()) == 12
    assert State.of(Ledger(loop.ledger.path).records()).dollars == 5.0


def test_asked_to_stop_it_finishes_what_is_under_way(start):
    def on_event(name, data):
        if name == "decided" and data["trial"]["id"]:
            loop.stop_asked = True

    loop = start(Virtual(measured, 4), on_event=on_event)
    with loop:
        assert loop.run(Ideas(*ideas(30)), Budget()) == "asked to stop"
    begun = {record["id"] for record in loop.ledger.records("begun")}
    assert {trial.id for trial in loop.ledger.trials()} == {0, *begun}
    assert 4 <= len(begun) <= 10, "who waits for another's run of the champion holds no slot"


def test_hours_that_are_over_end_what_begins(start):
    executor = Virtual(measured, 4, lambda request, number: 600.0)
    with start(executor) as loop:
        assert loop.run(Ideas(*ideas(60)), Budget(hours=1)) == "1 hours are over"
    assert 3600 <= executor.now <= 3600 + 6 * 600
    assert not loop.state.begun


def test_crashes_in_a_row_hold_only_what_begins_while_others_show_that_devices_work(start):
    def broken(request, kind=""):
        if request.run_dir.parent.name in ("0001", "0002", "0003"):
            failure = Failure("startup", "oom", "no memory")
            return replace(measure(request), score=None, failure=failure)
        return measure(request)

    with start(Virtual(broken, 4)) as loop:
        loop.run(Ideas(*[(n, BAD) for n in range(6)]), Budget())
    statuses = [str(trial.status) for trial in loop.ledger.trials()[1:]]
    assert statuses == ["crash"] * 3 + ["discard"] * 3
    assert not loop.ledger.records("pause")


def test_where_all_that_is_under_way_crashes_the_champion_is_run(start):
    def broken(request, kind=""):
        if request.run_dir.name.startswith("candidate"):
            failure = Failure("startup", "oom", "no memory")
            return replace(measure(request), score=None, failure=failure)
        return measure(request)

    events = []
    loop = start(Virtual(broken, 2), on_event=lambda name, data: events.append((name, data)))
    with loop:
        loop.run(Ideas(*[(n, BAD) for n in range(4)]), Budget())
    assert [record["seconds"] for record in loop.ledger.records("pause")] == [5]
    assert sum(name == "run" and data["label"] == "check" for name, data in events) == 1


def test_trials_an_hour_count_time_once_where_several_are_under_way():
    state = State()
    for number in range(9):
        minute = 5 * ((number + 3) // 4)  # four at a time, five minutes each
        state.add(
            Trial(
                number,
                0 if number else None,
                TrialStatus.DISCARD if number else TrialStatus.KEEP,
                "",
                started_at=f"2026-01-01T00:{minute:02d}:00+00:00",
                finished_at=f"2026-01-01T00:{minute + 5:02d}:00+00:00",
            )
        )
    state.begin(Trial(9, 0, TrialStatus.DISCARD, ""))
    found = pace(state, {"loop": {"since": 0.0, "limits": {"trials": 12}}}, 0.0)
    assert found["trials_per_hour"] == pytest.approx(48)
    assert found["done"] == 8, "one is under way"
    assert found["seconds_left"] == pytest.approx(4 * 75)


# Killed ---------------------------------------------------------------------------------------


def killed_at(make, proposer, append, before):
    """Run a study in a process of its own, which dies at its n-th record; did it?"""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0
        return status != 0
    usual, count = Ledger._append, [0]

    def dying(ledger, record, synced=True):
        count[0] += 1
        if count[0] == append and before:
            os.kill(os.getpid(), signal.SIGKILL)
        written = usual(ledger, record, synced)
        if count[0] == append:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    code = 1
    try:
        Ledger._append = dying
        with make() as loop:
            loop.run(proposer, Budget())
        code = 0
    except BaseException:  # noqa: BLE001 - said, and told by the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def findings(loop, root):
    """What `autoresearch verify` says of a loop's study."""
    parts = {"ledger": loop.ledger, "workspace": loop.workspace, "task": loop.task}
    return verify(SimpleNamespace(git_root=root, root=root, tag="test", **parts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
def test_the_edits_of_trials_under_way_outlast_a_kill_and_what_git_clears_up(start, root):
    some = [(0, GOOD), (1, BAD)]
    assert killed_at(lambda: start(Virtual(measured, 2)), Ideas(*some), 3, False)
    with start() as loop:
        begun = {trial.id: trial.commit for trial in loop.state.begun.values()}
        assert set(begun) == {1, 2} and loop.workspace.trial_commits() == begun
        assert findings(loop, root) == []
    subprocess.run(["git", "gc", "-q", "--prune=now"], cwd=root, check=True)
    # Also one trial at a time, with no executor, what was begun is finished first.
    with make_serial(start) as loop:
        loop.run(Ideas(*[(9, BAD)] * 2, (3, BAD)), Budget(trials=1))
    assert sorted(loop.state.trials) == [0, 1, 2, 3] and not loop.state.begun
    told = {trial.id: trial.description for trial in loop.ledger.trials()[1:]}
    assert told == {1: "P0 by -0.1", 2: "P1 by +0.2", 3: "P3 by +0.2"}


def make_serial(start):
    """A loop that makes one run at a time."""
    return start(Inline(measured))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
def test_killed_at_every_record_nothing_is_lost_or_made_twice(start, root):
    some = [(0, GOOD), (1, BAD), (2, -0.2), (3, BAD), (0, 0.3)]
    sessions = 0
    # Every session dies at its second record, the first of which may be written or not: so each
    # record of the study is met by a kill.
    while killed_at(lambda: start(Virtual(measured, 3)), Ideas(*some), 2, sessions % 2 == 0):
        sessions += 1
        assert sessions < 40
    assert sessions >= 6
    loop = start(Virtual(measured, 3))
    with loop:
        state = loop.state
        assert not state.begun and sorted(state.trials) == list(range(len(some) + 1))
        assert findings(loop, root) == []
    descriptions = {trial.id: trial.description for trial in loop.ledger.trials()[1:]}
    assert sorted(descriptions.items()) == [
        (1 + n, f"P{knob} by {by:+g}") for n, (knob, by) in enumerate(some)
    ]
    statuses = {trial.id: str(trial.status) for trial in loop.ledger.trials()}
    assert statuses[1] == statuses[3] == "keep" and statuses[2] == statuses[4] == "discard"
    begun = [record["id"] for record in loop.ledger.records("begun")]
    assert set(begun) == {1, 2, 3, 4, 5}
    assert len(begun) <= 5 + 2, "once each, and once more where it was put on another champion"
    assert not list((root / ".autoresearch" / "work").glob("test@*-*"))


# Proposers that take long ---------------------------------------------------------------------


class Slow(Ideas):
    """Takes its time, in threads: `gate` is opened by the test."""

    instant = False
    reentrant = True

    def __init__(self, *ideas):
        super().__init__(*ideas)
        self.together = self.most = 0
        self.full = threading.Event()
        self.wanted = 3

    def propose(self, request):
        self.together += 1
        self.most = max(self.most, self.together)
        if self.together == self.wanted:
            self.full.set()
        self.full.wait(5)
        self.together -= 1
        return super().propose(request)


def test_slow_proposers_are_asked_ahead_in_threads(start):
    proposer = Slow(*[(n, BAD) for n in range(6)])
    with start(Virtual(measured, 3)) as loop:
        assert loop.run(proposer, Budget(trials=6)) == "6 trials done"
    assert 3 <= proposer.most <= 6
    last = max(proposer.requests, key=lambda request: len(request.in_flight))
    assert last.in_flight, "what is under way by then"
    told = [line.partition(": ")[2] for line in last.digest.in_flight]
    assert told == list(last.in_flight)
    assert sorted(loop.state.trials) == list(range(7))
    assert [trial.id for trial in proposer.observed] == [t.id for t in loop.ledger.trials()]


def test_one_that_can_be_asked_once_at_a_time_is(start):
    proposer = Slow(*[(n, BAD) for n in range(3)])
    proposer.reentrant, proposer.wanted = False, 1
    with start(Virtual(measured, 3)) as loop:
        loop.run(proposer, Budget(trials=3))
    assert proposer.most == 1


def test_several_proposers_are_asked_in_turn(start):
    first, second = Ideas(*[(n, BAD) for n in range(20)]), Ideas(*[(n, 0.3) for n in range(20)])
    second.name = "others"
    with start(Virtual(measured, 2)) as loop:
        loop.run([first, second], Budget(trials=6))
    by = [trial.proposer for trial in sorted(loop.ledger.trials()[1:], key=lambda t: t.id)]
    assert by == ["ideas", "others"] * 3


def test_dollars_are_not_spent_by_asking_many_at_once(start):
    class Dear(Slow):
        def propose(self, request):
            return replace(super().propose(request), cost=Cost(1.0, 10, 10, "native"))

    proposer = Dear(*[(n, BAD) for n in range(20)])
    proposer.wanted = 1
    with start(Virtual(measured, 4)) as loop:
        loop.run(proposer, Budget(dollars=2.0))
    assert loop.state.dollars == 2.0


def test_what_a_thread_raises_ends_the_run_and_leaves_nothing(start, root):
    class Broken(Slow):
        def propose(self, request):
            raise ProposerUnavailable("the agent is gone")

    with start(Virtual(measured, 3)) as loop:
        with pytest.raises(ProposerUnavailable):
            loop.run(Broken(), Budget())
        assert not loop.flight.jobs
    assert not list((root / ".autoresearch" / "work").glob("test@*-*"))


# Two kinds of devices -------------------------------------------------------------------------


def on_kinds(request, kind):
    """The cheap device scores everything a half higher, and says so in the score's id."""
    run = measure(request)
    offset = 0.5 if kind == "cheap" else 0.0
    return replace(run, score=run.score + offset, score_id=kind)


def test_what_screening_drops_never_sees_the_other_device(start):
    executor = Virtual(on_kinds, {"dear": 2, "cheap": 3})
    with start(executor, screen="cheap", confirm="dear") as loop:
        loop.run(Ideas((0, BAD), (1, GOOD), (2, BAD), (3, BAD)), Budget())
        assert loop.state.noise("cheap") and loop.state.noise("dear")
    by_id = {trial.id: trial for trial in loop.ledger.trials()}
    first, kept = by_id[0], by_id[2]
    assert [run.score_id for run in first.replicates] == ["dear"] * 3
    assert [run.score_id for run in first.screening] == ["cheap"] * 3
    assert kept.status is TrialStatus.KEEP and kept.score_id == "dear"
    assert kept.score == pytest.approx(0.9, abs=0.05)
    assert {run.score_id for run in kept.screening} == {"cheap"}
    assert {run.score_id for run in (*kept.replicates, *kept.champion_replicates)} == {"dear"}
    for number in (1, 3, 4):
        dropped = by_id[number]
        assert dropped.status is TrialStatus.DISCARD
        assert dropped.reason.startswith("screened out: ")
        assert dropped.score is None and dropped.score_id == "" and not dropped.replicates
        assert dropped.delta == pytest.approx(0.2, abs=0.05)
    dear = {request.run_dir.parent.name for kind, request in executor.requests if kind == "dear"}
    assert dear == {"0000", "0002"}
    # A champion that was screened once is measured there as often as a baseline.
    with start(Virtual(on_kinds, {"dear": 1, "cheap": 2}), screen="cheap", confirm="dear") as loop:
        loop.run(Ideas(*[(9, BAD)] * 5, (4, BAD), (5, BAD)), Budget(trials=2))
    last = loop.ledger.trials()[-2:]
    assert [trial.parent for trial in last] == [2, 2]
    assert all(trial.status is TrialStatus.DISCARD and trial.score is None for trial in last)
    assert sum(len(trial.champion_screening) for trial in last) >= 2
    assert len(loop.state.scores_of(2, "cheap")) >= 3


def test_devices_that_come_and_go_leave_several_trials_recorded(start):
    """Slots are few at first, as on a cluster whose nodes come up."""
    executor = Virtual(measured, 1)

    def on_event(name, data):
        if name == "decided" and data["trial"]["id"] == 1:
            executor._slots = {"": 3}
        if name == "decided" and data["trial"]["id"] == 4:
            executor._slots = {"": 1}

    with start(executor, on_event=on_event) as loop:
        loop.run(Ideas(*[(n, BAD) for n in range(8)]), Budget(trials=8))
    assert executor.most == 3
    assert {record["id"] for record in loop.ledger.records("begun")} == set(range(2, 9))
    assert sorted(loop.state.trials) == list(range(9))

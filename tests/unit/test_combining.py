"""Near-misses tried together: which they are, how their edits meet, and what is recorded."""

import subprocess

import pytest

from autoresearch.engine.combining import (
    CONFLICT,
    CONTAINED,
    GONE,
    best_combination,
    combine,
    near_misses,
)
from autoresearch.engine.policy import Decision, Evidence
from autoresearch.engine.proposers.base import Proposal
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Trial, TrialStatus
from tests.unit.studies import Script, run

TABLE = "A = 0.0\nB = 0.0\nC = 0.0\n\nVALUE = 1.0 + A + B + C\n"


def table(**values: float) -> str:
    text = TABLE
    for name, value in values.items():
        text = text.replace(f"{name} = 0.0", f"{name} = {value}")
    return text


class Threshold:
    """Keeps what one run shows to be better by 0.1, of which the noise is a thousandth."""

    name = "threshold"

    def decide(self, evidence: Evidence) -> Decision:
        if not evidence.candidate:
            return Decision("measure", "", candidate_seeds=(0,))
        delta = evidence.champion[0] - evidence.candidate[0]
        return Decision("keep" if delta > 0.1 else "discard", "by one run", delta, 0.5)


@pytest.fixture
def loop(make_loop, repository, monkeypatch):
    monkeypatch.setattr("tests.unit.studies.NOISE", 1e-4)
    (repository / "value.py").write_text(TABLE)
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "a table"], cwd=repository, check=True)
    return make_loop(Threshold())


def program_of(loop) -> str:
    return loop.workspace.read(loop.workspace.champion_commit, "value.py").decode()


def ids(trials: list[Trial]) -> list[int]:
    return [trial.id for trial in trials]


def test_neighbouring_edits_that_were_near_are_kept_together(loop, repository):
    run(loop, table(A=-0.06), table(B=-0.08), table(C=0.05))
    assert [t.status for t in loop.ledger.trials()[1:]] == [TrialStatus.DISCARD] * 3
    with loop:
        members = near_misses(loop.state, loop.task.objective)
        assert ids(members) == [2, 1]  # the largest effect first, and what was worse is none
        found = best_combination(loop.workspace, loop.task, members)
        trial = loop.trial(found, combines=found.ids)
        assert near_misses(loop.state, loop.task.objective) == []
    assert trial.status is TrialStatus.KEEP
    assert trial.combines == (2, 1)
    assert trial.proposer == "combine"
    assert trial.description == "together: #2 write A = 0.0; #1 write A = -0.06"
    assert program_of(loop) == table(A=-0.06, B=-0.08)
    log = ["git", "log", "-1", "--format=%B", "autoresearch/test"]
    said = subprocess.run(log, cwd=repository, capture_output=True, text=True).stdout
    assert "Combines: 2, 1" in said


def test_edits_are_put_on_the_champion_of_now(loop):
    run(loop, table(A=-0.06), table(C=-0.5), table(B=-0.08, C=-0.5))
    assert [t.status for t in loop.ledger.trials()[1:]] == [
        TrialStatus.DISCARD,
        TrialStatus.KEEP,
        TrialStatus.DISCARD,
    ]
    with loop:
        found = best_combination(
            loop.workspace, loop.task, near_misses(loop.state, loop.task.objective)
        )
    assert found.files["value.py"].decode() == table(A=-0.06, B=-0.08, C=-0.5)


def test_what_does_not_merge_is_left_out_and_named(loop, repository):
    run(loop, table(A=-0.06), table(A=-0.08), table(B=-0.03), table(B=-0.03, A=-0.04))
    with loop:
        trials = loop.state.trials
        found = combine(loop.workspace, loop.task, [trials[n] for n in (1, 2, 3)])
        assert ids(found.members) == [1, 3]
        assert found.left_out == {2: CONFLICT}
        assert found.files["value.py"].decode() == table(A=-0.06, B=-0.03)
        alone = combine(loop.workspace, loop.task, [trials[1], trials[2]])
        assert ids(alone.members) == [1]
        twice = combine(loop.workspace, loop.task, [trials[1], trials[1]])
        assert ids(twice.members) == [1]
        assert twice.left_out == {1: CONTAINED}
        subprocess.run(["git", "update-ref", "-d", "refs/autoresearch/test/1"], cwd=repository)
        subprocess.run(["git", "gc", "--quiet", "--prune=now"], cwd=repository)
        assert combine(loop.workspace, loop.task, [trials[1]]).left_out == {1: GONE}


def test_the_best_that_goes_with_none_does_not_stand_in_the_way(loop):
    run(loop, table(A=-0.09, B=-1e-3), table(A=-0.06), table(B=-0.05))
    with loop:
        members = near_misses(loop.state, loop.task.objective)
        assert ids(members) == [1, 2, 3]
        found = best_combination(loop.workspace, loop.task, members)
    assert ids(found.members) == [2, 3]


def test_at_most_three_and_none_of_none(loop):
    run(loop, table(A=-0.05), table(B=-0.06), table(C=-0.07))
    with loop:
        members = near_misses(loop.state, loop.task.objective)
        assert ids(best_combination(loop.workspace, loop.task, members).members) == [3, 2, 1]
        assert best_combination(loop.workspace, loop.task, []).members == ()
        assert combine(loop.workspace, loop.task, members, 2).ids == (3, 2)


def test_the_loop_combines_once_before_it_asks_again(loop):
    loop.combine = True
    ideas = [table(A=-0.06), table(B=-0.07), table(C=-0.05), table(A=-0.06, B=-0.07, C=0.9)]
    proposer, trials = run(loop, *ideas)
    assert [trial.combines for trial in trials] == [(), (), (), (), (2, 1, 3), ()]
    assert trials[4].status is TrialStatus.KEEP
    # Three proposals, the combination, a fourth, and the one that had nothing left.
    assert len(proposer.requests) == 5
    assert ids(proposer.observed) == [0, 1, 2, 3, 4, 5]


def test_the_loop_leaves_alone_what_is_most_likely_luck(loop, monkeypatch):
    """Two near-misses, or three that are small against the noise of a run."""
    loop.combine = True
    run(loop, table(A=-0.06), table(B=-0.07))
    monkeypatch.setattr("autoresearch.engine.driving.LOOP_LEAST", 1e4)
    run(loop, table(C=-0.05))
    with loop:
        assert not any(trial.combines for trial in loop.ledger.trials())
        assert ids(near_misses(loop.state, loop.task.objective)) == [2, 1, 3]
        assert ids(near_misses(loop.state, loop.task.objective, 0.065)) == [2]


def test_without_being_asked_to_the_loop_does_not_combine(loop):
    _, trials = run(loop, table(A=-0.06), table(B=-0.07), table(C=-0.05))
    assert len(trials) == 4


def test_a_combination_that_was_tried_before_is_refused_and_not_tried_again(loop):
    # Both at once was better on its own day and undone since.
    run(loop, table(A=-0.06, B=-0.07, C=-0.05))
    with loop:
        assert loop.state.champion == 1
        loop.restore(0, "on second thought")
    loop.combine = True
    proposer, trials = run(loop, table(A=-0.06), table(B=-0.07), table(C=-0.05))
    together = trials[5]
    assert together.combines == (3, 2, 4)
    assert together.status is TrialStatus.REJECTED
    assert together.reason.startswith("duplicate: the same program as trial 1")
    assert len(trials) == 6
    assert len(proposer.requests) == 4


def test_what_crashes_together_is_not_mended(loop):
    crash = 'if A and B:\n    crash = "nan"\n'
    (loop.workspace.root / "value.py").write_text(TABLE + crash)
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "commit", "-qam", "fragile"], cwd=loop.workspace.root, check=True)
    branch = ["git", "branch", "-f", "autoresearch/test"]
    subprocess.run(branch, cwd=loop.workspace.root, check=True)
    loop.combine = True
    events = []
    loop.on_event = lambda name, data: events.append((name, data.get("id")))
    _, trials = run(loop, *(table(**{name: -0.06}) + crash for name in "ABC"))
    assert trials[4].combines == (1, 2, 3)
    assert trials[4].status is TrialStatus.CRASH
    assert events.count(("run", 4)) == 1


def test_a_combination_counts_as_a_trial_of_the_budget(loop):
    loop.combine = True
    proposer = Script(table(A=-0.06), table(B=-0.07), table(C=-0.07), table(C=-0.08))
    with loop:
        assert loop.run(proposer, Budget(trials=4)) == "4 trials done"
    assert [bool(trial.combines) for trial in loop.ledger.trials()] == [*[False] * 4, True]


def test_a_conflict_everywhere_leaves_the_turn_to_the_proposer(loop):
    loop.combine = True
    nothing = Proposal("", problem="no edit", problem_kind="no_edit")
    proposer, trials = run(loop, table(A=-0.06), table(A=-0.07), nothing, table(A=-0.08))
    assert [trial.combines for trial in trials] == [()] * 4
    assert len(proposer.requests) == 5

"""Proposals that begin at a former champion: which, told to whom, held to which limits."""

import sys

import pytest

from autoresearch.engine.frontier import former_champions, start_of
from autoresearch.engine.proposers.base import Proposal
from autoresearch.engine.proposers.command import CommandProposer
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.prompt import instructions
from autoresearch.engine.proposers.search import SearchProposer
from autoresearch.engine.task import Budget, Task
from autoresearch.engine.trial import TrialStatus
from tests.unit.studies import TASK, Script

NO_EDIT = Proposal("", problem="no edit", problem_kind="no_edit")
WORSE = "VALUE = 5.0\n"


class Reader(Script):
    """Remembers what it was given to edit."""

    def __init__(self, *programs: str | Proposal) -> None:
        super().__init__(*programs)
        self.given: list[str] = []

    def propose(self, request):
        self.given.append((request.folder / "value.py").read_text())
        return super().propose(request)


def drive(loop, *programs: str | Proposal) -> Reader:
    proposer = Reader(*programs)
    with loop:
        loop.run(proposer, Budget())
    return proposer


def climb(loop, *programs: str) -> None:
    with loop:
        loop.run(Script(*programs), Budget(trials=len(programs)))
    assert {trial.status for trial in loop.ledger.trials()} == {TrialStatus.KEEP}


@pytest.fixture
def climbed(make_loop):
    """Champions 1.0, 0.9, 0.7 and 0.5, trials 0 to 3; the next proposal is number 3."""
    climb(make_loop(), "VALUE = 0.9\n", "VALUE = 0.7\n", "VALUE = 0.5\n")
    return make_loop


def test_the_best_former_champions_take_every_other_turn(climbed):
    loop = climbed(frontier=3)
    proposer = drive(loop, *[f"VALUE = 2.{n}\n" for n in range(6)])
    starts = [request.start for request in proposer.requests]
    assert starts == [1, None, 2, None, 1, None, 2]
    programs = {None: "VALUE = 0.5\n", 1: "VALUE = 0.9\n", 2: "VALUE = 0.7\n"}
    assert proposer.given == [programs[start] for start in starts]
    trials = loop.ledger.trials()[4:]
    assert [trial.start for trial in trials] == starts[:6]
    assert {trial.parent for trial in trials} == {3}


def test_a_frontier_of_one_is_the_champion(climbed):
    proposer = drive(climbed(), *[f"VALUE = 2.{n}\n" for n in range(4)])
    assert {request.start for request in proposer.requests} == {None}


def test_a_better_program_from_there_follows_the_champion(climbed, repository):
    loop = climbed(frontier=2)
    drive(loop, "VALUE = 0.3\n")
    kept = loop.ledger.trials()[4]
    assert (kept.start, kept.parent, kept.status) == (2, 3, TrialStatus.KEEP)
    assert kept.delta == pytest.approx(-0.2, abs=0.05)  # against the champion, not the start
    assert loop.workspace.champion_commit == kept.commit
    assert [item.trial_id for item in loop.workspace.history()] == [1, 2, 3, 4]
    assert "VALUE = 0.5\n+VALUE = 0.3" in loop.workspace.diff(f"{kept.commit}^", str(kept.commit))


def test_a_restart_begins_at_the_same_program(climbed):
    with climbed(frontier=3) as loop:
        first = start_of(loop.state, loop.task.objective, 3)
    with climbed(frontier=3) as again:
        assert start_of(again.state, again.task.objective, 3) == first
        assert first is not None


def test_an_undone_champion_is_a_former_one_and_programs_count_once(climbed):
    with climbed() as loop:
        loop.restore(1, "simpler")
        found = former_champions(loop.state, loop.task.objective)
        assert [trial.id for trial in found] == [3, 2, 0]
        highest = loop.task.objective.model_copy(update={"direction": "maximize"})
        assert [trial.id for trial in former_champions(loop.state, highest)] == [0, 2, 3]


def test_what_means_nothing_there_or_is_known_is_refused(climbed):
    loop = climbed(frontier=2)
    drive(
        loop,
        "VALUE = 0.7\n",  # left as it was given: trial 2's program
        WORSE,
        "VALUE = 0.7  # a remark\n",
        "VALUE = 6.0\n",
        "VALUE = 0.5\n",  # back to the champion
    )
    trials = loop.ledger.trials()[4:]
    assert [trial.start for trial in trials] == [2, None, 2, None, 2]
    reasons = [trial.reason for trial in trials if trial.start is not None]
    assert [trial.status for trial in trials if trial.start is not None] == ["rejected"] * 3
    assert reasons[0].startswith("empty")
    assert reasons[1].startswith("no-effect")
    assert reasons[2].startswith("duplicate: the same program as trial 3")


def test_no_edit_stays_no_edit(climbed):
    loop = climbed(frontier=2)
    proposer = drive(loop, NO_EDIT, WORSE)
    assert [request.start for request in proposer.requests] == [2, None, 2]
    assert len(loop.ledger.trials()) == 5


def test_limits_count_the_proposers_own_edit(make_loop):
    long = "".join(f"LINE_{n} = {n}\n" for n in range(10))
    climb(make_loop(), "VALUE = 0.9\n", long + "VALUE = 0.7\n", "VALUE = 0.5\n")
    small = Task.parse({**TASK.model_dump(mode="json"), "mutation": {"max_changed_lines": 4}})
    loop = make_loop(frontier=2, task=small)
    more = "A = 1\nB = 2\nC = 3\n"
    drive(loop, long + "VALUE = 0.6\n", WORSE, long + "VALUE = 0.6\n" + more)
    within, _, beyond = loop.ledger.trials()[4:]
    assert (within.start, within.status) == (2, TrialStatus.DISCARD), within.reason
    assert within.diff_stat.added + within.diff_stat.removed == 12  # as the commit has it
    assert (beyond.start, beyond.status) == (2, TrialStatus.REJECTED)
    assert beyond.reason == "max-lines: the edit changes 5 lines, 4 are allowed"


def test_what_is_told_names_the_start(climbed):
    loop = climbed(frontier=2)
    proposer = drive(loop, WORSE)
    prompt = instructions(proposer.requests[0])
    assert "those of trial 2, an earlier champion" in prompt
    assert "earlier champion" not in instructions(proposer.requests[1])
    digest = Digest.from_records(loop.ledger.records())
    assert "from #2's program" in digest.markdown()
    assert digest.to_dict()["tried"][-1]["start"] == 2


def test_a_command_is_told_where_it_begins(climbed):
    code = (
        "import json, sys; start = json.load(sys.stdin)['start']; "
        "text = open('value.py').read(); open('value.py', 'w').write('VALUE = 4.0'); "
        "print(json.dumps({'description': f'{start} {text!r}'}))"
    )
    loop = climbed(frontier=2)
    with loop:
        loop.run(CommandProposer([sys.executable, "-c", code]), Budget(trials=1))
    assert loop.ledger.trials()[4].description == "2 'VALUE = 0.7\\n'"


def test_after_an_undo_proposers_hear_of_the_champion_of_now(climbed):
    loop = climbed()
    with loop:
        loop.restore(1, "on second thought")
        proposer = Script(WORSE)
        loop.run(proposer, Budget())
    champion = proposer.requests[0].digest.champion
    assert champion is not None
    assert champion.id == 1
    assert [entry.id for entry in proposer.requests[0].digest.lineage] == [0, 1]


def test_search_takes_no_effect_from_another_start(climbed):
    loop = climbed(frontier=2)
    search = SearchProposer(seed=1)
    with loop:
        loop.run(search, Budget(trials=4))
    by_start = {trial.start: [] for trial in loop.ledger.trials()[4:]}
    for trial, outcome in zip(loop.ledger.trials()[4:], search._outcomes[-4:], strict=True):
        by_start[trial.start].append(outcome.state)
    assert set(by_start[2]) <= {"ignored"}
    assert "complete" in by_start[None]

"""Near-misses, tried together: each too small to be shown, in sum perhaps not.

    members = near_misses(state, task.objective)        # measured, better by estimate, not kept
    found = best_combination(workspace, task, members)
    loop.trial(found, combines=found.ids)               # found is an Edit

A combination is the champion's program with the edit of each member merged in: three-way, from
the commit that the member's edit was made on. A member that doesn't merge is left out. What was
near-missed together is a near-miss like any other, and may go together with the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.engine.proposers.base import NO_COST, REFUSED, Proposal
from autoresearch.engine.state import State
from autoresearch.engine.task import Objective, Task
from autoresearch.engine.trial import Failure, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

NAME = "combine"  # who proposed, in the ledger
MOST_MEMBERS = 3
# What a loop tries together by itself: so many, each better by so many standard deviations of one
# run. Fewer and smaller ones are mostly luck, and cost more runs than they find.
LOOP_MEMBERS, LOOP_LEAST = MOST_MEMBERS, 0.5
CONSIDERED = 8  # near-misses looked at; each try costs a few calls of git
CONFLICT = "conflicts with the others or with the champion"
CONTAINED = "the champion or the others have its edit already"
GONE = "git has lost its commit"
_BETWEEN = b"\x01 between two lines\n"


@dataclass(frozen=True)
class Combination:
    """The champion with the edits of `members`; `left_out` says of the others why not.

    As an Edit it puts its files into a scratch copy of the champion.
    """

    workspace: Workspace
    task: Task
    files: Mapping[str, bytes]
    members: tuple[Trial, ...] = ()
    left_out: Mapping[int, str] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[int, ...]:
        """The members' trials."""
        return tuple(trial.id for trial in self.members)

    @property
    def description(self) -> str:
        """`together: #4 DEPTH: 4 -> 5; #7 halve MATRIX_LR`."""
        ideas = [f"#{trial.id} {' '.join(trial.description.split())}" for trial in self.members]
        return "together: " + "; ".join(ideas)

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        if attempt:
            problem = "what was put together is not mended"
            return Proposal("", cost=NO_COST, problem=problem, problem_kind=REFUSED)
        self.workspace.place(scratch, self.files, self.task)
        return Proposal(self.description, cost=NO_COST, details={"proposer": NAME})


def near_misses(
    state: State, objective: Objective, least: float = 0.0, under_way: Iterable[Trial] = ()
) -> list[Trial]:
    """Trials that were discarded though better by their estimate, the largest effect first.

    Those that a combination held already, or one `under_way` holds, are left out, and those of
    another score id than the champion's: their effects don't compare. So are effects below `least`,
    in the score's unit.
    """
    if state.champion is None:
        return []
    score_id = state.trials[state.champion].score_id
    combined = (*state.trials.values(), *under_way)
    held = {member for trial in combined for member in trial.combines}
    found = [
        (abs(trial.delta), trial)
        for trial in state.trials.values()
        if trial.status is TrialStatus.DISCARD
        and trial.commit
        and trial.id not in held
        and trial.score_id == score_id
        and trial.delta is not None
        and objective.better(trial.delta, 0.0)
        and abs(trial.delta) >= least
    ]
    return [trial for _, trial in sorted(found, key=lambda item: -item[0])]


def combine(
    workspace: Workspace, task: Task, trials: Sequence[Trial], most: int | None = None
) -> Combination:
    """These trials' edits on the champion, in this order, at most `most` of them."""
    files = workspace.artifacts(workspace.champion_commit, task)
    members: list[Trial] = []
    left_out: dict[int, str] = {}
    there = workspace.trial_commits()
    for trial in trials:
        if most is not None and len(members) == most:
            break
        if there.get(trial.id) != trial.commit:
            left_out[trial.id] = GONE
            continue
        merged = _with(workspace, task, files, trial)
        if merged is None:
            left_out[trial.id] = CONFLICT
        elif merged == files:
            left_out[trial.id] = CONTAINED
        else:
            files = merged
            members.append(trial)
    return Combination(workspace, task, files, tuple(members), left_out)


def best_combination(
    workspace: Workspace, task: Task, trials: Sequence[Trial], fewest: int = 2
) -> Combination:
    """The first of these that go together, at most three; fewer members than `fewest`: none do."""
    trials = trials[:CONSIDERED]
    for first in range(max(1, len(trials) - fewest + 1)):
        found = combine(workspace, task, trials[first:], MOST_MEMBERS)
        if len(found.members) >= fewest:
            return found
    return found


def _with(
    workspace: Workspace, task: Task, files: dict[str, bytes], trial: Trial
) -> dict[str, bytes] | None:
    """`files` with a trial's edit merged in, None if they conflict."""
    commit = str(trial.commit)
    before = workspace.artifacts(workspace.parent(commit), task)
    return merged_with(workspace, files, before, workspace.artifacts(commit, task))


def merged_with(
    workspace: Workspace,
    files: Mapping[str, bytes],
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
) -> dict[str, bytes] | None:
    """`files` with the edit that led from `before` to `after`, None where the two conflict."""
    merged = dict(files)
    for path in sorted({*before, *after}):
        base, theirs, ours = before.get(path), after.get(path), files.get(path)
        if theirs in (base, ours):
            continue
        text = theirs
        if ours != base:
            if base is None or ours is None or theirs is None:
                return None  # one removed or added what the other edited
            text = _merged(workspace, base, ours, theirs)
            if text is None:
                return None
        if text is None:
            del merged[path]
        else:
            merged[path] = text
    return merged


def _merged(workspace: Workspace, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Three-way merge of a file. Edits of neighbouring lines, which git refuses, go together."""
    merged = workspace.merge(base, ours, theirs)
    if merged is not None or _BETWEEN in base + ours + theirs:
        return merged
    # A table of constants is one line each: with something between the lines, edits of two
    # neighbours don't touch, and what is left to conflict are edits of the same line.
    spread = workspace.merge(*(_spread(data) for data in (base, ours, theirs)))
    return None if spread is None else spread.replace(_BETWEEN, b"")


def _spread(data: bytes) -> bytes:
    return b"".join(line + _BETWEEN for line in data.splitlines(keepends=True))

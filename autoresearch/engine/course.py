"""The course of one trial: from an edit to a decision, with the repairs and champions on the way.

    job = flight.begin(Course(loop, edit).of(trial, scratch, proposal))
    trial, change = job.value

A trial is judged against the champion that it began with. Another may be kept meanwhile: then a
discard stands, and what would be kept is no better than that one as far as anybody knows. Its edit
is put on the new champion and measured there before it counts, few such trials at a time. Where the
two conflict, whoever made the edit may make it anew; what it doesn't is a discard that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from autoresearch.engine.change import Change, diff_hash, edited
from autoresearch.engine.errors import GitFailed, Rejected
from autoresearch.engine.measuring import KILLED, MENDED, REBASED, add_costs
from autoresearch.engine.proposers.base import CONFLICT, Proposal
from autoresearch.engine.proposers.text import last_lines
from autoresearch.engine.steps import Edit, Steps, asked, in_turn
from autoresearch.engine.trial import Failure, Trial, TrialStatus

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

MEND_ATTEMPTS = 2  # times a proposer may repair what crashed, or make anew what conflicts

# A decided trial, and the edit that it was decided of; None for what broke a rule unmeasured.
Decided: TypeAlias = "tuple[Trial, Change | None]"


@dataclass
class Course:
    """One trial under way in a loop. `edit` is asked where a repair is needed."""

    loop: Loop
    edit: Edit
    scratch: Path | None = None  # what is there now to be repaired

    def of(self, trial: Trial, scratch: Path, proposal: Proposal) -> Steps[Decided]:
        """The course of a proposal that is in `scratch`, which goes with it."""
        self.scratch = scratch
        with self._scratch_dropped():
            return (yield from self._attempts(described(trial, proposal, 0), None))

    def again(self, trial: Trial) -> Steps[Decided]:
        """The course of a trial that a kill interrupted: its edit is in its commit."""
        workspace, commit = self.loop.workspace, str(trial.commit)
        try:
            files = workspace.artifacts(commit, self.loop.task)
            change = workspace.edit(files, workspace.parent(commit), self.loop.task)
        except GitFailed as error:  # a record can outlast a power cut that its commit didn't
            reason = f"its edit is lost, as a power cut can lose it: {error.message}"
            return replace(trial, status=TrialStatus.NOISY, reason=reason, commit=None), None
        with self._scratch_dropped():
            return (yield from self._attempts(trial, change))

    @contextmanager
    def _scratch_dropped(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._drop_scratch()

    # Attempts --------------------------------------------------------------------------------

    def _attempts(self, trial: Trial, change: Change | None) -> Steps[Decided]:
        """Judge an edit; what fails goes back to be mended, a bounded number of times."""
        loop, attempt = self.loop, trial.mended
        while True:
            loop.folders.set_aside(trial.id, MENDED if attempt else KILLED)
            loop.say("trial", {"id": trial.id, "description": trial.description})
            decided, change, failure = yield from self._attempt(trial, change)
            if decided.warning:
                message = f"trial {decided.id}: {decided.warning}"
                loop.say("warning", {"id": decided.id, "message": message})
            if failure is None or attempt == MEND_ATTEMPTS or loop.stop_asked:
                return decided, change
            attempt += 1
            blank = self._to_mend(decided, change, failure)
            assert self.scratch is not None
            again = yield from asked(self.edit, self.scratch, failure, attempt)
            cost = add_costs(trial.cost, again.cost)
            if again.problem:
                return replace(decided, cost=cost), change
            trial, change = described(blank, replace(again, cost=cost), attempt), None

    def _attempt(
        self, trial: Trial, change: Change | None
    ) -> Steps[tuple[Trial, Change | None, Failure | None]]:
        """One attempt: the trial as decided, its change, and what could be mended of it."""
        loop = self.loop
        if trial.status is TrialStatus.REJECTED:
            return trial, None, None
        if change is None:
            assert self.scratch is not None
            trial, change = loop.judge.take(trial, self.scratch)
            if change is None:
                return trial, None, None
        trial = loop.under_way(trial, change)  # also while it is made anew for another champion
        while True:
            if trial.parent != loop.state.champion:
                moved, reason, failure = self._moved(trial, change)
                if moved is None:
                    lost = replace(trial, status=TrialStatus.DISCARD, reason=reason)
                    return replace(lost, diff_hash=diff_hash(change)), change, failure
                trial, change = replace(trial, parent=loop.state.champion), moved
                trial = loop.under_way(trial, change)
                self._drop_scratch()  # it holds the edit of another champion
            decided = yield from loop.judge.judge(trial, change)
            if decided.status is not TrialStatus.KEEP or decided.parent == loop.state.champion:
                return decided, change, _crash(decided)
            # Many may win against one champion. Each keep sends all others to the next one: what it
            # takes to be sure there is spent on a few at a time, the most promising first.
            loop.say("phase", {"id": trial.id, "phase": "to be measured on the new champion"})
            yield from in_turn(abs(decided.delta or 0.0))
            loop.folders.set_aside(trial.id, REBASED)
            won = (*decided.won_against, int(decided.parent or 0))
            trial = replace(trial, won_against=won, extra_runs=decided.extra_runs + 1)

    def _moved(self, trial: Trial, change: Change) -> tuple[Change | None, str, Failure | None]:
        """The edit on the present champion; or why there is none, and what could be mended."""
        judge, failure = self.loop.judge, None
        try:
            moved = judge.moved(trial, change)
        except Rejected as rejected:
            moved, reason = None, f"{rejected.rule}: {rejected.message}"
        else:
            reason = f"{CONFLICT}: the champion is trial {judge.champion.id} by now, and the two "
            reason += "edits don't merge"
            failure = Failure("merge", CONFLICT, reason, last_lines(change.diff))
        if trial.won_against:
            reason += f"; it was better than trial {trial.won_against[-1]}"
        return moved, reason, failure

    # What is to be mended ---------------------------------------------------------------------

    def _to_mend(self, decided: Trial, change: Change | None, failure: Failure) -> Trial:
        """Have the edit that failed in `scratch`; the trial that its repair makes of it.

        An edit that conflicts is made anew, on the present champion.
        """
        loop = self.loop
        blank = Trial(
            id=decided.id,
            parent=decided.parent,
            status=TrialStatus.DISCARD,
            reason="",
            start=decided.start,
            combines=decided.combines,
            won_against=decided.won_against,
            started_at=decided.started_at,
        )
        if failure.kind == CONFLICT:
            self._drop_scratch()
            self.scratch = loop.workspace.scratch(decided.id, "candidate")
            return replace(blank, parent=loop.state.champion, start=None)
        if self.scratch is None:
            assert change is not None
            self.scratch = loop.workspace.scratch(decided.id, "candidate", change.base)
            files = edited(change, loop.workspace.artifacts(change.base, loop.task))
            loop.workspace.place(self.scratch, files, loop.task)
        return blank

    def _drop_scratch(self) -> None:
        if self.scratch is not None:
            self.loop.workspace.drop(self.scratch)
        self.scratch = None


def described(trial: Trial, proposal: Proposal, attempt: int) -> Trial:
    """The trial with what its proposer said; rejected for a rule that was broken meanwhile."""
    return replace(
        trial,
        status=TrialStatus.REJECTED if proposal.broke_rule else trial.status,
        reason=proposal.broke_rule,
        description=proposal.description,
        proposer=str(proposal.details.get("proposer", "")),
        cost=proposal.cost,
        predicted=proposal.predicted,
        mended=attempt,
    )


def _crash(decided: Trial) -> Failure | None:
    """What a proposer may mend of a trial."""
    runs = (*decided.screening, *decided.replicates)
    return runs[-1].failure if runs and decided.status is TrialStatus.CRASH else None

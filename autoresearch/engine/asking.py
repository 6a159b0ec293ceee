"""Asking a proposer for an edit, and for its repair.

loop.trial(Asker(loop, proposer, budget))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.proposers.base import Proposal, ProposalRequest, Proposer
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.task import Budget, Task
from autoresearch.engine.trial import Failure, Trial

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

PROPOSAL_SECONDS = 900.0  # a proposer's deadline
LEAST_SECONDS = 60.0  # also when the hours are nearly over

# Leaves an edit in the folder. Called again with the failure to mend it, and the attempt's number.
Edit = Callable[[Path, "Failure | None", int], Proposal]


@dataclass(frozen=True)
class Asker:
    """An Edit that a proposer makes, told what the loop knows."""

    loop: Loop
    proposer: Proposer
    budget: Budget
    start: Trial | None = None  # whose program is in the scratch copy, where not the champion's

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        loop, dollars = self.loop, self.budget.dollars
        program = loop.program()
        loop.say("proposing", {"proposer": self.proposer.name, "attempt": attempt})
        proposal = self.proposer.propose(
            ProposalRequest(
                folder=scratch,
                artifacts=loop.task.artifacts.include,
                program=program.text,
                notes=program.notes,
                digest=digest_of(loop.task, loop.ledger, loop.state.champion),
                seconds=min(PROPOSAL_SECONDS, max(LEAST_SECONDS, loop.seconds_left)),
                attempt=attempt,
                failure=failure,
                seed=loop.state.proposals,
                dollars_left=None if dollars is None else max(0.0, dollars - loop.state.dollars),
                start=None if self.start is None else self.start.id,
                cancelled=lambda: loop.stop_asked,
            )
        )
        return replace(proposal, details={**proposal.details, "proposer": self.proposer.name})


def digest_of(task: Task, ledger: Ledger, champion: int | None) -> Digest:
    """What a proposer is told of the past; `champion` is the trial that is champion now."""
    metric, direction = task.objective.metric, task.objective.direction
    records = ledger.records()
    return Digest.from_records(records, metric=metric, direction=direction, champion=champion)

"""Asking a proposer for an edit, and for its repair.

loop.trial(Asker(loop, proposer, budget))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.engine.proposers.base import Proposal, ProposalRequest, Proposer
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Failure

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

PROPOSAL_SECONDS = 900.0  # a proposer's deadline

# Leaves an edit in the folder. Called again with the failure to mend it, and the attempt's number.
Edit = Callable[[Path, "Failure | None", int], Proposal]


@dataclass(frozen=True)
class Asker:
    """An Edit that a proposer makes, told what the loop knows."""

    loop: Loop
    proposer: Proposer
    budget: Budget

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        loop, dollars = self.loop, self.budget.dollars
        loop.say("proposing", {"proposer": self.proposer.name, "attempt": attempt})
        proposal = self.proposer.propose(
            ProposalRequest(
                folder=scratch,
                artifacts=loop.task.artifacts.include,
                program=loop.program,
                digest=loop.digest(),
                seconds=PROPOSAL_SECONDS,
                attempt=attempt,
                failure=failure,
                seed=loop.state.proposals,
                dollars_left=None if dollars is None else max(0.0, dollars - loop.state.dollars),
                cancelled=lambda: loop.stop_asked,
            )
        )
        return replace(proposal, details={**proposal.details, "proposer": self.proposer.name})

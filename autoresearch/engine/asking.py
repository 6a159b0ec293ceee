"""Asking a proposer for an edit, and for its repair.

loop.trial(Asker(loop, proposer, budget))
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.measuring import add_costs
from autoresearch.engine.proposers.base import (
    BUDGET,
    NO_COST,
    Proposal,
    ProposalRequest,
    Proposer,
)
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.task import Budget, Task
from autoresearch.engine.trial import Cost, Failure, Trial

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

PROPOSAL_SECONDS = 900.0  # a proposer's deadline
LEAST_SECONDS = 60.0  # also when the hours are nearly over

# Leaves an edit in the folder. Called again with the failure to mend it, and the attempt's number.
Edit = Callable[[Path, "Failure | None", int], Proposal]


@dataclass(frozen=True)
class Asker:
    """An Edit that a proposer makes, told what the loop knows; for one trial.

    What the trial under way has cost counts: nothing is mended once a limit is reached by it.
    """

    loop: Loop
    proposer: Proposer
    budget: Budget
    start: Trial | None = None  # whose program is in the scratch copy, where not the champion's
    _costs: list[Cost] = field(default_factory=list)

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        loop, limit = self.loop, self.budget.dollars
        under_way = functools.reduce(add_costs, self._costs, NO_COST)
        dollars = loop.state.dollars + (under_way.dollars or 0.0)
        tokens = loop.state.tokens + (under_way.tokens_in or 0) + (under_way.tokens_out or 0)
        over = loop.seconds_left <= 0 or self.budget.spent(dollars, tokens)
        if attempt and over:
            words = "a limit of the run is reached: not mended"
            return Proposal("", cost=NO_COST, problem=words, problem_kind=BUDGET)
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
                dollars_left=None if limit is None else max(0.0, limit - dollars),
                start=None if self.start is None else self.start.id,
                cancelled=lambda: loop.stop_asked,
            )
        )
        self._costs.append(proposal.cost)
        return replace(proposal, details={**proposal.details, "proposer": self.proposer.name})


def digest_of(task: Task, ledger: Ledger, champion: int | None) -> Digest:
    """What a proposer is told of the past; `champion` is the trial that is champion now."""
    metric, direction = task.objective.metric, task.objective.direction
    records = ledger.records()
    return Digest.from_records(records, metric=metric, direction=direction, champion=champion)

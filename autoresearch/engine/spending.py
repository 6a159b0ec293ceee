"""When a run is over: limits and target, what is under way counted as if it were done.

spending = Spending(loop, Budget(trials=20, dollars=5.0), before=loop.state.next_id)
spending.over(asked=2)          # "20 trials done", or "" while more may begin
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoresearch.engine.measuring import add_costs
from autoresearch.engine.proposers.base import NO_COST
from autoresearch.engine.state import BASELINE
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Cost

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop


@dataclass
class Spending:
    """What a run has spent of its budget. before: the id of its first trial."""

    loop: Loop
    budget: Budget
    before: int
    dearest: Cost = NO_COST  # of each part the most that an answer has cost so far

    def over(self, asked: int) -> str:
        """Which limit is reached, or the target, or "". asked: requests under way."""
        loop, budget = self.loop, self.budget
        if loop.stops:
            return "asked to stop"
        champion, objective = loop.judge.champion, loop.task.objective
        if objective.reached(champion.score):
            return f"the target is reached: {objective.target:g}"
        # The baseline is no trial that was asked for.
        done = loop.next_id - max(self.before, BASELINE + 1)
        if budget.trials is not None and done + asked >= budget.trials:
            return f"{done} trial{'' if done == 1 else 's'} done"
        if loop.seconds_left <= 0:
            return f"{budget.hours:g} hours are over"
        reserved = self.reserved(asked)
        tokens = (reserved.tokens_in or 0) + (reserved.tokens_out or 0)
        dollars = loop.state.dollars + (reserved.dollars or 0.0)
        return budget.spent(dollars, loop.state.tokens + tokens)

    def reserved(self, asked: int) -> Cost:
        """What requests under way will have cost: each as much as the dearest so far."""
        return functools.reduce(add_costs, [self.dearest] * asked, NO_COST)

    @property
    def unknown(self) -> bool:
        """Is there a limit to what answers cost, and nobody knows yet what one does?"""
        limited = self.budget.dollars is not None or self.budget.tokens is not None
        return limited and self.dearest == NO_COST

    def note(self, cost: Cost) -> None:
        """What an answer has cost; what nobody knows counts as nothing."""
        known = self.dearest
        self.dearest = Cost(
            max(known.dollars or 0.0, cost.dollars or 0.0),
            max(known.tokens_in or 0, cost.tokens_in or 0),
            max(known.tokens_out or 0, cost.tokens_out or 0),
            "native",
        )

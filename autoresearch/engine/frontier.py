"""Where a proposer begins: at the champion, or at one of the best programs that were champion.

    start = start_of(state, task.objective, 3)      # None: at the champion

Hill climbing from one champion can't reach what lies beyond a step that was worse. So with a
frontier of K programs every other proposal begins at one of the K - 1 best former champions, in
turn. What comes of it is measured against the champion all the same. The choice depends on
nothing but the proposal's number and the ledger: a restart makes the same one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from autoresearch.engine.state import State
from autoresearch.engine.task import Objective
from autoresearch.engine.trial import Trial, TrialStatus


def former_champions(state: State, objective: Objective) -> list[Trial]:
    """Distinct programs that were champion and aren't now, those undone too; the best first.

    By the mean of their scores of the champion's score id: scores of another one don't compare.
    Champions were measured on other seeds each, so near ties are in no certain order.
    """
    champion = state.trials[state.champion] if state.champion is not None else None
    if champion is None:
        return []
    found: dict[str, tuple[float, Trial]] = {}
    for trial in state.trials.values():
        scores = state.scores_of(trial.id, champion.score_id)
        if trial.status is not TrialStatus.KEEP or not trial.commit or not scores:
            continue
        if trial.diff_hash != champion.diff_hash:
            found.setdefault(trial.diff_hash, (statistics.fmean(scores.values()), trial))
    highest = objective.direction == "maximize"
    ranked = sorted(found.values(), key=lambda item: item[0], reverse=highest)
    return [trial for _, trial in ranked]


def start_of(state: State, objective: Objective, size: int, ahead: int = 0) -> Trial | None:
    """The former champion at which the next proposal begins, None for the champion itself.

    ahead: proposals that were asked for before and haven't come.
    """
    if size <= 1:
        return None
    others: Sequence[Trial] = former_champions(state, objective)[: size - 1]
    turn, other = divmod(state.proposals + ahead, 2)
    return others[turn % len(others)] if others and other else None

"""What a task's results have beside the table of trials: held-out scores, and trade-offs.

front(trials, {"score": "maximize", "words": "minimize"})     # the Pareto front
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autoresearch.engine.trial import Trial, TrialStatus

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.taskfile.study import TaskStudy

# A rejected program broke a rule: it is no choice, however good its score.
CHOICES = (TrialStatus.KEEP, TrialStatus.DISCARD)


def front(trials: Iterable[Trial], metrics: Mapping[str, str]) -> list[Trial]:
    """The trials that no other beats in one metric without losing in another, by id.

    metrics: "minimize" or "maximize" by name. A trial that lacks one of them is left out.
    """
    points = {}
    for trial in trials:
        values = [trial.metrics.get(name, math.nan) for name in metrics]
        if trial.status in CHOICES and all(map(math.isfinite, values)):
            signs = [1 if way == "minimize" else -1 for way in metrics.values()]
            costs = tuple(sign * value for sign, value in zip(signs, values, strict=True))
            points[trial.id] = (trial, costs)
    return [
        trial
        for trial, costs in points.values()
        if not any(_beats(other, costs) for _, other in points.values())
    ]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """No cost higher, and one lower."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def trade_offs(study: TaskStudy) -> list[Trial]:
    """The front over the objective and the secondary metrics, of scores that can be compared."""
    state, objective = study.state, study.task.objective
    if state.champion is None:
        return []
    score_id = state.trials[state.champion].score_id
    comparable = [trial for trial in state.trials.values() if trial.score_id == score_id]
    return front(comparable, {objective.metric: objective.direction, **study.task.secondary})


def show_trade_offs(out: Output, study: TaskStudy, found: Iterable[Trial]) -> None:
    """The front as a table, the best objective first."""
    metric, direction = study.task.objective.metric, study.task.objective.direction
    names = [metric, *study.task.secondary]
    ordered = sorted(found, key=lambda t: t.metrics[metric], reverse=direction == "maximize")
    rows = [
        [
            str(trial.id),
            str(trial.status),
            *[f"{trial.metrics[name]:.6g}" for name in names],
            " ".join(trial.description.split()),
        ]
        for trial in ordered
    ]
    out.table((">trial", "status", *[f">{name}" for name in names], "idea"), rows)


def show_holdouts(out: Output, study: TaskStudy) -> None:
    """Held-out scores beside those that decided."""
    records, state = study.holdouts(), study.state
    rows = [
        [str(number), f"{state.trials[number].score:.6g}", holdout_words(record)]
        for number, record in sorted(records.items())
        if number in state.trials
    ]
    if rows:
        out.say()
        out.table((">trial", f">{study.task.objective.metric}", ">held out"), rows)


def holdout_words(record: Mapping[str, Any]) -> str:
    """A held-out score, or why there is none."""
    run = record["run"]
    if run["failure"] is not None:
        return f"none: {run['failure']['kind']}: {run['failure']['message']}"
    return format(run["score"], ".6g")

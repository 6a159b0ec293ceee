"""How many runs of a task are made at the same time, and by whom.

refuse_sharing(task, workers)                   # raises UsageError where time is measured
executor = executor_of(measure, workers)        # None for one: in this thread

What runs are is programs that this process waits for, so threads are enough. They share the
machine: who measures time needs it for himself.
"""

from __future__ import annotations

from autoresearch.engine.task import Measure
from autoresearch.engine.threads import ThreadPool
from autoresearch.taskfile.model import TaskFile
from prepare.errors import UsageError

TIMES = ("runner_seconds", "scorer_seconds")  # metrics that every run has


def refuse_sharing(task: TaskFile, workers: int) -> None:
    """Raises UsageError for several workers on a task that measures time."""
    why = _times(task)
    if workers > 1 and why:
        raise UsageError(
            f"--workers {workers}: {why}, and runs that share a machine slow each other down",
            "leave --workers out: one run at a time has the machine to itself",
        )


def _times(task: TaskFile) -> str:
    """What of a task measures time, or ""."""
    scorers = {"the scorer": task.scorer, "the held-out scorer": task.holdout}
    for name, scorer in scorers.items():
        if scorer is not None and scorer.timed:
            return f"{name} measures time (`timed: true`)"
    for constraint in task.constraints:
        if constraint.metric in TIMES or constraint.baseline in TIMES:
            return f"the constraint {str(constraint)!r} is one of time"
    secondary = next((name for name in task.secondary if name in TIMES), "")
    return f"the secondary metric {secondary} is one of time" if secondary else ""


def executor_of(measure: Measure, workers: int) -> ThreadPool | None:
    """Who makes so many runs at the same time; None for one after the other, where they are asked
    for."""
    return ThreadPool(measure, workers) if workers > 1 else None

"""The table `[task]` of autoresearch.toml: what a study may change of pretraining.

task = read_task(folder / FILE_NAME, policy_name="greedy")
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoresearch.engine.errors import TaskError
from autoresearch.engine.task import Task
from autoresearch.pretraining import METRICS, pretraining_task
from prepare.errors import UsageError
from prepare.settings import FILE_NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = ("experiment", "task", "weights", "notify", "tracker")
# What the table may set; the rest is what pretraining is.
TASK_KEYS = ("description", "mutation", "constraints", "policy", "budget")


def read_task(path: Path, policy_name: str | None = None, confidence: float | None = None) -> Task:
    """Pretraining with what `[task]` in `path` changes, then what is given here.

    Raises UsageError and TaskError for what isn't understood: it would be overlooked.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    _refuse_strange(document, TABLES, FILE_NAME)
    for name, part in document.items():
        if not isinstance(part, dict):
            hint = f"begin it with a line [{name}]"
            raise UsageError(f"{FILE_NAME}: {name} must be a table", hint)
    table = document.get("task", {})
    _refuse_strange(table, TASK_KEYS, f"{FILE_NAME}: [task]")
    policy = table.get("policy", {})
    policy = {"name": policy} if isinstance(policy, str) else policy
    if not isinstance(policy, dict):
        raise UsageError(f"{FILE_NAME}: task.policy is {policy!r}", 'write "confirm" or "greedy"')
    given = {"name": policy_name, "confidence": confidence}
    policy = {**policy, **{name: value for name, value in given.items() if value is not None}}
    try:
        task = pretraining_task(**{**table, "policy": policy})
    except TaskError as error:
        raise TaskError(f"{FILE_NAME}: task.{error.message}", f"mend it in {FILE_NAME}") from error
    for constraint in task.constraints:
        for name in filter(None, (constraint.metric, constraint.baseline)):
            _refuse_strange([name], METRICS, f"{FILE_NAME}: task.constraints: a run")
    return task


def _refuse_strange(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raises UsageError for a name that isn't known: what it was meant for would be overlooked."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it may be {', '.join(known)}"
            raise UsageError(f"{where} has no {name!r}", hint)

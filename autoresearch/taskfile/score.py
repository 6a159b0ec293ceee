"""What a scorer printed, as one number, or a Failure of the scorer that says what was wrong.

    found = read_score(scorer, done)     # Scored(score, metrics) or Failure("scorer", ...)

A score is stated once: none, two, or one that is no finite number is a failure, and the scorer's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.engine.proposers.process import Finished
from autoresearch.engine.trial import Failure
from autoresearch.taskfile.model import Scorer, TaskFile

PHASE = "scorer"
# Of a number: sums in another order differ behind these, and that is neither better nor noise.
DIGITS = 12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Scored:
    """One scoring."""

    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)


class _Wrong(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def read_score(scorer: Scorer, done: Finished) -> Scored | Failure:
    """The score of a scorer that ended, or what is wrong with it."""
    try:
        if done.stopped:
            raise _Wrong(*_stopped(scorer, done))
        if scorer.parse == "exit_code":
            if done.returncode < 0:
                raise _Wrong("crash", f"the scorer died of signal {-done.returncode}")
            return Scored(1.0 if done.returncode == 0 else 0.0)
        if done.returncode:
            raise _Wrong("crash", f"the scorer exited with status {done.returncode}")
        if done.cut:  # a second score could stand in there
            text = f"the scorer printed too much: {done.cut:,} bytes were left out unread"
            raise _Wrong("flood", f"{text}; let it print the score alone, the rest to stderr")
        return _READERS[scorer.parse](scorer, done.stdout)
    except _Wrong as wrong:
        return Failure(PHASE, wrong.kind, wrong.message, done.tail)


def missing_metric(task: TaskFile, metrics: Mapping[str, float]) -> Failure | None:
    """That the scorer didn't report what constraints or secondary metrics need, or None."""
    needed = dict.fromkeys(task.secondary, "`secondary`")
    for constraint in task.constraints:
        names = filter(None, (constraint.metric, constraint.baseline))
        needed |= dict.fromkeys(names, f"the constraint {str(constraint)!r}")
    for name, why in needed.items():
        if name not in metrics:
            known = ", ".join(sorted(metrics))
            text = f"the scorer reported no metric {name!r}, which {why} needs; known are {known}"
            return Failure(PHASE, "no_metric", text)
    return None


def _stopped(scorer: Scorer, done: Finished) -> tuple[str, str]:
    if done.stopped == "output":
        return "flood", "the scorer printed without end"
    return "timeout", f"the scorer was not done after {scorer.timeout_seconds:g} s"


def _number(value: Any, name: str) -> float:
    """A finite number, to DIGITS digits. Raises _Wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Wrong("malformed", f"{name} must be a number, it is {str(value)[:80]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong("not_finite", f"{name} is {number}")
    return float(f"{number:.{DIGITS}g}")


def _text_number(text: str, name: str) -> float:
    try:
        return _number(float(text), name)
    except ValueError as error:
        raise _Wrong("malformed", f"{name} must be a number, it is {text[:80]!r}") from error


def _once(found: list[Any], what: str) -> Any:
    """The only one. Raises _Wrong."""
    if not found:
        raise _Wrong("no_score", f"the scorer printed no {what}")
    if len(found) > 1:
        raise _Wrong("two_scores", f"the scorer printed {len(found)} scores; it must print one")
    return found[0]


def _read_float(scorer: Scorer, text: str) -> Scored:
    """The one line that isn't blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Scored(_text_number(_once(lines, "number"), "the score"))


def _read_regex(scorer: Scorer, text: str) -> Scored:
    found = re.findall(str(scorer.pattern), text)
    return Scored(_text_number(_once(found, f"match of {scorer.pattern}"), "the score"))


def _read_json(scorer: Scorer, text: str) -> Scored:
    """The one object that has the score; other lines may stand beside it."""
    objects = _objects(text, scorer.score_field)
    holding = [(obj, score) for obj in objects for score in _at(obj, scorer.score_field)]
    obj, score = _once(holding, f"JSON object with {scorer.score_field!r}")
    return Scored(_number(score, f"{scorer.score_field!r}"), _metrics(scorer, obj))


def _metrics(scorer: Scorer, obj: Any) -> dict[str, float]:
    tables = list(_at(obj, scorer.metrics_field))
    if not tables:
        return {}
    table = _once(tables, "metrics")
    if not isinstance(table, _Pairs):
        raise _Wrong("malformed", f"{scorer.metrics_field!r} must be a table of numbers")
    metrics: dict[str, float] = {}
    for name, value in table.pairs:
        if not _NAME.fullmatch(name) or name in metrics:
            raise _Wrong("malformed", f"metric {name[:80]!r} stands twice, or can't be a name")
        metrics[name] = _number(value, f"metric {name}")
    return metrics


@dataclass(frozen=True)
class _Pairs:
    """A JSON object with all it said: a name that stands twice must not hide a score."""

    pairs: tuple[tuple[str, Any], ...]


def _objects(text: str, field: str) -> list[_Pairs]:
    """The whole text if it is one JSON object, else the lines that are.

    Raises _Wrong for a line that begins one, names the score and is none: a score may be lost in
    it, for instance that of the scorer behind what the program under test printed.
    """
    whole = _loads(text)
    if whole is not None:  # a list of scores, too, is no score
        return [whole] if isinstance(whole, _Pairs) else []
    found = []
    for line in text.splitlines():
        if not line.lstrip().startswith("{"):
            continue
        item = _loads(line)
        if isinstance(item, _Pairs):
            found.append(item)
        elif json.dumps(field.partition(".")[0]) in line:
            raise _Wrong("malformed", f"the scorer printed what is no JSON: {line[:120]!r}")
    return found


def _loads(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _Pairs(tuple(pairs)))
    except (ValueError, RecursionError):
        return None


def _at(obj: Any, name: str) -> Iterator[Any]:
    """Every value under a name; `a.b` is b within a."""
    first, _, rest = name.partition(".")
    if not isinstance(obj, _Pairs):
        return
    for key, value in obj.pairs:
        if key == first and rest:
            yield from _at(value, rest)
        elif key == first:
            yield value


_READERS = {"float": _read_float, "regex": _read_regex, "json": _read_json}

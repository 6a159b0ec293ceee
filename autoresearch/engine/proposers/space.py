"""Which constants a search may change, how far, and in which steps.

    space = build_space({"DEPTH": 8, "MATRIX_LR": 0.04}, hints={"DEPTH": Range(2, 16)})
    space["MATRIX_LR"].around(0.04)       # an Optuna distribution around a value

Ranges come from hints; without one, from the scale of the value it has:
    positive float              log-uniform, a quarter of it to four times it
    zero, negative float        left alone: it has no scale
    power of two from 16 up     powers of two, a quarter of it to four times it
    other positive int          every integer from half of it to twice it
    bool                        both
    str, tuple and all else     left alone without a hint
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

FACTOR = 4.0  # how far around a value without a hint
DIGITS = 3  # significant digits of a float that is proposed
SMALLEST_POWER = 16  # from here on a power of two is taken for a size


@dataclass(frozen=True)
class Range:
    """A hint: numbers from `low` to `high`, both possible. `powers`: only powers of two.

    A log scale is used where `low` is positive, unless `log` is False.
    """

    low: float
    high: float
    log: bool | None = None
    powers: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range needs low < high, both finite: {self.low}, {self.high}")
        if self.powers and self.low < 1:
            raise ValueError(f"a range of powers of two starts at 1 or above, not {self.low}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs a positive start, not {self.low}")


@dataclass(frozen=True)
class Choices:
    """A hint: one of these literals."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError("choices need two values or more")


@dataclass(frozen=True)
class Fixed:
    """A hint: never to be changed."""


Hint = Union[Range, Choices, Fixed]  # noqa: UP007 - evaluated on Python 3.10


@dataclass(frozen=True)
class Dimension:
    """One constant of the search. `kind`: "float", "int", "power" (of two) or "choice"."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    values: tuple[Any, ...] = ()

    def around(self, value: Any) -> dict[str, Any] | None:
        """The neighbourhood of a champion's value: keyword arguments for Optuna's distributions.

        A quarter to four times the value on a log scale, a quarter of the range to each side on a
        linear one, within the hint. None when nothing but the value itself is in it.
        """
        if self.kind == "choice":
            return {"choices": tuple(range(len(self.values)))}
        low, high = self.low, self.high
        if self.log:
            low, high = max(low, value / FACTOR), min(high, value * FACTOR)
        else:
            reach = (self.high - self.low) / 4
            if self.kind != "float":
                reach = max(2.0, reach)
            low, high = max(low, value - reach), min(high, value + reach)
        if self.kind == "power":
            first, final = math.ceil(math.log2(max(low, 1))), math.floor(math.log2(max(high, 1)))
            return {"low": first, "high": final} if first < final else None
        if self.kind == "int":
            low, high = math.ceil(low), math.floor(high)
        return {"low": low, "high": high} if low < high else None

    def encode(self, value: Any) -> float | int | None:
        """A constant's value as Optuna's parameter; None when it can't be one."""
        if self.kind == "choice":
            matches = [i for i, item in enumerate(self.values) if _same(item, value)]
            return matches[0] if matches else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if self.kind == "power":
            return round(math.log2(value)) if value >= 1 else None
        return int(value) if self.kind == "int" else float(value)

    def decode(self, parameter: Any) -> Any:
        """The constant's value of Optuna's parameter, floats at three significant digits."""
        if self.kind == "choice":
            return self.values[int(parameter)]
        if self.kind == "power":
            return 2 ** int(parameter)
        if self.kind == "int":
            return int(parameter)
        rounded = float(f"{float(parameter):.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)


def build_space(
    constants: Mapping[str, Any], hints: Mapping[str, Hint] | None = None
) -> dict[str, Dimension]:
    """The dimensions of a search over these constants, in their order.

    A hint for a name that is not among them is ignored: the file may have lost it.
    """
    space: dict[str, Dimension] = {}
    for name, value in constants.items():
        hint = (hints or {}).get(name)
        dimension = _hinted(name, value, hint) if hint is not None else _by_scale(name, value)
        if dimension is not None:
            space[name] = dimension
    return space


def _hinted(name: str, value: Any, hint: Hint) -> Dimension | None:
    if isinstance(hint, Fixed):
        return None
    if isinstance(hint, Choices):
        known = any(_same(value, item) for item in hint.values)
        return Dimension(name, "choice", values=hint.values if known else (value, *hint.values))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    log = hint.low > 0 if hint.log is None else hint.log
    kind = "power" if hint.powers else "int" if isinstance(value, int) else "float"
    if kind == "int" and hint.log is None:
        log = False
    # A value that lies outside its hint stays reachable, and so does the way back.
    low, high = min(hint.low, value), max(hint.high, value)
    if log and low <= 0:
        log = False
    return Dimension(name, kind, low, high, log or hint.powers)


def _by_scale(name: str, value: Any) -> Dimension | None:
    if isinstance(value, bool):
        return Dimension(name, "choice", values=(False, True))
    if not isinstance(value, (int, float)) or not value > 0 or not math.isfinite(value):
        return None
    if isinstance(value, float):
        return Dimension(name, "float", value / FACTOR, value * FACTOR, log=True)
    if value >= SMALLEST_POWER and value & (value - 1) == 0:
        return Dimension(name, "power", max(1, value / FACTOR), value * FACTOR, log=True)
    low, high = max(1, math.ceil(value / 2)), max(2, value * 2)
    return Dimension(name, "int", low, high)


def _same(one: Any, other: Any) -> bool:
    """Equal and of the same type: True is not 1 here, and [1] is (1,)."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)

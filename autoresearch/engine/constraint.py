"""A bound on a metric that isn't the objective, parsed from one line and never evaluated as code.

    peak_memory_mb <= 1.2 * baseline.peak_memory_mb
    tokens_per_second >= baseline.tokens_per_second
    mfu_percent > 20

Left: a metric. Then `<=`, `<`, `>=` or `>`. Right: a product of numbers and at most one
`baseline.METRIC`. A metric that a run didn't report, and NaN, break the constraint.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LINE = re.compile(rf"\s*({_NAME})\s*(<=|>=|<|>)\s*(\S.*?)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BASELINE = re.compile(rf"baseline\.({_NAME})", re.ASCII)
_HOLDS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
_MAX_LENGTH = 200


@dataclass(frozen=True)
class Constraint:
    """`metric relation factor [* baseline.METRIC]`."""

    metric: str
    relation: str
    factor: float
    baseline: str | None = None

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read one line. Raises ValueError that says what is wrong and what is allowed."""
        found = _LINE.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if found is None:
            raise ValueError(
                f"{text[:_MAX_LENGTH]!r} is not a constraint; write for example "
                "'peak_memory_mb <= 1.2 * baseline.peak_memory_mb'"
            )
        metric, relation, product = found.groups()
        factor, baseline = 1.0, None
        for term in (part.strip() for part in product.split("*")):
            named = _BASELINE.fullmatch(term)
            if _NUMBER.fullmatch(term):
                factor *= float(term)
            elif named and baseline is None:
                baseline = named.group(1)
            elif named:
                raise ValueError(f"{text!r} names the baseline twice")
            else:
                raise ValueError(f"{text!r}: {term!r} is neither a number nor baseline.METRIC")
        if not math.isfinite(factor):
            raise ValueError(f"{text!r}: the bound is not a finite number")
        return cls(metric, relation, factor, baseline)

    def __str__(self) -> str:
        if self.baseline is None:
            return f"{self.metric} {self.relation} {self.factor!r}"
        factor = "" if self.factor == 1.0 else f"{self.factor!r} * "
        return f"{self.metric} {self.relation} {factor}baseline.{self.baseline}"

    def broken(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> str:
        """Why these metrics break the constraint, or "" if they don't."""
        value = metrics.get(self.metric)
        if value is None:
            return f"{self}: the run reported no {self.metric}"
        bound = self.factor
        if self.baseline is not None:
            reference = baseline.get(self.baseline)
            if reference is None:
                return f"{self}: the baseline reported no {self.baseline}"
            bound *= reference
        # NaN makes every comparison false, so it breaks the constraint.
        return "" if _HOLDS[self.relation](value, bound) else f"{self}: {value:g}, bound {bound:g}"

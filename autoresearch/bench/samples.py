"""What is measured and how it is compared: samples of several variants, taken in turn.

    samples = interleave({"train.py": one, "plain": other}, repeats=5)     # A B A B ...
    ratio = Ratio.of("train.py / plain", samples["train.py"], samples["plain"])
    ratio.median, ratio.lowest, ratio.highest

A machine is slower at one time than at another, so a speed says little and a ratio of speeds of
the same minute says much: ratios are made round by round, and their spread is given.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from autoresearch.console import OnEvent

HIGHER, LOWER = "higher", "lower"  # which is better


def silent(name: str, data: dict[str, Any]) -> None:
    """The event sink of those who don't want events."""


def interleave(
    variants: Mapping[str, Callable[[], float]],
    repeats: int,
    on_event: OnEvent = silent,
    task: str = "measuring",
) -> dict[str, tuple[float, ...]]:
    """`repeats` samples of each variant, one of each in turn."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    total = repeats * len(variants)
    for done in range(total):
        name = list(variants)[done % len(variants)]
        on_event("progress", {"task": f"{task}: {name}", "done": done, "total": total})
        taken[name].append(variants[name]())
    return {name: tuple(values) for name, values in taken.items()}


@dataclass(frozen=True)
class Samples:
    """Numbers of one kind: their median, and the spread from the lowest to the highest."""

    name: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def lowest(self) -> float:
        return min(self.samples)

    @property
    def highest(self) -> float:
        return max(self.samples)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the derived ones among them."""
        spread = {"median": self.median, "lowest": self.lowest, "highest": self.highest}
        return {**asdict(self), **spread}


@dataclass(frozen=True)
class Figure(Samples):
    """What one variant did, in a unit: good to know, and not compared with other days."""

    unit: str = ""


@dataclass(frozen=True)
class Ratio(Samples):
    """How two things of one run compare; `better` says in which direction it should go."""

    better: str = HIGHER

    @classmethod
    def of(
        cls, name: str, over: Sequence[float], under: Sequence[float], better: str = HIGHER
    ) -> Ratio:
        """Round by round. Raises ValueError where one has more samples than the other."""
        pairs = zip(over, under, strict=True)
        return cls(name, tuple(a / b for a, b in pairs), better)


@dataclass(frozen=True)
class Report:
    """What one subject's measurement found.

    about: sizes and settings; ratios of reports that differ here can't be compared. notes: what a
    reader must know. failures: variant -> why it has no figures.
    """

    subject: str
    about: Mapping[str, Any]
    figures: tuple[Figure, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "subject": self.subject,
            "about": dict(self.about),
            "figures": [figure.to_dict() for figure in self.figures],
            "ratios": [ratio.to_dict() for ratio in self.ratios],
            "notes": list(self.notes),
            "failures": dict(self.failures),
        }

"""On which kind of device a candidate is held against the champion, and what its runs are called.

A study that screens has two: what is promising on the cheap kind is judged anew on the other, which
alone decides what is kept. Scores of the two are never compared, nor kept in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.engine.measuring import OWN
from autoresearch.engine.trial import Replicate


@dataclass(frozen=True)
class Stage:
    """One comparison. own: labels of the baseline's and of a candidate's runs; champion: of the
    champion's beside a candidate's. screens: it can only drop."""

    kind: str = ""
    own: tuple[str, str] = OWN
    champion: str = "champion"
    screens: bool = False

    def fields(self, own: Sequence[Replicate], champion: Sequence[Replicate]) -> dict[str, Any]:
        """A trial's fields that hold these runs."""
        names = ("replicates", "champion_replicates")
        if self.screens:
            names = ("screening", "champion_screening")
        return dict(zip(names, (tuple(own), tuple(champion)), strict=True))


CONFIRM = Stage()


def screening(kind: str) -> Stage:
    """The stage on the cheap kind of device."""
    return Stage(kind, ("screen-baseline", "screen"), "screen-champion", True)

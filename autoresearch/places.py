"""Where runs are made, a device or a node: which are left out, and where lost runs go.

    places = Places()
    if places.blame("cuda 3"):                     # the second time, and no run made in between
        places.leave_out("cuda 3", "the disk is full")
    places.praise("cuda 3")                        # a run came to its end there
    run.lost.add("cuda 3"), run.lost.elsewhere(workers, lambda worker: worker.device)

All executors go by it: a run that is lost goes to another place where there is one. A study ends
when no place is left, or a run that was lost MOST_LOST times meets one more that can't make it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

FAILURES = 2  # a place that fails so often, and makes no run in between, is left out
MOST_LOST = 2  # times that a run is begun again before it is given up

W = TypeVar("W")


@dataclass
class Places:
    """How places did. out: those that aren't used any more, and why."""

    out: dict[str, str] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)

    def blame(self, place: str) -> bool:
        """It failed, which another may not. Is it to be left out?"""
        self._failures[place] = self._failures.get(place, 0) + 1
        return self._failures[place] >= FAILURES

    def praise(self, place: str) -> None:
        """A run came to its end there: failures that were before don't count any more."""
        self._failures.pop(place, None)

    def leave_out(self, place: str, reason: str) -> bool:
        """Use it no more; False where that is so already."""
        new = place not in self.out
        self.out.setdefault(place, reason)
        return new


@dataclass
class Lost:
    """How often one run was lost, and where."""

    times: int = 0
    places: set[str] = field(default_factory=set)

    def add(self, place: str) -> bool:
        """Once more. Is it worth another attempt?"""
        self.places.add(place)
        self.times += 1
        return self.times <= MOST_LOST

    @property
    def too_often(self) -> bool:
        """Was this attempt its last?"""
        return self.times >= MOST_LOST

    def elsewhere(self, workers: Iterable[W], place: Callable[[W], str]) -> list[W]:
        """Those of other places; all of them where there are no others."""
        found = list(workers)
        return [worker for worker in found if place(worker) not in self.places] or found

"""Is there room for another trial? As many are begun, and edits asked for, as keep slots busy.

room = Room(loop)
room.to_begin()                  # a slot would be idle soon
room.to_ask(asked=3)             # edits come as fast as runs are made, or should
room.asked(40.0), room.judged(310.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop


@dataclass
class _Mean:
    """Of seconds that something took."""

    total: float = 0.0
    times: int = 0

    def note(self, seconds: float) -> None:
        """One more."""
        self.total, self.times = self.total + seconds, self.times + 1

    @property
    def seconds(self) -> float:
        """The mean; 0 where nothing is known."""
        return self.total / self.times if self.times else 0.0


@dataclass
class Room:
    """What a loop's slots leave room for."""

    loop: Loop
    _asking: _Mean = field(default_factory=_Mean)
    _judging: _Mean = field(default_factory=_Mean)

    @property
    def kind(self) -> str:
        """The kind of device that a trial's first run is made on."""
        return self.loop.screen or self.loop.confirm

    @property
    def several(self) -> bool:
        """Can several trials be under way? Once they could they can, though slots go."""
        self.loop.concurrent |= self.loop.flight.slots(self.kind) > 1
        return self.loop.concurrent

    def to_begin(self) -> bool:
        """Would a slot be idle without another trial, soon?"""
        loop, flight = self.loop, self.loop.flight
        if not self.several:
            return not flight.jobs
        if loop.screen:  # what passes the screen is not to pile up before the other kind
            waiting = flight.count(loop.confirm)
            if waiting >= 2 * flight.slots(loop.confirm) + flight.ahead(loop.confirm):
                return False
        return flight.count(self.kind) < flight.slots(self.kind) + flight.ahead(self.kind)

    def to_ask(self, asked: int) -> bool:
        """Should another edit be asked for ahead, beside so many? As many as come while runs are
        made."""
        flight = self.loop.flight
        slots = flight.slots(self.kind)
        asking, judging = self._asking.seconds, self._judging.seconds
        ahead = math.ceil(slots * asking / judging) if asking and judging else 0
        ahead = min(max(ahead, flight.ahead(self.kind)), slots)
        return len(flight.jobs) - flight.waiting + asked < slots + ahead

    def asked(self, seconds: float) -> None:
        """An answer took so long."""
        self._asking.note(seconds)

    def judged(self, seconds: float) -> None:
        """A trial took so long, from its edit to its decision."""
        self._judging.note(seconds)

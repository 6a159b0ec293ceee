"""Where runs are made: submit one, collect what has ended. The loop doesn't know where that is.

    with executor:
        ticket = executor.submit(MeasureRequest(folder, seed, run_dir))
        for done in executor.collect(timeout=1.0):
            done.ticket, done.replicate

What is lost on the way (a worker, a node) is the executor's to make again. What it can't make in
spite of that comes back as a replicate whose failure is of the kind LOST: nothing is known of the
program then.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from autoresearch.engine.task import Measure, MeasureRequest
from autoresearch.engine.trial import Replicate

LOST = "lost"  # the kind of failure of a run that no worker brought to its end
BEGUN = "begun"  # the event that a device has taken a run up, the first of its events; no data


@dataclass(frozen=True)
class Done:
    """One run that has ended: what `submit` called it, and what came of it."""

    ticket: int
    replicate: Replicate


class Executor(Protocol):
    """Makes runs, each on a device of its own.

    A run's events (`request.on_event`) are delivered inside `collect`, in the caller's thread;
    BEGUN is the first, also of a run that is made again.
    `request.folder` must stay as it is until the run is collected; what the run leaves is in
    `request.run_dir` on this machine by then.
    """

    @property
    def slots(self) -> Mapping[str, int]:
        """How many runs can be made at the same time, by kind of device; the default kind first."""
        ...

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Queue a run for a device of this kind ("": the default one); the ticket that names it.

        More may be queued than there are slots; they begin in the order in which they came.
        """
        ...

    def collect(self, timeout: float | None = None) -> list[Done]:
        """The runs that have ended, each once; waits up to `timeout` seconds (None: for ever) for
        the first of them. Nothing under way: [] at once."""
        ...

    def cancel(self, ticket: int) -> None:
        """End a run, or forget it where it hasn't begun; it isn't collected any more."""
        ...

    def close(self) -> None:
        """End everything that is under way."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Inline:
    """One slot, in this process: a run is made while it is collected."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._queue: collections.deque[tuple[int, MeasureRequest]] = collections.deque()
        self._tickets = 0

    @property
    def slots(self) -> Mapping[str, int]:
        """One, of the only kind there is."""
        return {"": 1}

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Queue a run."""
        self._tickets += 1
        self._queue.append((self._tickets, request))
        return self._tickets

    def collect(self, timeout: float | None = None) -> list[Done]:
        """Make the run that has waited longest, however long it takes."""
        if not self._queue:
            return []
        ticket, request = self._queue.popleft()
        request.on_event(BEGUN, {})
        return [Done(ticket, self._measure(request))]

    def cancel(self, ticket: int) -> None:
        """Forget a run that hasn't begun."""
        self._queue = collections.deque(item for item in self._queue if item[0] != ticket)

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

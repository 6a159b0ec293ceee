"""Work that must not hold the loop up: one thread does it, one thing after the other.

    with Background("notify") as background:
        background.put(lambda: post(message))     # returns at once
        problem = background.problem()             # what went wrong since, or ""

What fails is told once in words and never raised; what still waits at the end gets some seconds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from autoresearch.engine.task import Event

MOST_WAITING = 200
LAST_SECONDS = 15.0


class Undone(Exception):
    """A piece of work failed; the message says why and holds no secret."""


class Background:
    """A thread with a queue of work. `name` begins what is said of its problems."""

    def __init__(self, name: str, last_seconds: float = LAST_SECONDS) -> None:
        self.name = name
        self.closing = threading.Event()  # whoever waits to try again should not any more
        self._last_seconds = last_seconds
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._problems: queue.Queue[str] = queue.Queue()
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"autoresearch-{name}", daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        """Of the thread that works."""
        return self._thread.ident

    def put(self, work: Callable[[], None]) -> None:
        """Do this soon. Where too much waits, it is left out and told."""
        if self._work.qsize() >= MOST_WAITING:
            self.trouble(f"{MOST_WAITING} wait already, one was left out")
        else:
            self._work.put(work)

    def problem(self) -> str:
        """The next thing that went wrong and wasn't told before, or ""."""
        while not self._problems.empty():
            problem = self._problems.get()
            if problem not in self._told:
                self._told.add(problem)
                return problem
        return ""

    def trouble(self, problem: str) -> None:
        """Have this told by `problem`."""
        self._problems.put(f"{self.name}: {problem}")

    def close(self) -> None:
        """Wait some seconds for what is left to do; the rest is given up and told."""
        self._work.put(None)
        deadline = time.monotonic() + self._last_seconds
        self._thread.join(self._last_seconds / 2)
        self.closing.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.trouble(f"not done in {self._last_seconds:.0f} s, given up")

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Undone as undone:
                self.trouble(str(undone))
            except Exception as error:  # noqa: BLE001 - of packages that aren't ours; told, below
                # Its text may hold an address with a key: the kind alone is said.
                self.trouble(type(error).__name__)


def joined(usual: Event, take: Event, background: Background) -> Event:
    """`usual`, then `take`; each problem becomes a warning, once.

    What goes wrong in `take` ends nothing.
    """

    def event(name: str, data: Mapping[str, Any]) -> None:
        usual(name, data)
        try:
            take(name, data)
        except Exception as error:  # noqa: BLE001 - told, and the night goes on
            background.trouble(f"{type(error).__name__} at {name!r}")
        tell(usual, background)

    return event


def tell(on_event: Event, background: Background) -> None:
    """What went wrong, as warnings."""
    while problem := background.problem():
        on_event("warning", {"message": problem})

"""Runs in threads of this process, several at a time, as an Executor.

    with ThreadPool(measure, slots=3) as pool:
        ticket = pool.submit(MeasureRequest(folder, seed, run_dir))
        for done in pool.collect(timeout=1.0): ...

For a measure that waits for programs which it started: they are what works at the same time. Its
request says when it is of no use any more (`request.cancelled`), and it is to end them then.
"""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.engine.executor import BEGUN, Done
from autoresearch.engine.task import Measure, MeasureRequest
from autoresearch.engine.trial import Replicate

# What a thread tells of its run: an event's name and data, or what came of it.
_Said = tuple[str, Mapping[str, Any]] | Replicate | BaseException


@dataclass(eq=False)
class _Run:
    """A request that isn't collected yet."""

    ticket: int
    request: MeasureRequest
    ended: threading.Event = field(default_factory=threading.Event)  # nobody wants it any more
    thread: threading.Thread | None = None

    def end(self) -> None:
        """Have it end, and wait until it has: nothing writes in its folders then."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join()


class ThreadPool:
    """An Executor of one kind of device, "". `measure` must be right in several threads at once.

    What it raises is raised where runs are collected.
    """

    def __init__(self, measure: Measure, slots: int) -> None:
        self._measure, self._slots = measure, slots
        self._waiting: collections.deque[_Run] = collections.deque()
        self._running: dict[int, _Run] = {}
        self._inbox: queue.SimpleQueue[tuple[_Run, _Said]] = queue.SimpleQueue()
        self._tickets = 0

    @property
    def slots(self) -> Mapping[str, int]:
        """One kind, with so many slots."""
        return {"": self._slots}

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Queue a run; it begins at once where a slot is free."""
        self._tickets += 1
        self._waiting.append(_Run(self._tickets, request))
        self._dispatch()
        return self._tickets

    def collect(self, timeout: float | None = None) -> list[Done]:
        """The runs that have ended; raises what the measure of one raised."""
        deadline = None if timeout is None else time.monotonic() + timeout
        found: list[Done] = []
        while self._running or self._waiting:
            self._dispatch()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                run, said = self._inbox.get(timeout=0 if found else left)
            except queue.Empty:
                break
            except KeyboardInterrupt:
                # Whoever is interrupted drops all of it, one after the other. What takes its time
                # to end does so at the same time as the others.
                for each in self._running.values():
                    each.ended.set()
                raise
            found += self._take(run, said)
        self._dispatch()
        return found

    def cancel(self, ticket: int) -> None:
        """End a run with what it started, or forget it where it hasn't begun."""
        self._waiting = collections.deque(run for run in self._waiting if run.ticket != ticket)
        if ticket in self._running:
            self._running[ticket].end()
            del self._running[ticket]

    def close(self) -> None:
        """End all runs, at the same time."""
        self._waiting.clear()
        for run in self._running.values():
            run.ended.set()
        for ticket in list(self._running):
            self.cancel(ticket)

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dispatch(self) -> None:
        """Begin what waits while slots are free. Not when one is cancelled: others may follow."""
        while self._waiting and len(self._running) < self._slots:
            run = self._waiting.popleft()
            self._running[run.ticket] = run
            name = f"run-{run.ticket}"
            run.thread = threading.Thread(target=self._make, args=(run,), daemon=True, name=name)
            run.thread.start()

    def _make(self, run: _Run) -> None:
        """Make a run; in a thread of its own."""

        def tell(name: str, data: Mapping[str, Any]) -> None:
            self._inbox.put((run, (name, dict(data))))

        tell(BEGUN, {})
        request = replace(run.request, on_event=tell, cancelled=run.ended.is_set)
        said: _Said
        try:
            said = self._measure(request)
        except BaseException as error:  # noqa: BLE001 - raised where it is collected
            said = error
        self._inbox.put((run, said))

    def _take(self, run: _Run, said: _Said) -> list[Done]:
        if self._running.get(run.ticket) is not run:
            return []  # it was cancelled
        if isinstance(said, tuple):
            run.request.on_event(*said)
            return []
        del self._running[run.ticket]
        if isinstance(said, BaseException):
            raise said
        return [Done(run.ticket, said)]

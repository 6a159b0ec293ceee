"""What is under way: many judgings in one thread, their runs on one executor.

    flight = Flight(executor, runs, say)
    job = flight.begin(judge.judge(trial, change))     # submits what it asks for first
    while not job.ended:
        flight.step()                                  # takes in one run that ended
    job.result

Which run ends first is chance, and what a decision knows must not be. So runs that ended are taken
in in the order in which they were submitted; one that ended early waits for those before it, but
no longer than PATIENCE. Slots stay busy meanwhile where a few runs more than slots are queued:
see `ahead`.

Many trials are held against one champion, and need it measured on the same seeds. Such a run is
made once: others that ask for it follow the one that did so first.
"""

from __future__ import annotations

import collections
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from autoresearch.engine.executor import BEGUN, Executor
from autoresearch.engine.measuring import MADE_FOR, Runs, name_of
from autoresearch.engine.proposers.base import Proposal
from autoresearch.engine.steps import Ask, Batch, Steps, Turn, Wanted
from autoresearch.engine.task import Event
from autoresearch.engine.trial import Replicate

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a run which ended waits for those submitted before it
QUEUED_SHARE = 4  # one run more than slots is queued for so many slots
TURN_SHARE = 32  # one job at a time has the turn for so many slots
LOOKS = 4  # whose runs a job that has the turn makes at the same time, where there are as many

_Key = tuple[str, str, int]  # commit, kind of device, seed
Answer = Callable[["Job[Any]", Ask], "Proposal | None"]


@dataclass(eq=False)
class Job(Generic[T]):
    """One judging under way; `result` once it has `ended`."""

    steps: Steps[T]
    ended: bool = False
    result: T | None = None
    _batch: Batch | None = None
    _came: dict[int, Replicate] = field(default_factory=dict)  # by place in the batch
    _to_do: collections.deque[int] = field(default_factory=collections.deque)
    _tickets: set[int] = field(default_factory=set)

    @property
    def value(self) -> T:
        """The result of a job that has ended."""
        if not self.ended:
            raise RuntimeError("this job is still under way")
        return self.result  # type: ignore[return-value]


@dataclass
class _Flying:
    """A run that was submitted: whose it is, and for the how-manieth time it is made."""

    job: Job[Any]
    place: int
    wanted: Wanted
    attempt: int
    kind: str
    order: int
    told: bool = False
    leader: int | None = None  # the ticket of another trial's run that tells the same
    run: Replicate | None = None
    came_at: float = 0.0

    @property
    def key(self) -> _Key | None:
        """What tells the same as this run; None where nothing does."""
        program = self.wanted.program
        return (program, self.kind, self.wanted.seed) if program else None


class Flight:
    """Jobs under way and their runs.

    runs: gives the Runs to ask with, at each moment. say: is told of runs, as a loop's watchers
    are. answer: asks for a repair; what it can't say at once is None, and told by `answered`.
    """

    def __init__(
        self,
        executor: Executor,
        runs: Callable[[], Runs],
        say: Event,
        answer: Answer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor = executor
        self.jobs: set[Job[Any]] = set()
        self._runs, self._say, self._clock = runs, say, clock
        self.answer: Answer = answer or (lambda job, ask: ask.edit(*_arguments(ask)))
        self._flying: dict[int, _Flying] = {}  # in the order of submission
        self._waiting: dict[int, _Flying] = {}  # those of them that ended, as they came
        self._submitted = 0
        self._leaders: dict[_Key, int] = {}  # tickets of runs that others may follow
        self._followers: dict[int, list[int]] = {}  # by the ticket of whom they follow
        self._known: dict[_Key, tuple[int, Replicate]] = {}  # whose run it was, and what came of it
        self._having: set[Job[Any]] = set()  # the turn
        self._line: list[tuple[float, Job[Any]]] = []  # who waits for it, and for which gain
        self._counts: collections.Counter[str] = collections.Counter()

    # -- how much ----------------------------------------------------------------------------------

    def slots(self, kind: str = "") -> int:
        """How many runs can be made at once on a kind of device; at least 1."""
        slots = self.executor.slots
        return max(1, slots.get(self._kind(kind, slots), 1))

    def ahead(self, kind: str = "") -> int:
        """How many runs more than slots are worth queueing: none where there is one slot."""
        slots = self.slots(kind)
        return math.ceil(slots / QUEUED_SHARE) if slots > 1 else 0

    @property
    def turns(self) -> int:
        """How many jobs may have the turn at the same time."""
        return max(1, self.slots() // TURN_SHARE)

    def looks(self, kind: str = "") -> int:
        """How many looks at a job that has the turn are worth the runs of at once: keeps come one
        after the other, and where slots are many everybody waits for them."""
        return LOOKS if self.slots(kind) >= TURN_SHARE else 1

    def count(self, kind: str = "") -> int:
        """Runs of a kind that were submitted and not taken in yet."""
        return self._counts[self._kind(kind, self.executor.slots)]

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn: nothing is made for them meanwhile."""
        return len(self._line)

    @property
    def runs(self) -> int:
        """Runs of all kinds that were submitted and not taken in yet."""
        return len(self._flying)

    @staticmethod
    def _kind(kind: str, slots: Mapping[str, int]) -> str:
        return kind or next(iter(slots), "")

    @property
    def at_hand(self) -> bool:
        """Is there a run to be taken in at once?"""
        return self._next() is not None

    # -- driving -----------------------------------------------------------------------------------

    def begin(self, steps: Steps[T]) -> Job[T]:
        """Begin a judging; it may have ended when this returns."""
        job = Job(steps)
        self.jobs.add(job)
        self._go_on(job, None)
        return job

    def answered(self, job: Job[Any], proposal: Proposal) -> None:
        """The answer to what a job asked for, when it wasn't there at once."""
        self._go_on(job, proposal)

    def step(self, timeout: float | None = None) -> Job[Any] | None:
        """Take in the next run, waiting up to `timeout` seconds for it; whose it was, if any.

        Where somebody's turn has come, that one goes on instead.
        """
        if self._line and len(self._having) < self.turns:
            place = max(range(len(self._line)), key=lambda place: self._line[place][0])
            _, job = self._line.pop(place)
            self._having.add(job)
            self._go_on(job, None)
            return job
        ticket = self._next()
        if ticket is None:
            for done in self.executor.collect(self._wait(timeout)):
                self._arrive(done.ticket, done.replicate)
            ticket = self._next()
        return None if ticket is None else self._take_in(ticket)

    def finish(self, steps: Steps[T]) -> T:
        """Drive one judging to its end, and whatever else is under way with it."""
        job = self.begin(steps)
        while not job.ended:
            self.step()
        return job.value

    def close(self) -> None:
        """Drop all that is under way; the jobs clear up behind themselves."""
        self._followers.clear()
        for ticket in list(self._flying):
            self._forget(ticket, cancel=True)
        jobs, self.jobs = self.jobs, set()
        self._having, self._line = set(), []
        for job in jobs:
            job.steps.close()

    # -- runs --------------------------------------------------------------------------------------

    def _next(self) -> int | None:
        """The ticket of the run to take in now; None while none is there or it is to wait."""
        if not self._waiting:
            return None
        first = next(iter(self._flying))
        if first in self._waiting:
            return first
        since = self._clock() - PATIENCE
        late = itertools.takewhile(
            lambda ticket: self._waiting[ticket].came_at <= since, self._waiting
        )
        return min(late, key=lambda ticket: self._flying[ticket].order, default=None)

    def _wait(self, timeout: float | None) -> float | None:
        """No longer than until the first of those that wait has waited enough."""
        if not self._waiting:
            return timeout
        first = next(iter(self._waiting.values()))
        left = max(0.0, first.came_at + PATIENCE - self._clock())
        return left if timeout is None else min(timeout, left)

    def _submit(self, job: Job[Any], place: int, wanted: Wanted, attempt: int) -> None:
        kind = self._kind(wanted.kind, self.executor.slots)
        self._submitted += 1
        flying = _Flying(job, place, wanted, attempt, kind, self._submitted)
        if self._follow(flying):
            return
        request = self._runs().request(
            wanted, attempt, lambda name, data: self._event(flying, name, data)
        )
        ticket = self.executor.submit(request, wanted.kind)
        self._flying[ticket] = flying
        job._tickets.add(ticket)
        self._counts[kind] += 1
        if flying.key is not None:
            self._leaders[flying.key] = ticket

    def _follow(self, flying: _Flying) -> bool:
        """Have what another trial's run comes to, or came to; whether there is such a run."""
        if flying.key is None:
            return False
        leader = self._leaders.get(flying.key)
        number, run = self._known.get(flying.key, (flying.wanted.number, None))
        if leader is None and number == flying.wanted.number:
            return False
        ticket = -self._submitted  # none of the executor's
        self._flying[ticket] = flying
        flying.job._tickets.add(ticket)
        if leader is not None:
            flying.leader = leader
            number, run = self._flying[leader].wanted.number, self._flying[leader].run
            if run is None:
                self._followers.setdefault(leader, []).append(ticket)
        if run is not None:
            self._put(ticket, made_for(number, run))
        return True

    def _arrive(self, ticket: int, run: Replicate) -> None:
        flying = self._flying.get(ticket)
        if flying is None:
            return  # it was cancelled
        if not flying.told:
            self._event(flying, BEGUN, {})
        self._say("ran", {"id": flying.wanted.number, "run": name_of(flying.wanted)})
        self._put(ticket, run)
        for follower in self._followers.pop(ticket, ()):
            self._put(follower, made_for(flying.wanted.number, run))

    def _put(self, ticket: int, run: Replicate) -> None:
        """A run has come, and waits to be taken in."""
        flying = self._flying[ticket]
        flying.run, flying.came_at = run, self._clock() if len(self._flying) > 1 else 0.0
        self._waiting[ticket] = flying

    def _take_in(self, ticket: int) -> Job[Any]:
        flying = self._flying[ticket]
        self._forget(ticket)
        job, run, runs = flying.job, flying.run, self._runs()
        assert run is not None and job._batch is not None
        if runs.again(run, flying.attempt):
            message = f"disturbed, measured again: {run.disturbed}"
            self._say("warning", {"id": flying.wanted.number, "message": message})
            self._submit(job, flying.place, flying.wanted, flying.attempt + 1)
            return job
        if flying.key is not None and ticket >= 0 and run.failure is None and not run.disturbed:
            self._known[flying.key] = flying.wanted.number, run
        job._came[flying.place] = runs.finish(flying.wanted, run)
        self._settle(job)
        return job

    def _forget(self, ticket: int, cancel: bool = False) -> None:
        flying = self._flying.pop(ticket)
        self._waiting.pop(ticket, None)
        flying.job._tickets.discard(ticket)
        if ticket < 0:
            others = [] if flying.leader is None else self._followers.get(flying.leader, [])
            if ticket in others:
                others.remove(ticket)
            return
        self._counts[flying.kind] -= 1
        if flying.key is not None and self._leaders.get(flying.key) == ticket:
            del self._leaders[flying.key]
        if cancel:
            self.executor.cancel(ticket)
        for follower in self._followers.pop(ticket, ()):  # the first of them makes the run
            left = self._flying.pop(follower)
            left.job._tickets.discard(follower)
            self._submit(left.job, left.place, left.wanted, left.attempt)

    def _event(self, flying: _Flying, name: str, data: Mapping[str, Any]) -> None:
        """Tell the watchers whose event it is. Where BEGUN isn't told, the first event tells it."""
        wanted = flying.wanted
        if name == BEGUN or not flying.told:
            flying.told = True
            about = {"id": wanted.number, "label": wanted.label, "seed": wanted.seed}
            self._say("run", about)
        if name != BEGUN:
            self._say(name, {**data, "id": wanted.number, "run": name_of(wanted)})

    # -- jobs --------------------------------------------------------------------------------------

    def _settle(self, job: Job[Any]) -> None:
        """Go on with a job whose batch is complete, as far as it is needed."""
        batch = job._batch
        assert batch is not None
        got: list[Replicate] = []
        for place in range(len(batch.wanted)):
            if place not in job._came:
                return self._load(job)
            got.append(job._came[place])
            if batch.enough(place, got[-1]):
                break
        for ticket in list(job._tickets):
            self._forget(ticket, cancel=True)
        self._go_on(job, got)

    def _load(self, job: Job[Any]) -> None:
        """Submit what a job asks for: on a single slot one at a time, which may be enough."""
        assert job._batch is not None
        while job._to_do:
            wanted = job._batch.wanted[job._to_do[0]]
            if job._tickets and self.slots(wanted.kind) == 1:
                return
            self._submit(job, job._to_do.popleft(), wanted, 0)

    def _go_on(self, job: Job[Any], sent: Any) -> None:
        """Send a job what it waits for, and see to what it asks for next."""
        job._batch, job._came = None, {}
        job._to_do.clear()
        while True:
            try:
                step = job.steps.send(sent)
            except StopIteration as end:
                job.ended, job.result = True, end.value
                self.jobs.discard(job)
                self._let_go(job)
                return
            except BaseException:
                self.jobs.discard(job)
                raise
            if isinstance(step, Batch) and step.wanted:
                job._batch = step
                job._to_do.extend(range(len(step.wanted)))
                return self._load(job)
            if isinstance(step, Turn):
                if job not in self._having and len(self._having) >= self.turns:
                    return self._line.append((step.gain, job))
                self._having.add(job)
                sent = None
            elif isinstance(step, Ask):
                self._let_go(job)
                sent = self.answer(job, step)
                if sent is None:
                    return
            else:
                sent = []

    def _let_go(self, job: Job[Any]) -> None:
        self._having.discard(job)


def made_for(number: int, run: Replicate) -> Replicate:
    """A run that was made for trial `number`, as another trial has it: it took no time there."""
    return replace(run, seconds={}, details={**run.details, MADE_FOR: number})


def _arguments(ask: Ask) -> tuple[Any, ...]:
    return ask.scratch, ask.failure, ask.attempt

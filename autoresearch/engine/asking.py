"""Asking a proposer for an edit, and for its repair.

loop.trial(Asker(loop, Source(proposer), budget))
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.measuring import add_costs
from autoresearch.engine.proposers.base import (
    BUDGET,
    NO_COST,
    Proposal,
    ProposalRequest,
    Proposer,
)
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.task import Budget, Task
from autoresearch.engine.trial import Cost, Failure, Trial

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

PROPOSAL_SECONDS = 900.0  # a proposer's deadline
LEAST_SECONDS = 60.0  # also when the hours are nearly over
MOST_TOLD = 1000  # trials under way that a proposer is told of, the newest
JOIN_SECONDS = 10.0  # that proposers get to end when they are told to


@dataclass(eq=False)
class Source:
    """A proposer, and how asking it goes. `at_once`: how often it may be asked at the same time."""

    proposer: Proposer
    asked: int = 0  # requests under way in threads
    empty: int = 0  # answers without an edit in a row
    rest: float = 0.0  # seconds until it is asked again
    stuck: bool = False  # it has nothing to propose until something is decided
    over: str = ""  # why it isn't asked any more
    _unseen: list[Trial] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def instant(self) -> bool:
        """Does it answer in a moment?"""
        return bool(getattr(self.proposer, "instant", False))

    @property
    def at_once(self) -> float:
        """How often it may be asked at the same time."""
        return math.inf if getattr(self.proposer, "reentrant", False) else 1

    @property
    def ready(self) -> bool:
        """May it be asked now?"""
        return not self.over and not self.stuck and self.rest <= 0 and self.asked < self.at_once

    def observe(self, trial: Trial) -> None:
        """Tell it of a trial: at once, or, while it is asked in a thread, before it is next."""
        self._unseen.append(trial)
        self.flush()

    def flush(self) -> None:
        """Tell what wasn't told yet, where it isn't at work any more."""
        if not self.asked:
            self._tell()

    def propose(self, request: ProposalRequest) -> Proposal:
        """Ask it; in any thread."""
        self._tell()
        proposal = self.proposer.propose(request)
        return replace(proposal, details={**proposal.details, "proposer": self.proposer.name})

    def _tell(self) -> None:
        with self._lock:
            while self._unseen:
                self.proposer.observe(self._unseen.pop(0))


@dataclass
class Asker:
    """An Edit that a proposer makes, told what the loop knows; for one trial.

    What the trial under way has cost counts: nothing is mended once a limit is reached by it.
    reserved: what other requests under way are expected to cost. number: the trial's, once it has
    one.
    """

    loop: Loop
    source: Source
    budget: Budget
    start: Trial | None = None  # whose program is in the scratch copy, where not the champion's
    reserved: Cost = NO_COST
    ahead: int = 0  # requests under way that were made before
    cancelled: Callable[[], bool] | None = None
    number: int | None = None
    _costs: list[Cost] = field(default_factory=list)

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        request = self.request(scratch, failure, attempt)
        return request if isinstance(request, Proposal) else self.ask(request)

    def ask(self, request: ProposalRequest) -> Proposal:
        """What the proposer answers; in any thread."""
        proposal = self.source.propose(request)
        self._costs.append(proposal.cost)
        return proposal

    def request(
        self, scratch: Path, failure: Failure | None, attempt: int
    ) -> ProposalRequest | Proposal:
        """What to ask for, or a Proposal that says why nothing is asked."""
        loop, limit = self.loop, self.budget.dollars
        dollars, tokens = self._spent()
        over = loop.seconds_left <= 0 or self.budget.spent(dollars, tokens)
        if attempt and over:
            words = "a limit of the run is reached: not mended"
            return Proposal("", cost=NO_COST, problem=words, problem_kind=BUDGET)
        program = loop.program()
        about = {} if self.number is None else {"id": self.number}
        loop.say("proposing", {"proposer": self.source.proposer.name, "attempt": attempt, **about})
        newest = itertools.islice(reversed(loop.in_flight.values()), MOST_TOLD)
        others = [trial for trial in newest if trial.id != self.number][::-1]
        return ProposalRequest(
            folder=scratch,
            artifacts=loop.task.artifacts.include,
            program=program.text,
            notes=program.notes,
            digest=Digest() if self.source.instant else loop.digest(others),
            seconds=min(PROPOSAL_SECONDS, max(LEAST_SECONDS, loop.seconds_left)),
            attempt=attempt,
            failure=failure,
            seed=loop.state.proposals + self.ahead,
            dollars_left=None if limit is None else max(0.0, limit - dollars),
            start=None if self.start is None else self.start.id,
            cancelled=self.cancelled or (lambda: loop.stop_asked),
            in_flight=tuple(trial.description for trial in others),
        )

    def _spent(self) -> tuple[float, int]:
        """Dollars and tokens that are spent, or as good as spent."""
        state = self.loop.state
        known = state.begun.get(-1 if self.number is None else self.number)
        own = functools.reduce(add_costs, self._costs, NO_COST)
        less = NO_COST if known is None else known.cost  # the state has counted it already
        dollars = state.dollars + (self.reserved.dollars or 0.0)
        dollars += (own.dollars or 0.0) - (less.dollars or 0.0)
        tokens = state.tokens + _tokens(self.reserved) + _tokens(own) - _tokens(less)
        return dollars, tokens


def _tokens(cost: Cost) -> int:
    return (cost.tokens_in or 0) + (cost.tokens_out or 0)


def digest_of(
    task: Task, ledger: Ledger, champion: int | None, in_flight: Sequence[Trial] = ()
) -> Digest:
    """What a proposer is told of the past; `champion` is the trial that is champion now."""
    return Digest.from_records(
        ledger.records(),
        metric=task.objective.metric,
        direction=task.objective.direction,
        champion=champion,
        in_flight=[f"#{trial.id}: {trial.description}" for trial in in_flight],
    )


class Threads:
    """Calls in threads, and what came of them, for a single thread that looks now and then.

    threads.start("a", lambda: slow())
    threads.ended(timeout=0.1)         # [("a", value or the exception)]
    """

    def __init__(self) -> None:
        self._threads: dict[Any, threading.Thread] = {}
        self._came: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._threads)

    def start(self, key: Any, call: Callable[[], Any]) -> None:
        """Call in a thread; `key` names it."""

        def run() -> None:
            try:
                came = call()
            except BaseException as error:  # noqa: BLE001 - raised where it is taken in
                came = error
            self._came.put((key, came))

        thread = threading.Thread(target=run, daemon=True, name="proposer")
        self._threads[key] = thread
        thread.start()

    def ended(self, timeout: float = 0.0) -> list[tuple[Any, Any]]:
        """Those that ended, waiting up to `timeout` seconds for the first.

        Raises what one of them did, where none ended well before it: those are told first.
        """
        found: list[tuple[Any, Any]] = []
        wait = bool(self._threads) and timeout > 0
        while True:
            try:
                key, came = self._came.get(timeout=timeout) if wait else self._came.get_nowait()
            except queue.Empty:
                return found
            wait = False
            if isinstance(came, BaseException):
                if found:
                    self._came.put((key, came))
                    return found
                self._threads.pop(key, None)
                raise came
            self._threads.pop(key, None)
            found.append((key, came))

    def join(self) -> list[Any]:
        """Wait for those that were told to end, not for ever; what came of them and wasn't told."""
        until = time.monotonic() + JOIN_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, until - time.monotonic()))
        left = []
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._came.get_nowait()[1])
        self._threads.clear()
        return [came for came in left if not isinstance(came, BaseException)]

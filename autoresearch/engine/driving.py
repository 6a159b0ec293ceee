"""Keeping trials under way: who is asked when, and when there are enough.

    reason = Driver(loop, proposers, budget, trials_before).run()

One thread does all of it but the asking of proposers that take long. Where runs can be made one at
a time, so are trials: each proposal knows of all trials before it. Where there are several slots,
proposers that answer in a moment are asked whenever runs are lacking; the others are asked ahead,
in threads, so often that devices needn't wait for them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.engine.asking import Asker, Source, Threads
from autoresearch.engine.combining import (
    LOOP_LEAST,
    LOOP_MEMBERS,
    best_combination,
    near_misses,
)
from autoresearch.engine.control import PAUSE
from autoresearch.engine.course import Course, Decided
from autoresearch.engine.errors import EngineError, StudyStopped
from autoresearch.engine.flight import Job
from autoresearch.engine.frontier import start_of
from autoresearch.engine.pausing import MOST_TIMES, backoff, crashing
from autoresearch.engine.proposers.base import EXHAUSTED, NO_COST, Proposal, Proposer
from autoresearch.engine.room import Room
from autoresearch.engine.spending import Spending
from autoresearch.engine.steps import Ask
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Trial

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop

NO_PROPOSAL_LOG = "no-proposal.log"  # what a proposer said that gave no edit, the latest
LOOK_SECONDS = 1.0  # how often wishes from outside are looked at while runs are made
SYNC_SECONDS = 0.25  # how long decisions may be in the ledger and not on disk
ANSWER_SECONDS = 0.1  # the same of answers that are waited for
TOO_LATE = "the run ended while it was asked for"
CUT_SHORT = "the run was cut short while it was asked for"


@dataclass(frozen=True, eq=False)
class _Request:
    """An edit that was asked for in a thread."""

    source: Source
    asker: Asker
    blank: Trial
    scratch: Path
    at: float | None  # when it was asked in a thread
    empty: int  # how often its proposer had given nothing in a row by then


class Driver:
    """Drives a loop until its budget is spent. `before`: the id of its first trial."""

    def __init__(
        self, loop: Loop, proposers: Sequence[Proposer], budget: Budget, before: int
    ) -> None:
        self._loop, self._budget = loop, budget
        self._spending = Spending(loop, budget, before)
        self._flight = loop.flight
        self._room = Room(loop)
        self._sources = [Source(proposer) for proposer in proposers]
        self._turn = 0
        self._threads = Threads()
        self._ending = False
        self._combinable = True  # something was decided since near-misses were looked at
        self._crashes = ""  # why the machine may be at fault, until it is known that it works
        self._held = False
        self._names = 0
        self._synced = 0.0
        self._began: dict[Job[Any], float] = {}

    def run(self) -> str:
        """Trial after trial; why it ended. What is under way is finished before."""
        loop = self._loop
        for trial in loop.state.trials.values():
            for source in self._sources:
                source.observe(trial)
        usual = self._flight.answer
        self._flight.answer = self._answer
        loop.workspace.group(self._room.several)
        try:
            for trial in list(loop.state.begun.values()):
                self._again(trial)
            return self._drive()
        finally:
            self._ending = True
            self._flight.answer, loop.concurrent = usual, False
            loop.workspace.group(False)
            self._cut_short(self._threads.join())
            for source in self._sources:
                source.flush()

    def _cut_short(self, answers: Sequence[Proposal]) -> None:
        """Answers that come when nobody waits for them any more: what they cost is spent."""
        with contextlib.suppress(EngineError):  # the ledger may be why all ends
            for proposal in answers:
                if proposal.cost != NO_COST:
                    self._loop.no_proposal(replace(proposal, problem=CUT_SHORT))

    def _drive(self) -> str:
        while True:
            if self._crashes and not self._busy:
                why, self._crashes = self._crashes, ""
                self._loop.see_to_crashes(why)
            reason = self._fill()
            if self._busy:
                self._step()
            elif reason:
                return reason
            else:
                self._idle()

    @property
    def _busy(self) -> bool:
        return bool(self._flight.jobs or self._threads)

    # Beginning -------------------------------------------------------------------------------

    def _fill(self) -> str:
        """Begin trials while there is room for them; why the run is over, or ""."""
        while True:
            reason = self._over()
            if reason or self._crashes or self._paused():
                return reason
            if not self._begin_one():
                return ""

    def _over(self) -> str:
        """Why the run is over, counting what is under way, or ""."""
        over = self._spending.over(len(self._threads))
        given_up = all(source.over for source in self._sources)
        return over or (self._sources[0].over if given_up else "")

    def _paused(self) -> bool:
        """Does somebody want it to wait? Hours that were given go by meanwhile."""
        held = self._loop.control.asked() == PAUSE
        if held and not self._held:
            self._loop.say("held", {})
        self._held = held
        return held

    def _begin_one(self) -> bool:
        """Begin a trial, or ask for one, if there is room; whether there was."""
        room = self._room.to_begin()
        if room and self._begin_combination():
            return True
        for place in range(len(self._sources)):
            source = self._sources[(self._turn + place) % len(self._sources)]
            threaded = self._room.several and not source.instant
            if source.ready and (self._has_room_to_ask() if threaded else room):
                self._turn += place + 1
                self._ask(source, threaded)
                return True
        return False

    def _has_room_to_ask(self) -> bool:
        """Should another edit be asked for ahead?"""
        if self._threads and self._spending.unknown:
            return False
        return self._room.to_ask(len(self._threads))

    def _begin_combination(self) -> bool:
        """Begin the trial of near-misses together, where that is asked for and there are some."""
        loop = self._loop
        if not loop.combine or not self._combinable:
            return False
        self._combinable = False
        noise = loop.state.noise(loop.judge.champion.score_id)
        least = 0.0 if noise is None else LOOP_LEAST * noise.sd
        under_way = loop.in_flight.values()
        members = near_misses(loop.state, loop.task.objective, least, under_way)
        if len(members) < LOOP_MEMBERS:
            return False
        found = best_combination(loop.workspace, loop.task, members, LOOP_MEMBERS)
        if len(found.members) < LOOP_MEMBERS:
            return False
        loop.baseline()
        blank, scratch = loop.open(combines=found.ids, name=self._name(), repository=False)
        self._begun(loop.accept(blank, scratch, found, found(scratch, None, 0)))
        return True

    def _ask(self, source: Source, threaded: bool) -> None:
        """Ask a proposer, and begin the trial of what it says, now or when it has said it."""
        loop = self._loop
        loop.baseline()
        ahead = len(self._threads)
        start = start_of(loop.state, loop.task.objective, loop.frontier, ahead)
        reserved = self._spending.reserved(ahead)
        # Who answers in a moment doesn't look at the champions before; a copy of them takes one.
        looks = not (self._room.several and source.instant)
        blank, scratch = loop.open(start, name=self._name(), repository=looks)
        asker = Asker(loop, source, self._budget, start, reserved, ahead, self._cancelled)
        at = loop.clock() if threaded else None
        request = _Request(source, asker, blank, scratch, at, source.empty)
        if not threaded:
            self._proposed(request, asker(scratch, None, 0))
            return
        to_ask = asker.request(scratch, None, 0)
        assert not isinstance(to_ask, Proposal)  # only repairs are refused
        self._thread(request, source, lambda: asker.ask(to_ask))

    def _again(self, trial: Trial) -> None:
        """Go on with a trial that a kill interrupted."""
        by_name = [s for s in self._sources if s.proposer.name == trial.proposer]
        source = (by_name or self._sources)[0]
        asker = Asker(self._loop, source, self._budget, number=trial.id)
        self._begun(self._flight.begin(Course(self._loop, asker).again(trial)))

    def _name(self) -> str:
        """Of a scratch copy, told apart from others that are out."""
        if not self._room.several:
            return "candidate"
        self._names += 1
        return f"candidate-{self._names}"

    # Answers ---------------------------------------------------------------------------------

    def _thread(self, key: Any, source: Source, call: Any) -> None:
        source.asked += 1
        self._threads.start((key, source), call)

    def _answer(self, job: Job[Any], ask: Ask) -> Proposal | None:
        """Ask for a repair; in a thread where that takes long and other trials are under way."""
        asker = ask.edit
        if not isinstance(asker, Asker) or not self._room.several or asker.source.instant:
            return ask.edit(ask.scratch, ask.failure, ask.attempt)
        to_ask = asker.request(ask.scratch, ask.failure, ask.attempt)
        if isinstance(to_ask, Proposal):
            return to_ask
        self._thread(job, asker.source, lambda: asker.ask(to_ask))
        return None

    def _proposed(self, request: _Request, proposal: Proposal) -> None:
        """Begin the trial of a proposal, or see to it that its proposer isn't asked at once."""
        loop, source = self._loop, request.source
        if proposal.problem_kind == EXHAUSTED and self._busy and proposal.cost == NO_COST:
            source.stuck = True  # what is decided next may give it ideas
            return loop.workspace.drop(request.scratch)
        self._spending.note(proposal.cost)
        if (
            not proposal.problem
            and request.at is not None
            and (loop.stops or loop.seconds_left <= 0)
        ):
            proposal = replace(proposal, problem=TOO_LATE)
        job = loop.accept(request.blank, request.scratch, request.asker, proposal)
        if not isinstance(job, Proposal):
            source.empty = 0
            self._begun(job)
        elif proposal.problem_kind == EXHAUSTED:
            source.stuck = True
            if not self._busy and not self._hopes:
                name = source.proposer.name
                source.over = f"{name} has nothing left to propose: {proposal.problem}"
        elif not loop.stops and proposal.problem != TOO_LATE:
            self._empty(source, proposal, request.empty)

    def _empty(self, source: Source, proposal: Proposal, before: int) -> None:
        """A proposer gave nothing: it rests, the longer the more often. Raises StudyStopped.

        before: how often in a row when it was asked. Requests that were under way together fail
        together, where a network is away for a moment: they count as one.
        """
        loop = self._loop
        source.empty = max(source.empty, min(before, source.empty) + 1)
        times = "" if source.empty == 1 else f" {source.empty} times in a row"
        problem = f"{source.proposer.name} gave no edit{times}: {proposal.problem}"
        if source.empty >= MOST_TIMES and loop.ends_at is None:
            source.over = problem
            if not all(other.over for other in self._sources):
                loop.say("warning", {"message": f"{problem}; it isn't asked any more"})
                return
            raise StudyStopped(
                problem,
                f"what it said last is in {loop.runs / NO_PROPOSAL_LOG}; try another --agent, "
                "or start again later",
            )
        source.rest = math.ceil(max(0.0, min(backoff(source.empty), loop.seconds_left)))
        if self._busy or any(other.ready for other in self._sources):
            text = f"{problem}; it is asked again in {source.rest:.0f} s"
            loop.say("warning", {"message": text})
        else:
            loop.say("pause", {"seconds": source.rest, "reason": problem})

    def _begun(self, job: Job[Decided] | Proposal) -> None:
        if isinstance(job, Proposal):
            return
        self._began[job] = self._loop.clock() if self._room.several else 0.0
        if job.ended:
            self._decided(job)

    # Going on --------------------------------------------------------------------------------

    def _step(self) -> None:
        """Take in a run that ended, or an answer."""
        self._sync()
        timeout = ANSWER_SECONDS if self._threads else LOOK_SECONDS
        resting = [source for source in self._sources if source.rest > 0]
        began = self._loop.clock() if resting else 0.0
        if self._flight.runs or self._flight.waiting:
            job = self._flight.step(timeout)
            if job is not None and job.ended and job in self._began:
                self._decided(job)
            self._answers(0.0)
        else:
            self._answers(timeout)
        for source in resting:
            source.rest = max(0.0, source.rest - (self._loop.clock() - began))

    def _sync(self) -> None:
        """Wait for the disk: before anything else is waited for, and now and then in between."""
        now = time.monotonic()
        if not self._flight.at_hand or now - self._synced >= SYNC_SECONDS:
            self._loop.sync()
            self._synced = now

    def _answers(self, timeout: float) -> None:
        for (key, source), proposal in self._threads.ended(timeout):
            source.asked -= 1
            if isinstance(key, _Request):
                self._room.asked(self._loop.clock() - (key.at or 0.0))
                self._proposed(key, proposal)
                continue
            self._flight.answered(key, proposal)
            if key.ended:
                self._decided(key)

    def _decided(self, job: Job[Decided]) -> None:
        """Record a trial, and tell everybody."""
        began = self._began.pop(job)
        trial = self._loop.settle(job)
        self._combinable = True
        if self._room.several:
            self._room.judged(self._loop.clock() - began)
        for source in self._sources:
            source.stuck = False
            source.observe(trial)
        why = crashing(self._loop.state, trial)
        if why or any(run.score is not None for run in trial.replicates):
            self._crashes = why  # a score shows that it works

    @property
    def _hopes(self) -> bool:
        """May any proposer have an edit, now or when it has rested?"""
        return any(not source.over and not source.stuck for source in self._sources)

    def _idle(self) -> None:
        """Nothing is under way, and nothing may begin: a second passes."""
        if not self._hopes:  # nothing will be decided that gives ideas to those that have none
            for source in self._sources:
                source.stuck = False
        self._loop.sleep(1.0)
        for source in self._sources:
            source.rest = max(0.0, source.rest - 1.0)

    # Budgets ---------------------------------------------------------------------------------

    def _cancelled(self) -> bool:
        """Shall a proposer end that was asked? Where trials are made one by one, not before its
        deadline for hours that are over."""
        loop = self._loop
        # It is asked in the proposer's thread: the executor is the driver's alone.
        late = loop.concurrent and (loop.stops or loop.seconds_left <= 0)
        return self._ending or loop.stop_asked or late

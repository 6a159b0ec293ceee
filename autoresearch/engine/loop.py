"""The loop: propose, check, measure, decide, record, keep.

    with Loop(task, workspace, ledger, measure, policy, runs=folder) as loop:
        loop.run(proposer, Budget(hours=8))      # the harness drives
        loop.trial(edit_of_mine)                 # or the agent does

Everything that a restart needs is in the ledger. A trial's line is written and synced before git
moves, and git's step is repeated after a kill. What was under way when the process died is dropped
where trials are made one after the other, and its run folder says what it was; where several are
under way, each is in the ledger since it began, and is judged anew under its own id.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from autoresearch.engine.asking import Asker, digest_of
from autoresearch.engine.baseline import baseline
from autoresearch.engine.change import Change, champion_message, diff_hash
from autoresearch.engine.control import STOP, Control
from autoresearch.engine.course import MEND_ATTEMPTS, Course, Decided
from autoresearch.engine.driving import NO_PROPOSAL_LOG, Driver
from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.executor import Executor, Inline
from autoresearch.engine.flight import Flight, Job
from autoresearch.engine.judging import Judge
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.measuring import KILLED, Runs
from autoresearch.engine.pausing import MOST_TIMES, backoff, champion_fails
from autoresearch.engine.policy import Policy
from autoresearch.engine.program import Program
from autoresearch.engine.proposers.base import Proposal, Proposer
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.process import end_orphans
from autoresearch.engine.stage import Stage, screening
from autoresearch.engine.state import BASELINE, State, record_begun
from autoresearch.engine.steps import Edit
from autoresearch.engine.task import Budget, Event, Measure, Task
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

__all__ = ["MEND_ATTEMPTS", "MOST_TIMES", "NO_PROPOSAL_LOG", "Edit", "Loop"]


@dataclass
class Loop:
    """One study: its state, and the steps that move it.

    rules: kinds of failure that mean a broken rule (`rejected`) rather than a broken program
    (`crash`). program: what the human wants and notes, asked for anew before every proposal.
    first_seed: seeds are this and the numbers after it, the same for champion and candidates.
    large_files: globs of what a run leaves that is worth its disk for a champion only. prune: stop
    a candidate's first run when it can't catch up with the champion any more. frontier: of so many
    of the best programs that were champion a proposer gets one to edit. combine: try near-misses
    together as soon as there are three that aren't all too small. control: what is asked of it from
    outside while it runs.

    executor: where runs are made, of which `measure` is the default: one at a time, in this
    process. With an executor that has several slots `run` keeps as many trials under way as they
    need; the caller opens and closes it:

        with Pool(...) as pool, Loop(task, ..., executor=pool) as loop:
            loop.run([search, agent], Budget(hours=8))

    confirm: the kind of device that decides, the executor's first where it is "". screen: another
    kind, on which candidates are sorted out first ("": none). baseline_runs: at least so many seeds
    of the baseline, where the task asks for fewer: as many as slots where these share a device, so
    that it is measured under the sharing.
    """

    task: Task
    workspace: Workspace
    ledger: Ledger
    measure: Measure
    policy: Policy
    runs: Path
    rules: frozenset[str] = frozenset()
    program: Callable[[], Program] = Program
    first_seed: int = 0
    on_event: Event = lambda name, data: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    large_files: tuple[str, ...] = ()
    prune: bool = False
    frontier: int = 1
    combine: bool = False
    control: Control = field(default_factory=Control)
    executor: Executor | None = None
    screen: str = ""
    confirm: str = ""
    baseline_runs: int = 0
    state: State = field(default_factory=State)
    stop_asked: bool = False
    ends_at: float | None = None  # by `clock`, while `run` has hours to keep to
    in_flight: dict[int, Trial] = field(default_factory=dict)  # trials under way, by id
    programs: dict[str, int] = field(default_factory=dict)  # by hash, the last that had each
    concurrent: bool = False  # several can be under way: each is recorded when it begins
    _last_id: int = -1  # of the trials that were begun here

    # Parts -----------------------------------------------------------------------------------

    @property
    def folders(self) -> Runs:
        """The folders of runs, and how runs are asked for."""
        stopped = lambda: self.stop_asked  # noqa: E731 - looked at while runs end
        return Runs(self.runs, self.first_seed, self.large_files, stopped)

    @property
    def judge(self) -> Judge:
        """Who decides, by what is known now."""
        return Judge(
            self.task,
            self.workspace,
            self.state,
            self.policy,
            self.folders,
            self.rules,
            self.prune,
            self.in_flight,
            self.programs,
            screening(self.screen) if self.screen else None,
            Stage(self.confirm),
            self.flight.looks(self.confirm),
        )

    @cached_property
    def flight(self) -> Flight:
        """What is under way."""
        executor = self.executor or Inline(lambda request: self.measure(request))
        return Flight(executor, lambda: self.folders, self.say, clock=self.clock)

    # A study's begin and end -----------------------------------------------------------------

    def __enter__(self) -> Loop:
        """Become the writer, finish or drop what a kill left half done, read the state."""
        self.ledger.open()
        try:
            end_orphans()
            self.recover()
        except BaseException:
            self.ledger.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.drop()
            self.workspace.drop_all()  # Ctrl-C can hit before whoever made a copy has it in hand
        finally:
            self.ledger.close()

    def recover(self) -> None:
        """Bring git to where the ledger says it is, and drop left-over scratch copies."""
        self.state, self._last_id = State.of(self.ledger.records()), -1
        champion = self.state.champion
        commit = None if champion is None else self.state.trials[champion].commit
        trials = (*self.state.trials.values(), *self.state.begun.values())
        known = {t.id: t.commit or "" for t in trials if t.id != BASELINE}
        first = self.state.trials.get(BASELINE)
        found = self.workspace.recover(known, commit, None if first is None else first.commit)
        if found.lost:
            text = f"git has lost the commits of trials {', '.join(map(str, found.lost))}"
            self.say("warning", {"message": f"{text}: they can't be shown or built on any more"})
        if self.state.restored and commit is not None:
            score = self.state.trials[champion].score if champion is not None else None
            idea = f"back to trial {champion}"
            message = champion_message(self.task.objective.metric, None, score, idea)
            self.workspace.restore(commit, self.task, message)

    def restore(self, trial_id: int, reason: str) -> None:
        """Make an earlier champion the champion again; recorded first, so a kill loses nothing."""
        record = {"kind": "champion", "trial": trial_id, "reason": reason, "at": _now()}
        self.ledger.append(record)
        self.recover()

    def baseline(self) -> Trial:
        """Measure the program as it stands on several seeds: the first champion, and the noise."""
        if BASELINE in self.state.trials:
            self.judge.refuse_moved()
            return self.state.trials[BASELINE]
        started = _now()
        self.folders.set_aside(BASELINE, KILLED)
        self.say("trial", {"id": BASELINE, "description": "baseline"})
        with self.dropping():
            found = self.flight.finish(baseline(self.judge, self.baseline_runs))
        trial = replace(found, started_at=started, finished_at=_now())
        self._record(trial)
        return trial

    def run(self, proposer: Proposer | Sequence[Proposer], budget: Budget) -> str:
        """Trial after trial until the budget is spent, the target is reached or `stop_asked`.

        Several proposers are asked in turn. Returns why it ended; what was under way is finished.
        """
        proposers = [proposer] if isinstance(proposer, Proposer) else list(proposer)
        self.control.clear()
        self.ends_at = None if budget.hours is None else self.clock() + budget.hours * 3600
        limits = budget.model_dump(exclude_none=True)
        before = self.state.next_id
        self.say("begin", {"limits": limits, "trials_before": before})
        with self.dropping():
            self.baseline()
            return Driver(self, proposers, budget, before).run()

    @property
    def seconds_left(self) -> float:
        """Until the hours that were given are over; infinite where none were."""
        return math.inf if self.ends_at is None else self.ends_at - self.clock()

    @property
    def next_id(self) -> int:
        """Of the next trial: one that is under way has its own."""
        return max(self.state.next_id, self._last_id + 1)

    @property
    def stops(self) -> bool:
        """Is it asked to stop, from inside or outside?"""
        return self.stop_asked or self.control.asked() == STOP

    def pause(self, seconds: float, reason: str) -> None:
        """Wait, unless the loop is asked to stop or its hours are over first."""
        seconds = max(0.0, min(seconds, self.seconds_left))
        self.say("pause", {"seconds": seconds, "reason": reason})
        for _ in range(math.ceil(seconds)):
            if self.stops or self.seconds_left <= 0:
                return
            self.sleep(1.0)

    def see_to_crashes(self, why: str) -> None:
        """After crashes in a row: pause, and go on when the champion, at least, still runs.

        Each pause is longer than the one before until a trial runs again, so that a machine which
        fails, or a proposer whose ideas all do, costs little of the night. Raises StudyStopped if
        the champion fails again and again and there are no hours to wait for.
        """
        failed = 0
        while why and not self.stops and self.seconds_left > 0:
            if failed >= MOST_TIMES and self.ends_at is None:
                raise StudyStopped(
                    f"{why}, {failed} times in a row",
                    "something is wrong with this machine: see `autoresearch doctor`",
                )
            seconds = backoff(self.state.pauses + 1)
            record = {"kind": "pause", "reason": why, "seconds": seconds, "at": _now()}
            self.ledger.append(record)
            self.state.take(record)
            self.pause(seconds, f"{why}; then the champion is run, to see that it still does")
            if self.stops or self.seconds_left <= 0:
                return
            failure = self.flight.finish(self.judge.check_champion())
            why = "" if failure is None else champion_fails(failure)
            failed += 1

    # One trial -------------------------------------------------------------------------------

    def trial(
        self, edit: Edit, start: Trial | None = None, combines: tuple[int, ...] = ()
    ) -> Trial | Proposal:
        """One trial of what `edit` leaves in a scratch copy; a Proposal if that has a problem.

        start: the former champion whose program the copy holds instead of the champion's.
        combines: the trials whose edits this one puts together. The trial is recorded, and kept or
        dropped, before this returns.
        """
        self.baseline()
        with self.dropping():
            blank, scratch = self.open(start, combines)
            job = self.accept(blank, scratch, edit, edit(scratch, None, 0))
            if isinstance(job, Proposal):
                return job
            while not job.ended:
                self.flight.step()
            return self.settle(job)

    def open(
        self,
        start: Trial | None = None,
        combines: tuple[int, ...] = (),
        name: str = "candidate",
        repository: bool = True,
    ) -> tuple[Trial, Path]:
        """A copy of the champion to be edited, and the trial that may come of it."""
        champion = self.judge.champion
        blank = Trial(
            id=self.next_id,
            parent=champion.id,
            status=TrialStatus.DISCARD,
            reason="",
            start=None if start is None else start.id,
            combines=combines,
            started_at=_now(),
        )
        scratch = self.workspace.scratch(blank.id, name, repository=repository)
        if start is not None:
            program = self.workspace.artifacts(str(start.commit), self.task)
            self.workspace.place(scratch, program, self.task)
        return blank, scratch

    def accept(
        self, blank: Trial, scratch: Path, edit: Edit, proposal: Proposal
    ) -> Job[Decided] | Proposal:
        """Begin the trial of an edit; the Proposal, recorded, if that has a problem."""
        if proposal.problem:
            self.workspace.drop(scratch)
            self.no_proposal(proposal)
            return proposal
        self._last_id = self.next_id
        trial = replace(blank, id=self._last_id)
        if isinstance(edit, Asker):
            edit.number = trial.id
        return self.flight.begin(Course(self, edit).of(trial, scratch, proposal))

    def under_way(self, trial: Trial, change: Change) -> Trial:
        """Know of a trial that is judged from now on. Where several can be, the ledger does too."""
        trial = replace(trial, diff_hash=diff_hash(change), diff_stat=change.stat)
        known = self.state.begun.get(trial.id)
        what = (trial.diff_hash, trial.parent, trial.mended)
        if known is not None and (known.diff_hash, known.parent, known.mended) == what:
            trial = replace(trial, commit=known.commit)
        elif self.concurrent:
            commit = self.workspace.store(change, trial.description, trial.id)
            trial = replace(trial, commit=commit)
            self.ledger.append(record_begun(trial), synced=False)
            self.state.begin(trial)
        self.in_flight[trial.id] = trial
        self.programs[trial.diff_hash] = trial.id
        return trial

    def settle(self, job: Job[Decided]) -> Trial:
        """Record the trial of a job that has ended, and keep or drop its edit."""
        trial, change = job.value
        trial = replace(trial, finished_at=_now())
        if change is not None:  # also of what isn't kept: it stays reachable by its own ref
            message = self.judge.message(trial)
            still = trial.parent == self.state.champion
            store = self.workspace.commit if still else self.workspace.store
            trial = replace(trial, commit=store(change, message, trial.id))
        self._record(trial)
        if trial.status is TrialStatus.KEEP and trial.commit:
            self.workspace.advance(trial.commit)
        else:
            self.folders.clear(trial.id)
        return trial

    def drop(self) -> None:
        """Drop what is under way."""
        self.flight.close()
        self.in_flight.clear()
        self._last_id = -1

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Whatever goes wrong leaves nothing under way."""
        try:
            yield
        except BaseException:
            self.drop()
            raise

    # Recording -------------------------------------------------------------------------------

    def sync(self) -> None:
        """Have what was written so far survive a power cut: first commits, then their records."""
        self.workspace.sync()
        self.ledger.sync()

    def digest(self, in_flight: Sequence[Trial] = ()) -> Digest:
        """What proposers are told of the past, and of what is under way."""
        return digest_of(self.task, self.ledger, self.state.champion, in_flight)

    def _record(self, trial: Trial) -> None:
        """Write a trial, and tell whoever watches."""
        kept = trial.status is TrialStatus.KEEP
        if kept:
            self.workspace.sync()  # what a record names is there before it
        self.ledger.append_trial(trial, kept or not self.concurrent)
        self.state.add(trial)
        self.in_flight.pop(trial.id, None)
        self.say("decided", {"trial": trial.to_dict()})

    def no_proposal(self, proposal: Proposal) -> None:
        """Write that a proposer gave no edit, and what that cost."""
        tokens = (proposal.cost.tokens_in or 0) + (proposal.cost.tokens_out or 0)
        cost = {**proposal.cost.to_dict(), "tokens": tokens}
        record = {"kind": "no_proposal", "problem": proposal.problem, "cost": cost, "at": _now()}
        self.ledger.append(record)
        self.runs.mkdir(parents=True, exist_ok=True)
        (self.runs / NO_PROPOSAL_LOG).write_text(proposal.log_tail, encoding="utf-8")
        self.state.proposals += 1
        self.state.spend(cost)
        self.say("no_proposal", {"problem": proposal.problem})

    def say(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell whoever watches."""
        self.on_event(name, data)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

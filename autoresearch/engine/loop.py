"""The loop: propose, check, measure, decide, record, keep.

    with Loop(task, workspace, ledger, measure, policy, runs=folder) as loop:
        loop.run(proposer, Budget(hours=8))      # the harness drives
        loop.trial(edit_of_mine)                 # or the agent does

Everything that a restart needs is in the ledger. A trial's line is written and synced before git
moves, and git's step is repeated after a kill; what was under way when the process died is
dropped, and its run folder says what it was.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from autoresearch.engine.asking import Asker, Edit
from autoresearch.engine.change import Change, champion_message
from autoresearch.engine.combining import (
    LOOP_LEAST,
    LOOP_MEMBERS,
    best_combination,
    near_misses,
)
from autoresearch.engine.control import PAUSE, STOP, Control
from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.frontier import start_of
from autoresearch.engine.judging import Judge
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.measuring import KILLED, MENDED, Runs, add_costs
from autoresearch.engine.pausing import MOST_TIMES, backoff, champion_fails, crashing
from autoresearch.engine.policy import Policy
from autoresearch.engine.program import Program
from autoresearch.engine.proposers.base import EXHAUSTED, Proposal, Proposer
from autoresearch.engine.proposers.process import end_orphans
from autoresearch.engine.state import BASELINE, State
from autoresearch.engine.task import Budget, Event, Measure, Task
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

MEND_ATTEMPTS = 2  # times a proposer may repair what crashed
NO_PROPOSAL_LOG = "no-proposal.log"  # what a proposer said that gave no edit, the latest


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
    state: State = field(default_factory=State)
    stop_asked: bool = False
    ends_at: float | None = None  # by `clock`, while `run` has hours to keep to

    # A study's begin and end -----------------------------------------------------------------

    @property
    def _runs(self) -> Runs:
        return Runs(
            self.measure,
            self.runs,
            self.first_seed,
            self.on_event,
            self.large_files,
            lambda: self.stop_asked,
        )

    @property
    def _judge(self) -> Judge:
        return Judge(
            self.task,
            self.workspace,
            self.state,
            self.policy,
            self._runs,
            self.rules,
            self.prune,
        )

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
            self.workspace.drop_all()  # Ctrl-C can hit before whoever made a copy has it in hand
        finally:
            self.ledger.close()

    def recover(self) -> None:
        """Bring git to where the ledger says it is, and drop left-over scratch copies."""
        self.state = State.of(self.ledger.records())
        champion = self.state.champion
        commit = None if champion is None else self.state.trials[champion].commit
        known = {t.id: t.commit or "" for t in self.state.trials.values() if t.id != BASELINE}
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
            self._judge.refuse_moved()
            return self.state.trials[BASELINE]
        started = _now()
        self._runs.set_aside(BASELINE, KILLED)
        self.say("trial", {"id": BASELINE, "description": "baseline"})
        trial = replace(self._judge.baseline(), started_at=started, finished_at=_now())
        self._record(trial)
        return trial

    # Driving ---------------------------------------------------------------------------------

    def run(self, proposer: Proposer, budget: Budget) -> str:
        """Trial after trial until the budget is spent, the target is reached or `stop_asked`.

        Returns why it ended.
        """
        trials_before = self.state.next_id
        self.control.clear()
        self.ends_at = None if budget.hours is None else self.clock() + budget.hours * 3600
        limits = budget.model_dump(exclude_none=True)
        self.say("begin", {"limits": limits, "trials_before": trials_before})
        self.baseline()
        for trial in self.state.trials.values():
            proposer.observe(trial)
        empty = 0
        while True:
            self._wait_while_paused(budget, trials_before)
            reason = self._spent(budget, trials_before)
            if reason:
                return reason
            outcome = self._turn(proposer, budget)
            if isinstance(outcome, Trial):
                empty = 0
                proposer.observe(outcome)
                self._see_to_crashes(outcome)
                continue
            if outcome.problem_kind == EXHAUSTED:
                return f"{proposer.name} has nothing left to propose: {outcome.problem}"
            if self._stops:
                continue
            empty += 1
            times = "" if empty == 1 else f" {empty} times in a row"
            problem = f"{proposer.name} gave no edit{times}: {outcome.problem}"
            if empty >= MOST_TIMES and self.ends_at is None:
                raise StudyStopped(
                    problem,
                    f"what it said last is in {self.runs / NO_PROPOSAL_LOG}; try another --agent, "
                    "or start again later",
                )
            self._pause(backoff(empty), problem)

    def _turn(self, proposer: Proposer, budget: Budget) -> Trial | Proposal:
        """The next trial: of near-misses together, where that is asked for, or of a proposal."""
        if self.combine:
            noise = self.state.noise(self._judge.champion.score_id)
            least = 0.0 if noise is None else LOOP_LEAST * noise.sd
            members = near_misses(self.state, self.task.objective, least)
            found = best_combination(self.workspace, self.task, members, LOOP_MEMBERS)
            if len(found.members) >= LOOP_MEMBERS:
                return self.trial(found, combines=found.ids)
        start = start_of(self.state, self.task.objective, self.frontier)
        return self.trial(Asker(self, proposer, budget, start), start)

    def _spent(self, budget: Budget, trials_before: int) -> str:
        """Which limit is reached, or the target, or ""."""
        if self._stops:
            return "asked to stop"
        champion, objective = self.state.champion, self.task.objective
        if champion is not None and objective.reached(self.state.trials[champion].score):
            return f"the target is reached: {objective.target:g}"
        # The baseline is no trial that was asked for.
        done = self.state.next_id - max(trials_before, BASELINE + 1)
        if budget.trials is not None and done >= budget.trials:
            return f"{done} trial{'' if done == 1 else 's'} done"
        if self.seconds_left <= 0:
            return f"{budget.hours:g} hours are over"
        return budget.spent(self.state.dollars, self.state.tokens)

    @property
    def seconds_left(self) -> float:
        """Until the hours that were given are over; infinite where none were."""
        return math.inf if self.ends_at is None else self.ends_at - self.clock()

    @property
    def _stops(self) -> bool:
        return self.stop_asked or self.control.asked() == STOP

    def _wait_while_paused(self, budget: Budget, trials_before: int) -> None:
        """Wait as long as somebody wants it to and something is left to do.

        Hours that were given go by meanwhile.
        """
        held = False
        while self.control.asked() == PAUSE and not self._spent(budget, trials_before):
            if not held:
                self.say("held", {})
            held = True
            self.sleep(1.0)

    def _pause(self, seconds: float, reason: str) -> None:
        """Wait, unless the loop is asked to stop or its hours are over first."""
        seconds = max(0.0, min(seconds, self.seconds_left))
        self.say("pause", {"seconds": seconds, "reason": reason})
        for _ in range(math.ceil(seconds)):
            if self._stops or self.seconds_left <= 0:
                return
            self.sleep(1.0)

    def _see_to_crashes(self, latest: Trial) -> None:
        """Where trials crash in a row: pause, and go on when the champion, at least, still runs.

        Each pause is longer than the one before until a trial runs again, so that a machine which
        fails, or a proposer whose ideas all do, costs little of the night. Raises StudyStopped if
        the champion fails again and again and there are no hours to wait for.
        """
        why, failed = crashing(self.state, latest), 0
        while why and not self._stops and self.seconds_left > 0:
            if failed >= MOST_TIMES and self.ends_at is None:
                raise StudyStopped(
                    f"{why}, {failed} times in a row",
                    "something is wrong with this machine: see `autoresearch doctor`",
                )
            seconds = backoff(self.state.pauses + 1)
            record = {"kind": "pause", "reason": why, "seconds": seconds, "at": _now()}
            self.ledger.append(record)
            self.state.take(record)
            self._pause(seconds, f"{why}; then the champion is run, to see that it still does")
            if self._stops or self.seconds_left <= 0:
                return
            champion = self._judge.champion
            seeds = (champion.replicates[0].seed,)
            failure = self._judge.measure_champion(champion.id, seeds, "check")[-1].failure
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
        number, began = self.state.next_id, _now()
        blank = Trial(
            id=number,
            parent=self._judge.champion.id,
            status=TrialStatus.DISCARD,
            reason="",
            start=None if start is None else start.id,
            combines=combines,
        )
        with self._judge.scratch(number) as scratch:
            if start is not None:
                program = self.workspace.artifacts(str(start.commit), self.task)
                self.workspace.place(scratch, program, self.task)
            proposal = edit(scratch, None, 0)
            if proposal.problem:
                self._no_proposal(proposal)
                return proposal
            trial, change = self._mended(blank, scratch, proposal, edit)
            trial = replace(trial, started_at=began, finished_at=_now())
            if change is not None:  # also of what isn't kept: it stays reachable by its own ref
                commit = self.workspace.commit(change, self._judge.message(trial), trial.id)
                trial = replace(trial, commit=commit)
            self._record(trial)
            if trial.status is TrialStatus.KEEP and trial.commit:
                self.workspace.advance(trial.commit)
        if trial.status is not TrialStatus.KEEP:
            self._runs.clear(trial.id)
        return trial

    def _mended(
        self, blank: Trial, scratch: Path, proposal: Proposal, edit: Edit
    ) -> tuple[Trial, Change | None]:
        """Judge an edit; what crashes goes back to be mended, a bounded number of times."""
        for attempt in range(MEND_ATTEMPTS + 1):
            self._runs.set_aside(blank.id, MENDED if attempt else KILLED)
            self.say("trial", {"id": blank.id, "description": proposal.description})
            trial = replace(
                blank,
                description=proposal.description,
                proposer=str(proposal.details.get("proposer", "")),
                cost=proposal.cost,
                predicted=proposal.predicted,
                mended=attempt,
            )
            trial, change = self._judge.judge(trial, scratch)
            if trial.warning:
                self.say("warning", {"message": f"trial {trial.id}: {trial.warning}"})
            failure = trial.replicates[-1].failure if trial.replicates else None
            over = attempt == MEND_ATTEMPTS or self.stop_asked
            if trial.status is not TrialStatus.CRASH or failure is None or over:
                break
            again = edit(scratch, failure, attempt + 1)
            cost = add_costs(proposal.cost, again.cost)
            trial = replace(trial, cost=cost)
            if again.problem:
                break
            proposal = replace(again, cost=cost)
        return trial, change

    # Recording -------------------------------------------------------------------------------

    def _record(self, trial: Trial) -> None:
        """Write a trial, and tell whoever watches."""
        self.ledger.append_trial(trial)
        self.state.add(trial)
        self.say("decided", {"trial": trial.to_dict()})

    def _no_proposal(self, proposal: Proposal) -> None:
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

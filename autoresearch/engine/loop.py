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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from autoresearch.engine.change import Change, champion_message, check, diff_hash
from autoresearch.engine.errors import ChampionMoved, EngineError, Rejected
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.measuring import (
    DISTURBED_RETRIES,
    Runs,
    add_costs,
    code_lines_delta,
    measured,
)
from autoresearch.engine.noise import Noise
from autoresearch.engine.policy import Evidence, Policy
from autoresearch.engine.proposers.base import EXHAUSTED, Proposal, ProposalRequest, Proposer
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.process import end_orphans
from autoresearch.engine.state import BASELINE, State, scores
from autoresearch.engine.task import Budget, Event, Measure, Task
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

MEND_ATTEMPTS = 2  # times a proposer may repair what crashed
PROPOSAL_SECONDS = 900.0  # a proposer's deadline
SAME_CRASHES = 3  # in a row: then the champion must show that the machine still works
EMPTY_PROPOSALS = 5  # in a row: then the proposer is given up
BACKOFF_SECONDS = 5.0
PRUNED = "pruned"  # the kind of failure of a run that was stopped as hopeless

# Leaves an edit in the folder. Called again with the failure to mend it, and the attempt's number.
Edit = Callable[[Path, "Failure | None", int], Proposal]


class StudyStopped(EngineError):
    """The loop can't go on by itself; the message says why, the hint what to do."""


@dataclass
class Loop:
    """One study: its state, and the steps that move it.

    rules: kinds of failure that mean a broken rule (`rejected`) rather than a broken program
    (`crash`). program: what the human wrote for the proposer. first_seed: seeds are this and
    the numbers after it, the same for champion and candidates. large_files: globs of what a run
    leaves that is worth its disk for a champion only. prune: stop a candidate's first run when it
    can't catch up with the champion any more.
    """

    task: Task
    workspace: Workspace
    ledger: Ledger
    measure: Measure
    policy: Policy
    runs: Path
    rules: frozenset[str] = frozenset()
    program: str = ""
    first_seed: int = 0
    on_event: Event = lambda name, data: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    large_files: tuple[str, ...] = ()
    prune: bool = False
    state: State = field(default_factory=State)
    stop_asked: bool = False

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
        self.workspace.recover(self.state.trials.keys(), commit)
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
            self._refuse_moved()
            return self.state.trials[BASELINE]
        started = _now()
        seeds = range(self.task.policy.noise_seeds)
        self._say("trial", {"id": BASELINE, "description": "baseline"})
        with self._scratch(BASELINE) as scratch:
            runs = tuple(self._runs.measure(scratch, BASELINE, seed, "baseline") for seed in seeds)
        broken = next((run.failure for run in runs if run.failure), None)
        if broken is not None:
            raise StudyStopped(
                f"the program fails before anything was changed: {broken.phase}: {broken.message}",
                "mend it, see that `autoresearch train` gives a score, and start again",
            )
        calm = [run for run in runs if not run.disturbed] or list(runs)
        trial = measured(
            Trial(
                id=BASELINE,
                parent=None,
                status=TrialStatus.KEEP,
                reason=f"baseline, measured on {len(runs)} seeds",
                description="baseline",
                commit=self.workspace.champion_commit,
                diff_hash=self.workspace.champion_hash(self.task),
                replicates=runs,
                started_at=started,
            ),
            calm,
        )
        self._record(trial)
        return trial

    def _refuse_moved(self) -> None:
        """Raises ChampionMoved if the branch holds another program than the champion's."""
        champion, head = self._champion(), self.workspace.champion_commit
        if champion.commit in (None, head):
            return
        here, there = (self.workspace.meaning(c, self.task) for c in (head, str(champion.commit)))
        if here != there:
            raise ChampionMoved(
                f"{self.workspace.branch} holds another program than the champion, trial "
                f"{champion.id}: someone committed there",
                f"`autoresearch undo {champion.id}` brings the champion back",
            )

    def digest(self) -> Digest:
        """What a proposer is told of the past."""
        objective = self.task.objective
        records = self.ledger.records()
        return Digest.from_records(records, metric=objective.metric, direction=objective.direction)

    # Driving ---------------------------------------------------------------------------------

    def run(self, proposer: Proposer, budget: Budget) -> str:
        """Trial after trial until the budget is spent or `stop_asked`. Returns why it ended."""
        began, trials_before = self.clock(), self.state.next_id
        self.baseline()
        for trial in self.state.trials.values():
            proposer.observe(trial)
        empty = 0
        while True:
            reason = self._spent(budget, began, trials_before)
            if reason:
                return reason
            outcome = self.trial(_Asker(self, proposer, budget))
            if isinstance(outcome, Trial):
                empty = 0
                proposer.observe(outcome)
                self._after_crashes()
                continue
            if outcome.problem_kind == EXHAUSTED:
                return f"{proposer.name} has nothing left to propose: {outcome.problem}"
            if self.stop_asked:
                continue
            empty += 1
            if empty >= EMPTY_PROPOSALS:
                raise StudyStopped(
                    f"{proposer.name} gave no edit {empty} times in a row: {outcome.problem}",
                    "see `autoresearch log`, try another --agent, or start again later",
                )
            self.sleep(BACKOFF_SECONDS * empty)

    def _spent(self, budget: Budget, began: float, trials_before: int) -> str:
        """Which limit is reached, or ""."""
        if self.stop_asked:
            return "asked to stop"
        # The baseline is no trial that was asked for.
        done = self.state.next_id - max(trials_before, BASELINE + 1)
        if budget.trials is not None and done >= budget.trials:
            return f"{done} trials done"
        if budget.hours is not None and self.clock() - began >= budget.hours * 3600:
            return f"{budget.hours:g} hours are over"
        if budget.dollars is not None and self.state.dollars >= budget.dollars:
            return f"{self.state.dollars:.2f} dollars spent"
        if budget.tokens is not None and self.state.tokens >= budget.tokens:
            return f"{self.state.tokens:,} tokens spent"
        return ""

    def _after_crashes(self) -> None:
        """Several crashes of one kind in a row: see whether the machine or the ideas are at fault.

        Raises StudyStopped if the champion, which has run before, fails too.
        """
        kind, count = self.state.crashes_in_a_row()
        if not count or count % SAME_CRASHES:
            return
        message = f"{count} crashes in a row ({kind}): running the champion to see if it still does"
        self._say("warning", {"message": message})
        self.ledger.append({"kind": "pause", "reason": message, "at": _now()})
        champion = self._champion()
        with self._scratch(self.state.next_id) as scratch:
            seed = champion.replicates[0].seed
            run = self._runs.measure(scratch, champion.id, seed, "check")
        if run.failure is not None:
            raise StudyStopped(
                f"the champion fails as well: {run.failure.phase}: {run.failure.message}",
                "something is wrong with this machine: see `autoresearch doctor`",
            )

    # One trial -------------------------------------------------------------------------------

    def trial(self, edit: Edit) -> Trial | Proposal:
        """One trial of what `edit` leaves in a scratch copy; a Proposal if that has a problem.

        The trial is recorded, and kept or dropped, before this returns.
        """
        self.baseline()
        number, began = self.state.next_id, _now()
        with self._scratch(number) as scratch:
            proposal = edit(scratch, None, 0)
            if proposal.problem:
                self._no_proposal(proposal)
                return proposal
            trial, change = self._mended(number, scratch, proposal, edit)
            trial = replace(trial, started_at=began, finished_at=_now())
            if change is not None:  # also of what isn't kept: it stays reachable by its own ref
                commit = self.workspace.commit(change, self._message(trial), trial.id)
                trial = replace(trial, commit=commit)
            self._record(trial)
            if trial.status is TrialStatus.KEEP and trial.commit:
                self.workspace.advance(trial.commit)
        if trial.status is not TrialStatus.KEEP:
            self._runs.clear(trial.id)
        return trial

    def _mended(
        self, number: int, scratch: Path, proposal: Proposal, edit: Edit
    ) -> tuple[Trial, Change | None]:
        """Judge an edit; what crashes goes back to be mended, a bounded number of times."""
        for attempt in range(MEND_ATTEMPTS + 1):
            self._say("trial", {"id": number, "description": proposal.description})
            trial, change = self._judge(number, scratch, proposal)
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

    def _judge(self, number: int, scratch: Path, proposal: Proposal) -> tuple[Trial, Change | None]:
        """Check, measure and decide; nothing is recorded or kept yet."""
        trial = Trial(
            id=number,
            parent=self._champion().id,
            status=TrialStatus.DISCARD,
            reason="",
            description=proposal.description,
            proposer=str(proposal.details.get("proposer", "")),
            cost=proposal.cost,
            predicted=proposal.predicted,
        )
        try:
            change = self.workspace.collect(scratch, self.task)
            check(change, self.task)
            self._refuse_known(change)
        except Rejected as rejected:
            reason = f"{rejected.rule}: {rejected.message}"
            return replace(trial, status=TrialStatus.REJECTED, reason=reason), None
        (self._runs.folder(number) / "change.diff").write_text(change.diff, encoding="utf-8")
        trial = replace(trial, diff_hash=diff_hash(change), diff_stat=change.stat)
        # What runs is the change alone: nothing else that a proposer left comes along.
        program = self.workspace.program(change, number)
        try:
            return self._decide(trial, program, code_lines_delta(change)), change
        finally:
            self.workspace.drop(program)

    def _refuse_known(self, change: Change) -> None:
        """Refuse what would cost a run and teach nothing. Raises Rejected."""
        if change.means_nothing:
            raise Rejected("no-effect", "only comments, layout or local names differ")
        known = self.state.seen.get(diff_hash(change))
        if known is not None:
            earlier = self.state.trials[known]
            raise Rejected(
                "duplicate",
                f"the same program as trial {known} ({earlier.status}: {earlier.description})",
            )

    def _decide(self, trial: Trial, program: Path, lines_delta: int) -> Trial:
        """Run the candidate, and the champion where it is thin, until the policy decides."""
        champion = self._champion()
        runs: list[Replicate] = []
        repeats: list[Replicate] = []
        while True:
            score_id = runs[0].score_id if runs else champion.score_id
            decision = self.policy.decide(self._evidence(trial, runs, repeats, lines_delta))
            if decision.action != "measure":
                break
            for seed in decision.candidate_seeds:
                curves = self._runs.curves(champion.id) if self.prune and not runs else ()
                runs.append(self._runs.measure(program, trial.id, seed, "candidate", curves))
                ended = self._ended_early(trial, runs, repeats)
                if ended is not None:
                    return ended
            repeats += self._measure_champion(trial.id, decision.champion_seeds, score_id)
            if runs and any(run.score_id != runs[0].score_id for run in repeats):
                reason = "score-id: its score measures something else than the champion's"
                trial = replace(trial, replicates=tuple(runs), champion_replicates=tuple(repeats))
                return measured(replace(trial, status=TrialStatus.REJECTED, reason=reason), runs)
        sign = -1.0 if self.task.objective.direction == "minimize" else 1.0
        return measured(
            replace(
                trial,
                status=TrialStatus(decision.action),
                reason=decision.reason,
                delta=None if decision.delta is None else sign * decision.delta,
                confidence=decision.confidence,
                replicates=tuple(runs),
                champion_replicates=tuple(repeats),
                extra_runs=len(runs) - 1 + len(repeats),
            ),
            runs,
        )

    def _evidence(
        self,
        trial: Trial,
        runs: Sequence[Replicate],
        repeats: Sequence[Replicate],
        lines_delta: int,
    ) -> Evidence:
        champion = self._champion()
        score_id = runs[0].score_id if runs else champion.score_id
        known = {**self.state.scores_of(champion.id, score_id), **scores(repeats, score_id)}
        noise = self.state.noise(score_id, [list(known.values())] if repeats else [])
        return Evidence(
            candidate=scores(runs, score_id),
            champion=known,
            noise=noise or Noise(0.0, 0.0),
            direction=self.task.objective.direction,
            lines_delta=lines_delta,
            turn=trial.id,
        )

    def _ended_early(
        self, trial: Trial, runs: list[Replicate], repeats: list[Replicate]
    ) -> Trial | None:
        """The trial if its latest run already settles it: a failure, a broken rule, disturbance."""
        run = runs[-1]
        trial = replace(trial, replicates=tuple(runs), champion_replicates=tuple(repeats))
        trial = replace(trial, extra_runs=len(runs) - 1 + len(repeats))
        if run.failure is not None:
            status = TrialStatus.REJECTED if run.failure.kind in self.rules else TrialStatus.CRASH
            reason = f"{run.failure.phase}: {run.failure.kind}: {run.failure.message}"
            if run.failure.kind == PRUNED:
                status, reason = TrialStatus.PRUNED, run.failure.message
            return measured(replace(trial, status=status, reason=reason), runs)
        if run.disturbed:
            reason = f"{run.disturbed}, {DISTURBED_RETRIES + 1} times"
            return measured(replace(trial, status=TrialStatus.NOISY, reason=reason), runs)
        broken = self.task.broken_constraint(run.metrics, self.state.baseline_metrics)
        if broken:
            reason = f"constraint: {broken}"
            return measured(replace(trial, status=TrialStatus.REJECTED, reason=reason), runs)
        return None

    # Running ---------------------------------------------------------------------------------

    def _measure_champion(
        self, number: int, seeds: Sequence[int], score_id: str
    ) -> list[Replicate]:
        """The champion on more seeds. Raises StudyStopped if it, which ran before, fails now."""
        if not seeds:
            return []
        with self._scratch(number, "champion") as scratch:
            runs = [self._runs.measure(scratch, number, seed, "champion") for seed in seeds]
        for run in runs:
            if run.failure is not None:
                raise StudyStopped(
                    f"the champion, which ran before, fails: {run.failure.message}",
                    "something is wrong with this machine: see `autoresearch doctor`",
                )
        return runs

    def _champion(self) -> Trial:
        if self.state.champion is None:
            raise StudyStopped("there is no champion yet", "measure the baseline first")
        return self.state.trials[self.state.champion]

    @contextmanager
    def _scratch(self, number: int, name: str = "candidate") -> Iterator[Path]:
        """A copy of the champion of its own, gone afterwards."""
        scratch = self.workspace.scratch(number, name)
        try:
            yield scratch
        finally:
            self.workspace.drop(scratch)

    # Recording -------------------------------------------------------------------------------

    def _record(self, trial: Trial) -> None:
        """Write a trial, and tell whoever watches."""
        self.ledger.append_trial(trial)
        self.state.add(trial)
        self._say("decided", {"trial": trial.to_dict()})

    def _no_proposal(self, proposal: Proposal) -> None:
        tokens = (proposal.cost.tokens_in or 0) + (proposal.cost.tokens_out or 0)
        cost = {**proposal.cost.to_dict(), "tokens": tokens}
        record = {"kind": "no_proposal", "problem": proposal.problem, "cost": cost, "at": _now()}
        self.ledger.append(record)
        self.state.proposals += 1
        self.state.spend(cost)
        self._say("no_proposal", {"problem": proposal.problem})

    def _message(self, trial: Trial) -> str:
        champion = self._champion()
        confidence = "" if trial.confidence is None else f"{trial.confidence:.3f}"
        before = champion.score
        if trial.score is not None and trial.delta is not None:
            before = trial.score - trial.delta  # on the same seeds, where the mean has others too
        return champion_message(
            self.task.objective.metric,
            before,
            trial.score,
            trial.description,
            {
                "Trial": trial.id,
                "Status": trial.status,
                "Confidence": confidence,
                "Reason": trial.reason,
            },
        )

    def _say(self, name: str, data: Mapping[str, Any]) -> None:
        self.on_event(name, data)


@dataclass(frozen=True)
class _Asker:
    """Asks a proposer for an edit, and for its repair."""

    loop: Loop
    proposer: Proposer
    budget: Budget

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        loop, spent = self.loop, self.loop.state.dollars
        loop._say("proposing", {"proposer": self.proposer.name, "attempt": attempt})
        proposal = self.proposer.propose(
            ProposalRequest(
                folder=scratch,
                artifacts=loop.task.artifacts.include,
                program=loop.program,
                digest=loop.digest(),
                seconds=PROPOSAL_SECONDS,
                attempt=attempt,
                failure=failure,
                seed=loop.state.proposals,
                dollars_left=None
                if self.budget.dollars is None
                else max(0.0, self.budget.dollars - spent),
                cancelled=lambda: loop.stop_asked,
            )
        )
        return replace(proposal, details={**proposal.details, "proposer": self.proposer.name})


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

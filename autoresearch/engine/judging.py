"""Judging one edit: hold it against the rules, measure it as far as the policy asks, decide.

    judge = Judge(task, workspace, state, policy, runs, rules, prune=True)
    first = judge.baseline()                          # the program as it stands, on several seeds
    trial, change = judge.judge(trial, scratch)       # what a proposer left in a scratch copy

Nothing here is recorded or kept: the loop does that with what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.engine.change import Change, champion_message, check, diff_hash
from autoresearch.engine.errors import ChampionMoved, Rejected, StudyStopped
from autoresearch.engine.evidence import Evidence
from autoresearch.engine.measuring import (
    DISTURBED_RETRIES,
    Runs,
    code_lines_delta,
    measured,
    other_conditions,
    slow_start,
)
from autoresearch.engine.noise import Noise
from autoresearch.engine.pausing import champion_fails
from autoresearch.engine.policy import Policy
from autoresearch.engine.state import BASELINE, State, scores
from autoresearch.engine.task import Task
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

PRUNED = "pruned"  # the kind of failure of a run that was stopped as hopeless


@dataclass(frozen=True)
class Judge:
    """What judging needs to know; `state` is the loop's, and is only read.

    rules: kinds of failure that mean a broken rule (`rejected`) rather than a broken program
    (`crash`). prune: stop a candidate's first run when it can't catch up with the champion.
    """

    task: Task
    workspace: Workspace
    state: State
    policy: Policy
    runs: Runs
    rules: frozenset[str] = frozenset()
    prune: bool = False

    @property
    def champion(self) -> Trial:
        """The best trial so far. Raises StudyStopped before the baseline was measured."""
        if self.state.champion is None:
            raise StudyStopped("there is no champion yet", "measure the baseline first")
        return self.state.trials[self.state.champion]

    @contextmanager
    def scratch(self, number: int, name: str = "candidate") -> Iterator[Path]:
        """A copy of the champion to be edited, gone afterwards."""
        scratch = self.workspace.scratch(number, name)
        try:
            yield scratch
        finally:
            self.workspace.drop(scratch)

    @contextmanager
    def program(self, source: Change | str, number: int, name: str = "program") -> Iterator[Path]:
        """A commit or a change to be run, gone afterwards."""
        program = self.workspace.program(source, number, name)
        try:
            yield program
        finally:
            self.workspace.drop(program)

    # The champion ----------------------------------------------------------------------------

    def baseline(self) -> Trial:
        """The program as it stands, on several seeds. Raises StudyStopped if it fails."""
        seeds = range(self.task.policy.noise_seeds)
        with self.program(self.workspace.champion_commit, BASELINE, "baseline") as program:
            runs = tuple(self.runs.measure(program, BASELINE, seed, "baseline") for seed in seeds)
        broken = next((run.failure for run in runs if run.failure), None)
        if broken is not None:
            raise StudyStopped(
                f"the program fails before anything was changed: {broken.phase}: {broken.message}",
                "mend it, see that `autoresearch train` gives a score, and start again",
            )
        calm = [run for run in runs if not run.disturbed]
        reason = f"baseline, measured on {len(runs)} seeds"
        if len(calm) < len(runs):
            disturbed = next(run.disturbed for run in runs if run.disturbed)
            reason += f", {len(runs) - len(calm)} of them disturbed: {disturbed}"
        return measured(
            Trial(
                id=BASELINE,
                parent=None,
                status=TrialStatus.KEEP,
                reason=reason,
                description="baseline",
                commit=self.workspace.champion_commit,
                diff_hash=self.workspace.champion_hash(self.task),
                replicates=runs,
            ),
            calm or runs,
        )

    def measure_champion(
        self, number: int, seeds: Sequence[int], label: str = "champion"
    ) -> list[Replicate]:
        """The champion on more seeds, up to the first on which it, which ran before, fails."""
        runs: list[Replicate] = []
        if not seeds:
            return runs
        with self.program(self.workspace.champion_commit, number, "champion") as program:
            for seed in seeds:
                runs.append(self.runs.measure(program, number, seed, label))
                if runs[-1].failure is not None:
                    break
        return runs

    def refuse_moved(self) -> None:
        """Raises ChampionMoved if the branch holds another program than the champion's."""
        champion, head = self.champion, self.workspace.champion_commit
        if champion.commit in (None, head):
            return
        here, there = (self.workspace.meaning(c, self.task) for c in (head, str(champion.commit)))
        if here != there:
            raise ChampionMoved(
                f"{self.workspace.branch} holds another program than the champion, trial "
                f"{champion.id}: someone committed there",
                f"`autoresearch undo {champion.id}` brings the champion back",
            )

    # An edit ---------------------------------------------------------------------------------

    def judge(self, trial: Trial, scratch: Path) -> tuple[Trial, Change | None]:
        """Check, measure and decide what is in `scratch`; None for what broke a rule unmeasured."""
        try:
            change = self.workspace.collect(scratch, self.task)
            own = self._own(change, trial)
            check(own, self.task)
            if self.task.mutation.refuse_known:
                self._refuse_known(change, own)
        except Rejected as rejected:
            reason = f"{rejected.rule}: {rejected.message}"
            return replace(trial, status=TrialStatus.REJECTED, reason=reason), None
        (self.runs.folder(trial.id) / "change.diff").write_text(change.diff, encoding="utf-8")
        trial = replace(trial, diff_hash=diff_hash(change), diff_stat=change.stat)
        # What runs is the change alone: nothing else that a proposer left comes along.
        with self.program(change, trial.id) as program:
            trial = self._decide(trial, program, code_lines_delta(change))
        return replace(trial, warning=self._warning(trial)), change

    def _own(self, change: Change, trial: Trial) -> Change:
        """The edit as its proposer made it: of the program that it was given to edit."""
        if trial.start is None:
            return change
        commit = str(self.state.trials[trial.start].commit)
        return self.workspace.seen_from(change, commit, self.task)

    def _warning(self, trial: Trial) -> str:
        champion = (*self.champion.replicates, *trial.champion_replicates)
        warnings = (
            slow_start(trial.replicates, champion),
            other_conditions(trial.replicates, champion),
        )
        return "; ".join(filter(None, warnings))

    def _refuse_known(self, change: Change, own: Change) -> None:
        """Refuse what would cost a run and teach nothing. Raises Rejected."""
        if own.means_nothing:
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
        champion = self.champion
        runs: list[Replicate] = []
        repeats: list[Replicate] = []
        while True:
            decision = self.policy.decide(self._evidence(trial, runs, repeats, lines_delta))
            if decision.action != "measure":
                break
            for seed in decision.candidate_seeds:
                curves = self.runs.curves(champion.id) if self.prune and not runs else ()
                runs.append(self.runs.measure(program, trial.id, seed, "candidate", curves))
                ended = self._ended_early(trial, runs, repeats)
                if ended is not None:
                    return ended
            again = self.measure_champion(trial.id, decision.champion_seeds)
            repeats += again
            why = next(filter(None, map(_unusable, again)), "")
            if why:  # the machine's doing: nothing is known, and it would be asked for again
                trial = replace(trial, replicates=tuple(runs), champion_replicates=tuple(repeats))
                trial = replace(trial, extra_runs=len(runs) - 1 + len(repeats))
                return measured(replace(trial, status=TrialStatus.NOISY, reason=why), runs)
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
        champion = self.champion
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
            chosen_by=self.state.chosen_by(champion.id, score_id),
            dropped=self.state.dropped(champion.id, score_id),
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

    def message(self, trial: Trial) -> str:
        """What the commit of a trial says: the score before and after, the idea, the decision."""
        champion = self.champion
        confidence = "" if trial.confidence is None else f"{trial.confidence:.3f}"
        before = champion.score
        if trial.score is not None and trial.delta is not None:
            before = trial.score - trial.delta  # on the same seeds, where the mean has others too
        trailers = {
            "Trial": trial.id,
            "Status": trial.status,
            "Start": trial.start,
            "Combines": ", ".join(map(str, trial.combines)),
            "Confidence": confidence,
            "Reason": trial.reason,
        }
        return champion_message(
            self.task.objective.metric,
            before,
            trial.score,
            trial.description,
            {key: value for key, value in trailers.items() if value not in (None, "")},
        )


def _unusable(run: Replicate) -> str:
    """Why a run of the champion says nothing, or ""."""
    if run.failure is not None:
        return champion_fails(run.failure)
    if run.disturbed:
        return f"the champion's: {run.disturbed}, {DISTURBED_RETRIES + 1} times"
    return ""

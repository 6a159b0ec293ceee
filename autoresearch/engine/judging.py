"""Judging one edit: hold it against the rules, measure it as far as the policy asks, decide.

    judge = Judge(task, workspace, state, policy, runs, rules, prune=True)
    trial, change = judge.take(trial, scratch)         # what a proposer left in a scratch copy
    trial = yield from judge.judge(trial, change)      # against the champion that is its parent

What measures is a generator of the runs that it needs: see `engine/steps.py`. Nothing here is
recorded or kept: the loop does that with what comes back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoresearch.engine.change import Change, champion_message, check, diff_hash, edited
from autoresearch.engine.combining import merged_with
from autoresearch.engine.errors import ChampionMoved, Rejected, StudyStopped
from autoresearch.engine.evidence import Evidence
from autoresearch.engine.executor import LOST
from autoresearch.engine.measuring import (
    DISTURBED_RETRIES,
    MADE_FOR,
    Runs,
    code_lines_delta,
    measured,
    other_conditions,
    slow_start,
)
from autoresearch.engine.noise import Noise
from autoresearch.engine.pausing import champion_fails
from autoresearch.engine.policy import Decision, Look, Policy
from autoresearch.engine.stage import CONFIRM, Stage
from autoresearch.engine.state import State, scores
from autoresearch.engine.steps import Steps, Wanted, made
from autoresearch.engine.task import Task
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace

PRUNED = "pruned"  # the kind of failure of a run that was stopped as hopeless


@dataclass(frozen=True)
class Judge:
    """What judging needs to know; `state` is the loop's, and is only read.

    rules: kinds of failure that mean a broken rule (`rejected`) rather than a broken program
    (`crash`). prune: stop a candidate's first run when it can't catch up with the champion.
    in_flight: trials under way, by id, and `programs` who has which, by its hash: none is measured
    twice. screen: where a candidate is sorted out first, on the way to `confirm`. looks: how many
    looks' runs are made at the same time for what is put on a new champion; those that turn out
    not to be asked for don't count.
    """

    task: Task
    workspace: Workspace
    state: State
    policy: Policy
    runs: Runs
    rules: frozenset[str] = frozenset()
    prune: bool = False
    in_flight: Mapping[int, Trial] = field(default_factory=dict)
    programs: Mapping[str, int] = field(default_factory=dict)
    screen: Stage | None = None
    confirm: Stage = CONFIRM
    looks: int = 1

    @property
    def champion(self) -> Trial:
        """The best trial so far. Raises StudyStopped before the baseline was measured."""
        if self.state.champion is None:
            raise StudyStopped("there is no champion yet", "measure the baseline first")
        return self.state.trials[self.state.champion]

    @contextmanager
    def program(self, source: Change | str, number: int, name: str = "program") -> Iterator[Path]:
        """A commit or a change to be run, gone afterwards."""
        program = self.workspace.program(source, number, name)
        try:
            yield program
        finally:
            self.workspace.drop(program)

    # The champion ----------------------------------------------------------------------------

    def check_champion(self) -> Steps[Failure | None]:
        """Run the champion once more, on a seed that it ran on before; how it failed, if it did."""
        champion = self.champion
        seed = champion.replicates[0].seed
        with self.program(self.workspace.champion_commit, champion.id, "champion") as program:
            kind = self.confirm.kind
            runs = yield from made([Wanted(program, champion.id, seed, "check", kind=kind)])
        return runs[0].failure

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

    def take(self, trial: Trial, scratch: Path) -> tuple[Trial, Change | None]:
        """Take back what is in `scratch` and check it; None for what breaks a rule."""
        try:
            change = self.workspace.collect(scratch, self.task)
            own = self._own(change, trial)
            check(own, self.task)
            if self.task.mutation.refuse_known:
                if own.means_nothing:
                    raise Rejected("no-effect", "only comments, layout or local names differ")
                self._refuse_known(change, trial)
        except Rejected as rejected:
            reason = f"{rejected.rule}: {rejected.message}"
            return replace(trial, status=TrialStatus.REJECTED, reason=reason), None
        return replace(trial, diff_hash=diff_hash(change), diff_stat=change.stat), change

    def moved(self, trial: Trial, change: Change) -> Change | None:
        """The same edit on the present champion; None where the two conflict.

        Raises Rejected for what has nothing to add to that champion, or was tried there.
        """
        base = self.workspace.champion_commit
        files = self.workspace.artifacts(base, self.task)
        before = self.workspace.artifacts(change.base, self.task)
        merged = merged_with(self.workspace, files, before, edited(change, before))
        if merged is None:
            return None
        found = self.workspace.edit(merged, base, self.task)
        if found.means_nothing:
            raise Rejected("no-effect", f"trial {self.champion.id}, the champion by now, has it")
        if self.task.mutation.refuse_known:
            self._refuse_known(found, trial)
        return found

    def judge(self, trial: Trial, change: Change) -> Steps[Trial]:
        """Measure and decide, against the champion that is the trial's parent."""
        trial = replace(trial, diff_hash=diff_hash(change), diff_stat=change.stat)
        (self.runs.folder(trial.id) / "change.diff").write_text(change.diff, encoding="utf-8")
        # What runs is the change alone: nothing else that a proposer left comes along.
        with self.program(change, trial.id) as program:
            if self.screen is not None and not trial.won_against:
                trial, decision = yield from self._compare(trial, change, program, self.screen)
                if decision is None or decision.action == "discard":
                    if decision is not None:
                        reason = f"screened out: {decision.reason}"
                        trial = self._decided(trial, decision, TrialStatus.DISCARD, reason)
                    return measured(trial, trial.replicates)
            trial, decision = yield from self._compare(trial, change, program, self.confirm)
        if decision is not None:
            trial = self._decided(trial, decision, TrialStatus(decision.action), decision.reason)
        trial = measured(trial, trial.replicates)
        return replace(trial, warning=self._warning(trial))

    def _decided(self, trial: Trial, decision: Decision, status: TrialStatus, reason: str) -> Trial:
        sign = -1.0 if self.task.objective.direction == "minimize" else 1.0
        return replace(
            trial,
            status=status,
            reason=reason,
            delta=None if decision.delta is None else sign * decision.delta,
            confidence=decision.confidence,
        )

    def _own(self, change: Change, trial: Trial) -> Change:
        """The edit as its proposer made it: of the program that it was given to edit."""
        if trial.start is None:
            return change
        commit = str(self.state.trials[trial.start].commit)
        return self.workspace.seen_from(change, commit, self.task)

    def _warning(self, trial: Trial) -> str:
        parent = self._parent(trial)
        champion = (*parent.replicates, *trial.champion_replicates)
        warnings = (
            slow_start(trial.replicates, champion),
            other_conditions(trial.replicates, champion),
        )
        return "; ".join(filter(None, warnings))

    def _parent(self, trial: Trial) -> Trial:
        """The champion that a trial is held against."""
        return self.champion if trial.parent is None else self.state.trials[trial.parent]

    def _refuse_known(self, change: Change, trial: Trial) -> None:
        """Refuse what would cost a run and teach nothing. Raises Rejected."""
        name = diff_hash(change)
        known = self.state.seen.get(name)
        if known is not None and known != trial.id:
            earlier = self.state.trials[known]
            raise Rejected(
                "duplicate",
                f"the same program as trial {known} ({earlier.status}: {earlier.description})",
            )
        other = self.in_flight.get(self.programs.get(name, -1))
        if other is not None and other.diff_hash == name and other.id != trial.id:
            raise Rejected(
                "duplicate",
                f"the same program as trial {other.id}, which is under way ({other.description})",
            )

    # Measuring -------------------------------------------------------------------------------

    def _compare(
        self, trial: Trial, change: Change, program: Path, stage: Stage
    ) -> Steps[tuple[Trial, Decision | None]]:
        """Run the candidate, and the champion where it is thin, until the policy decides.

        No decision where something else settles it: the trial then says what. A stage that screens
        ends where more runs of the candidate are asked for: it is promising.
        """
        lines_delta = code_lines_delta(change)
        runs: list[Replicate] = []
        repeats: list[Replicate] = []
        spent = trial.extra_runs + bool(trial.screening)  # all that it was screened by

        def known(own: Sequence[Replicate], others: Sequence[Replicate]) -> Evidence:
            return self._evidence(trial, own, others, lines_delta, stage)

        while True:
            decision = self.policy.decide(known(runs, repeats))
            promising = stage.screens and runs and decision.candidate_seeds
            if decision.action != "measure" or promising:
                return trial, decision
            looks = [(decision.candidate_seeds, decision.champion_seeds)]
            if trial.won_against and self.looks > 1:
                foreseen = self.policy.foreseen(known(runs, repeats), self.looks)
                looks = foreseen if foreseen[:1] == looks else looks
            before = len(runs), len(repeats)
            runs, repeats = yield from self._round(
                trial, change, program, stage, looks, (runs, repeats), known
            )
            own, others = runs[before[0] :], repeats[before[1] :]
            trial = replace(trial, **stage.fields(runs, repeats))
            count = sum(MADE_FOR not in run.details for run in (*runs, *repeats))
            trial = replace(trial, extra_runs=spent + count - 1)
            ended = self._ended(own[-1], stage) if own else None
            if ended is not None:
                return replace(trial, status=ended[0], reason=ended[1]), None
            why = next(filter(None, map(_unusable, others)), "")
            if why:  # the machine's doing: nothing is known, and it would be asked for again
                return replace(trial, status=TrialStatus.NOISY, reason=why), None
            if runs and any(run.score_id != runs[0].score_id for run in repeats):
                reason = "score-id: its score measures something else than the champion's"
                return replace(trial, status=TrialStatus.REJECTED, reason=reason), None

    def _round(
        self,
        trial: Trial,
        change: Change,
        program: Path,
        stage: Stage,
        looks: Sequence[Look],
        before: tuple[Sequence[Replicate], Sequence[Replicate]],
        known: Callable[[list[Replicate], list[Replicate]], Evidence],
    ) -> Steps[tuple[list[Replicate], list[Replicate]]]:
        """The runs `before`, the candidate's and the champion's, and those that looks ask for: up
        to a failure, or to a look that decides or asks for something else than was foreseen."""
        first = self.prune and not before[0]
        curves = self.runs.curves(self._parent(trial).id, stage.own) if first else ()
        seeds = [(own, seed) for look in looks for own in (0, 1) for seed in look[own]]
        ends = itertools.accumulate(len(own) + len(others) for own, others in looks)
        next_look = dict(zip((end - 1 for end in ends), looks[1:], strict=False))
        came: dict[int, Replicate] = {}

        def split(last: int) -> tuple[list[Replicate], list[Replicate]]:
            runs = list(before[0]), list(before[1])
            for place in range(last + 1):
                runs[seeds[place][0]].append(came[place])
            return runs

        def enough(place: int, run: Replicate) -> bool:
            came[place] = run
            of_champion = bool(seeds[place][0])
            if run.failure if of_champion else self._ended(run, stage):
                return True
            if place not in next_look:
                return False
            runs, repeats = split(place)
            if any(map(_unusable, repeats)):
                return True
            decision = self.policy.decide(known(runs, repeats))
            return (decision.candidate_seeds, decision.champion_seeds) != next_look[place]

        with ExitStack() as opened:
            folders = [program]
            if any(others for _, others in looks):
                folders.append(
                    opened.enter_context(self.program(change.base, trial.id, "champion"))
                )
            labels, programs = (stage.own[1], stage.champion), ("", change.base)
            wanted = [
                Wanted(folders[a], trial.id, seed, labels[a], (), stage.kind, programs[a])
                for a, seed in seeds
            ]
            if curves and seeds[0][0] == 0:
                wanted[0] = replace(wanted[0], champion_curves=curves)
            runs = yield from made(wanted, enough)
            came.update(enumerate(runs))
            return split(len(runs) - 1)

    def _evidence(
        self,
        trial: Trial,
        runs: Sequence[Replicate],
        repeats: Sequence[Replicate],
        lines_delta: int,
        stage: Stage,
    ) -> Evidence:
        champion = self._parent(trial)
        known_as = champion.score_id
        if stage.screens:
            known_as = next((run.score_id for run in (*repeats, *champion.screening)), "")
        score_id = runs[0].score_id if runs else known_as
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

    def _ended(self, run: Replicate, stage: Stage) -> tuple[TrialStatus, str] | None:
        """How a candidate's run already settles the trial: a failure, a broken rule, disturbance.

        Constraints speak of the kind of device that decides, not of the one that screens.
        """
        failure = run.failure
        if failure is not None:
            if failure.kind == PRUNED:
                return TrialStatus.PRUNED, failure.message
            reason = f"{failure.phase}: {failure.kind}: {failure.message}"
            if failure.kind == LOST:
                return TrialStatus.NOISY, reason
            broken_rule = failure.kind in self.rules
            return TrialStatus.REJECTED if broken_rule else TrialStatus.CRASH, reason
        if run.disturbed:
            return TrialStatus.NOISY, f"{run.disturbed}, {DISTURBED_RETRIES + 1} times"
        broken = not stage.screens and self.task.broken_constraint(
            run.metrics, self.state.baseline_metrics
        )
        return (TrialStatus.REJECTED, f"constraint: {broken}") if broken else None

    def message(self, trial: Trial) -> str:
        """What the commit of a trial says: the score before and after, the idea, the decision."""
        champion = self._parent(trial)
        confidence = "" if trial.confidence is None else f"{trial.confidence:.3f}"
        before = champion.score
        if trial.score is not None and trial.delta is not None:
            before = trial.score - trial.delta  # on the same seeds, where the mean has others too
        trailers = {
            "Trial": trial.id,
            "Status": trial.status,
            "Start": trial.start,
            "Combines": ", ".join(map(str, trial.combines)),
            "Won-Against": ", ".join(map(str, trial.won_against)),
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

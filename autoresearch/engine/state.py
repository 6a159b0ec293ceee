"""What a study knows, derived from its ledger alone: a restart reads it and goes on.

state = State.of(ledger.records())
state.champion, state.scores_of(7, score_id), state.noise(score_id), state.seen
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.engine.ledger import ENVELOPE
from autoresearch.engine.noise import Noise
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus

BASELINE = 0


@dataclass
class State:
    """All trials so far, and the champion among them."""

    trials: dict[int, Trial] = field(default_factory=dict)
    champion: int | None = None  # id of the trial whose program is best
    restored: bool = False  # the champion was brought back by hand, and nothing was kept since
    dollars: float = 0.0
    tokens: int = 0
    proposals: int = 0  # asked for, those that came to nothing included
    pauses: int = 0  # for crashes, since a trial last ran
    # Runs of a champion that were made beside a trial of another, by champion.
    _repeats: dict[int, list[Replicate]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> State:
        """The state after these ledger records."""
        state = cls()
        for record in records:
            state.take(record)
        return state

    def take(self, record: Mapping[str, Any]) -> None:
        """One more ledger record."""
        if record.get("kind") == "trial":
            fields = {name: item for name, item in record.items() if name not in ENVELOPE}
            self.add(Trial.from_dict(fields))
        elif record.get("kind") == "champion":
            self.champion, self.restored = int(record["trial"]), True
        elif record.get("kind") == "pause":
            self.pauses += 1
        elif record.get("kind") == "no_proposal":
            self.proposals += 1
            self.spend(record.get("cost") or {})

    def add(self, trial: Trial) -> None:
        """One more trial; a keep is the new champion."""
        self.trials[trial.id] = trial
        if trial.parent is not None:
            self._repeats.setdefault(trial.parent, []).extend(trial.champion_replicates)
            self.proposals += 1
        if trial.status is TrialStatus.KEEP:
            self.champion, self.restored = trial.id, False
        if trial.replicates and trial.status not in (TrialStatus.CRASH, TrialStatus.NOISY):
            self.pauses = 0
        self.spend({"dollars": trial.cost.dollars, "tokens": _tokens(trial)})

    def spend(self, cost: Mapping[str, Any]) -> None:
        """Count what a proposal cost; what nobody knows counts as nothing."""
        self.dollars += float(cost.get("dollars") or 0.0)
        self.tokens += int(cost.get("tokens") or 0)

    @property
    def next_id(self) -> int:
        """The id of the next trial."""
        return max(self.trials, default=-1) + 1

    @property
    def baseline_metrics(self) -> Mapping[str, float]:
        """Metrics of the first program; {} before it was measured."""
        return self.trials[BASELINE].metrics if BASELINE in self.trials else {}

    @property
    def seen(self) -> dict[str, int]:
        """Every program tried, by the hash of what it says, with the trial that tried it first."""
        found: dict[str, int] = {}
        for trial in self.trials.values():
            # Nothing was concluded of a noisy trial, nor of what something else killed (the system
            # where memory ran out, say): it may be tried again.
            last = trial.replicates[-1].failure if trial.replicates else None
            killed = last is not None and last.kind == "killed"
            if trial.diff_hash and trial.status is not TrialStatus.NOISY and not killed:
                found.setdefault(trial.diff_hash, trial.id)
        return found

    def scores_of(self, trial_id: int, score_id: str) -> dict[int, float]:
        """Score by seed of one trial's program, of one score id."""
        trial = self.trials[trial_id]
        runs = (*trial.replicates, *self._repeats.get(trial_id, ()))
        return scores(runs, score_id)

    def champion_scores(self, trial: Trial) -> dict[int, float]:
        """Score by seed of the champion that a trial was held against, as known at its decision."""
        if trial.parent is None:
            return {}
        rivals = (t for t in self.trials.values() if t.parent == trial.parent and t.id <= trial.id)
        repeats = (run for rival in rivals for run in rival.champion_replicates)
        return scores((*self.trials[trial.parent].replicates, *repeats), trial.score_id)

    def chosen_by(self, trial_id: int, score_id: str) -> int:
        """How many runs of one score id a trial was kept by, its first ones; 0 for a baseline."""
        trial = self.trials[trial_id]
        return 0 if trial.parent is None else len(scores(trial.replicates, score_id))

    def dropped(self, champion: int, score_id: str) -> list[tuple[int, float]]:
        """Seed and score of the first run of every candidate discarded against this champion."""
        rivals = (trial for trial in self.trials.values() if trial.parent == champion)
        runs = (
            scores(trial.replicates, score_id)
            for trial in rivals
            if trial.status is TrialStatus.DISCARD
        )
        return [next(iter(own.items())) for own in runs if own]

    def noise(self, score_id: str, extra: Iterable[list[float]] = ()) -> Noise | None:
        """Noise pooled over all repeats of one score id; None before there are any.

        A candidate's first run is left out where it was selected for being good.
        """
        groups = [list(group) for group in extra]
        pairs = []
        for trial in self.trials.values():
            own = list(self.scores_of(trial.id, score_id).values())
            groups.append(own if trial.parent is None else own[1:])
            if trial.parent is not None and trial.parent in self.trials:
                pairs.append(self._pair(trial, score_id))
        try:
            return Noise.pooled(groups, pairs)
        except ValueError:
            return None

    def _pair(self, trial: Trial, score_id: str) -> tuple[list[float], list[float]]:
        """Champion's and candidate's scores on the seeds they share."""
        mine = scores(trial.replicates, score_id)
        theirs = self.scores_of(trial.parent or BASELINE, score_id)
        shared = [seed for seed in mine if seed in theirs]
        return [theirs[seed] for seed in shared], [mine[seed] for seed in shared]

    def crashes_in_a_row(self) -> tuple[str, int]:
        """The kind of the latest crash, and how many of it ended the study's last trials."""
        kind, count = "", 0
        for trial in reversed(list(self.trials.values())):
            failure = next((r.failure for r in trial.replicates if r.failure), None)
            if trial.status is not TrialStatus.CRASH or failure is None:
                break
            its = _crash_kind(failure)
            if kind and its != kind:
                break
            kind, count = its, count + 1
        return kind, count


def _crash_kind(failure: Failure) -> str:
    """`killed`, `exception ValueError`: programs that fail in different ways say nothing of the
    machine, and seeing that the champion still runs costs a run."""
    name = failure.message.partition(":")[0]
    typed = failure.kind == "exception" and all(part.isidentifier() for part in name.split("."))
    return f"{failure.kind} {name}" if typed else failure.kind


def scores(runs: Iterable[Replicate], score_id: str) -> dict[int, float]:
    """Score by seed of the calm, successful runs of one score id."""
    return {
        run.seed: run.score
        for run in runs
        if run.score is not None and not run.disturbed and run.score_id == score_id
    }


def _tokens(trial: Trial) -> int:
    return (trial.cost.tokens_in or 0) + (trial.cost.tokens_out or 0)

"""What a study knows, derived from its ledger alone: a restart reads it and goes on.

state = State.of(ledger.records())
state.champion, state.scores_of(7, score_id), state.noise(score_id), state.seen
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.engine.executor import LOST
from autoresearch.engine.ledger import ENVELOPE
from autoresearch.engine.noise import Noise
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus

BASELINE = 0
MOST_DROPPED = 1000  # dropped runs that tell of their champion
BEGUN = "begun"  # the kind of record of a trial that is under way
_BEGUN_FIELDS = (
    "id",
    "parent",
    "description",
    "start",
    "combines",
    "commit",
    "diff_hash",
    "proposer",
    "cost",
    "predicted",
    "mended",
    "won_against",
    "extra_runs",
    "started_at",
)


@dataclass
class Pool:
    """Repeats of one score id, by trial: only what says something of the noise is held."""

    score_id: str
    _groups: dict[int, list[float]] = field(default_factory=dict)
    _pairs: dict[int, tuple[list[float], list[float]]] = field(default_factory=dict)
    _known: Noise | None = None
    _fresh: bool = False

    def put_group(self, trial_id: int, scores: list[float]) -> None:
        """The scores of a trial's repeats, in place of those known before."""
        if len(scores) >= 2 and self._groups.get(trial_id) != scores:
            self._groups[trial_id], self._fresh = scores, False

    def put_pair(self, trial_id: int, champion: list[float], candidate: list[float]) -> None:
        """Scores on shared seeds, in place of those known before."""
        pair = champion, candidate
        if len(champion) >= 2 and self._pairs.get(trial_id) != pair:
            self._pairs[trial_id], self._fresh = pair, False

    def noise(self, extra: list[list[float]]) -> Noise | None:
        """What they say together, `extra` groups included; None for nothing."""
        if extra:
            return self._pooled(extra)
        if not self._fresh:
            self._known, self._fresh = self._pooled([]), True
        return self._known

    def _pooled(self, extra: list[list[float]]) -> Noise | None:
        # In the order of ids: sums of floats are the same after a restart then.
        groups = (self._groups[trial_id] for trial_id in sorted(self._groups))
        pairs = (self._pairs[trial_id] for trial_id in sorted(self._pairs))
        try:
            return Noise.pooled([*extra, *groups], pairs)
        except ValueError:
            return None


@dataclass
class State:
    """All trials so far in the order of their decisions, and the champion among them.

    Ids are given when trials begin: where several are under way, they are decided in any order.
    """

    trials: dict[int, Trial] = field(default_factory=dict)
    begun: dict[int, Trial] = field(default_factory=dict)  # under way, as far as it is known
    champion: int | None = None  # id of the trial whose program is best
    restored: bool = False  # the champion was brought back by hand, and nothing was kept since
    dollars: float = 0.0
    tokens: int = 0
    proposals: int = 0  # asked for, those that came to nothing included
    pauses: int = 0  # for crashes, since a trial last ran
    next_id: int = BASELINE  # of the next trial
    # Every program tried, by the hash of what it says, with the trial that tried it first.
    seen: dict[str, int] = field(default_factory=dict)
    _rivals: dict[int, list[Trial]] = field(default_factory=dict)  # by the champion they met
    # Runs of a champion that were made beside a trial of another, by champion.
    _repeats: dict[int, list[Replicate]] = field(default_factory=dict)
    # By champion and score id: how many of its rivals were looked at, and what `dropped` says.
    _dropped: dict[tuple[int, str], tuple[int, list[tuple[int, float]]]] = field(
        default_factory=dict
    )
    _pools: dict[str, Pool] = field(default_factory=dict)  # by score id

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
        elif record.get("kind") == BEGUN:
            self.begin(trial_begun(record))
        elif record.get("kind") == "champion":
            self.champion, self.restored = int(record["trial"]), True
        elif record.get("kind") == "pause":
            self.pauses += 1
        elif record.get("kind") == "no_proposal":
            self.proposals += 1
            self.spend(record.get("cost") or {})

    def begin(self, trial: Trial) -> None:
        """A trial is under way, or goes on with another edit; what it cost counts from now on."""
        self._count(trial)
        self.begun[trial.id] = trial

    def add(self, trial: Trial) -> None:
        """One more trial; a keep is the new champion."""
        self._count(trial)
        self.begun.pop(trial.id, None)
        self.trials[trial.id] = trial
        if trial.parent is not None:
            self._rivals.setdefault(trial.parent, []).append(trial)
            repeats = self._repeats.setdefault(trial.parent, [])
            repeats += (*trial.champion_replicates, *trial.champion_screening)
        if trial.status is TrialStatus.KEEP:
            self.champion, self.restored = trial.id, False
        if trial.replicates and trial.status not in (TrialStatus.CRASH, TrialStatus.NOISY):
            self.pauses = 0
        # Nothing was concluded of a noisy trial, nor of what something else killed (the system
        # where memory ran out, say): it may be tried again.
        last = trial.replicates[-1].failure if trial.replicates else None
        killed = last is not None and last.kind == "killed"
        if trial.diff_hash and trial.status is not TrialStatus.NOISY and not killed:
            self.seen.setdefault(trial.diff_hash, trial.id)
        for pool in self._pools.values():
            self._pour(pool, trial)

    def _count(self, trial: Trial) -> None:
        """A proposal and its cost, less what was counted when its trial began."""
        before = self.begun.get(trial.id)
        if before is None and trial.parent is not None:
            self.proposals += 1
        known = before.cost if before is not None else Cost()
        self.dollars += (trial.cost.dollars or 0.0) - (known.dollars or 0.0)
        self.tokens += _tokens(trial.cost) - _tokens(known)
        self.next_id = max(self.next_id, trial.id + 1)

    def spend(self, cost: Mapping[str, Any]) -> None:
        """Count what a proposal cost; what nobody knows counts as nothing."""
        self.dollars += float(cost.get("dollars") or 0.0)
        self.tokens += int(cost.get("tokens") or 0)

    @property
    def baseline_metrics(self) -> Mapping[str, float]:
        """Metrics of the first program; {} before it was measured."""
        return self.trials[BASELINE].metrics if BASELINE in self.trials else {}

    def scores_of(self, trial_id: int, score_id: str) -> dict[int, float]:
        """Score by seed of one trial's program, of one score id."""
        return scores(self.runs_of(trial_id), score_id)

    def runs_of(self, trial_id: int) -> tuple[Replicate, ...]:
        """All runs of one trial's program: its own, then those made beside other trials."""
        trial = self.trials[trial_id]
        return (*trial.replicates, *trial.screening, *self._repeats.get(trial_id, ()))

    def champion_scores(self, trial: Trial) -> dict[int, float]:
        """Score by seed of the champion that a trial was held against, as known at its decision."""
        if trial.parent is None:
            return {}
        repeats: list[Replicate] = []
        for rival in self._rivals.get(trial.parent, ()):
            repeats += rival.champion_replicates
            if rival.id == trial.id:
                break
        return scores((*self.trials[trial.parent].replicates, *repeats), trial.score_id)

    def chosen_by(self, trial_id: int, score_id: str) -> int:
        """How many runs of one score id a trial was kept by, its first ones; 0 for a baseline."""
        trial = self.trials[trial_id]
        own = (*trial.replicates, *trial.screening)
        return 0 if trial.parent is None else len(scores(own, score_id))

    def dropped(self, champion: int, score_id: str) -> list[tuple[int, float]]:
        """Seed and score of the first run of candidates discarded against this champion, of the
        first MOST_DROPPED: by then the champion is as well known as it gets."""
        rivals = self._rivals.get(champion, [])
        looked, found = self._dropped.get((champion, score_id), (0, []))
        for trial in rivals[looked:]:  # asked at each decision: those before are known
            own = scores((*trial.replicates, *trial.screening), score_id)
            if own and trial.status is TrialStatus.DISCARD and len(found) < MOST_DROPPED:
                found.append(next(iter(own.items())))
        self._dropped[champion, score_id] = len(rivals), found
        return found

    # How much a score moves from seed to seed -------------------------------------------------

    def noise(self, score_id: str, extra: Iterable[list[float]] = ()) -> Noise | None:
        """Noise pooled over all repeats of one score id; None before there are any.

        A candidate's first run is left out where it was selected for being good.
        """
        pool = self._pools.get(score_id)
        if pool is None:
            pool = self._pools[score_id] = Pool(score_id)
            for trial in self.trials.values():
                self._pour(pool, trial)
        return pool.noise([list(group) for group in extra])

    def _pour(self, pool: Pool, trial: Trial) -> None:
        """What one more trial adds to the noise: its own repeats, and those of its champion."""
        self._group(pool, trial)
        parent = None if trial.parent is None else self.trials.get(trial.parent)
        if parent is None:
            return
        self._pair(pool, trial)
        if scores((*trial.champion_replicates, *trial.champion_screening), pool.score_id):
            self._group(pool, parent)
            for rival in self._rivals.get(parent.id, ()):
                self._pair(pool, rival)

    def _group(self, pool: Pool, trial: Trial) -> None:
        own = list(self.scores_of(trial.id, pool.score_id).values())
        pool.put_group(trial.id, own if trial.parent is None else own[1:])

    def _pair(self, pool: Pool, trial: Trial) -> None:
        """Champion's and candidate's scores on the seeds they share."""
        mine = scores((*trial.replicates, *trial.screening), pool.score_id)
        if len(mine) < 2:
            return
        theirs = self.scores_of(trial.parent or BASELINE, pool.score_id)
        shared = [seed for seed in mine if seed in theirs]
        pool.put_pair(trial.id, [theirs[seed] for seed in shared], [mine[seed] for seed in shared])

    def crashes_in_a_row(self) -> tuple[str, int]:
        """The kind of the latest crash, and how many of it ended the study's last trials.

        That no worker survived a run is one, too.
        """
        kind, count = "", 0
        for trial in reversed(self.trials.values()):
            runs = (*trial.screening, *trial.replicates)
            failure = next((run.failure for run in runs if run.failure), None)
            if failure is None or not (trial.status is TrialStatus.CRASH or failure.kind == LOST):
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


def _tokens(cost: Cost) -> int:
    return (cost.tokens_in or 0) + (cost.tokens_out or 0)


def record_begun(trial: Trial) -> dict[str, Any]:
    """The ledger's record that a trial is under way: all that judging it again needs."""
    fields = trial.to_dict()
    return {"kind": BEGUN, **{name: fields[name] for name in _BEGUN_FIELDS}}


def trial_begun(record: Mapping[str, Any]) -> Trial:
    """The undecided trial of such a record. Raises RecordError."""
    fields = {name: record[name] for name in _BEGUN_FIELDS if name in record}
    return Trial.from_dict({**fields, "status": TrialStatus.DISCARD, "reason": ""})

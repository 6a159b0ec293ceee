"""The trials of a study as rows of a table: what charts and tables show, one flat dict a trial.

    rows = Rows("minimize", kind=lambda trial: "model size")
    rows.take(trial)             # in the ledger's order
    rows.rows[-1]["gain"], rows.spent["training", "keep"]

Numbers that JSON lacks are None. Gains are positive where a trial is better, in either direction.
"""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from autoresearch.engine.measuring import MADE_FOR
from autoresearch.engine.proposers.text import clean, one_line
from autoresearch.engine.trial import Replicate, Trial, TrialStatus

IDEA, REASON = 300, 600  # characters kept of a proposer's words, and of a decision's
PROPOSING = "proposing"  # what passes outside of runs: the proposer, git, checks
OTHER = "other"  # of a run, in none of its phases
BETWEEN = "between trials"  # asking for what came to nothing, commits, pauses
STILL = "standing still"  # longer than any of that takes
LONG = 900.0  # seconds between trials from which the study stood still
_FIGURES = {
    "tokens": "tokens",
    "tokens_per_second": "tokens_per_second",
    "mfu": "mfu_percent",
    "mfu_measured": "mfu_measured_percent",
    "memory_mb": "peak_memory_mb",
    "steps": "num_steps",
    "params": "num_params",
}


class Rows:
    """Takes trials one after the other; `rows` grows, and what was there stays as it is."""

    def __init__(self, direction: str, kind: Callable[[Trial], str]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.score_ids: list[str] = []  # in the order of their appearance
        self.spent: dict[tuple[str, str], float] = {}  # seconds by phase and status
        self._better = -1.0 if direction == "minimize" else 1.0
        self._kind = kind
        self._champion: int | None = None
        self._levels: dict[tuple[int, str], float] = {}  # a champion's score under a score id
        self._began: datetime.datetime | None = None
        self._hours, self._tokens, self._score_id = 0.0, 0.0, ""

    def restore(self, champion: int) -> None:
        """An earlier champion was brought back by hand."""
        self._champion = champion

    def take(self, trial: Trial) -> dict[str, Any]:
        """The row of one more trial."""
        elapsed = self._clock(trial)
        self._tokens += sum(_tokens(run) for run in (*trial.replicates, *trial.champion_replicates))
        self._place(trial)
        seconds = self._seconds(trial, elapsed)
        row = {
            "id": trial.id,
            "decision": len(self.rows),  # its place among all: ids are given when trials begin
            "parent": trial.parent,
            "status": trial.status.value,
            "idea": one_line(trial.description, IDEA),
            "reason": one_line(trial.reason, REASON),
            "kind": self._kind(trial),
            "part": self.score_ids.index(self._score_id) if self._score_id else 0,
            "score": finite(trial.score),
            "best": self._best(),
            "delta": finite(trial.delta),
            "gain": self._gain(trial.delta),
            "confidence": finite(trial.confidence),
            "predicted": finite(trial.predicted),
            "predicted_gain": self._gain(trial.predicted),
            "started_at": trial.started_at,
            "finished_at": trial.finished_at,
            "hours": self._hours,
            "minutes": 60 * self._hours,
            "elapsed": elapsed,
            "tokens_spent": self._tokens,
            "runs": len(trial.replicates) + len(trial.champion_replicates),
            "extra_runs": trial.extra_runs,
            "seconds": seconds,
            "dollars": finite(trial.cost.dollars),
            "tokens_in": trial.cost.tokens_in,
            "tokens_out": trial.cost.tokens_out,
            "cost_known": trial.cost.known,
            "proposer": clean(trial.proposer),
            "warning": one_line(trial.warning, REASON),
            "lines": trial.diff_stat.added + trial.diff_stat.removed,
            **{name: finite(trial.metrics.get(key)) for name, key in _FIGURES.items()},
        }
        self.rows.append(row)
        return row

    def _clock(self, trial: Trial) -> float | None:
        """Seconds that a trial took; moves `hours`, which never go back though a clock was set."""
        try:
            start, end = map(datetime.datetime.fromisoformat, (trial.started_at, trial.finished_at))
            self._began = self._began or start
            gap = (start - self._began).total_seconds() - 3600 * self._hours
            if gap > 0:
                self._spend(STILL if gap > LONG else BETWEEN, trial, gap)
            self._hours = max(self._hours, (end - self._began).total_seconds() / 3600)
            taken = (end - start).total_seconds()
        except (ValueError, TypeError):  # no time, or one with a zone and one without
            return None
        return taken if taken >= 0 else None

    def _place(self, trial: Trial) -> None:
        """Know what the champion scored under each score id, this trial included."""
        for run in (*trial.replicates, *trial.champion_replicates):
            if run.score_id and run.score_id not in self.score_ids:
                self.score_ids.append(run.score_id)
        if trial.score_id:
            self._score_id = trial.score_id
        owners: list[tuple[int, Sequence[Replicate]]] = [(trial.id, trial.replicates)]
        if trial.parent is not None:
            owners.append((trial.parent, trial.champion_replicates))
        for owner, runs in owners:
            for score_id in {run.score_id for run in runs} - {""}:
                found = [run.score for run in runs if run.score_id == score_id]
                known = [score for score in found if score is not None and math.isfinite(score)]
                if known:
                    self._levels.setdefault((owner, score_id), statistics.fmean(known))
        if trial.status is TrialStatus.KEEP:
            self._champion = trial.id

    def _gain(self, delta: float | None) -> float | None:
        known = finite(delta)
        return None if known is None else self._better * known

    def _best(self) -> float | None:
        if self._champion is None:
            return None
        return self._levels.get((self._champion, self._score_id))

    def _seconds(self, trial: Trial, elapsed: float | None) -> dict[str, float]:
        """By phase, all runs of the trial together; what no phase accounts for is `other`."""
        phases = {k: v for k, v in trial.seconds.items() if k != "total" and math.isfinite(v)}
        inside = sum(phases.values())
        total = max(inside, trial.seconds.get("total", inside))
        if total > inside:
            phases[OTHER] = total - inside
        if elapsed is not None and elapsed > total:
            phases[PROPOSING] = elapsed - total
        for phase, value in phases.items():
            self._spend(phase, trial, value)
        return phases

    def _spend(self, phase: str, trial: Trial, seconds: float) -> None:
        key = phase, trial.status.value
        self.spent[key] = self.spent.get(key, 0.0) + seconds


def _tokens(run: Replicate) -> float:
    if MADE_FOR in run.details:  # counted where it was made
        return 0.0
    return finite(run.metrics.get("tokens")) or 0.0


def finite(value: float | None) -> float | None:
    """The number, or None for none and for what JSON lacks."""
    return value if value is not None and math.isfinite(value) else None

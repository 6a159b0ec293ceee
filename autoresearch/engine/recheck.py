"""Does a study's gain hold? The first program and the champion again, on seeds neither has seen.

    found = recheck(loop, seeds=5)
    found.gain, found.confidence, found.wins

A champion is the best of many tries, so the scores it was chosen by flatter it. These don't: they
are made after the choice, on other seeds, and nothing is decided by them.
"""

from __future__ import annotations

import datetime
import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.engine.errors import EngineError, StudyStopped
from autoresearch.engine.noise import NORMAL, normal_equivalent
from autoresearch.engine.state import BASELINE

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop
    from autoresearch.engine.trial import Trial

KIND = "recheck"
# No study decides on seeds this far up: they stay fresh.
FIRST_FRESH_SEED = 1_000_000


class NothingToRecheck(EngineError):
    """The champion is the baseline: no gain was claimed."""

    exit_code = 2


class RecheckFailed(EngineError):
    """A program that was scored before gives no score now."""


@dataclass(frozen=True)
class Recheck:
    """Scores by fresh seed, and what they say together.

    gain: mean by which the champion is better, in the score's unit, positive in either direction.
    confidence: that it is better at all, from the paired differences by Student's t.
    """

    trial: int
    seeds: tuple[int, ...]
    baseline: tuple[float, ...]
    champion: tuple[float, ...]
    gain: float
    se: float
    confidence: float
    wins: int

    @classmethod
    def of(
        cls,
        trial: int,
        seeds: tuple[int, ...],
        baseline: tuple[float, ...],
        champion: tuple[float, ...],
        direction: str,
    ) -> Recheck:
        """From at least two pairs of scores. Raises ValueError for fewer."""
        sign = 1.0 if direction == "minimize" else -1.0
        gains = [sign * (b - c) for b, c in zip(baseline, champion, strict=True)]
        if len(gains) < 2:
            raise ValueError("at least two seeds are needed to tell a gain from noise")
        gain = statistics.fmean(gains)
        se = statistics.stdev(gains) / math.sqrt(len(gains))
        if se:
            confidence = NORMAL.cdf(normal_equivalent(gain / se, len(gains) - 1))
        else:  # repeats agree exactly
            confidence = float(gain > 0)
        wins = sum(one > 0 for one in gains)
        return cls(trial, seeds, baseline, champion, gain, se, confidence, wins)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def recheck(loop: Loop, seeds: int) -> Recheck:
    """Run both programs on `seeds` fresh seeds, in turn, and record what came of it.

    Call it again for other seeds. Raises NothingToRecheck, RecheckFailed, and what running raises.
    """
    state = loop.state
    if state.champion is None or state.champion == BASELINE:
        raise NothingToRecheck(
            "the champion is the baseline: there is no gain to measure again",
            "`autoresearch run` looks for one",
        )
    done = sum(len(record["seeds"]) for record in loop.ledger.records(KIND))
    first = FIRST_FRESH_SEED + done
    fresh = tuple(range(first, first + seeds))
    pair = (state.trials[BASELINE], state.trials[state.champion])
    scores: dict[int, list[float]] = {trial.id: [] for trial in pair}
    for seed in fresh:
        for trial in pair:  # in turn, so that a slow hour hits both
            if loop.stop_asked:
                raise StudyStopped("asked to stop before all seeds were run; nothing is recorded")
            scores[trial.id].append(_score(loop, trial, seed))
    found = Recheck.of(
        state.champion,
        fresh,
        tuple(scores[BASELINE]),
        tuple(scores[state.champion]),
        loop.task.objective.direction,
    )
    at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    loop.ledger.append({"kind": KIND, **found.to_dict(), "at": at})
    return found


def _score(loop: Loop, trial: Trial, seed: int) -> float:
    """One run of a trial's program from its commit."""
    program = loop.workspace.program(str(trial.commit), trial.id, "recheck")
    try:
        run = loop._runs.measure(program, trial.id, seed, "recheck")
    finally:
        loop.workspace.drop(program)
        for pattern in loop.large_files:  # the champion's weights are kept once
            for path in loop._runs.folder(trial.id).glob(f"recheck-*/{pattern}"):
                path.unlink(missing_ok=True)
    if run.score is None or run.disturbed:
        why = run.disturbed or (run.failure.message if run.failure else "no score")
        raise RecheckFailed(
            f"trial {trial.id}, which was scored before, gives none now: {why}",
            "see `autoresearch doctor`, and try again on a calm machine",
        )
    return run.score

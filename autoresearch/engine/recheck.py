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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.engine.errors import EngineError, StudyStopped
from autoresearch.engine.noise import NORMAL, normal_equivalent
from autoresearch.engine.state import BASELINE
from autoresearch.engine.steps import Steps, Wanted, made

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop
    from autoresearch.engine.trial import Replicate, Trial

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
    with loop.dropping():
        runs = loop.flight.finish(_runs(loop, pair, fresh))
    if len(runs) < 2 * seeds and not _unscored(runs[-1]):
        raise StudyStopped("asked to stop before all seeds were run; nothing is recorded")
    for place, run in enumerate(runs):
        why = _unscored(run)
        if why:
            raise RecheckFailed(
                f"trial {pair[place % 2].id}, which was scored before, gives none now: {why}",
                "see `autoresearch doctor`, and try again on a calm machine",
            )
    scores = [float(run.score or 0.0) for run in runs]
    found = Recheck.of(
        state.champion,
        fresh,
        tuple(scores[0::2]),
        tuple(scores[1::2]),
        loop.task.objective.direction,
    )
    at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    loop.ledger.append({"kind": KIND, **found.to_dict(), "at": at})
    return found


def _runs(loop: Loop, pair: Sequence[Trial], seeds: Sequence[int]) -> Steps[list[Replicate]]:
    """Both programs from their commits, in turn, so that a slow hour hits both."""
    judge, kind = loop.judge, loop.confirm
    with ExitStack() as opened:
        try:
            places = [
                opened.enter_context(judge.program(str(trial.commit), trial.id, "recheck"))
                for trial in pair
            ]
            wanted = [
                Wanted(place, trial.id, seed, "recheck", kind=kind)
                for seed in seeds
                for trial, place in zip(pair, places, strict=True)
            ]
            enough = lambda place, run: bool(_unscored(run)) or loop.stop_asked  # noqa: E731
            return (yield from made(wanted, enough))
        finally:
            for trial in pair:  # the champion's weights are kept once
                for pattern in loop.large_files:
                    for path in loop.folders.folder(trial.id).glob(f"recheck-*/{pattern}"):
                        path.unlink(missing_ok=True)


def _unscored(run: Replicate) -> str:
    """Why a run tells nothing, or ""."""
    if run.score is not None and not run.disturbed:
        return ""
    return run.disturbed or (run.failure.message if run.failure else "no score")

"""Stop a run that can't catch up with the champion any more. Pure: curves in, verdict out.

    verdict = Pruner().judge(curve, champion_curves, budget=300.0)

A training-loss curve says little about the final score while learning rates differ: a candidate
that decays late looks bad until it decays. So a run is stopped only when even an optimistic rest
of it ends behind the champion, beyond noise, at two points in time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Elapsed budget (seconds or tokens, as `budget`) and training loss, in order.
Curve = Sequence[tuple[float, float]]

# Losses of the first step further apart than this are not the same quantity (an auxiliary loss,
# another vocabulary): untrained models all guess about uniformly.
START_TOLERANCE = 0.05
MIN_POINTS = 4  # in a window, below which its level isn't known


@dataclass(frozen=True)
class Verdict:
    """stop: whether to end the run now. behind: optimistic final loss less the champion's."""

    stop: bool
    reason: str
    behind: float | None = None


@dataclass(frozen=True)
class Level:
    """Mean loss of a window and its standard error."""

    loss: float
    se: float


@dataclass(frozen=True)
class Pruner:
    """When a curve is hopeless.

    min_share: share of the budget before which nothing is stopped; also where the champion's
    late drop is measured from. max_share: after it a stop saves nothing. window: share of the
    budget that a level is averaged over. catch_up: how many times the champion's whole drop after
    `min_share` the candidate is granted for the rest, however little is left. sigmas: how far
    behind, in noise, it must end even then.
    """

    min_share: float = 0.5
    max_share: float = 0.95
    window: float = 0.1
    catch_up: float = 1.5
    sigmas: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.window <= self.min_share <= self.max_share <= 1:
            raise ValueError("0 < window <= min_share <= max_share <= 1 must hold")
        if self.catch_up < 1 or self.sigmas <= 0:
            raise ValueError("catch_up must be at least 1 and sigmas above 0")

    def judge(self, curve: Curve, champions: Sequence[Curve], budget: float = 1.0) -> Verdict:
        """Stop or go on, from the run's curve so far and the champion's finished ones.

        `budget` is in the unit of the curves' first column. Raises ValueError if it isn't above 0.
        """
        if not budget > 0:
            raise ValueError(f"budget must be above 0, not {budget}")
        own = [(elapsed / budget, loss) for elapsed, loss in curve]
        others = [_finite([(elapsed / budget, loss) for elapsed, loss in c]) for c in champions]
        others = [c for c in others if c and c[-1][0] >= 1 - self.window / 2]
        if not own or not others:
            return Verdict(False, "no finished curve of the champion to compare with")
        now = own[-1][0]
        if not self.min_share + self.window / 2 <= now <= self.max_share:
            return Verdict(False, f"{now:.0%} of the budget spent: too early or too late to stop")
        if _mostly_broken(own, now - self.window):
            return Verdict(True, "the training loss is not a number", None)
        own = _finite(own)
        if not _comparable(own, others):
            return Verdict(False, "the first losses differ: not the same quantity")
        # Twice, half a window apart: one spike of the loss stops nothing.
        verdicts = [self._at(own, others, share) for share in (now - self.window / 2, now)]
        return verdicts[-1] if verdicts[0].stop else verdicts[0]

    def _at(self, own: Curve, others: Sequence[Curve], share: float) -> Verdict:
        here = _level(own, share - self.window, share)
        before = _level(own, share - 2 * self.window, share - self.window)
        half = [_level(c, self.min_share - self.window, self.min_share) for c in others]
        ends = [_level(c, 1 - self.window, math.inf) for c in others]
        known = [(h, e) for h, e in zip(half, ends, strict=True) if h and e]
        if here is None or before is None or not known:
            return Verdict(False, "too few points to tell")
        end = statistics.fmean(e.loss for _, e in known)
        late_drop = max(0.0, *(h.loss - e.loss for h, e in known))
        trend = max(0.0, before.loss - here.loss) * (1 - share) / self.window
        optimistic = here.loss - max(self.catch_up * late_drop, self.catch_up * trend)
        noise = _noise(here, before, [e for _, e in known])
        behind = optimistic - end
        said = (
            f"at {share:.0%} of the budget the loss is {here.loss:.4g}; granted a drop of "
            f"{here.loss - optimistic:.3g} more it ends at {optimistic:.4g}, "
            f"the champion's is {end:.4g} (noise {noise:.2g})"
        )
        if behind > self.sigmas * noise:
            return Verdict(True, f"hopeless: {said}", behind)
        return Verdict(False, f"may still catch up: {said}", behind)


def _finite(curve: Curve) -> list[tuple[float, float]]:
    return [(share, loss) for share, loss in curve if math.isfinite(loss)]


def _mostly_broken(curve: Curve, since: float) -> bool:
    recent = [loss for share, loss in curve if share > since]
    return sum(not math.isfinite(loss) for loss in recent) > len(recent) / 2


def _comparable(own: Curve, others: Sequence[Curve]) -> bool:
    if not own:
        return False
    start = statistics.median(c[0][1] for c in others)
    return abs(own[0][1] - start) <= START_TOLERANCE * abs(start)


def _level(curve: Curve, since: float, until: float) -> Level | None:
    losses = [loss for share, loss in curve if since < share <= until]
    if len(losses) < MIN_POINTS:
        return None
    se = statistics.stdev(losses) / math.sqrt(len(losses))
    return Level(statistics.fmean(losses), se)


def _noise(here: Level, before: Level, ends: Sequence[Level]) -> float:
    """Standard error of the gap: batches within each window, and seeds among the champion's."""
    within = here.se**2 + statistics.fmean(e.se**2 for e in ends) / len(ends)
    # Losses of neighbouring steps are correlated: believe the larger of two windows.
    within = max(within, before.se**2)
    if len(ends) < 2:
        return math.sqrt(2 * within)
    between = statistics.variance([e.loss for e in ends])
    return math.sqrt(within + between * (1 + 1 / len(ends)))

"""How much a score moves from seed to seed, and estimates that one odd seed can't spoil.

    noise = Noise.pooled([baseline_scores, champion_scores, later_scores])

Three seeds of a baseline give two degrees of freedom. Every group of repeats with the same score
id adds its own, so the estimate hardens during a study. Seeds are mostly calm and now and then
far off (measured: standard deviation 0.002 and one seed in five 0.03 away), hence the caps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NORMAL = statistics.NormalDist()

# Huber's k in units of the noise: 97% efficient on a normal, a far seed pulls like one 2 sd off.
HUBER_K = 2.0
# A run this many sd from the median of its group is odd: 1 calm run in a million.
ODD_DISTANCE = 5.0
# A group's sum of squares counts up to this quantile of chi-squared: 1 honest group in 100 is cut.
CAP_QUANTILE = 0.99
# Below this many degrees of freedom nothing tells an outlier from a noisy scorer: no capping.
MIN_DOF_TO_CAP = 5
# A run whose distance from its group has a smaller p-value than this is odd and left out.
ODD_P = 0.02
# The smallest group in which one run can be told to be odd rather than the others lucky.
MIN_GROUP_TO_DROP = 4
# Degrees of freedom by which a correlation is drawn to what is believed beforehand (0).
CORRELATION_SHRINK = 4.0
MAX_CORRELATION = 0.95


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run's score, in the score's unit, and how well it is known.

    dof: degrees of freedom behind `sd`. correlation: of two train modules' scores on the same
    seed, drawn towards 0; at 0 pairing by seed brings nothing.
    """

    sd: float
    dof: float
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not (self.sd >= 0 and math.isfinite(self.sd)):
            raise ValueError(f"sd must be finite and at least 0, not {self.sd}")
        if not self.dof >= 0:
            raise ValueError(f"dof must be at least 0, not {self.dof}")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation must lie in [0, 1), not {self.correlation}")

    @classmethod
    def pooled(
        cls,
        groups: Iterable[Sequence[float]],
        pairs: Iterable[tuple[Sequence[float], Sequence[float]]] = (),
        prior: Noise | None = None,
    ) -> Noise:
        """The noise common to groups of repeats; each group has one train module's scores.

        Args:
            groups: scores of the same score id. Leave out a candidate's first run: it was
                selected for being good, which widens its group (by half in variance for two
                runs). Groups of fewer than two scores say nothing and are passed over.
            pairs: champion's and candidate's scores on the same seeds, first runs included:
                selection only lowers the correlation that they show.
            prior: what is believed beforehand, worth `prior.dof` degrees of freedom; its
                correlation is worth 4.

        Raises ValueError when no group has two finite scores and there is no prior.
        """
        kept = [[float(x) for x in group if math.isfinite(x)] for group in groups]
        kept = [_without_odd(group) for group in kept if len(group) >= 2]
        squares = [(_sum_of_squares(group), len(group) - 1) for group in kept]
        dof = float(sum(d for _, d in squares))
        prior_dof = prior.dof if prior else 0.0
        if dof + prior_dof <= 0:
            raise ValueError("no group has two scores: measure the baseline on more seeds")
        prior_ss = prior.sd**2 * prior.dof if prior else 0.0
        variance = (sum(ss for ss, _ in squares) + prior_ss) / (dof + prior_dof)
        if dof >= MIN_DOF_TO_CAP and len(squares) >= 2:
            variance = _capped_variance(squares, kept, prior_ss, dof + prior_dof)
        return cls(
            math.sqrt(variance),
            dof + prior_dof,
            _correlation(pairs, prior.correlation if prior else 0.0),
        )

    def widened_by(self, scores: Sequence[float]) -> Noise:
        """This noise with the scatter of one more train module's runs counted in.

        Once the noise is known well enough, a group counts for no more than chance explains.
        """
        dof = len(scores) - 1
        if dof < 1 or self.dof + dof <= 0:
            return self
        squares = _sum_of_squares(scores)
        if self.dof >= MIN_DOF_TO_CAP:
            squares = min(squares, self.sd**2 * chi_squared_quantile(CAP_QUANTILE, dof))
        variance = (self.sd**2 * self.dof + squares) / (self.dof + dof)
        return Noise(math.sqrt(variance), self.dof + dof, self.correlation)


def oddest(group: Sequence[float]) -> tuple[int, float]:
    """Index of the run farthest from the others of its group, and how improbable it is there.

    The p-value is that of the externally studentised residual, times the group's size (Grubbs
    1950, in its leave-one-out form). Below three scores it is 1; with three it rarely gets small.
    """
    n = len(group)
    if n < 3:
        return 0, 1.0
    mean = math.fsum(group) / n
    far = max(range(n), key=lambda i: abs(group[i] - mean))
    rest = [x for i, x in enumerate(group) if i != far]
    centre = math.fsum(rest) / (n - 1)
    sd = math.sqrt(_sum_of_squares(rest) / (n - 2))
    if sd == 0:
        return far, 1.0 if group[far] == centre else 0.0
    t = abs(group[far] - centre) / (sd * math.sqrt(n / (n - 1)))
    return far, min(1.0, 2 * n * NORMAL.cdf(-normal_equivalent(t, n - 2)))


def _without_odd(group: list[float]) -> list[float]:
    """The group less the runs that don't belong to it; at most one in four of them."""
    kept = list(group)
    for _ in range(len(group) // MIN_GROUP_TO_DROP):
        index, p = oddest(kept)
        if p >= ODD_P:
            break
        del kept[index]
    return kept


def _sum_of_squares(group: Sequence[float]) -> float:
    # From the first score on: of equal ones the mean is rounded, and repeats would not agree.
    moved = [x - group[0] for x in group]
    mean = math.fsum(moved) / len(moved)
    return math.fsum((x - mean) ** 2 for x in moved)


def _capped_variance(
    squares: list[tuple[float, int]], groups: list[list[float]], prior_ss: float, dof: float
) -> float:
    """Pooled variance in which no group counts for more than chance explains.

    Starts from the median distance between residuals, which a few far seeds don't move, and caps
    each group's sum of squares at a quantile of chi-squared until nothing changes.
    """
    residuals = []
    for group in groups:
        mean = math.fsum(group) / len(group)
        inflate = math.sqrt(len(group) / (len(group) - 1))
        residuals += [abs(x - mean) * inflate for x in group]
    variance = (statistics.median(residuals) / 0.6745) ** 2  # 0.6745: quartile of a normal
    if variance == 0:
        return (sum(ss for ss, _ in squares) + prior_ss) / dof
    for _ in range(30):
        total = sum(min(ss, variance * chi_squared_quantile(CAP_QUANTILE, d)) for ss, d in squares)
        updated = (total + prior_ss) / dof
        if abs(updated - variance) <= 1e-9 * variance:
            break
        variance = updated
    return variance


def _correlation(pairs: Iterable[tuple[Sequence[float], Sequence[float]]], prior: float) -> float:
    """Correlation by seed, pooled within pairs of train modules and drawn to the prior one."""
    products = champion_ss = candidate_ss = 0.0
    dof = 0
    for champion, candidate in pairs:
        n = len(champion)
        if n != len(candidate):
            raise ValueError("a pair needs both scores of every seed")
        if n < 2:
            continue
        x, y = math.fsum(champion) / n, math.fsum(candidate) / n
        products += math.fsum((a - x) * (b - y) for a, b in zip(champion, candidate, strict=True))
        champion_ss += _sum_of_squares(champion)
        candidate_ss += _sum_of_squares(candidate)
        dof += n - 1
    if champion_ss == 0 or candidate_ss == 0:
        return min(prior, MAX_CORRELATION)
    r = products / math.sqrt(champion_ss * candidate_ss)
    r = (r * dof + prior * CORRELATION_SHRINK) / (dof + CORRELATION_SHRINK)
    return min(max(r, 0.0), MAX_CORRELATION)


def chi_squared_quantile(p: float, dof: float) -> float:
    """Wilson and Hilferty's approximation (1931); within 1.5% for p = 0.99 from dof 1 on."""
    spread = 2 / (9 * dof)
    return dof * (1 - spread + NORMAL.inv_cdf(p) * math.sqrt(spread)) ** 3


def normal_equivalent(t: float, dof: float) -> float:
    """The normal deviate with about the tail of Student's t (Wallace 1959, first form).

    Its tail at p = 0.01 is too large by 15% for dof 2 and by 3% for dof 4: on the safe side.
    """
    if dof <= 0:
        return 0.0
    if not math.isfinite(t):
        return t
    size = math.sqrt(dof * math.log1p(t * t / dof)) * (8 * dof + 1) / (8 * dof + 3)
    return math.copysign(size, t)


def location(scores: Sequence[float], sd: float) -> float:
    """Huber's estimate of the centre with known scale `sd`; the mean of one or two scores.

    Of four scores or more, one that is far out is left out altogether.
    """
    if len(scores) < 3 or sd <= 0:
        return math.fsum(scores) / len(scores)
    centre, reach = statistics.median(scores), HUBER_K * sd
    if len(scores) >= MIN_GROUP_TO_DROP:
        far = max(scores, key=lambda x: abs(x - centre))
        if abs(far - centre) > ODD_DISTANCE * sd:
            scores = list(scores)
            scores.remove(far)
    for _ in range(50):
        moved = math.fsum(min(max(x - centre, -reach), reach) for x in scores) / len(scores)
        centre += moved
        if abs(moved) <= 1e-9 * sd:
            break
    return centre


def tamed(scores: Mapping[int, float], sd: float) -> dict[int, float]:
    """Scores by seed with far ones pulled in, so that their mean is their `location`."""
    values = list(scores.values())
    if len(values) < 3 or sd <= 0:
        return dict(scores)
    centre, reach, kept = location(values, sd), HUBER_K * sd, dict(scores)
    if len(values) >= MIN_GROUP_TO_DROP:
        far = max(kept, key=lambda seed: abs(kept[seed] - statistics.median(values)))
        if abs(kept[far] - statistics.median(values)) > ODD_DISTANCE * sd:
            del kept[far]
    return {seed: centre + min(max(x - centre, -reach), reach) for seed, x in kept.items()}

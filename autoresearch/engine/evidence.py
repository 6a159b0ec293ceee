"""What was measured of a candidate and of the champion, and how much better the candidate is by it.

    estimate = estimate_effect(evidence)  # estimate.delta with standard error estimate.se

Three things make the champion's place uncertain, and the estimate allows for each:
- its own runs flatter a kept candidate, which was chosen for them;
- its seeds were lucky or not: scores on one seed go up and down together, by `noise.correlation`;
- it has few runs. What was dropped against it helps: most proposals do nothing or harm, so that
  where many looked better, the champion was measured too low, and where none came near, too high.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from autoresearch.engine.noise import Noise, tamed

Direction = Literal["minimize", "maximize"]

# By how many standard errors of the runs that it was chosen by a kept candidate looks too good.
LUCK = 1.0
# What a proposal does, before it is measured: the chance that it does nothing, and the densities
# (per sd of one run) of small harm and of small gain. Generic on purpose: the benchmark's studies
# have 10% to 60% without effect.
NOTHING, HARM, GAIN = 0.3, 0.07, 0.02
# What was dropped moves the champion by this many standard errors of its own runs at most: where
# every proposal does the same harm, that harm must not pass for the champion's level.
MOST_MOVED = 1.0
# A candidate this many sd behind the champion's own runs is behind wherever the champion stands,
# and a dropped run this many sd from it says nothing of where.
BEHIND, FAR = 1.0, 4.0
ROUNDS = 6
# Chances are worked out at steps of so many standard deviations, and between them by lines.
FINE = 1 / 512
# A candidate noisier than the pool by this ratio of variances is judged by its own scatter.
UNSTABLE_RATIO = 9.0


@dataclass(frozen=True)
class Evidence:
    """What was measured of a candidate and of the champion it would replace.

    candidate, champion: score by seed, of one score id. lines_delta: lines of code the candidate
    adds (negative: removes), comments and blank lines not counted. deterministic: repeats agree
    exactly. turn: any number, the trial's id for instance; it chooses the champion's seed that
    a candidate meets first, so that no seed is overfitted. chosen_by: how many of the champion's
    runs, the first ones, it was kept by; 0 for a baseline. dropped: seed and score of the first
    run of every candidate that was discarded against this champion.
    """

    candidate: Mapping[int, float]
    champion: Mapping[int, float]
    noise: Noise
    direction: Direction = "minimize"
    lines_delta: int = 0
    deterministic: bool = False
    turn: int = 0
    chosen_by: int = 0
    dropped: Sequence[tuple[int, float]] = ()

    @property
    def sign(self) -> float:
        """1 where a greater score is better, else -1."""
        return -1.0 if self.direction == "minimize" else 1.0

    @property
    def ties_tell(self) -> bool:
        """Seeds give distinct scores, so that an exact tie on one seed means the same program.

        A coarse score (12 of 50 right) ties by chance.
        """
        return len(set(self.champion.values())) == len(self.champion)

    def with_own_scatter(self) -> Evidence:
        """The same with the scatter of the candidate's runs counted into the noise.

        The first run was selected, which widens the scatter of what does nothing: the safe side.
        """
        noise = self.noise.widened_by(list(self.candidate.values()))
        return replace(self, noise=noise)


@dataclass(frozen=True)
class Estimate:
    """How much better the candidate is: `delta` with standard error `se`, and both centres."""

    delta: float
    se: float
    candidate: float
    champion: float


@dataclass(frozen=True)
class _Level:
    """The champion on one seed: its quality there, known as well as from `runs` runs."""

    quality: float
    runs: float = 1.0


def estimate_effect(evidence: Evidence) -> Estimate:
    """How much better the candidate is than the champion, and the standard error.

    Generalised least squares. A score is the train module's quality, plus what the seed adds to
    every module (variance r sd^2), plus the run's own part ((1 - r) sd^2). For r = 0 that is the
    difference of means, for r near 1 the paired one. Far runs are pulled in (Huber).
    """
    noise, sign = evidence.noise, evidence.sign
    shared = noise.correlation * noise.sd**2
    own = noise.sd**2 - shared
    champion = _champion_runs(evidence, own)
    candidate = tamed({seed: sign * x for seed, x in evidence.candidate.items()}, noise.sd)
    levels = {seed: _Level(quality) for seed, quality in champion.items()}
    ahead = _mean(candidate.values()) - _mean(champion.values())
    if ahead > -BEHIND * noise.sd:
        levels = _informed(levels, evidence, own, shared)
    mine = own + _excess_variance(list(evidence.candidate.values()), noise.sd)
    return _least_squares(candidate, levels, mine, own, shared, sign)


def _champion_runs(evidence: Evidence, own: float) -> dict[int, float]:
    """The champion's quality by seed, less the luck of the runs that it was chosen by."""
    runs = {seed: evidence.sign * score for seed, score in evidence.champion.items()}
    chosen = list(runs)[: evidence.chosen_by]
    runs = tamed(runs, evidence.noise.sd)
    for seed in chosen:
        if seed in runs:
            runs[seed] -= LUCK * math.sqrt(own / len(chosen))
    return runs


def _place(levels: Mapping[int, _Level], own: float, shared: float) -> tuple[float, float]:
    """The champion's quality over all seeds, and the variance of that."""
    weights = {seed: 1 / (shared + own / level.runs) for seed, level in levels.items()}
    total = math.fsum(weights.values())
    return math.fsum(weights[s] * level.quality for s, level in levels.items()) / total, 1 / total


def _informed(
    levels: dict[int, _Level], evidence: Evidence, own: float, shared: float
) -> dict[int, _Level]:
    """The champion's levels with each dropped first run counted as a run of the champion's own,
    by the chance that it did nothing.

    Expectation-maximisation for a mixture of no effect, harm below and gain above, in which
    the step between harm and gain shifts what does nothing up a little.
    """
    sd, dropped = math.sqrt(own), evidence.dropped
    if not dropped or sd == 0:
        return levels
    import numpy as np

    start, variance = _place(levels, own, shared)
    seeds, expected = sorted(levels), np.array(_on_each_seed(levels, own, shared))
    rows = np.fromiter(itertools.chain.from_iterable(dropped), float, 2 * len(dropped))
    there, scores = np.searchsorted(seeds, rows[::2]).clip(max=len(seeds) - 1), rows[1::2]
    runs = evidence.sign * scores
    near = (np.array(seeds)[there] == rows[::2]) & (abs(runs - expected[there]) < FAR * sd)
    if evidence.ties_tell:  # not the champion's own run under another name
        near &= scores != np.array([evidence.champion[seed] for seed in seeds])[there]
    there, runs = there[near], runs[near]
    if not runs.size:
        return levels
    quality = [levels[seed].quality for seed in seeds]
    lifted, moved = runs + (HARM - GAIN) / NOTHING * sd, levels

    def added(values: NDArray[np.float64]) -> Any:
        return np.bincount(there, values, len(seeds))

    for _ in range(ROUNDS):
        chance = _chances_of_nothing((runs - expected[there]) / sd)
        counts = 1 + added(chance)
        informed = 1 + added(chance * chance)  # what an uncertain membership is worth
        means = (quality + added(chance * lifted)) / counts
        found = zip(seeds, map(float, means), map(float, informed), strict=True)
        moved = {seed: _Level(mean, count) for seed, mean, count in found}
        before, expected = expected, np.array(_on_each_seed(moved, own, shared))
        if (abs(expected - before) < 0.02 * sd).all():
            break
    place, _ = _place(moved, own, shared)
    most = MOST_MOVED * math.sqrt(variance)
    back = min(max(place - start, -most), most) - (place - start)
    return {seed: _Level(level.quality + back, level.runs) for seed, level in moved.items()}


def _on_each_seed(levels: Mapping[int, _Level], own: float, shared: float) -> list[float]:
    """What a run without effect is expected to score on each of the champion's seeds, in order."""
    place, _ = _place(levels, own, shared)
    return [
        place + (level.quality - place) * shared / (shared + own / level.runs)
        for _, level in sorted(levels.items())
    ]


def _chances_of_nothing(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """`_chance_of_nothing` of each, to 1e-6: this is asked hundreds of times at each decision."""
    import numpy as np

    places, chances = _table()
    return np.interp(u, places, chances)


@functools.cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where `_chance_of_nothing` was worked out, and what it is there."""
    import numpy as np

    places = np.arange(-2 * FAR, 2 * FAR + FINE, FINE)
    return places, np.array([_chance_of_nothing(float(u)) for u in places])


def _chance_of_nothing(u: float) -> float:
    """The chance that a proposal whose run is u sd above the champion's level did nothing."""
    nothing = NOTHING * math.exp(-u * u / 2) / 2.5066282746310002  # sqrt(2 pi)
    below = 0.5 * math.erfc(u / 1.4142135623730951)  # sqrt(2)
    return nothing / (nothing + HARM * below + GAIN * (1 - below))


def _least_squares(
    candidate: Mapping[int, float],
    levels: Mapping[int, _Level],
    mine: float,
    own: float,
    shared: float,
    sign: float,
) -> Estimate:
    """Both qualities from runs that covary by seed; the 2 x 2 normal equations, solved."""
    aa = bb = ab = right_a = right_b = 0.0
    for seed in sorted({*candidate, *levels}):
        x, level = candidate.get(seed), levels.get(seed)
        if x is not None and level is not None:
            a, b = mine + shared, own / level.runs + shared
            determinant = a * b - shared**2
            pa, pb, pab = b / determinant, a / determinant, -shared / determinant
        elif x is not None:
            pa, pb, pab = 1 / (mine + shared), 0.0, 0.0
        elif level is not None:
            pa, pb, pab = 0.0, 1 / (own / level.runs + shared), 0.0
        x, y = x or 0.0, level.quality if level else 0.0
        aa, bb, ab = aa + pa, bb + pb, ab + pab
        right_a += pa * x + pab * y
        right_b += pab * x + pb * y
    determinant = aa * bb - ab**2
    first = (bb * right_a - ab * right_b) / determinant
    second = (aa * right_b - ab * right_a) / determinant
    se = math.sqrt((aa + bb + 2 * ab) / determinant)
    return Estimate(first - second, se, sign * first, sign * second)


def _excess_variance(scores: list[float], sd: float) -> float:
    """Variance of one run of the candidate beyond the pool's, where it is plainly unstable.

    One far seed doesn't make a candidate unstable; the farthest run is left out.
    """
    if len(scores) < 3:
        return 0.0
    middle = sorted(scores)[len(scores) // 2]
    calm = sorted(scores, key=lambda x: abs(x - middle))[:-1]
    mean = _mean(calm)
    variance = math.fsum((x - mean) ** 2 for x in calm) / (len(calm) - 1)
    return variance - sd**2 if variance > UNSTABLE_RATIO * sd**2 else 0.0


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values)

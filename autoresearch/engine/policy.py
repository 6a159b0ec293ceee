"""Keep or discard? Pure decisions from measured scores; nothing here runs or reads anything.

    decision = Confirm(confidence=0.95).decide(evidence)
    if decision.action == "measure":  # run decision.candidate_seeds and .champion_seeds, ask again

`Confirm` is a group-sequential test with a binding lower boundary. The candidate is looked at
after each of its runs. A look compares the candidate's centre with the champion's, in standard
errors; below the look's lower boundary the candidate is discarded, above the upper one kept, in
between it runs on one more seed, and the champion on that seed too where it was measured on few.
The boundaries spend the error allowed over all looks together (calibrated by
benchmarks/decisions.py), so looking repeatedly doesn't raise it.

`Greedy` is the plain rule for comparison: one run each, better is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from autoresearch.engine.noise import NORMAL, Noise, location, normal_equivalent, oddest

Action = Literal["keep", "discard", "measure"]
Direction = Literal["minimize", "maximize"]

# One row per look. In order: the lower boundary in standard errors; the share of the error
# (1 - confidence) that the look's own p-value may use; runs that the champion should have.
# Shares add up to more than 1 because most no-ops are gone before the later looks.
LOOKS = (
    (0.90, 0.00, 3),
    (1.00, 0.28, 4),
    (1.10, 0.38, 4),
    (1.20, 0.49, 5),
    (1.30, 0.60, 6),
    (math.inf, 0.70, 6),
)
# Fewer champion runs than this are measured before anything is discarded.
MIN_CHAMPION = 3
# A simpler edit at the margin itself mostly fails before the later looks, so that each look may
# use this much more of the error, and wait this many standard errors longer (calibrated too).
SIMPLER_SHARE, SIMPLER_PATIENCE = 1.8, 0.3
# While the noise is this little known, a champion with a run that looks odd gets more seeds...
THIN_DOF, SUSPECT_P, CLEAR_CHAMPION = 5.0, 0.35, 5
# Runs of one train module this many standard errors apart: one of them is an odd seed.
ODD_SPREAD = 4.0
# A candidate noisier than the pool by this ratio of variances is judged by its own scatter.
UNSTABLE_RATIO = 9.0


@dataclass(frozen=True)
class Evidence:
    """What was measured of a candidate and of the champion it would replace.

    candidate, champion: score by seed, of one score id. lines_delta: lines of code the candidate
    adds (negative: removes), comments and blank lines not counted. deterministic: repeats agree
    exactly. turn: any number, the trial's id for instance; it chooses the champion's seed that
    a candidate meets first, so that no seed is overfitted.
    """

    candidate: Mapping[int, float]
    champion: Mapping[int, float]
    noise: Noise
    direction: Direction = "minimize"
    lines_delta: int = 0
    deterministic: bool = False
    turn: int = 0


@dataclass(frozen=True)
class Decision:
    """What to do and why.

    delta: how much better the candidate is, in the score's unit; positive is better in either
    direction. confidence: that it is better (by min_effect), after allowing for repeated looks;
    a keep has at least the asked one, except a "simpler" keep, whose confidence is that it isn't
    worse by more than the margin. *_seeds: what to run next when action is "measure".
    """

    action: Action
    reason: str
    delta: float | None = None
    confidence: float | None = None
    candidate_seeds: tuple[int, ...] = ()
    champion_seeds: tuple[int, ...] = ()


class Policy(Protocol):
    """Anything that decides from evidence."""

    @property
    def name(self) -> str: ...

    def decide(self, evidence: Evidence) -> Decision:
        """Keep, discard, or measure what the decision names and ask again."""
        ...


@dataclass(frozen=True)
class Estimate:
    """How much better the candidate is: `delta` with standard error `se`, by `runs` runs."""

    delta: float
    se: float
    candidate: float
    champion: float


@dataclass(frozen=True)
class Greedy:
    """Better than the champion's recorded score on one run: keep. Equal or worse: discard."""

    name: str = field(default="greedy", init=False)

    def decide(self, evidence: Evidence) -> Decision:
        """Compare the first run of each; needs no noise."""
        first = _first_runs(evidence)
        if isinstance(first, Decision):
            return first
        candidate, champion = first
        delta = _gain(evidence, candidate, champion)
        if not math.isfinite(candidate):
            return Decision("discard", f"the score is {candidate}")
        action: Action = "keep" if delta > 0 else "discard"
        word = "better" if delta > 0 else "equal" if delta == 0 else "worse"
        return Decision(action, f"{word}: {champion:.6g} -> {candidate:.6g} on one run", delta)


@dataclass(frozen=True)
class Confirm:
    """Repeats what looks promising until it is better with the asked confidence, or not.

    confidence: 1 - confidence is the chance that an edit without effect is kept. max_replicates:
    most runs of one candidate. min_effect: improvements up to this count as none, in the score's
    unit. margin: how much worse a simpler candidate may be at most, in standard deviations of
    one run; a candidate that is truly worse by more is kept with chance 1 - confidence at most.
    """

    confidence: float = 0.95
    max_replicates: int = 6
    min_effect: float = 0.0
    margin: float = 1.0
    name: str = field(default="confirm", init=False)

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0.5 and 1, not {self.confidence}")
        if self.max_replicates < 2:
            raise ValueError("max_replicates must be at least 2: one run confirms nothing")
        if self.min_effect < 0 or self.margin < 0:
            raise ValueError("min_effect and margin must not be negative")

    def decide(self, evidence: Evidence) -> Decision:
        """Keep, discard, or name the seeds to measure next. Pure: the same evidence, the same."""
        first = _first_runs(evidence)
        if isinstance(first, Decision):
            return first
        odd = [score for score in evidence.candidate.values() if not math.isfinite(score)]
        if odd:
            return Decision("discard", f"a score is {odd[0]}")
        noise = evidence.noise
        if evidence.deterministic or (noise.sd == 0 and noise.dof >= 2):
            return self._exact(evidence, *first)
        thin = _thin_champion(evidence)
        if thin is not None:
            return thin
        if _same_program(evidence):
            return self._unchanged(evidence)
        estimate = estimate_effect(evidence)
        return self._look(evidence, estimate)

    def _exact(self, evidence: Evidence, candidate: float, champion: float) -> Decision:
        """Repeats agree, so one run says it all."""
        delta = _gain(evidence, candidate, champion)
        change = f"{champion:.6g} -> {candidate:.6g}, and repeats agree exactly"
        if delta > self.min_effect:
            return Decision("keep", f"better: {change}", delta, 1.0)
        if delta == 0:
            return self._unchanged(evidence)
        word = "worse" if delta < 0 else f"better by no more than {self.min_effect:g}"
        return Decision("discard", f"{word}: {change}", delta, 0.0)

    def _unchanged(self, evidence: Evidence) -> Decision:
        if evidence.lines_delta < 0:
            lines = _lines(-evidence.lines_delta)
            return Decision("keep", f"simpler: the same score with {lines} fewer", 0.0, 1.0)
        return Decision("discard", "no effect: the same score on the same seed", 0.0, 0.0)

    def _look(self, evidence: Evidence, estimate: Estimate) -> Decision:
        n = min(len(evidence.candidate), self.max_replicates)
        lower, share, _ = self._boundary(n)
        dof = evidence.noise.dof
        z = normal_equivalent((estimate.delta - self.min_effect) / estimate.se, dof)
        confidence = _adjusted_confidence(z, share)
        said = _describe(evidence, estimate)
        if n >= 2 and confidence >= self.confidence:
            reason = f"better: {said}; {confidence:.1%} sure, repeated looks counted"
            return Decision("keep", reason, estimate.delta, confidence)
        simpler = self._simpler(evidence, estimate, n, said)
        if isinstance(simpler, Decision):
            return simpler
        promising = z >= lower or simpler or _one_is_odd(evidence)
        if n < self.max_replicates and promising:
            return self._measure(evidence, estimate, said, confidence)
        word = _why_not(z, lower, n, self.confidence)
        return Decision("discard", f"{word}: {said}", estimate.delta, confidence)

    def _simpler(
        self, evidence: Evidence, estimate: Estimate, n: int, said: str
    ) -> Decision | bool:
        """A keep if fewer lines are shown to cost less than the margin; else: may it still be?"""
        if evidence.lines_delta >= 0:
            return False
        lower, share, _ = self._boundary(n)
        allowed = self.margin * evidence.noise.sd
        z = normal_equivalent((estimate.delta + allowed) / estimate.se, evidence.noise.dof)
        confidence = _adjusted_confidence(z, share * SIMPLER_SHARE)
        if n >= 2 and confidence >= self.confidence:
            lines = _lines(-evidence.lines_delta)
            reason = (
                f"simpler: {lines} fewer and equal within noise: {said}; "
                f"{confidence:.1%} sure that it isn't worse by {allowed:.2g}"
            )
            return Decision("keep", reason, estimate.delta, confidence)
        return z >= lower - SIMPLER_PATIENCE

    def _boundary(self, n: int) -> tuple[float, float, int]:
        """The n-th look's row; the last look allowed always decides."""
        if n >= self.max_replicates:
            return math.inf, LOOKS[min(n, len(LOOKS)) - 1][1], LOOKS[-1][2]
        # Beyond the table the last row that goes on is repeated at its own share.
        lower, share, champion = LOOKS[min(n, len(LOOKS) - 1) - 1]
        return lower, share, champion

    def _measure(
        self, evidence: Evidence, estimate: Estimate, said: str, confidence: float
    ) -> Decision:
        """The candidate's next seed, and the champion's where it is thin."""
        seed = _next_seed(evidence)
        *_, wanted = self._boundary(len(evidence.candidate) + 1)
        missing = wanted - len(evidence.champion)
        champion: tuple[int, ...] = ()
        if missing > 0 and seed not in evidence.champion:
            champion = (seed, *_new_seeds(evidence, missing - 1, beside=seed))
        elif missing > 0:
            champion = _new_seeds(evidence, missing)
        return Decision(
            "measure", f"promising: {said}", estimate.delta, confidence, (seed,), champion
        )


def estimate_effect(evidence: Evidence) -> Estimate:
    """How much better the candidate is than the champion, and the standard error.

    With correlation r by seed, centre of x - r (y - centre of y) over the shared seeds, against
    the champion's centre over all of its m seeds; variance sd^2 ((1 - r^2) / n + (1 - r)^2 / m).
    That is the plain difference of means for r = 0 and the paired one for r near 1.
    """
    noise, champion = evidence.noise, evidence.champion
    shared = set(evidence.candidate) <= set(champion)
    r = noise.correlation if shared else 0.0
    centre = location(list(champion.values()), noise.sd)
    reach = 3 * noise.sd
    scores = [
        x - r * min(max(champion[seed] - centre, -reach), reach) if r else x
        for seed, x in evidence.candidate.items()
    ]
    spread = noise.sd * math.sqrt(1 - r * r)
    adjusted = location(scores, spread)
    own = _own_variance(scores, spread)
    variance = own / len(scores) + ((1 - r) * noise.sd) ** 2 / len(champion)
    return Estimate(_gain(evidence, adjusted, centre), math.sqrt(variance), adjusted, centre)


def _own_variance(scores: list[float], sd: float) -> float:
    """Variance of one run of the candidate: the pool's, or its own where it is plainly unstable.

    One far seed doesn't make a candidate unstable; the farthest run is left out.
    """
    if len(scores) < 3:
        return sd**2
    ordered = sorted(scores)
    middle = ordered[len(ordered) // 2]
    calm = sorted(scores, key=lambda x: abs(x - middle))[:-1]
    mean = math.fsum(calm) / len(calm)
    own = math.fsum((x - mean) ** 2 for x in calm) / (len(calm) - 1)
    return own if own > UNSTABLE_RATIO * sd**2 else sd**2


def _thin_champion(evidence: Evidence) -> Decision | None:
    """Measure the champion before comparing: too few runs, or one that may be odd."""
    have, noise = len(evidence.champion), evidence.noise
    if have < MIN_CHAMPION or noise.sd == 0:
        more = max(1, MIN_CHAMPION - have)
        why = f"the champion was measured on {_runs(have)} only"
        return Decision("measure", why, champion_seeds=_new_seeds(evidence, more))
    if have >= CLEAR_CHAMPION or noise.dof >= THIN_DOF:
        return None
    _, p = oddest(list(evidence.champion.values()))
    if p > SUSPECT_P:
        return None
    why = f"one of the champion's {have} runs is far from the others"
    seeds = _new_seeds(evidence, CLEAR_CHAMPION - have)
    return Decision("measure", why, champion_seeds=seeds)


def _first_runs(evidence: Evidence) -> Decision | tuple[float, float]:
    """The first score of each, or the decision to measure the one that is missing."""
    if not evidence.champion:
        return Decision("measure", "the champion has no score yet", champion_seeds=(0,))
    if not evidence.candidate:
        return Decision("measure", "a first run", candidate_seeds=(_next_seed(evidence),))
    seed = next(iter(evidence.candidate))
    champion = evidence.champion.get(seed, next(iter(evidence.champion.values())))
    return evidence.candidate[seed], champion


def _next_seed(evidence: Evidence) -> int:
    """A seed the champion was measured on, or a new one when the candidate ran on all."""
    left = [seed for seed in evidence.champion if seed not in evidence.candidate]
    if left:
        return left[evidence.turn % len(left)]
    return _new_seeds(evidence, 1)[0]


def _new_seeds(evidence: Evidence, count: int, beside: int = -1) -> tuple[int, ...]:
    start = 1 + max([*evidence.champion, *evidence.candidate, beside], default=-1)
    return tuple(range(start, start + count))


def _gain(evidence: Evidence, candidate: float, champion: float) -> float:
    """Improvement, positive in either direction."""
    if evidence.direction == "minimize":
        return champion - candidate
    return candidate - champion


def _same_program(evidence: Evidence) -> bool:
    """Exactly equal on every shared seed, of a score that otherwise differs from seed to seed.

    Where seeds give distinct scores an exact tie is no accident; a coarse score (12 of 50 right)
    ties by chance and isn't taken for one.
    """
    shared = [seed for seed in evidence.candidate if seed in evidence.champion]
    distinct = len(set(evidence.champion.values())) == len(evidence.champion)
    return (
        bool(shared)
        and distinct
        and all(evidence.candidate[seed] == evidence.champion[seed] for seed in shared)
    )


def _one_is_odd(evidence: Evidence) -> bool:
    """Two or three runs of which one lies too far out: another tells which to believe."""
    scores = sorted(evidence.candidate.values())
    if len(scores) not in (2, 3):
        return False
    return scores[-1] - scores[0] > ODD_SPREAD * math.sqrt(2) * evidence.noise.sd


def _adjusted_confidence(z: float, share: float) -> float:
    """1 - p / share: one look's p-value in terms of the error allowed over all looks."""
    p = NORMAL.cdf(-z)
    return max(0.0, 1.0 - p / (share or LOOKS[1][1]))


def _describe(evidence: Evidence, estimate: Estimate) -> str:
    sign = "better" if estimate.delta >= 0 else "worse"
    return (
        f"{estimate.champion:.6g} -> {estimate.candidate:.6g}, {abs(estimate.delta):.2g} {sign} "
        f"with standard error {estimate.se:.2g} on {_runs(len(evidence.candidate))} "
        f"against the champion's {len(evidence.champion)}"
    )


def _why_not(z: float, lower: float, n: int, confidence: float) -> str:
    if z < -2:
        return "clearly worse"
    if z <= 0:
        return "not better"
    if math.isinf(lower):
        return f"not shown to be better with confidence {confidence:g}"
    return "too little to be worth more runs" if n == 1 else "faded when repeated"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"

"""Keep or discard? Pure decisions from measured scores; nothing here runs or reads anything.

    decision = Confirm(confidence=0.95).decide(evidence)
    if decision.action == "measure":  # run decision.candidate_seeds and .champion_seeds, ask again

`Confirm` is a group-sequential test with a binding lower boundary. The candidate is looked at
after each of its runs. A look compares it with the champion, in standard errors
(engine/evidence.py); below the look's lower boundary the candidate is discarded, above the upper
one kept, in between it runs on one more seed, on which the champion is measured too. The boundaries
spend the error allowed over all looks together (calibrated by benchmarks/decisions.py), so looking
repeatedly doesn't raise it.

`Greedy` is the plain rule for comparison: one run each, better is kept.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from autoresearch.engine.evidence import Estimate, Evidence, estimate_effect
from autoresearch.engine.noise import NORMAL, normal_equivalent, oddest

Action = Literal["keep", "discard", "measure"]

# One row per look: the lower boundary in standard errors, below which another run isn't worth its
# cost, and the share of the error (1 - confidence) that the look's own p-value may use. Shares add
# up to more than 1 because most no-ops are gone before the later looks.
LOOKS = (
    (1.10, 0.00),
    (1.30, 0.33),
    (1.35, 0.38),
    (1.40, 0.42),
    (1.45, 0.46),
    (math.inf, 0.50),
)
# Fewer champion runs than this are measured before anything is discarded.
MIN_CHAMPION = 3
# A simpler edit at the margin itself mostly fails before the later looks, so that each look may
# use this much more of the error, and wait this many standard errors longer (calibrated too).
SIMPLER_SHARE, SIMPLER_PATIENCE = 2.1, 0.3
# While the noise is this little known, a champion with a run that looks odd gets more seeds...
THIN_DOF, SUSPECT_P, CLEAR_CHAMPION = 5.0, 0.2, 5
# Runs of one train module this many standard errors apart: one of them is an odd seed.
ODD_SPREAD = 4.0


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


# Seeds of the candidate and of the champion that one look asks for.
Look: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...]]"


class Policy(Protocol):
    """Anything that decides from evidence."""

    @property
    def name(self) -> str: ...

    def decide(self, evidence: Evidence) -> Decision:
        """Keep, discard, or measure what the decision names and ask again."""
        ...

    def foreseen(self, evidence: Evidence, looks: int) -> list[Look]:
        """What the next looks would ask for if the candidate stayed promising; as far as is known,
        so many at most."""
        ...


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

    def foreseen(self, evidence: Evidence, looks: int) -> list[Look]:
        """Nothing is repeated."""
        return []


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
        evidence = evidence.with_own_scatter()
        estimate = estimate_effect(evidence)
        return self._look(evidence, estimate)

    def foreseen(self, evidence: Evidence, looks: int) -> list[Look]:
        """The seeds of the looks to come; which they are doesn't hang on any score."""
        found: list[Look] = []
        while len(found) < looks and len(evidence.candidate) < self.max_replicates:
            have = len(evidence.champion)
            own: tuple[int, ...] = ()
            others: tuple[int, ...] = ()
            if not have:
                others = (0,)
            elif evidence.candidate and have < MIN_CHAMPION:
                others = _new_seeds(evidence, MIN_CHAMPION - have)
            else:
                own = (_next_seed(evidence),)
                if evidence.candidate and own[0] not in evidence.champion:
                    others = own
            found.append((own, others))
            evidence = replace(
                evidence,
                candidate={**evidence.candidate, **dict.fromkeys(own, 0.0)},
                champion={**evidence.champion, **dict.fromkeys(others, 0.0)},
            )
        return found

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
        lower, share = self._boundary(n)
        dof = evidence.noise.dof
        ahead = (estimate.delta - self.min_effect) / estimate.se
        confidence = _adjusted_confidence(normal_equivalent(ahead, dof), share)
        said = _describe(evidence, estimate)
        if n >= 2 and confidence >= self.confidence:
            reason = f"better: {said}; {confidence:.1%} sure, repeated looks counted"
            return Decision("keep", reason, estimate.delta, confidence)
        simpler = self._simpler(evidence, estimate, n, said)
        if isinstance(simpler, Decision):
            return simpler
        promising = ahead >= lower or simpler or _one_is_odd(evidence)
        if n < self.max_replicates and promising:
            return self._measure(evidence, estimate, said, confidence)
        word = _why_not(ahead, lower, n, self.confidence)
        return Decision("discard", f"{word}: {said}", estimate.delta, confidence)

    def _simpler(
        self, evidence: Evidence, estimate: Estimate, n: int, said: str
    ) -> Decision | bool:
        """A keep if fewer lines are shown to cost less than the margin; else: may it still be?"""
        if evidence.lines_delta >= 0:
            return False
        lower, share = self._boundary(n)
        allowed = self.margin * evidence.noise.sd
        ahead = (estimate.delta + allowed) / estimate.se
        z = normal_equivalent(ahead, evidence.noise.dof)
        confidence = _adjusted_confidence(z, share * SIMPLER_SHARE)
        if n >= 2 and confidence >= self.confidence:
            lines = _lines(-evidence.lines_delta)
            reason = (
                f"simpler: {lines} fewer and equal within noise: {said}; "
                f"{confidence:.1%} sure that it isn't worse by {allowed:.2g}"
            )
            return Decision("keep", reason, estimate.delta, confidence)
        return ahead >= lower - SIMPLER_PATIENCE

    def _boundary(self, n: int) -> tuple[float, float]:
        """The n-th look's row; the last look allowed always decides."""
        if n >= self.max_replicates:
            return math.inf, LOOKS[min(n, len(LOOKS)) - 1][1]
        # Beyond the table the last row that goes on is repeated at its own share.
        return LOOKS[min(n, len(LOOKS) - 1) - 1]

    def _measure(
        self, evidence: Evidence, estimate: Estimate, said: str, confidence: float
    ) -> Decision:
        """The candidate's next seed, and the champion on it where it has no run there."""
        seed = _next_seed(evidence)
        champion = () if seed in evidence.champion else (seed,)
        return Decision(
            "measure", f"promising: {said}", estimate.delta, confidence, (seed,), champion
        )


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


def _new_seeds(evidence: Evidence, count: int) -> tuple[int, ...]:
    """The lowest seeds that neither ran on: low ones meet again, and what they add gets known."""
    used = {*evidence.champion, *evidence.candidate}
    fresh = (seed for seed in itertools.count() if seed not in used)
    return tuple(itertools.islice(fresh, count))


def _gain(evidence: Evidence, candidate: float, champion: float) -> float:
    """Improvement, positive in either direction."""
    return evidence.sign * (candidate - champion)


def _same_program(evidence: Evidence) -> bool:
    """Exactly equal on every shared seed, of a score that otherwise differs from seed to seed."""
    shared = [seed for seed in evidence.candidate if seed in evidence.champion]
    return (
        bool(shared)
        and evidence.ties_tell
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

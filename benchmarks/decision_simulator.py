"""Studies without processes: proposals and noise are drawn, the engine's own policies decide.

    study = Study(Confirm(), gaussian, numpy.random.default_rng(1)); study.start()
    kept = study.trial(effect=1.5, turn=0)

Everything is in units of sigma, the standard deviation of one ordinary run; positive effects are
improvements. benchmarks/decisions.py makes the tables of it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from autoresearch.engine.evidence import Evidence  # noqa: E402
from autoresearch.engine.noise import Noise  # noqa: E402
from autoresearch.engine.policy import Confirm, Decision, Greedy, Policy  # noqa: E402

RECORDED = ROOT / "benchmarks" / "results" / "recorded_noise.json"
BASELINE_SEEDS = 3
# One run in 50 is 15 sigma off to the worse side: 0.03 against 0.002, as was measured.
OUTLIER_RATE, OUTLIER = 0.02, 15.0
# Student's t with 3 degrees of freedom, scaled to a normal's quartiles.
T3_SCALE = 0.6745 / 0.7649

Draw = Callable[[np.random.Generator, int], np.ndarray]


def share(hits: int, count: int) -> dict[str, float]:
    """A share and the standard error of it."""
    p = hits / count
    return {"share": round(p, 4), "se": round(math.sqrt(max(p * (1 - p), 0.25 / count) / count), 4)}


def gaussian(random: np.random.Generator, count: int) -> np.ndarray:
    """Quality noise (count,) of calm runs."""
    return random.standard_normal(count)


def outliers(random: np.random.Generator, count: int) -> np.ndarray:
    """Calm runs and now and then one that is far worse."""
    return random.standard_normal(count) - OUTLIER * (random.random(count) < OUTLIER_RATE)


def heavy_tails(random: np.random.Generator, count: int) -> np.ndarray:
    """Far runs on both sides: also far too good ones."""
    return random.standard_t(3, count) * T3_SCALE


def recorded_noise(path: Path = RECORDED) -> Draw | None:
    """Draws from the recorded baseline seeds, in units of their standard deviation."""
    if not path.is_file():
        return None
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]["baseline"]
    scores = np.array([run["val_bpb"] for run in runs if run["val_bpb"] is not None])
    units = -(scores - scores.mean()) / scores.std(ddof=1)
    # Smoothed (Silverman 1986, 6.4.1): bare resampling ties, which scores of seeds never do, and
    # has no luck beyond the best seed seen.
    width = 1.06 * len(units) ** -0.2
    shrink = 1 / math.sqrt(1 + width**2)

    def draw(random: np.random.Generator, count: int) -> np.ndarray:
        smooth = random.choice(units, count) + width * random.standard_normal(count)
        return smooth * shrink

    return draw


@dataclass(frozen=True)
class Proposals:
    """What proposals truly do: most harm, some do nothing, few help.

    `helping` of them improve by 0.5 to 4 sigma, evenly ("even") or mostly small ("small": 0.5
    plus an exponential of mean 1); `nothing` have no effect; the others are worse by an
    exponential of mean `harm` sigma, or by exactly `harm` ("alike").
    """

    helping: float = 0.03
    nothing: float = 0.2
    harm: float = 2.0
    sizes: str = "even"
    harms: str = "exponential"

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Effects (count,) in random order, the shares met as exactly as `count` allows."""
        good, null = round(self.helping * count), round(self.nothing * count)
        # Strata instead of free draws: the same distribution, less luck between studies.
        share = (np.arange(good) + random.random(good)) / max(good, 1)
        if self.sizes == "even":
            gains = 0.5 + 3.5 * share
        else:
            gains = np.minimum(0.5 - np.log1p(-share), 4.0)
        bad = max(count - good - null, 0)
        alike = self.harms == "alike"
        harms = -np.full(bad, self.harm) if alike else -random.exponential(self.harm, bad)
        return random.permutation(np.concatenate([gains, np.zeros(null), harms]))


@dataclass
class Study:
    """The loop without processes: measures by drawing, decides by the policy, counts runs."""

    policy: Policy
    noise_of: Draw
    random: np.random.Generator
    quality: float = 0.0
    spent: int = 0
    keeps: int = 0
    champion: dict[int, float] = field(default_factory=dict)
    chosen_by: int = 0
    dropped: list[tuple[int, float]] = field(default_factory=list)
    first_seed: int | None = None  # the champion's selecting run, left out of the noise
    groups: list[list[float]] = field(default_factory=list)
    correlation: float = 0.0  # of scores on the same seed; repeats of a seed differ in the rest
    pairs: list[tuple[list[float], list[float]]] = field(default_factory=list)
    _common: dict[int, float] = field(default_factory=dict)
    _pool: Noise | None = None
    _buffer: Iterator[float] = field(default_factory=lambda: iter(()))

    def start(self) -> None:
        """Measure the baseline: several seeds, or one where the policy never repeats."""
        seeds = 1 if isinstance(self.policy, Greedy) else BASELINE_SEEDS
        for seed in range(seeds):
            self.champion[seed] = self._measure(0.0, seed)

    def trial(self, effect: float, turn: int, limit: float = math.inf) -> bool | None:
        """Judge one proposal; None when `limit` runs were spent before the answer."""
        decision = self.judge(self.quality + effect, turn, limit)
        return None if decision is None else decision.action == "keep"

    def judge(self, quality: float, turn: int, limit: float = math.inf) -> Decision | None:
        """Judge a program of this true quality; None when `limit` runs were spent before."""
        candidate: dict[int, float] = {}
        while True:
            evidence = Evidence(
                candidate,
                self.champion,
                self.noise(),
                turn=turn,
                chosen_by=self.chosen_by,
                dropped=self.dropped,
            )
            decision = self.policy.decide(evidence)
            if decision.action != "measure":
                break
            for seed in decision.champion_seeds:
                self.champion[seed] = self._measure(self.quality, seed)
                self._pool = None
            for seed in decision.candidate_seeds:
                candidate[seed] = self._measure(quality, seed)
            if self.spent > limit:
                return None
        kept = decision.action == "keep"
        self._pair(candidate)
        if kept:
            self._retire(self._champion_group())
            self.quality = quality
            self.champion, self.first_seed = dict(candidate), next(iter(candidate))
            self.chosen_by, self.dropped = len(candidate), []
            self.keeps += 1
        else:
            self._retire(list(candidate.values())[1:])
            self.dropped.append(next(iter(candidate.items())))
        return decision

    def noise(self) -> Noise:
        """Pooled over all groups so far, selecting runs left out."""
        if self._pool is None:
            groups = [*self.groups, self._champion_group()]
            usable = any(len(group) > 1 for group in groups)
            self._pool = Noise.pooled(groups, self.pairs) if usable else Noise(0.0, 0.0)
        return self._pool

    def _champion_group(self) -> list[float]:
        return [score for seed, score in self.champion.items() if seed != self.first_seed]

    def _retire(self, group: list[float]) -> None:
        if len(group) > 1:
            self.groups.append(group)
            self._pool = None

    def _pair(self, candidate: dict[int, float]) -> None:
        shared = [seed for seed in candidate if seed in self.champion]
        if len(shared) > 1:
            self.pairs.append(([self.champion[s] for s in shared], [candidate[s] for s in shared]))

    def _draw(self) -> float:
        value = next(self._buffer, None)
        if value is None:
            self._buffer = iter(self.noise_of(self.random, 64).tolist())
            value = next(self._buffer)
        return value

    def _measure(self, quality: float, seed: int) -> float:
        """A score to minimise; the offset is there so that nothing relies on zero."""
        self.spent += 1
        value = self._draw()
        if self.correlation:
            if seed not in self._common:
                self._common[seed] = self._draw()
            own, common = math.sqrt(1 - self.correlation), math.sqrt(self.correlation)
            value = own * value + common * self._common[seed]
        return 1000.0 - (quality + value)


def single_decisions(
    policy: Policy, noise_of: Draw, effect: float, count: int, seed: int
) -> dict[str, Any]:
    """One decision each against `count` fresh baselines."""
    random = np.random.default_rng(seed)
    kept = runs = 0
    for turn in range(count):
        study = Study(policy, noise_of, random)
        study.start()
        before = study.spent
        kept += bool(study.trial(effect, turn))
        runs += study.spent - before
    return {"effect": effect, "kept": share(kept, count), "runs": round(runs / count, 2)}


def noop_studies(
    policy: Policy, noise_of: Draw, studies: int, edits: int, seed: int, correlation: float = 0.0
) -> dict[str, Any]:
    """Studies in which every proposal does nothing: no-ops kept, and at most 1 of the first 20."""
    random = np.random.default_rng(seed)
    kept = calm = 0
    for _ in range(studies):
        study = Study(policy, noise_of, random, correlation=correlation)
        study.start()
        outcomes = [bool(study.trial(0.0, turn)) for turn in range(edits)]
        kept += sum(outcomes)
        calm += sum(outcomes[:20]) <= 1
    return {"kept": share(kept, studies * edits), "at_most_1_of_20": share(calm, studies)}


def simpler_edits(
    policy: Confirm, noise_of: Draw, effect: float, count: int, seed: int
) -> dict[str, Any]:
    """Edits that remove a line and truly change the score by `effect`, on fresh baselines."""
    random = np.random.default_rng(seed)
    kept = runs = 0
    for turn in range(count):
        study = Study(_Shorter(policy), noise_of, random)
        study.start()
        before = study.spent
        kept += bool(study.trial(effect, turn))
        runs += study.spent - before
    return {"effect": effect, "kept": share(kept, count), "runs": round(runs / count, 2)}


@dataclass(frozen=True)
class _Shorter:
    """A policy that is told that every candidate has a line less."""

    policy: Policy
    name: str = "shorter"

    def decide(self, evidence: Evidence) -> Decision:
        return self.policy.decide(replace(evidence, lines_delta=-1))


def final_quality(
    policies: dict[str, Policy],
    noise_of: Draw,
    proposals: Proposals,
    studies: int,
    budget: int,
    seed: int,
    correlation: float = 0.0,
) -> dict[str, Any]:
    """Studies of `budget` runs after which the champion's true quality is read off.

    All policies see the same proposals in the same order; one that spends fewer runs on each sees
    more of them. The difference is paired by study.
    """
    results: dict[str, list[float]] = {name: [] for name in policies}
    counts = {name: Counter[str]() for name in policies}
    for index in range(studies):
        effects = proposals.draw(np.random.default_rng([seed, index]), budget)
        for name, policy in policies.items():
            random = np.random.default_rng([seed, index, 1])
            study = Study(policy, noise_of, random, correlation=correlation)
            study.start()
            turn = 0
            while study.spent < budget and turn < len(effects):
                kept = study.trial(float(effects[turn]), turn, budget)
                if effects[turn] == 0 and kept is not None:
                    counts[name].update(no_ops=1, no_ops_kept=kept)
                turn += 1
            results[name].append(study.quality)
            counts[name].update(keeps=study.keeps, trials=turn)
    report: dict[str, Any] = {
        name: {
            "quality": round(statistics.fmean(values), 3),
            "worst_5_percent": round(float(np.quantile(values, 0.05)), 2),
            "keeps": round(counts[name]["keeps"] / studies, 2),
            "trials": round(counts[name]["trials"] / studies, 1),
            "no_ops_kept": round(counts[name]["no_ops_kept"] / max(counts[name]["no_ops"], 1), 4),
        }
        for name, values in results.items()
    }
    gains = [c - g for c, g in zip(results["confirm"], results["greedy"], strict=True)]
    report["confirm_minus_greedy"] = round(statistics.fmean(gains), 3)
    report["se"] = round(statistics.stdev(gains) / math.sqrt(studies), 3)
    return report

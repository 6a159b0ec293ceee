"""Replays the policies that keep or discard, on drawn and on recorded noise.

    python benchmarks/decisions.py [--studies 600] [--output benchmarks/results/decisions.json]

Everything is in units of sigma, the standard deviation of one ordinary run; positive effects are
improvements. The policies are the engine's own. Four tables:
- single decisions against a fresh 3-seed baseline: how often an edit is kept, by its true effect,
  and the runs spent, the champion's included;
- studies of no-op edits only: how often one is kept while champions and noise estimates age;
- simpler edits: how often fewer lines are kept, by what they truly cost;
- whole studies at equal compute: the final champion's true quality.
Recorded noise and curves come from benchmarks/record_noise.py when its file is there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from autoresearch.engine.noise import Noise  # noqa: E402
from autoresearch.engine.policy import Confirm, Evidence, Greedy, Policy  # noqa: E402
from autoresearch.engine.pruning import Pruner  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RECORDED = RESULTS / "recorded_noise.json"
BASELINE_SEEDS = 3
# One run in 50 is 15 sigma off to the worse side: 0.03 against 0.002, as was measured.
OUTLIER_RATE, OUTLIER = 0.02, 15.0
# Student's t with 3 degrees of freedom, scaled to a normal's quartiles.
T3_SCALE = 0.6745 / 0.7649

Draw = Callable[[np.random.Generator, int], np.ndarray]


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
    exponential of mean `harm` sigma.
    """

    helping: float = 0.03
    nothing: float = 0.2
    harm: float = 2.0
    sizes: str = "even"

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Effects (count,) in random order, the shares met as exactly as `count` allows."""
        good, null = round(self.helping * count), round(self.nothing * count)
        # Strata instead of free draws: the same distribution, less luck between studies.
        share = (np.arange(good) + random.random(good)) / max(good, 1)
        if self.sizes == "even":
            gains = 0.5 + 3.5 * share
        else:
            gains = np.minimum(0.5 - np.log1p(-share), 4.0)
        harms = -random.exponential(self.harm, max(count - good - null, 0))
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
        candidate: dict[int, float] = {}
        while True:
            evidence = Evidence(candidate, self.champion, self.noise(), turn=turn)
            decision = self.policy.decide(evidence)
            if decision.action != "measure":
                break
            for seed in decision.champion_seeds:
                self.champion[seed] = self._measure(self.quality, seed)
                self._pool = None
            for seed in decision.candidate_seeds:
                candidate[seed] = self._measure(self.quality + effect, seed)
            if self.spent > limit:
                return None
        kept = decision.action == "keep"
        self._pair(candidate)
        if kept:
            self._retire(self._champion_group())
            self.quality += effect
            self.champion, self.first_seed = dict(candidate), next(iter(candidate))
            self.keeps += 1
        else:
            self._retire(list(candidate.values())[1:])
        return kept

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


def share(hits: int, count: int) -> dict[str, float]:
    """A share and the standard error of it."""
    p = hits / count
    return {"share": round(p, 4), "se": round(math.sqrt(max(p * (1 - p), 0.25 / count) / count), 4)}


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

    def decide(self, evidence: Evidence) -> Any:
        return self.policy.decide(
            Evidence(
                evidence.candidate,
                evidence.champion,
                evidence.noise,
                lines_delta=-1,
                turn=evidence.turn,
            )
        )


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
    counts = {name: [0, 0] for name in policies}
    for index in range(studies):
        effects = proposals.draw(np.random.default_rng([seed, index]), budget)
        for name, policy in policies.items():
            random = np.random.default_rng([seed, index, 1])
            study = Study(policy, noise_of, random, correlation=correlation)
            study.start()
            turn = 0
            while study.spent < budget and turn < len(effects):
                study.trial(float(effects[turn]), turn, budget)
                turn += 1
            results[name].append(study.quality)
            counts[name][0] += study.keeps
            counts[name][1] += turn
    report: dict[str, Any] = {
        name: {
            "quality": round(statistics.fmean(values), 3),
            "worst_5_percent": round(float(np.quantile(values, 0.05)), 2),
            "keeps": round(counts[name][0] / studies, 2),
            "trials": round(counts[name][1] / studies, 1),
        }
        for name, values in results.items()
    }
    gains = [c - g for c, g in zip(results["confirm"], results["greedy"], strict=True)]
    report["confirm_minus_greedy"] = round(statistics.fmean(gains), 3)
    report["se"] = round(statistics.stdev(gains) / math.sqrt(studies), 3)
    return report


# Pruning --------------------------------------------------------------------------------------

STEPS = 120


def drawn_curve(
    random: np.random.Generator, worse: float, warmdown: float, heat: float, warmup: float
) -> list[tuple[float, float]]:
    """A training-loss curve: a power law of the learning rate spent, plus a term that goes with
    the learning rate itself and vanishes as it decays, plus the noise of batches.

    worse: nats by which the final level is worse. warmdown, warmup: shares of the budget. heat:
    size of the term that decays, which hides the final level until then.
    """
    t = (np.arange(STEPS) + 1) / STEPS
    rate = np.minimum(1.0, np.minimum(t / max(warmup, 1e-9), (1 - t) / warmdown))
    spent = np.cumsum(rate) / STEPS
    level = 2.4 + worse + 0.55 * (spent / 0.75 + 0.01) ** -0.45
    start = np.exp(-np.arange(STEPS) / 2)
    loss = start * 9.0 + (1 - start) * (level + heat * rate)
    batch = random.standard_normal(STEPS) * 0.06
    return [(float(a), float(b)) for a, b in zip(t, loss + batch * (1 - start), strict=True)]


def stopped_at(pruner: Pruner, curve: list[tuple[float, float]], champions: Any) -> float | None:
    """Share of the budget at which the pruner stops this curve, asked often on the way."""
    for share_now in (0.25, *np.linspace(0.5, 1.0, 11)):
        if pruner.judge([p for p in curve if p[0] <= share_now], champions).stop:
            return float(share_now)
    return None


def pruning_drawn(count: int, seed: int) -> dict[str, Any]:
    """Drawn candidates with other schedules: wrongly stopped, and hopeless ones found.

    A stop is wrong if the final loss would have been within 0.02 nats of the champion's: about
    ten times the noise of a score, so also candidates that would have lost narrowly count.
    """
    random = np.random.default_rng(seed)
    pruner = Pruner()
    table = {"wrong": [0, 0], "stopped": [0, 0]}
    shares = []
    for _ in range(count):
        champions = [
            drawn_curve(random, random.normal(0, 0.006), 0.5, 0.12, 0.0)
            for _ in range(BASELINE_SEEDS)
        ]
        end = statistics.fmean(loss for c in champions for t, loss in c if t > 0.98)
        curve = drawn_curve(
            random,
            worse=float(random.choice([0.0, -0.02, 0.01, 0.05, 0.2, 0.6])),
            warmdown=float(random.choice([0.1, 0.2, 0.5, 0.7, 1.0])),
            heat=float(random.choice([0.06, 0.12, 0.2, 0.3])),
            warmup=float(random.choice([0.0, 0.0, 0.1, 0.4])),
        )
        final = statistics.fmean(loss for t, loss in curve if t > 0.98)
        at = stopped_at(pruner, curve, champions)
        kind = "wrong" if final - end < 0.02 else "stopped" if final - end > 0.3 else ""
        if kind:
            table[kind][0] += at is not None
            table[kind][1] += 1
        if at is not None:
            shares.append(at)
    return {
        "good_runs_stopped": {**share(*table["wrong"]), "of": table["wrong"][1]},
        "runs_worse_by_0.3_nats_stopped": {**share(*table["stopped"]), "of": table["stopped"][1]},
        "median_share_at_stop": round(statistics.median(shares), 2) if shares else None,
    }


def pruning_recorded(path: Path = RECORDED) -> dict[str, Any] | None:
    """Every recorded edit against three recorded curves of the baseline, every seed in turn.

    A stop is wrong if the run's val_bpb came out better than the baseline's mean plus two of its
    standard deviations.
    """
    if not path.is_file():
        return None
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    base = [run for run in runs["baseline"] if run["val_bpb"] is not None]
    scores = [run["val_bpb"] for run in base]
    limit = statistics.fmean(scores) + 2 * statistics.stdev(scores)
    good = wrong = bad = found = 0
    for name, repeats in runs.items():
        for run in repeats:
            if run["val_bpb"] is None:
                continue
            curve = [tuple(point) for point in run["curve"]]
            others = [r for r in base if name != "baseline" or r["seed"] != run["seed"]]
            for first in range(len(others)):
                picked = [others[(first + k) % len(others)]["curve"] for k in range(3)]
                stop = stopped_at(Pruner(), curve, picked) is not None
                if run["val_bpb"] <= limit:
                    good, wrong = good + 1, wrong + stop
                else:
                    bad, found = bad + 1, found + stop
    return {
        "good_runs_stopped": {**share(wrong, max(good, 1)), "of": good},
        "bad_runs_stopped": {**share(found, max(bad, 1)), "of": bad},
        "runs": sum(len(r) for r in runs.values()),
    }


# The tables -----------------------------------------------------------------------------------

SENSITIVITY = {
    "harm 1.5 sigma": Proposals(harm=1.5),
    "harm 3 sigma": Proposals(harm=3.0),
    "harm 5 sigma": Proposals(harm=5.0),
    "10% do nothing": Proposals(nothing=0.1),
    "40% do nothing": Proposals(nothing=0.4),
    "60% do nothing": Proposals(nothing=0.6),
    "mostly small gains": Proposals(sizes="small"),
    "mostly small gains, 40% do nothing": Proposals(sizes="small", nothing=0.4),
}


def run_all(studies: int, decisions: int, seed: int) -> dict[str, Any]:
    """Every table, as plain JSON values."""
    confirm, greedy = Confirm(), Greedy()
    both: dict[str, Policy] = {"confirm": confirm, "greedy": greedy}
    noises: dict[str, Draw] = {
        "gaussian": gaussian,
        "2% outliers of 15 sigma": outliers,
        "heavy tails (t3)": heavy_tails,
    }
    recorded = recorded_noise()
    if recorded is not None:
        noises["recorded seeds"] = recorded
    report: dict[str, Any] = {"seed": seed, "baseline_seeds": BASELINE_SEEDS, "noise": {}}
    for name, noise_of in noises.items():
        few = max(decisions // 5, 1)
        report["noise"][name] = {
            "decisions": {
                policy_name: [
                    single_decisions(policy, noise_of, e, decisions if e == 0 else few, seed)
                    for e in (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
                ]
                for policy_name, policy in both.items()
            },
            "noop_studies": noop_studies(confirm, noise_of, max(studies // 8, 1), 100, seed),
            "simpler": [
                simpler_edits(confirm, noise_of, e, few, seed) for e in (-2.0, -1.0, -0.5, 0.0)
            ],
            "final": final_quality(both, noise_of, Proposals(), studies, 100, seed),
        }
    report["longer"] = final_quality(both, gaussian, Proposals(), max(studies // 7, 1), 700, seed)
    report["sensitivity"] = {
        name: final_quality(both, gaussian, proposals, max(studies // 2, 1), 100, seed)
        for name, proposals in SENSITIVITY.items()
    }
    report["correlated"] = {
        "noop_studies": noop_studies(confirm, gaussian, max(studies // 8, 1), 100, seed, 0.5),
        "final": final_quality(both, gaussian, Proposals(), max(studies // 2, 1), 100, seed, 0.5),
    }
    report["pruning_drawn"] = pruning_drawn(max(studies, 1), seed)
    report["pruning_recorded"] = pruning_recorded()
    return report


def markdown(report: dict[str, Any]) -> str:
    """The tables for benchmarks/README.md."""
    lines = [
        "| noise | policy | -2 | -1 | no-op | +1 | +2 | +4 | runs, no-op | runs, +2 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, part in report["noise"].items():
        for policy, rows in part["decisions"].items():
            kept = " | ".join(f"{row['kept']['share']:.1%}" for row in rows)
            lines.append(f"| {name} | {policy} | {kept} | {rows[2]['runs']} | {rows[4]['runs']} |")
    lines += [
        "",
        "| study | confirm | greedy | difference | keeps | trials |",
        "|---|---|---|---|---|---|",
    ]
    finals = {f"{name} noise": part["final"] for name, part in report["noise"].items()}
    finals["gaussian noise, 700 runs"] = report["longer"]
    finals["gaussian noise, half of it shared by seed"] = report["correlated"]["final"]
    finals.update({f"gaussian, {name}": part for name, part in report["sensitivity"].items()})
    for name, part in finals.items():
        c, g = part["confirm"], part["greedy"]
        lines.append(
            f"| {name} | {c['quality']:.2f} | {g['quality']:.2f} | "
            f"{part['confirm_minus_greedy']:+.2f} ± {part['se']:.2f} | "
            f"{c['keeps']:.1f} / {g['keeps']:.1f} | {c['trials']:.0f} / {g['trials']:.0f} |"
        )
    lines += ["", "| noise | -2 | -1 | -0.5 | 0 |", "|---|---|---|---|---|"]
    for name, part in report["noise"].items():
        kept = " | ".join(f"{row['kept']['share']:.1%}" for row in part["simpler"])
        lines.append(f"| {name} | {kept} |")
    return "\n".join(lines)


def main() -> None:
    """Run every table, print it and write the JSON."""
    parser = argparse.ArgumentParser(description="Replay the policies on drawn and recorded noise.")
    parser.add_argument("--studies", type=int, default=1000, help="whole studies per table row")
    parser.add_argument("--decisions", type=int, default=6_000, help="no-op decisions per row")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "decisions.json")
    options = parser.parse_args()
    started = time.perf_counter()
    report = run_all(options.studies, options.decisions, options.seed)
    print(markdown(report))
    print(json.dumps({k: report[k] for k in ("pruning_drawn", "pruning_recorded")}, indent=1))
    print(f"{time.perf_counter() - started:.0f} s")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

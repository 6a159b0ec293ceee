"""Drawn and recorded training curves against the engine's pruning: good runs stopped, bad found."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from decision_simulator import BASELINE_SEEDS, RECORDED, share

from autoresearch.engine.pruning import Pruner

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

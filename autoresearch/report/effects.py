"""How well the effect of a kept idea is known: its 95% interval, and the champion's lineage.

steps(state, noises, direction)    # a dict per champion that today's stands on, the baseline first
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.engine.evidence import Direction, Evidence, estimate_effect
from autoresearch.engine.noise import Noise, normal_equivalent
from autoresearch.engine.proposers.text import one_line
from autoresearch.engine.state import State, scores
from autoresearch.engine.trial import Trial
from autoresearch.report.rows import IDEA, REASON, finite
from autoresearch.study import lineage

Z = 1.959964  # of 95%, both sides


def interval(
    state: State, trial: Trial, noise: Noise | None, direction: Direction
) -> tuple[float, float] | None:
    """Where the effect of a trial lies with 95%, in the objective's unit; None if unknown.

    Around the recorded effect, with the standard error of the runs that decided and the noise as
    it is known now. Looking repeatedly is not allowed for: the confidence of the decision is.
    """
    own, champion = scores(trial.replicates, trial.score_id), state.champion_scores(trial)
    if noise is None or finite(trial.delta) is None or not own or not champion:
        return None
    delta = float(trial.delta or 0.0)
    if noise.sd == 0:
        return delta, delta
    chosen = state.chosen_by(trial.parent or 0, trial.score_id)
    evidence = Evidence(own, champion, noise, direction, chosen_by=chosen).with_own_scatter()
    half = quantile(evidence.noise.dof) * estimate_effect(evidence).se
    return delta - half, delta + half


def quantile(dof: float, z: float = Z) -> float:
    """Student's t with the tail of the normal deviate z; infinite where nothing is known."""
    low, high = z, 1e6
    if normal_equivalent(high, dof) < z:
        return float("inf")
    while high - low > 1e-4 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if normal_equivalent(middle, dof) >= z else (middle, high)
    return high


def steps(
    state: State, noises: Mapping[str, Noise | None], direction: Direction
) -> list[dict[str, Any]]:
    """The champions in order, each with its effect on the one before; low and high in gains."""
    sign = -1.0 if direction == "minimize" else 1.0
    found = []
    for trial in lineage(state):
        predicted = finite(trial.predicted)
        span = interval(state, trial, noises.get(trial.score_id), direction)
        gains = sorted(sign * end for end in span) if span else [None, None]
        found.append(
            {
                "id": trial.id,
                "idea": one_line(trial.description, IDEA),
                "reason": one_line(trial.reason, REASON),
                "score": finite(trial.score),
                "score_id": trial.score_id,
                "delta": finite(trial.delta),
                "gain": None if finite(trial.delta) is None else sign * (trial.delta or 0.0),
                "low": finite(gains[0]),
                "high": finite(gains[1]),
                "confidence": finite(trial.confidence),
                "predicted_gain": None if predicted is None else sign * predicted,
                "commit": trial.commit or "",
                "proposer": trial.proposer,
                "finished_at": trial.finished_at,
                "seeds": len(scores(trial.replicates, trial.score_id)),
            }
        )
    return found

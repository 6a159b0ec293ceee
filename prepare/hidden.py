"""Hidden targets: a scored answer, asked for again without the token that it was scored on.

A row of the validation text holds the next token at every position, so a model that looks one
token ahead is wrong at a single position of a row whose future was replaced: averages hide it,
and a leak that shows itself only where it pays is seldom met by chance. So, when the scores are
known, positions are drawn in proportion to how much better the model did than a unigram would
have; everything after them is replaced, and the second process is asked. What it says about the
true next token must be what the first one said: a leak is worth exactly the difference.

The chance to meet a leak that earns a share s of all that the model gains over a unigram is about
1 - (1 - s) ** TARGETS: 0.93 for s = 0.02.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prepare.score import target_nats

TARGETS = 128
# Share of the draw that ignores how well the model did.
UNIFORM_SHARE = 0.25
# Positions before the cut that are compared too: what sees further than one token shows there.
WINDOW = 16
# Largest allowed difference in nats: of any single target; and of the mean, when it is also SIGMAS
# beyond chance. The same shape is computed the same way, usually bit for bit, and what rounding
# there is goes both ways.
LIMITS = {"float32": (0.02, 1e-4), "bfloat16": (0.5, 5e-4), "float16": (0.2, 5e-4)}
SIGMAS = 5.0


@dataclass(frozen=True)
class HiddenTargets:
    """One question: tokens (n, L); row i is scored row `rows[i]`, replaced after `positions[i]`."""

    tokens: np.ndarray
    rows: np.ndarray
    positions: np.ndarray


def plan_hidden(
    rows: np.ndarray, nats: np.ndarray, size: int, random: np.random.Generator
) -> list[HiddenTargets]:
    """Questions of `size` rows, about TARGETS positions in all, at most one per row on average.

    Args:
        rows: (N, T+1) validation tokens. nats: (N, T) as scored, NaN where nothing counts.
    """
    places = np.flatnonzero(np.isfinite(nats[:, :-1]))  # the last target is in no question
    n_rows, length = nats.shape
    count = min(TARGETS, n_rows, len(places)) // size * size
    chosen = random.choice(places, count, replace=False, p=_weights(rows, nats, places))
    at_rows, at = np.divmod(random.permutation(chosen), length - 1)
    tokens = rows[at_rows, :-1].astype(np.int32)
    for index, (row, position) in enumerate(zip(at_rows, at, strict=True)):
        tokens[index, position + 1 :] = _other_future(rows, int(row), int(position) + 1, random)
    return [
        HiddenTargets(tokens[i : i + size], at_rows[i : i + size], at[i : i + size])
        for i in range(0, count, size)
    ]


def _weights(rows: np.ndarray, nats: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Chance of each place: by what the model gained there over the text's own unigram."""
    targets = rows[:, 1:-1].reshape(-1)[places].astype(np.int64)
    counts = np.bincount(targets)
    gained = np.log(len(targets) / counts[targets]) - nats[:, :-1].reshape(-1)[places]
    weights = np.clip(gained, 0.0, None)
    total = weights.sum()
    uniform = np.full(len(places), 1.0 / len(places))
    if total <= 0:
        return uniform
    return UNIFORM_SHARE * uniform + (1 - UNIFORM_SHARE) * weights / total


def _other_future(
    rows: np.ndarray, row: int, start: int, random: np.random.Generator
) -> np.ndarray:
    """Another row's tokens from `start` on, the first of them not the true one."""
    future = rows[row, start:-1]
    for _ in range(16):  # a text of one token has no other future
        future = rows[random.integers(len(rows)), start:-1]
        if future[0] != rows[row, start]:
            break
    return future


class HiddenComparison:
    """Collects how much less the second process knew than the first was paid for, in nats."""

    def __init__(self, compute_dtype: str, rows: np.ndarray, nats: np.ndarray) -> None:
        """rows: (N, T+1) validation tokens. nats: (N, T) as scored, NaN where nothing counts."""
        self._limit, self._mean_limit = LIMITS.get(compute_dtype, LIMITS["bfloat16"])
        self._rows, self._nats = rows, nats
        self._single: list[float] = []
        self._near: list[float] = []

    def check(self, hidden: HiddenTargets, logits: np.ndarray) -> None:
        """Compare an answer (n, L, V) with what was scored."""
        for index, (row, position) in enumerate(zip(hidden.rows, hidden.positions, strict=True)):
            window = np.arange(max(0, position - WINDOW), position + 1)
            window = window[np.isfinite(self._nats[row, window])]
            nats = target_nats(logits[index, window], self._rows[row, window + 1])
            lost = nats - self._nats[row, window]
            self._single.append(float(lost[-1]))
            self._near.append(float(lost.mean()))

    def deviation(self) -> dict[str, float]:
        """{mean, max, rows}: of the nats lost at the hidden targets."""
        lost = np.array(self._single)
        if not len(lost):
            return {"mean": 0.0, "max": 0.0, "rows": 0}
        return {"mean": float(lost.mean()), "max": float(np.abs(lost).max()), "rows": len(lost)}

    def violation(self) -> str | None:
        """What is wrong, or None."""
        found = self.deviation()
        if found["max"] > self._limit:
            return f"({found['max']:.2g} nats at worst, allowed {self._limit:g})"
        for what, values in (("", self._single), (" near them", self._near)):
            mean = float(np.mean(values)) if values else 0.0
            if mean > self._mean_limit and _beyond_chance(np.array(values)):
                return f"({mean:.2g} nats on average{what}, allowed {self._mean_limit:g})"
        return None


def _beyond_chance(values: np.ndarray) -> bool:
    """Whether values are positive on average, by their mean or by their signs.

    A leak only ever helps, so a small one is skewed: its mean is uncertain, its signs are not.
    """
    if len(values) < 2:
        return False
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    signs = np.sign(values)
    return bool(
        values.mean() > SIGMAS * error or signs.sum() > SIGMAS * np.count_nonzero(signs) ** 0.5
    )

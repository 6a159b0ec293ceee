"""Probes: questions that look like all others and tell a language model from a trick.

Validity comes before significance: a model that peeks at the token it is asked for, remembers
what it saw earlier, or mixes the rows of a batch has no val_bpb at all.

Two fresh processes load the same weights. One answers the rows that are scored, each once, in a
secret order. The other answers some of the same batches again, changed in ways that must not
change the answer; since it never saw the originals, it can't repeat what the first one said:

- `other future`: the row's beginning, then another row's text. Logits before the change must
  stay (prefix lengths of nanochat PR #845 and random ones).
- `other company`: the row unchanged, among other rows. Its logits must stay.
- `bare prefix`: only the beginning, as a shorter row.
- `alone`: the row as a batch of one.
- `hidden target`: see `prepare.hidden`.

Distributions are compared by total variation, half the sum of |p - q|: 0 is the same, 1 disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prepare.score import InvalidAnswer, widen

PREFIXES = (1, 3, 7, 15, 31, 32, 63)

# Largest allowed total variation, as (mean over positions, any single position), by compute
# dtype. Same shape: a row's arithmetic doesn't depend on masked or neighbouring values, so it is
# usually bit-identical. Other shape: another kernel may add in another order; measured on CPU in
# bfloat16, after five minutes of training: 0.0021 / 0.0103, so these leave a factor of ten.
SAME_SHAPE = {"float32": (1e-4, 1e-2), "bfloat16": (2e-3, 0.1), "float16": (1e-3, 0.05)}
OTHER_SHAPE = {"float32": (1e-3, 2e-2), "bfloat16": (2e-2, 0.25), "float16": (1e-2, 0.15)}


@dataclass(frozen=True)
class Probe:
    """One question of the second process and what to compare its rows with.

    tokens: (n, L). sources: for each row, (batch, row) in the first process's questions. keep: for
    each row, how many leading positions must agree. kinds: for each row, the name used in reports.
    same_shape: whether the question has the shape of the original one.
    """

    tokens: np.ndarray
    sources: tuple[tuple[int, int], ...]
    keep: tuple[int, ...]
    kinds: tuple[str, ...]
    same_shape: bool


@dataclass(frozen=True)
class ProbeReport:
    """Largest deviation found per kind: {kind: {mean, max, rows}}; all within tolerance.

    Total variation, but nats for "hidden target".
    """

    deviations: dict[str, dict[str, float]]


def plan_probes(
    questions: list[np.ndarray], batches: list[int], random: np.random.Generator
) -> list[Probe]:
    """Probes for the questions whose indices are `batches`, in a secret order.

    Args:
        questions: the scored process's questions, each (n, L) tokens.
        batches: which of them are repeated in changed form.
        random: seeded from the operating system, so that nobody can foresee it.
    """
    everything = np.concatenate(questions)
    probes: list[Probe] = []
    for batch in batches:
        original = questions[batch]
        rows, length = original.shape
        tokens = original.copy()
        keep, kinds = [], []
        company = int(random.integers(rows)) if rows > 1 else -1
        for row in range(rows):
            if row == company or (rows > 1 and random.random() < 0.25):
                keep.append(length)
                kinds.append("other company")
                continue
            cut = _cut(length, row, random)
            tokens[row, cut:] = everything[random.integers(len(everything)), cut:]
            keep.append(cut)
            kinds.append("other future")
        sources = tuple((batch, row) for row in range(rows))
        probes.append(Probe(tokens, sources, tuple(keep), tuple(kinds), same_shape=True))

        row, cut = int(random.integers(rows)), _cut(length, int(random.integers(100)), random)
        bare = original[row : row + 1, :cut]
        probes.append(Probe(bare, ((batch, row),), (cut,), ("bare prefix",), same_shape=False))
        row = int(random.integers(rows))
        alone = original[row : row + 1]
        probes.append(Probe(alone, ((batch, row),), (length,), ("alone",), same_shape=rows == 1))
    order = random.permutation(len(probes))
    return [probes[index] for index in order]


def _cut(length: int, row: int, random: np.random.Generator) -> int:
    """Where a row's future begins: the known traps first, then anywhere."""
    choices = [cut for cut in (*PREFIXES, length // 2, length - 1) if 0 < cut < length]
    if row % 2 == 0:
        return int(choices[random.integers(len(choices))])
    return int(random.integers(1, length))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float32. Raises InvalidAnswer if the logits aren't finite."""
    values = widen(logits)
    peak = values.max(axis=-1, keepdims=True)
    if not np.isfinite(peak).all():
        raise InvalidAnswer("not_finite", "the logits hold NaN or infinite values")
    values -= peak
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Half the sum of |p - q| per position. first, second: (L, V) logits. Returns (L,)."""
    return 0.5 * np.abs(probabilities(first) - probabilities(second)).sum(axis=-1)


# In the order of diagnosis: the first two keep every row's tokens, so that only what comes after
# them can be blamed on the future.
_MEANING = {
    "other company": (
        "batch_dependence",
        "a row's logits change with the other rows, with their order or with what was answered "
        "before: rows must be independent, nothing may be remembered or drawn at random",
    ),
    "alone": (
        "batch_dependence",
        "a row's logits differ when it is alone: rows must be independent of each other",
    ),
    "other future": (
        "causality",
        "logits change with tokens that come later: the model sees the future "
        "(mask its attention, convolution, filter or normalisation over time)",
    ),
    "bare prefix": (
        "causality",
        "logits of a prefix differ from those of the same tokens in a longer row: the model uses "
        "the row's length or its future",
    ),
    "hidden target": (
        "causality",
        "logits of scored tokens get worse when what comes after them is replaced: the model sees "
        "the token that it is asked for",
    ),
}


class Comparison:
    """Collects deviations of the second process's answers from the first's."""

    def __init__(self, compute_dtype: str) -> None:
        self._dtype = compute_dtype if compute_dtype in SAME_SHAPE else "bfloat16"
        self._worst: dict[str, dict[str, float]] = {}
        self._violations: dict[str, str] = {}

    def check(self, probe: Probe, originals: dict[int, np.ndarray], logits: np.ndarray) -> None:
        """Compare an answer (n, L, V) with the kept ones, {batch: (n, T, V)}."""
        mean_limit, limit = (SAME_SHAPE if probe.same_shape else OTHER_SHAPE)[self._dtype]
        for row, (batch, original_row) in enumerate(probe.sources):
            keep, kind = probe.keep[row], probe.kinds[row]
            original = originals[batch][original_row, :keep]
            distance = total_variation(original, logits[row, :keep])
            mean, worst = float(distance.mean()), float(distance.max())
            self._note(kind, mean, worst)
            if mean > mean_limit or worst > limit:
                self._violations.setdefault(
                    kind,
                    f"(first {keep} positions: total variation {mean:.2g} on average, allowed "
                    f"{mean_limit:g}; {worst:.2g} at worst, allowed {limit:g})",
                )

    def _note(self, kind: str, mean: float, worst: float) -> None:
        seen = self._worst.setdefault(kind, {"mean": 0.0, "max": 0.0, "rows": 0})
        seen["mean"], seen["max"] = max(seen["mean"], mean), max(seen["max"], worst)
        seen["rows"] += 1

    def add(self, kind: str, deviation: dict[str, float], violation: str | None) -> None:
        """Take in what was found elsewhere, by another measure."""
        self._worst[kind] = deviation
        if violation is not None:
            self._violations[kind] = violation

    def report(self) -> ProbeReport:
        """What was found. Raises InvalidAnswer if any of it is more than arithmetic explains."""
        for kind, (failure, meaning) in _MEANING.items():
            if kind in self._violations:
                raise InvalidAnswer(failure, f"probe '{kind}': {meaning} {self._violations[kind]}")
        return ProbeReport(self._worst)

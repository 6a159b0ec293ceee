"""The score's arithmetic, and what the probes let through and what they don't.

Candidates are models in NumPy; a honest one and the ways in which people have cheated.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from prepare.evaluate import evaluate
from prepare.probes import probabilities
from prepare.score import InvalidAnswer, Tally, decode_logits, target_nats, widen

V, T, N = 64, 48, 120
TOKEN_BYTES = np.array([*([1] * 40), *([3] * 23), 0], dtype=np.int32)
Model = Callable[[np.ndarray], np.ndarray]


def to_bfloat16_bits(logits: np.ndarray) -> np.ndarray:
    """Round to the nearest bfloat16, as its bit pattern."""
    bits = np.ascontiguousarray(logits, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@pytest.fixture
def rows() -> np.ndarray:
    """Rows whose next token can be guessed from the last two, as (N, T+1) tokens."""
    random = np.random.default_rng(0)
    out = random.integers(V, size=(N, T + 1))
    for t in range(2, T + 1):
        known = random.random(N) < 0.7
        out[known, t] = (out[known, t - 1] * 7 + out[known, t - 2]) % V
    return out.astype(np.uint16)


def honest(tokens: np.ndarray) -> np.ndarray:
    """A second-order guess of the next token."""
    logits = np.zeros((*tokens.shape, V), dtype=np.float32)
    guess = (tokens[:, 1:].astype(int) * 7 + tokens[:, :-1]) % V
    np.put_along_axis(logits[:, 1:], guess[..., None], 5.0, axis=2)
    return logits


def run(rows: np.ndarray, model: Callable[[], Model], dtype: str = "float32", seed: int = 1):
    """Evaluate two fresh instances of a model, as two processes would be."""

    def ask(instance: Model) -> Callable[[list[np.ndarray]], Iterator[np.ndarray]]:
        return lambda questions: (instance(question) for question in questions)

    random = np.random.default_rng(seed)
    return evaluate(rows, TOKEN_BYTES, dtype, ask(model()), ask(model()), random)


def test_uniform_model_scores_log2_of_the_vocabulary(rows):
    score, _ = run(rows, lambda: lambda x: np.full((*x.shape, V), 0.3, dtype=np.float32))
    counted = int((TOKEN_BYTES[rows[:, 1:]] > 0).sum())
    size = int(TOKEN_BYTES[rows[:, 1:]].sum())
    assert score.val_bpb == pytest.approx(counted * math.log2(V) / size, abs=1e-9)
    assert (score.tokens, score.bytes) == (counted, size)


def test_honest_model_passes_and_equals_float64_arithmetic(rows):
    score, report = run(rows, lambda: honest)
    logits = honest(rows[:, :-1]).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = rows[:, 1:].astype(int)
    nats = -np.take_along_axis(log_probabilities, targets[..., None], 2)[..., 0]
    counted = TOKEN_BYTES[targets] > 0
    expected = nats[counted].sum() / (math.log(2) * TOKEN_BYTES[targets].sum())
    assert score.val_bpb == pytest.approx(expected, rel=1e-6)
    kinds = {"other future", "other company", "bare prefix", "alone", "hidden target"}
    assert set(report.deviations) == kinds
    assert all(deviation["max"] == 0 for deviation in report.deviations.values())


def test_score_does_not_depend_on_the_secret_order(rows):
    scores = {run(rows, lambda: honest, seed=seed)[0].val_bpb for seed in range(4)}
    assert len(scores) == 1


def test_bfloat16_transport_is_exact(rows):
    rounded = widen(to_bfloat16_bits(honest(rows[:2, :-1])))
    assert np.array_equal(rounded, honest(rows[:2, :-1]))
    score, _ = run(rows, lambda: lambda x: to_bfloat16_bits(honest(x)), "bfloat16")
    assert score.val_bpb == run(rows, lambda: honest)[0].val_bpb


def peek(tokens: np.ndarray) -> np.ndarray:
    """Knows the next token: attention without a mask."""
    logits = honest(tokens)
    np.put_along_axis(logits[:, :-1], tokens[:, 1:, None].astype(int), 9.0, axis=2)
    return logits


def block_summary(tokens: np.ndarray) -> np.ndarray:
    """Each block of 16 sees its own average: the leak of nanochat #844."""
    logits = honest(tokens)
    for start in range(0, tokens.shape[1], 16):
        block = tokens[:, start : start + 16]
        counts = np.stack([np.bincount(row, minlength=V) for row in block])
        logits[:, start : start + 16] += 0.3 * counts[:, None, :]
    return logits


def length_aware(tokens: np.ndarray) -> np.ndarray:
    """Behaves on full rows only."""
    return honest(tokens) if tokens.shape[1] == T else honest(tokens) * 0.5


def smooth_over_time(tokens: np.ndarray) -> np.ndarray:
    """A filter over the whole row, in the manner of an FFT."""
    logits = honest(tokens)
    return logits + 0.1 * logits.mean(axis=1, keepdims=True)


def batch_norm(tokens: np.ndarray) -> np.ndarray:
    """Mixes the rows of a batch."""
    logits = honest(tokens)
    return logits - 0.5 * logits.mean(axis=0, keepdims=True)


class Remembers:
    """Counts the tokens of all rows that it was asked before: dynamic evaluation."""

    def __init__(self) -> None:
        self.counts = np.zeros(V, dtype=np.float32)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        logits = honest(tokens) + np.log1p(self.counts)
        self.counts += np.bincount(tokens.reshape(-1), minlength=V)
        return logits


class CachesPrefixes:
    """Peeks, and when it meets a prefix again gives the answer it gave before."""

    def __init__(self) -> None:
        self.seen: dict[bytes, np.ndarray] = {}

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        logits = peek(tokens)
        for row, answer in zip(tokens, logits, strict=True):
            earlier = self.seen.setdefault(row[:2].tobytes(), answer.copy())
            shared = min(len(earlier), len(answer))
            answer[:shared] = earlier[:shared]
        return logits


def at_random() -> Model:
    """Dropout left on."""
    random = np.random.default_rng()
    return lambda x: honest(x) + random.normal(size=(*x.shape, V)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: peek, "causality"),
        (lambda: block_summary, "causality"),
        (lambda: smooth_over_time, "causality"),
        (lambda: length_aware, "causality"),
        (lambda: batch_norm, "batch_dependence"),
        (Remembers, "batch_dependence"),
        (CachesPrefixes, "batch_dependence"),
        (at_random, "batch_dependence"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_tricks_are_refused_with_their_kind(rows, model, kind, seed):
    with pytest.raises(InvalidAnswer) as caught:
        run(rows, model, "bfloat16", seed)
    assert caught.value.kind == kind


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def model(tokens: np.ndarray) -> np.ndarray:
        logits = honest(tokens)
        logits[0, 5, 7] = value
        return logits

    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_logits_are_refused(rows, value):
    with pytest.raises(InvalidAnswer, match="NaN or infinite") as caught:
        run(rows, lambda: with_value(value))
    assert caught.value.kind == "not_finite"


def test_minus_infinity_is_allowed_where_it_isnt_the_target():
    logits = np.zeros((2, V), dtype=np.float32)
    logits[:, 3] = -np.inf
    assert target_nats(logits, np.array([1, 2])) == pytest.approx([math.log(V - 1)] * 2)
    with pytest.raises(InvalidAnswer, match="probability 0"):
        target_nats(logits, np.array([1, 3]))


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e30, 0.0], [-1e30, 0.0]], dtype=np.float32)
    assert target_nats(logits, np.array([0, 1])).tolist() == [0.0, 0.0]
    assert probabilities(logits[None])[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_row_counts_once(rows):
    tally = Tally(rows, TOKEN_BYTES)
    tally.add(np.array([0]), honest(rows[:1, :-1]))
    with pytest.raises(ValueError, match="counted before"):
        tally.add(np.array([0]), honest(rows[:1, :-1]))
    with pytest.raises(ValueError, match="never answered"):
        tally.score()


@pytest.mark.parametrize(
    ("dtype", "size", "match"),
    [("int64", 64, "allowed are float32"), ("float32", 60, "60 bytes"), ("bfloat16", 64, "64 by")],
)
def test_answers_of_a_wrong_form_are_refused(dtype, size, match):
    with pytest.raises(InvalidAnswer, match=match):
        decode_logits(np.zeros(size, dtype=np.uint8), dtype, (1, 2, 8))

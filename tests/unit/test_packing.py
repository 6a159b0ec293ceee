"""Packing: nothing lost, nothing starved, whatever the documents look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prepare.errors import CorruptFile
from prepare.feed import Feed, row_order
from prepare.packing import RowPlan, Rows, plan_rows
from prepare.tokens import TokenStore

BOS = 1 << 20


def make_rows(lengths: list[int] | np.ndarray, max_seq_len: int) -> Rows:
    """Documents of BOS and then tokens that name their own position in the store."""
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    tokens = np.arange(offsets[-1], dtype=np.uint32)
    tokens[offsets[:-1]] = BOS
    return Rows(TokenStore(tokens, offsets, 0, BOS), plan_rows(offsets, max_seq_len))


def read_all(rows: Rows) -> np.ndarray:
    out = np.empty((len(rows), rows.max_seq_len + 1), np.uint32)
    rows.read(np.arange(len(rows)), out)
    return out


def check(rows: Rows) -> None:
    """Every token but BOS is a target exactly once, after the token before it in the text."""
    packed, tokens = read_all(rows), rows.store.tokens
    inputs, targets = packed[:, :-1], packed[:, 1:]
    text = targets != BOS
    expected = tokens[tokens != BOS]
    np.testing.assert_array_equal(np.sort(targets[text]), expected)
    begins = tokens[targets[text].astype(np.int64) - 1]
    np.testing.assert_array_equal(inputs[text], begins)


documents = st.one_of(
    st.lists(st.integers(1, 9), max_size=60),
    st.lists(st.one_of(st.just(1), st.integers(1, 40), st.integers(30, 200)), max_size=120),
    st.tuples(st.integers(1, 90), st.integers(0, 300)).map(lambda pair: [pair[0]] * pair[1]),
)


@given(lengths=documents, max_seq_len=st.integers(1, 33))
@settings(max_examples=300, deadline=None)
def test_every_token_is_a_target_exactly_once(lengths: list[int], max_seq_len: int) -> None:
    check(make_rows(lengths, max_seq_len))


@given(seed=st.integers(0, 2**32), max_seq_len=st.sampled_from([16, 63, 128]))
@settings(max_examples=20, deadline=None)
def test_many_documents_at_once(seed: int, max_seq_len: int) -> None:
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(3.5, 1.2, 6000), 1, 5000).astype(np.int64)
    rows = make_rows(lengths, max_seq_len)
    check(rows)
    least = int(lengths.sum()) / (max_seq_len + 1)
    # A row of a long document repeats one token of the row before it.
    assert len(rows) < least * (1.02 + 1 / max_seq_len) + 1


@pytest.mark.parametrize(
    "lengths",
    [[1], [2], [1, 1, 1], [17], [18], [33], [34], [500], [16] * 200, [11] * 500, [12, 7] * 400],
)
def test_edges(lengths: list[int]) -> None:
    rows = make_rows(lengths, 16)
    check(rows)
    padded = (read_all(rows) == BOS).sum(1) > 16
    assert padded.sum() <= 1


def test_only_the_last_row_is_padded() -> None:
    lengths = np.full(1000, 70)
    packed = read_all(make_rows(lengths, 99))
    surplus = (packed[:, 1:] == BOS).sum() - 1000
    assert surplus < 100 + 1000 / 50


def test_rows_are_full_of_whole_documents_where_lengths_vary() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(5, 60, 20_000)
    rows = make_rows(lengths, 128)
    cut = len(rows.plan.sources) - len(lengths)
    assert cut < len(rows) * 0.35


def test_long_documents_never_starve() -> None:
    random = np.random.default_rng(0)
    short = random.integers(50, 400, 40_000)
    long = random.integers(600, 20_000, 250)
    lengths = random.permutation(np.concatenate((short, long)))
    rows = make_rows(lengths, 512)
    per_row = rows.plan.long_tokens
    share = (long - 1).sum() / (lengths - 1).sum()
    assert per_row.sum() == (long - 1).sum()
    for seed, epoch in ((0, 0), (1, 0), (1, 3)):
        ordered = np.concatenate(([0], np.cumsum(per_row[row_order(per_row, seed, epoch)])))
        windows = (ordered[1000:] - ordered[:-1000]) / (1000 * 512)
        assert np.abs(windows - share).max() < 0.02 * share + 0.001


@pytest.mark.parametrize("mean", [3, 400])
def test_read_takes_any_rows_in_any_order(mean: int) -> None:
    """Short runs are gathered, long ones copied: both give the same as reading in order."""
    rows = make_rows(np.random.default_rng(0).poisson(mean, 3000) + 1, 256)
    everything = read_all(rows)
    indices = np.random.default_rng(1).integers(0, len(rows), 77)
    out = np.empty((77, 257), np.uint32)
    rows.read(indices, out)
    np.testing.assert_array_equal(out, everything[indices])


def test_read_refuses_an_array_it_cannot_fill() -> None:
    rows = make_rows([20] * 30, 16)
    with pytest.raises(ValueError, match="contiguous"):
        rows.read(np.arange(2), np.empty((2, 34), np.uint32)[:, ::2])


def test_plan_survives_the_disk(tmp_path: Path) -> None:
    plan = make_rows([5, 80, 3] * 50, 32).plan
    plan.save(tmp_path / "rows")
    loaded = RowPlan.load(tmp_path / "rows")
    for name in ("starts", "sources", "lengths", "long_tokens"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(plan, name))


@pytest.mark.parametrize("name", ["starts", "sources", "lengths", "long_tokens"])
def test_truncated_plan_is_corrupt(tmp_path: Path, name: str) -> None:
    make_rows([5, 80, 3] * 50, 32).plan.save(tmp_path)
    file = tmp_path / f"{name}.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptFile):
        RowPlan.load(tmp_path)


@pytest.mark.parametrize("length", [5, 1000])  # gathered token by token, or run by run
def test_a_plan_that_names_absent_tokens_is_corrupt(length: int) -> None:
    rows = make_rows([length] * 50, 2 * length)
    rows.plan.sources[:] += rows.plan.n_tokens
    with pytest.raises(CorruptFile, match="aren't there"):
        read_all(rows)


def test_feed_shows_every_row_once_an_epoch_and_reshuffles() -> None:
    rows = make_rows([9, 40, 3] * 40, 16)
    n, everything = len(rows), read_all(rows)
    feed = Feed(rows, seed=7)
    seen, epochs = [], []
    for _ in range(3):
        for _ in range(n):
            out = np.empty((1, 17), np.uint32)
            epochs.append(feed.fill(out))
            seen.append(out[0].tobytes())
    assert epochs == [0] * n + [1] * n + [2] * n
    first, second, third = seen[:n], seen[n : 2 * n], seen[2 * n :]
    assert (
        sorted(first) == sorted(second) == sorted(third) == sorted(r.tobytes() for r in everything)
    )
    assert first != second != third


def test_feed_is_independent_of_batch_size() -> None:
    rows = make_rows([9, 40, 3] * 40, 16)

    def read(batch: int, total: int) -> np.ndarray:
        feed, parts = Feed(rows, seed=3), []
        for _ in range(total // batch):
            out = np.empty((batch, 17), np.uint32)
            feed.fill(out)
            parts.append(out)
        return np.concatenate(parts)

    np.testing.assert_array_equal(read(1, 600), read(300, 600))


def test_order_is_the_same_everywhere() -> None:
    """Literal values: a change here changes what every seed trains on."""
    long_tokens = np.arange(100) % 7
    assert row_order(long_tokens, seed=42, epoch=0)[:8].tolist() == [2, 20, 5, 21, 97, 86, 24, 1]
    assert row_order(long_tokens, seed=42, epoch=1)[:8].tolist() == [67, 17, 18, 15, 47, 55, 14, 68]

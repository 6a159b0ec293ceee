"""`bench feed`: tokens per second of the feed, against the plain way to pack rows in Python.

- fill: `Feed.fill` into one array, the packing alone;
- ring: packed, announced, and read by another process through shared memory, as in training;
- plain: best-fit packing of token lists in a Python loop (benchmarks/reference/packing.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoresearch.bench.samples import Figure, Ratio, Report, interleave, silent
from autoresearch.bench.variants import load_module, reference_path
from autoresearch.console import OnEvent
from prepare.channel import Channel, SharedFile
from prepare.dataset import Dataset, prepare_dataset
from prepare.feed import Feed
from prepare.feeder import Feeder, ring_bytes
from prepare.process import child_environment
from prepare.settings import Settings

if TYPE_CHECKING:
    from prepare.packing import Rows

CONSUMER = """
import sys
from prepare.channel import Channel, shared_array
channel = Channel(sys.stdin.buffer, sys.stdout.buffer)
ring = None
total = 0
while True:
    message = channel.receive()
    if message["kind"] == "end":
        channel.send("total", sum=total)
        break
    if message["kind"] == "opened":
        ring = shared_array(message["ring"], tuple(message["shape"]), message["dtype"])
        continue
    total += int(ring[message["slot"]].astype("int64")[:, 0].sum())
    channel.send("released", slot=message["slot"])
"""


@dataclass(frozen=True)
class Stream:
    """What is fed: batches of `rows` rows of a prepared corpus."""

    rows: int = 128
    seq_len: int = 2048
    vocab: int = 8192
    corpus_bytes: int = 16_000_000
    batches: int = 60  # of a sample
    plain_rows: int = 20  # of a sample of the plain way, which is a hundred times as slow

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "corpus": "embedded",
                "corpus_bytes": self.corpus_bytes,
                "vocab_size": self.vocab,
                "max_seq_len": self.seq_len,
            }
        )


class _Process:
    """The part of a candidate process that a Feeder needs."""

    def __init__(self, channel: Channel) -> None:
        self.send = channel.send


def measure(stream: Stream, repeats: int, on_event: OnEvent = silent) -> Report:
    """Rates, the first batch's time, and tokens that no row shows. Raises PrepareError."""
    on_event("phase", {"phase": "feed: a corpus"})
    dataset = prepare_dataset(stream.settings, on_event)
    first_batches = [_first_batch_seconds(stream) for _ in range(repeats)]
    store = dataset.train.store
    documents = [
        store.tokens[store.offsets[i] : store.offsets[i + 1]].tolist()
        for i in range(min(4000, store.n_documents))
    ]
    rates = interleave(
        {
            "fill": lambda: fill_rate(dataset, stream),
            "ring": lambda: ring_rate(dataset, stream),
            "plain": lambda: plain_rate(documents, stream),
        },
        repeats,
        on_event,
        "feed",
    )
    figures = [Figure(name, tuple(r / 1e6 for r in rates[name]), "M tokens/s") for name in rates]
    figures.append(Figure("first batch", tuple(1000 * s for s in first_batches), "ms"))
    figures.append(Figure("never shown", (float(never_shown(dataset.train)),), "tokens"))
    ratios = tuple(
        Ratio.of(f"{name} / plain", rates[name], rates["plain"]) for name in ("fill", "ring")
    )
    notes = (f"{len(store.tokens):,} tokens, embedded corpus",)
    return Report("feed", asdict(stream), tuple(figures), ratios, notes)


def _first_batch_seconds(stream: Stream) -> float:
    """From a prepared corpus on disk to the first batch."""
    start = time.perf_counter()
    rows = prepare_dataset(stream.settings).train
    Feed(rows, 1).fill(np.empty((stream.rows, stream.seq_len + 1), rows.dtype))
    return time.perf_counter() - start


def fill_rate(dataset: Dataset, stream: Stream) -> float:
    """Tokens per second of packing alone."""
    feed = Feed(dataset.train, seed=1)
    out = np.empty((stream.rows, stream.seq_len + 1), feed.rows.dtype)

    def fill() -> None:
        feed.fill(out)

    return _rate(fill, stream)


def ring_rate(dataset: Dataset, stream: Stream) -> float:
    """Tokens per second that another process reads through the ring."""
    ring = SharedFile(ring_bytes(stream.seq_len))
    consumer = subprocess.Popen(
        [sys.executable, "-c", CONSUMER],
        pass_fds=ring.handles,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment({}),
    )
    assert consumer.stdin is not None and consumer.stdout is not None
    channel = Channel(consumer.stdout, consumer.stdin)  # type: ignore[arg-type]
    process, feed = _Process(channel), Feed(dataset.train, 1)
    feeder = Feeder(process, feed, stream.rows, stream.seq_len + 1, ring)  # type: ignore[arg-type]
    channel.send("opened", **feeder.announcement)
    feeder.start()

    def read() -> None:
        channel.receive()
        feeder.released()

    try:
        read()  # from here on the consumer is warm
        return _rate(read, stream)
    finally:
        feeder.close()
        consumer.kill()
        consumer.wait()
        consumer.stdin.close()
        consumer.stdout.close()
        ring.close()


def _rate(batch: Callable[[], None], stream: Stream) -> float:
    start = time.perf_counter()
    for _ in range(stream.batches):
        batch()
    return stream.batches * stream.rows * stream.seq_len / (time.perf_counter() - start)


def plain_rate(documents: list[list[int]], stream: Stream) -> float:
    """Tokens per second of best-fit packing in plain Python."""
    pack = load_module(reference_path("packing.py")).pack
    out = np.empty((stream.plain_rows, stream.seq_len + 1), np.int64)
    start = time.perf_counter()
    pack(documents, out)
    return stream.plain_rows * stream.seq_len / (time.perf_counter() - start)


def never_shown(rows: Rows) -> int:
    """Tokens of the store that are in no row of the plan."""
    plan = rows.plan
    change = np.zeros(plan.n_tokens + 1, np.int64)
    np.add.at(change, plan.sources, 1)
    np.add.at(change, plan.sources + plan.lengths, -1)
    return int((np.cumsum(change)[:-1] == 0).sum())

"""Tokens per second of the feed, against the plain way to pack rows in Python.

    python benchmarks/feed.py [--output benchmarks/results/NAME.json]

Three ways in one run, interleaved, median of several:
- fill: `Feed.fill` into one array, the packing alone;
- ring: packed, announced, and read by another process through shared memory, as in training;
- reference: best-fit packing of token lists in a plain Python loop that searches a buffer of 1,000
  documents for each place, the design that single-GPU scripts use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prepare.channel import Channel, SharedFile
from prepare.dataset import Dataset, prepare_dataset
from prepare.feed import Feed
from prepare.process import child_environment
from prepare.settings import Settings
from prepare.training import Feeder, ring_bytes

ROWS, MAX_SEQ_LEN = 128, 2048
ROUNDS = 7

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


class _Process:
    """The part of a candidate process that a Feeder needs."""

    def __init__(self, channel: Channel) -> None:
        self.send = channel.send


def fill_rate(dataset: Dataset, batches: int) -> float:
    """Tokens per second of packing alone."""
    feed = Feed(dataset.train, seed=1)
    out = np.empty((ROWS, MAX_SEQ_LEN + 1), feed.rows.dtype)
    start = time.perf_counter()
    for _ in range(batches):
        feed.fill(out)
    return batches * ROWS * MAX_SEQ_LEN / (time.perf_counter() - start)


def ring_rate(dataset: Dataset, batches: int) -> float:
    """Tokens per second that another process reads through the ring."""
    ring = SharedFile(ring_bytes(MAX_SEQ_LEN))
    consumer = subprocess.Popen(
        [sys.executable, "-c", CONSUMER],
        pass_fds=ring.handles,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment({}),
    )
    assert consumer.stdin is not None
    assert consumer.stdout is not None
    channel = Channel(consumer.stdout, consumer.stdin)  # type: ignore[arg-type]
    process, feed = _Process(channel), Feed(dataset.train, 1)
    feeder = Feeder(process, feed, ROWS, MAX_SEQ_LEN + 1, ring)  # type: ignore[arg-type]
    channel.send("opened", **feeder.announcement)
    feeder.start()
    channel.receive()  # the first batch: from here on the consumer is warm
    feeder.released()
    start = time.perf_counter()
    for _ in range(batches):
        channel.receive()
        feeder.released()
    seconds = time.perf_counter() - start
    feeder.close()
    consumer.kill()
    consumer.wait()
    ring.close()
    return batches * ROWS * MAX_SEQ_LEN / seconds


def reference_rate(documents: list[list[int]], rows: int) -> float:
    """Tokens per second of best-fit packing in plain Python."""
    capacity, buffer, position = MAX_SEQ_LEN + 1, [], 0
    out = np.empty((rows, capacity), np.int64)
    start = time.perf_counter()
    for row in range(rows):
        place = 0
        while place < capacity:
            while len(buffer) < 1000:
                buffer.append(documents[position % len(documents)])
                position += 1
            space = capacity - place
            best = -1
            for index, document in enumerate(buffer):
                if len(document) <= space and (best < 0 or len(document) > len(buffer[best])):
                    best = index
            if best < 0:
                best = min(range(len(buffer)), key=lambda index: len(buffer[index]))
            document = buffer.pop(best)[:space]
            out[row, place : place + len(document)] = document
            place += len(document)
    return rows * MAX_SEQ_LEN / (time.perf_counter() - start)


def main() -> None:
    """Measure, print JSON, and write it to --output."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="write the figures to this file too")
    parser.add_argument("--corpus-bytes", type=int, default=64_000_000)
    options = parser.parse_args()
    settings = Settings(
        corpus="embedded",
        corpus_bytes=options.corpus_bytes,
        vocab_size=8192,
        max_seq_len=MAX_SEQ_LEN,
    )
    dataset = prepare_dataset(settings)
    began = time.perf_counter()
    first = np.empty((ROWS, MAX_SEQ_LEN + 1), dataset.train.dtype)
    Feed(prepare_dataset(settings).train, 1).fill(first)
    first_batch = time.perf_counter() - began
    store = dataset.train.store
    documents = [
        store.tokens[store.offsets[i] : store.offsets[i + 1]].tolist() for i in range(4000)
    ]
    rates: dict[str, list[float]] = {"fill": [], "ring": [], "reference": []}
    for _ in range(ROUNDS):
        rates["fill"].append(fill_rate(dataset, 60))
        rates["ring"].append(ring_rate(dataset, 60))
        rates["reference"].append(reference_rate(documents, 20))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    report = {
        "benchmark": "feed",
        "conditions": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "corpus": f"embedded, {len(store.tokens):,} tokens",
            "batch": f"{ROWS} rows of {MAX_SEQ_LEN} tokens",
            "rounds": ROUNDS,
        },
        "tokens_per_second": {
            name: {"median": medians[name], "lowest": min(values), "highest": max(values)}
            for name, values in rates.items()
        },
        "ratio_to_reference": {name: medians[name] / medians["reference"] for name in medians},
        "first_batch_seconds": first_batch,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=options.output.parent, delete=False) as file:
            file.write(text + "\n")
        Path(file.name).replace(options.output)


if __name__ == "__main__":
    main()

"""`bench tokenizer`: text to tokens on disk, against tiktoken's own batch on all cores.

Ours is `TokenStore.build`, the way that `prepare` goes: encoded and written shard by shard.
tiktoken's is `encode_ordinary_batch`, which writes nothing. The peak of memory is that of a process
which builds a store, and another four times as large.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, interleave, silent
from autoresearch.bench.worker import Worker
from autoresearch.console import OnEvent
from prepare.channel import Channel
from prepare.embedded import stories
from prepare.tokenizer import SPLIT_PATTERN, Tokenizer
from prepare.tokens import SHARD_CHARACTERS, TokenStore

if TYPE_CHECKING:
    import tiktoken

TIMES = 4  # the larger store, in sizes of the smaller


@dataclass(frozen=True)
class Text:
    """What is tokenized: `text_bytes` of the embedded corpus."""

    text_bytes: int = 2 * SHARD_CHARACTERS
    vocab: int = 8192
    trained_bytes: int = 2_000_000


def measure(text: Text, repeats: int, on_event: OnEvent = silent) -> Report:
    """MB/s of both, and how memory grows with the text."""
    on_event("phase", {"phase": "tokenizer: a corpus"})
    texts = [story.text for story in stories(0, text.text_bytes)]
    size = sum(len(story.encode()) for story in texts) / 1e6
    sample = (story.text for story in stories(0, text.trained_bytes))
    tokenizer = Tokenizer.train(sample, text.vocab)
    encoding, threads = encoding_of(tokenizer), os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as name:
        folder = Path(name)
        tokenizer.save(folder / "tokenizer.json")
        counter = itertools.count()
        seconds = interleave(
            {
                "ours": lambda: _seconds_of_store(folder / str(next(counter)), texts, tokenizer),
                "tiktoken": lambda: _seconds_of_batch(encoding, texts, threads),
            },
            repeats,
            on_event,
            "tokenizer",
        )
        on_event("phase", {"phase": "tokenizer: memory"})
        job = {"folder": name, "text": asdict(text)}
        with Worker("tokenizer", job) as worker:
            once, more = (worker.ask(times=times)["mb"] for times in (1, TIMES))
    rates = {name: tuple(size / s for s in seconds[name]) for name in seconds}
    figures = [Figure(name, values, "MB/s") for name, values in rates.items()]
    figures.append(Figure(f"peak memory, {size:.0f} MB of text", (once,), "MB"))
    figures.append(Figure(f"peak memory, {TIMES * size:.0f} MB of text", (more,), "MB"))
    ratios = (
        Ratio.of("speed of ours / tiktoken", rates["ours"], rates["tiktoken"]),
        Ratio.of(f"memory of {TIMES} times the text", [more], [once], LOWER),
    )
    return Report("tokenizer", asdict(text), tuple(figures), ratios)


def encoding_of(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """tiktoken's encoding with the same tokens."""
    import tiktoken

    count = tokenizer.bos - tokenizer.unused
    ranks = {tokenizer.decode_bytes([token]): token for token in range(count)}
    return tiktoken.Encoding(
        "bench", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


def _seconds_of_store(folder: Path, texts: Sequence[str], tokenizer: Tokenizer) -> float:
    start = time.perf_counter()
    TokenStore.build(folder, iter(texts), tokenizer)
    return time.perf_counter() - start


def _seconds_of_batch(encoding: tiktoken.Encoding, texts: Sequence[str], threads: int) -> float:
    start = time.perf_counter()
    encoding.encode_ordinary_batch(list(texts), num_threads=threads)
    return time.perf_counter() - start


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Build stores of the text `times` over, which is never all in memory, and say the peak."""
    from backends.process_memory import peak_rss_mb, reset_peak_rss

    folder, text = Path(job["folder"]), Text(**job["text"])
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    part = [story.text for story in stories(0, SHARD_CHARACTERS // 4)]
    part_bytes = sum(len(story) for story in part)
    channel.send("ready")
    while True:
        times = channel.receive()["times"]
        rounds = max(1, times * text.text_bytes // part_bytes)
        repeated = itertools.chain.from_iterable(itertools.repeat(part, rounds))
        reset_peak_rss()
        TokenStore.build(folder / f"memory-{times}", repeated, tokenizer)
        channel.send("done", mb=peak_rss_mb())

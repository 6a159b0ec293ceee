"""In a measuring process: one thing done again and again, its time and its peak of memory.

serve_passes(channel, step, synchronize)     # `passes` -> seconds of each; `peak` -> MB
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

from autoresearch.bench.samples import interleave
from autoresearch.bench.worker import Worker
from autoresearch.console import OnEvent
from backends.process_memory import return_freed_memory
from prepare.channel import Channel

WARM_PASSES = 2
BLOCK_SECONDS = 1.0


def serve_passes(channel: Channel, step: Callable[[], Any]) -> None:
    """Warm up, say so, and answer: `passes=n` with seconds, `peak=True` with MB."""
    from backends import runtime

    def seconds(passes: int) -> float:
        runtime.synchronize()
        start = time.perf_counter()
        for _ in range(passes):
            step()
        runtime.synchronize()
        return time.perf_counter() - start

    seconds(WARM_PASSES)
    channel.send("ready")
    while True:
        request = channel.receive()
        if request.get("peak"):
            channel.send("done", mb=peak_of(step))
        else:
            channel.send("done", seconds=seconds(request["passes"]))


def time_passes(
    workers: Mapping[str, Worker],
    repeats: int,
    on_event: OnEvent,
    task: str,
    block_seconds: float = BLOCK_SECONDS,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of a pass of each worker, in turn; a sample is of about `block_seconds`."""

    def sampler(worker: Worker) -> Callable[[], float]:
        once = worker.ask(passes=1)["seconds"]
        passes = max(1, round(block_seconds / once))
        return lambda: 1000 * worker.ask(passes=passes)["seconds"] / passes

    samplers = {name: sampler(worker) for name, worker in workers.items()}
    return interleave(samplers, repeats, on_event, task)


def peak_of(step: Callable[[], Any]) -> float:
    """MB (2**20 bytes) that one pass needs at most beyond what is held before it.

    On MLX, whose allocator forgets what is held when its peak is reset, all that is held.
    """
    from backends import runtime

    return_freed_memory()
    for _ in range(WARM_PASSES):
        step()
    runtime.synchronize()
    gc.collect()
    runtime.reset_peak_memory()
    before = runtime.peak_memory_mb()
    step()
    runtime.synchronize()
    return runtime.peak_memory_mb() - before

"""What a device can do at most: multiply matrices, read and write memory."""

from __future__ import annotations

import time
from typing import Any

from prepare.channel import Channel

ARRAY_BYTES = 1 << 28  # bytes: past every cache


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Answers `seconds` with FLOP/s of a matrix product, or with `memory` with bytes/s."""
    from backends import runtime

    runtime.matmul_peak(0.1)
    channel.send("ready")
    while True:
        request = channel.receive()
        if request.get("memory"):
            channel.send("done", bytes_per_second=memory_traffic(request["seconds"]))
        else:
            channel.send("done", flops=runtime.matmul_peak(request["seconds"]))


def memory_traffic(seconds: float) -> float:
    """Bytes read and written per second: a large array counted up in place, the best of several.

    Not a copy proper, which MLX would leave out.
    """
    from backends import runtime, torch

    array = torch.zeros(ARRAY_BYTES // 4, dtype=torch.float32).to(runtime.device)
    best, until = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < until:
        runtime.synchronize()
        start = time.perf_counter()
        array.add_(1.0)
        runtime.synchronize()
        best = max(best, 2 * ARRAY_BYTES / (time.perf_counter() - start))
    return best

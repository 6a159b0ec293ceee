"""`bench attention`: windowed attention against PyTorch's own with a T x T mask, or MLX's.

Forward and backward pass of one layer, each implementation in a process of its own.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.bench.passes import serve_passes, time_passes
from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, silent
from autoresearch.bench.variants import load_module, reference_path
from autoresearch.bench.worker import Worker, start_all
from autoresearch.console import OnEvent
from prepare.channel import Channel

if TYPE_CHECKING:
    from backends import Selection

MASKED = "T x T mask"


@dataclass(frozen=True)
class Layer:
    """One attention layer."""

    batch: int = 2
    tokens: int = 2048
    heads: int = 4
    head_dim: int = 64


def measure(selection: Selection, layer: Layer, repeats: int, on_event: OnEvent = silent) -> Report:
    """Times and memory at windows of T/2 and T/4. Raises WorkerFailed."""
    asked = selection.policy.attention
    ours = "block_local" if asked == "sdpa" else asked  # sdpa is what it is measured against
    environment = {**selection.environment(), "AUTORESEARCH_ATTENTION": ours}
    figures, ratios = [], []
    for share in (2, 4):
        task = f"attention, window T/{share}"
        job = {"layer": asdict(layer), "window": layer.tokens // share}
        processes = {
            name: Worker("attention", {**job, "masked": name == MASKED}, environment)
            for name in (ours, MASKED)
        }
        with contextlib.ExitStack() as stack:
            workers, failures = start_all(stack, processes, ours, on_event, task)
            times = time_passes(workers, repeats, on_event, task)
            peaks = {name: worker.ask(peak=True)["mb"] for name, worker in workers.items()}
        for name in workers:
            figures.append(Figure(f"{name}, window T/{share}", times[name], "ms"))
            figures.append(Figure(f"{name}, window T/{share}, memory", (peaks[name],), "MB"))
        if MASKED in workers:
            label = f"{ours} / {MASKED}, window T/{share}"
            ratios.append(Ratio.of(f"speed of {label}", times[MASKED], times[ours]))
            memory = (peaks[ours],), (peaks[MASKED],)
            ratios.append(Ratio.of(f"memory of {label}", *memory, LOWER))
    about = {"backend": selection.hardware.backend, **asdict(layer)}
    return Report("attention", about, tuple(figures), tuple(ratios), failures=failures)


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Forward and backward pass of one layer whose queries, keys and values are parameters."""
    from backends import nn, runtime, torch

    layer, window = Layer(**job["layer"]), job["window"]
    plain = load_module(reference_path("plain.py"))
    mask = plain.band_mask(layer.tokens, window).to(runtime.device) if job["masked"] else None
    shape = (layer.batch, layer.tokens, layer.heads, layer.head_dim)

    def drawn() -> Any:
        return torch.randn(*shape).to(runtime.device).to(runtime.compute_dtype)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Parameter(drawn()) for _ in range(3))
            self.register_buffer("dy", drawn())
            self.register_buffer("mask", mask)

        def forward(self, x: Any, y: Any) -> Any:
            if self.mask is None:
                out = runtime.attention(self.q, self.k, self.v, window)
            else:
                out = plain.attention(self.q, self.k, self.v, self.mask)
            return (out * self.dy).float().sum()

    model = Attention()
    backward, nothing = runtime.backward(model), torch.zeros(1)

    def step() -> None:
        backward(nothing, nothing)
        model.zero_grad(set_to_none=True)

    serve_passes(channel, step)

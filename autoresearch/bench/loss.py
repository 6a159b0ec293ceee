"""`bench loss`: soft-capped cross-entropy in chunks against all logits at once.

Forward and backward pass: time, and the peak of memory beyond what the inputs take.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.bench.passes import serve_passes, time_passes
from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, silent
from autoresearch.bench.variants import OURS, load_module, plain_environments, reference_path
from autoresearch.bench.worker import Worker, start_all
from autoresearch.console import OnEvent
from prepare.channel import Channel

if TYPE_CHECKING:
    from backends import Selection


@dataclass(frozen=True)
class Head:
    """An output head and the tokens that go through it."""

    tokens: int = 4096
    vocab: int = 8192
    width: int = 256


def measure(selection: Selection, head: Head, repeats: int, on_event: OnEvent = silent) -> Report:
    """Times and peaks. Raises WorkerFailed if train.py's loss does."""
    environments = {OURS: selection.environment(), **plain_environments(selection)}
    processes = {
        name: Worker("loss", {"head": asdict(head), "plain": name != OURS}, environment)
        for name, environment in environments.items()
    }
    with contextlib.ExitStack() as stack:
        workers, failures = start_all(stack, processes, OURS, on_event, "loss")
        times = time_passes(workers, repeats, on_event, "loss")
        peaks = {name: worker.ask(peak=True)["mb"] for name, worker in workers.items()}
    figures, ratios = [], []
    for name in workers:
        figures.append(Figure(name, times[name], "ms"))
        figures.append(Figure(f"{name}, memory", (peaks[name],), "MB"))
        if name != OURS:
            ratios.append(Ratio.of(f"speed of {OURS} / {name}", times[name], times[OURS]))
            memory = (peaks[OURS],), (peaks[name],)
            ratios.append(Ratio.of(f"memory of {OURS} / {name}", *memory, LOWER))
    about = {"backend": selection.hardware.backend, **asdict(head)}
    return Report("loss", about, tuple(figures), tuple(ratios), failures=failures)


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Forward and backward pass of a head whose inputs are parameters too."""
    from backends import nn, runtime, torch

    head = Head(**job["head"])
    plain = load_module(reference_path("plain.py"))

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            x = torch.randn(head.tokens, head.width)
            self.x = nn.Parameter(x.to(runtime.device).to(runtime.compute_dtype))
            weight = torch.randn(head.vocab, head.width) * head.width**-0.5
            self.weight = nn.Parameter(weight.to(runtime.device))

        def forward(self, x: Any, targets: Any) -> Any:
            if job["plain"]:
                return plain.cross_entropy(self.x, self.weight, targets)
            return runtime.softcap_cross_entropy(self.x, self.weight, targets, plain.SOFTCAP)

    model = Loss()
    backward, nothing = runtime.backward(model), torch.zeros(1)
    targets = torch.randint(0, head.vocab, (head.tokens,)).to(runtime.device)

    def step() -> None:
        backward(nothing, targets)
        model.zero_grad(set_to_none=True)

    serve_passes(channel, step)

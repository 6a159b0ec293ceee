"""`bench optimizer`: a step of train.py's optimizer against one that goes parameter by parameter.

Both are given the same random gradients; the plain one is compiled too.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.bench.passes import serve_passes, time_passes
from autoresearch.bench.samples import Figure, Ratio, Report, silent
from autoresearch.bench.variants import OURS, Size, load_module, plain_compiled, variants_for
from autoresearch.bench.worker import Worker, start_all
from autoresearch.console import OnEvent
from prepare.channel import Channel
from prepare.run import Spec

if TYPE_CHECKING:
    from backends import Selection


def measure(selection: Selection, size: Size, repeats: int, on_event: OnEvent = silent) -> Report:
    """Milliseconds of a step. Raises WorkerFailed."""
    plain = plain_compiled(selection)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="autoresearch-bench-"))
        variants = variants_for(selection, size, Path(folder))
        processes = {
            name: Worker("optimizer", size.job(variants[name].module), variants[name].environment)
            for name in (OURS, plain)
        }
        workers, failures = start_all(stack, processes, OURS, on_event, "optimizer")
        times = time_passes(workers, repeats, on_event, "optimizer")
    figures = tuple(Figure(name, values, "ms") for name, values in times.items())
    ratios = [
        Ratio.of(f"speed of {OURS} / {name}", times[name], times[OURS])
        for name in workers
        if name != OURS
    ]
    sizes = {name: asdict(size)[name] for name in ("depth", "width", "head_dim", "vocab")}
    about = {"backend": selection.hardware.backend, **sizes}
    return Report("optimizer", about, figures, tuple(ratios), failures=failures)


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Steps of the optimizer that a train module's `make_optimizer(model)` makes."""
    from backends import runtime, torch

    size = Size(**job["size"])
    module = load_module(Path(job["module"]))
    runtime.seed(0)
    model = module.build_model(Spec(size.vocab, size.seq_len))
    optimizer = module.make_optimizer(model)
    for p in model.parameters():
        p.grad = (1e-3 * torch.randn(*p.shape)).to(p.device).to(p.dtype)
    serve_passes(channel, optimizer.step)

"""`bench training`: tokens/s of train.py, optimizer included, against the plain programs.

Each program runs its own `train(model, run)` in a process of its own; `run.batches` stops between
blocks of steps, and the processes take turns: A B C, A B C, ... The same turns measure the peak of
a matrix product, so that an MFU has both its numbers from the same minute.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.bench.samples import Figure, Ratio, Report, interleave, silent
from autoresearch.bench.variants import (
    OURS,
    PLAIN,
    Size,
    load_module,
    plain_compiled,
    variants_for,
)
from autoresearch.bench.worker import Worker, start_all
from autoresearch.console import OnEvent
from backends.process_memory import keep_freed_memory
from prepare.channel import Channel
from prepare.run import Run, Spec

if TYPE_CHECKING:
    from backends import Selection

WARM_STEPS = 3  # compiling, the allocator's first rounds
BLOCK_SECONDS = 3.0
PEAK_SECONDS = 0.5
POOL = 32  # batches of random tokens, over and over: what they say costs nothing


def measure(
    selection: Selection,
    size: Size,
    repeats: int,
    on_event: OnEvent = silent,
    eager: bool = True,
) -> Report:
    """Rates, their ratios and MFU; `eager` says whether against plain eager fp32 as well.

    Raises WorkerFailed if train.py itself fails.
    """
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        variants = variants_for(selection, size, Path(folder))
        with contextlib.ExitStack() as stack:
            processes = {
                name: Worker("training", size.job(variant.module), variant.environment)
                for name, variant in variants.items()
                if eager or name != PLAIN
            }
            workers, failures = start_all(stack, processes, OURS, on_event, "training")
            peak = stack.enter_context(Worker("peak", {}, selection.environment()))
            blocks = {name: _block_steps(worker) for name, worker in workers.items()}

            def rate(name: str) -> float:
                done = workers[name].ask(steps=blocks[name])
                return blocks[name] * size.step_tokens / done["seconds"]

            turns: dict[str, Callable[[], float]] = {n: partial(rate, n) for n in workers}
            turns["peak"] = lambda: float(peak.ask(seconds=PEAK_SECONDS)["flops"])
            samples = interleave(turns, repeats, on_event, "training")
            ready = {name: worker.ready for name, worker in workers.items()}
            traffic = peak.ask(seconds=PEAK_SECONDS, memory=True)["bytes_per_second"]
    peaks = samples.pop("peak")
    figures = [Figure(name, values, "tokens/s") for name, values in samples.items()]
    figures.append(Figure("matrix product", tuple(f / 1e9 for f in peaks), "GFLOP/s"))
    figures.append(Figure("memory traffic", (traffic / 1e9,), "GB/s"))
    ratios = [
        Ratio.of(f"{OURS} / {name}", samples[OURS], samples[name])
        for name in (PLAIN, plain_compiled(selection))
        if name in samples
    ]
    for name, rates in samples.items():
        flops = ready[name]["flops_per_token"]
        ratios.append(Ratio.of(f"MFU of {name}", [flops * r for r in rates], peaks))
    for name, rates in samples.items():
        flops = ready[name]["flops_per_token"] + ready[name]["flops_of_embeddings"]
        label = f"MFU of {name}, embeddings counted"
        ratios.append(Ratio.of(label, [flops * r for r in rates], peaks))
    about = {"backend": selection.hardware.backend, **asdict(size)}
    notes = (f"{OURS}: {ready[OURS]['policy']}",)
    return Report(
        f"training T{size.seq_len}", about, tuple(figures), tuple(ratios), notes, failures
    )


def _block_steps(worker: Worker) -> int:
    """Steps that take about BLOCK_SECONDS."""
    return max(1, round(BLOCK_SECONDS / worker.ask(steps=1)["seconds"]))


# In the measuring process


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Run a train module's own `train`, block by block."""
    from backends import nn, runtime

    size = Size(**job["size"])
    module = load_module(Path(job["module"]))
    if module.__name__ == "train":  # as the harness does; the plain one is a script by itself
        keep_freed_memory()
    runtime.seed(0)
    spec = Spec(size.vocab, size.seq_len)
    model = module.build_model(spec)
    model.train()
    policy = runtime.policy
    facts = {
        "flops_per_token": int(model.flops_per_token()),
        # A look-up multiplies nothing; who takes 6 N of all parameters N counts it all the same.
        "flops_of_embeddings": 6
        * sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)),
        "policy": f"{policy.compute_dtype}, attention {policy.attention}, "
        + ("compiled" if policy.compile else "eager"),
    }
    module.train(model, BlockRun(spec, channel, size.step_tokens, facts))


class BlockRun(Run):
    """Hands out random tokens for as many steps as it is told to, and says how long they took."""

    def __init__(
        self, spec: Spec, channel: Channel, step_tokens: int, facts: dict[str, Any]
    ) -> None:
        super().__init__(spec, seed=0)
        self._channel, self._step_tokens, self._facts = channel, step_tokens, facts
        self.loss = 0.0

    @property
    def progress(self) -> float:
        return 0.0

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        from backends import runtime

        batches = random_batches(self.spec, device_batch_size)
        per_step = self._step_tokens // (device_batch_size * self.spec.max_seq_len)
        steps, kind, facts = WARM_STEPS, "ready", self._facts
        while True:
            runtime.synchronize()
            start = time.perf_counter()
            for _ in range(steps * per_step):
                yield next(batches)
            runtime.synchronize()
            seconds = time.perf_counter() - start
            self._channel.send(kind, seconds=seconds, loss=self.loss, **facts)
            steps, kind, facts = int(self._channel.receive()["steps"]), "done", {}

    def log(self, step: int, loss: Any, **more: Any) -> None:
        self.loss = float(loss)


def random_batches(spec: Spec, rows: int) -> Iterator[tuple[Any, Any]]:
    """Pairs (x, y) on the device, endlessly, made of host arrays as in a run."""
    import numpy as np

    from backends import runtime

    random = np.random.default_rng(0)
    shape = (POOL, rows, spec.max_seq_len + 1)
    pool = random.integers(spec.vocab_size, size=shape, dtype=np.uint16)
    while True:
        for batch in pool:
            yield runtime.from_numpy(batch[:, :-1]), runtime.from_numpy(batch[:, 1:])

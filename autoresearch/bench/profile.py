"""`bench mfu --profile`: where the time of a training step goes.

What a step does is told apart by when it happens (feed, model, optimizer: `run.batches`, what
`runtime.backward` returns, all else) and, within the model, by the names that torch's profiler has
for operators and kernels. What names don't tell is "rest": norms, RoPE, embeddings, copies, and of
the loss and of attention what the compiler fused with those. Attention that is written as matrix
products counts as such. On MLX, which has no such profiler, the model is one part.
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.bench.samples import Figure, Report, silent
from autoresearch.bench.training import random_batches
from autoresearch.bench.variants import load_module
from autoresearch.bench.worker import Worker
from autoresearch.console import OnEvent
from prepare.channel import Channel
from prepare.run import Run, Spec

if TYPE_CHECKING:
    from autoresearch.preset import Preset

# torch's compiler then makes kernels for processors that its profiler sees.
NAMED_KERNELS = {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"}
WARM_STEPS = 3
SECONDS = 5.0  # of profiled steps
MOST_STEPS = 30
FEED, MODEL, LOSS = "feed", "model", "loss"
PARTS = ("matrix products", "attention", "loss", "optimizer", "feed", "rest", "device idle")

# The first pattern that a name matches says what it is.
_NAMES = (
    ("attention", r"attention|flash|fmha|sdpa|flex_|attn"),
    ("loss", r"tanh|logsumexp|log_softmax|nll_loss|cross_entropy|scatter|gather"),
    (
        "matrix products",
        r"(^|::|_|\b)(add|b|baddb|int_)?mm(_|\b|$)|matmul|linear|gemm|cutlass|nvjet|xmma|Cijk_",
    ),
)


def part_of(name: str) -> str:
    """Which part of the model an operator or kernel belongs to, by its name."""
    for part, pattern in _NAMES:
        if re.search(pattern, name, re.IGNORECASE):
            return part
    return "rest"


def measure(preset: Preset, backend: str, on_event: OnEvent = silent) -> Report:
    """Shares of a step of the preset's train.py. Raises WorkerFailed."""
    import backends
    from autoresearch.preset import write_experiment

    selection = backends.make_ready(backend)
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        settings = write_experiment(preset, Path(folder), selection.hardware)
        job = {
            "module": str(Path(folder) / "train.py"),
            "spec": {"vocab_size": settings.vocab_size, "max_seq_len": settings.max_seq_len},
            "seconds": SECONDS,
        }
        on_event("phase", {"phase": f"profile: {backend}"})
        environment = {**selection.environment(), **NAMED_KERNELS}
        with Worker("profile", job, environment) as worker:
            found = worker.ready
    figures = [
        Figure(part, (100 * found["parts"][part] / found["seconds"],), "% of the time")
        for part in (*PARTS, MODEL)
        if part in found["parts"]
    ]
    notes = (
        f"{found['steps']} steps in {found['seconds']:.2f} s; the profiler itself takes a part",
        "optimizer: all outside feed and model, with its matrix products; those of the loss, and "
        "of attention that is written as products, are among the model's; rest: norms, RoPE, "
        "embeddings, copies, and what the compiler fused with them",
    )
    return Report("profile", {"backend": backend, "preset": preset.name}, tuple(figures), (), notes)


# In the measuring process


def serve(channel: Channel, job: dict[str, Any]) -> None:
    """Train for some seconds under the profiler, and say what took how long."""
    from backends import runtime

    clock = Clock()
    # train.py asks for them by these names. What is compiled is one piece: no range fits inside.
    backward = runtime.backward
    runtime.backward = lambda model: clock.around(MODEL, backward(model))
    if not runtime.policy.compile:
        loss = clock.around(LOSS, runtime.softcap_cross_entropy)
        runtime.softcap_cross_entropy = loss
    module = load_module(Path(job["module"]))
    runtime.seed(0)
    spec = Spec(**job["spec"])
    model = module.build_model(spec)
    model.train()
    run = ProfiledRun(spec, module.TOTAL_BATCH_SIZE, job["seconds"], clock)
    module.train(model, run)
    channel.send("ready", parts=run.parts, seconds=run.seconds, steps=run.steps)


class Clock:
    """Intervals of named phases, in seconds of the performance counter."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what happens inside; the device's work too, where nothing else profiles."""
        start = time.perf_counter()
        with _range(name):
            yield
        self.seconds[name] += time.perf_counter() - start

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with what it does counted."""

        def clocked(*arguments: Any, **options: Any) -> Any:
            with self(name):
                return function(*arguments, **options)

        return clocked


def _range(name: str) -> contextlib.AbstractContextManager[Any]:
    from backends import runtime, torch

    if runtime.name == "torch":
        return torch.profiler.record_function(f"bench::{name}")
    return _waiting()


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    from backends import runtime

    yield
    runtime.synchronize()


class ProfiledRun(Run):
    """Hands out random tokens: a few steps to warm up, some seconds to profile, and the end."""

    def __init__(self, spec: Spec, step_tokens: int, at_most: float, clock: Clock) -> None:
        super().__init__(spec, seed=0)
        self._step_tokens, self._at_most, self._clock = step_tokens, at_most, clock
        self.parts: dict[str, float] = {}
        self.seconds, self.steps = 0.0, 0

    @property
    def progress(self) -> float:
        return 0.0

    def log(self, step: int, loss: Any, **more: Any) -> None:
        float(loss)

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        from backends import runtime

        batches = random_batches(self.spec, device_batch_size)
        per_step = self._step_tokens // (device_batch_size * self.spec.max_seq_len)
        start = time.perf_counter()
        for i in range(WARM_STEPS * per_step):
            if i == per_step * (WARM_STEPS - 1):
                runtime.synchronize()
                start = time.perf_counter()
            yield next(batches)
        runtime.synchronize()
        once = time.perf_counter() - start
        self.steps = min(MOST_STEPS, max(1, round(self._at_most / once)))
        self._clock.seconds.clear()
        with _profiler() as profile:
            start = time.perf_counter()
            for _ in range(self.steps * per_step):
                with self._clock(FEED):
                    batch = next(batches)
                yield batch
            runtime.synchronize()
            self.seconds = time.perf_counter() - start
        events = [] if profile is None else list(profile.events())
        self.parts = shares(events, self._clock.seconds, self.seconds)


def _profiler() -> contextlib.AbstractContextManager[Any]:
    from backends import runtime, torch

    if runtime.name != "torch":
        return contextlib.nullcontext()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if runtime.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=activities)


def shares(events: Iterable[Any], clocked: dict[str, float], seconds: float) -> dict[str, float]:
    """Seconds of each part, from the profiler's events or, without any, from the clock alone."""
    events = list(events)
    if not events:
        feed, model = clocked[FEED], clocked[MODEL]
        return {FEED: feed, MODEL: model, "optimizer": seconds - feed - model}
    phases = _Phases(events)
    on_device = any(event.kernels for event in events)
    parts: dict[str, float] = dict.fromkeys(PARTS[:-1], 0.0)
    for event in events:
        if event.name in _RANGES:
            continue
        phase = phases.at(event.time_range.start)
        if on_device:
            took = [(kernel.name, kernel.duration) for kernel in event.kernels]
        else:
            took = [(event.name, event.self_cpu_time_total)]
        for name, microseconds in took:
            told = part_of(name)
            told = part_of(event.name) if told == "rest" else told
            if phase == LOSS and told == "rest":
                told = LOSS
            parts[told if phase in (MODEL, LOSS) else phase] += microseconds / 1e6
    left = seconds - sum(parts.values())
    if on_device:
        return {**parts, "device idle": max(0.0, left)}
    parts["rest"] += left  # Python, between operators
    return parts


_RANGES = {f"bench::{name}": name for name in (LOSS, FEED, MODEL)}  # the innermost first


class _Phases:
    """In which phase a moment of the profiler's clock is: loss, feed, model, or the optimizer's."""

    def __init__(self, events: Iterable[Any]) -> None:
        self._ranges: dict[str, list[tuple[float, float]]] = {n: [] for n in _RANGES.values()}
        for event in events:
            if event.name in _RANGES:
                moments = event.time_range.start, event.time_range.end
                self._ranges[_RANGES[event.name]].append(moments)
        for ranges in self._ranges.values():
            ranges.sort()

    def at(self, moment: float) -> str:
        for name, moments in self._ranges.items():
            place = bisect_right(moments, (moment, math.inf)) - 1
            if place >= 0 and moment <= moments[place][1]:
                return name
        return "optimizer"

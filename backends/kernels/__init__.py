"""Our Triton kernels, and what they share. Importing this is free.

    why = unavailable(hardware)       # "" where they can run
    launch(kernel, grid, tilings(current_device()), keys, *arguments, **constants)

A kernel's module imports Triton, so it is imported only where one is about to run. Tests run
kernels without a GPU, in Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from backends.hardware import Hardware

OLDEST_NVIDIA = 75  # compute capability: the oldest that Triton still compiles for
AGREEMENT = 0.05  # of results' largest value: two tilings may differ by rounding, not by more


@dataclass(frozen=True)
class Device:
    """What tile sizes are chosen from."""

    architecture: str  # "sm_90", "gfx942"
    shared_memory: int  # bytes that one program may have

    @property
    def nvidia(self) -> bool:
        return self.architecture.startswith("sm_")

    @property
    def capability(self) -> int:
        """NVIDIA's compute capability, 90 for 9.0; 0 on AMD."""
        return int(self.architecture.removeprefix("sm_")) if self.nvidia else 0

    @property
    def rdna(self) -> bool:
        """AMD's graphics line, gfx10 to gfx12: 32 lanes to a wave, where CDNA (gfx9) has 64."""
        return not self.nvidia and not self.architecture.startswith("gfx9")


@dataclass(frozen=True)
class Tiling:
    """One way to cut a kernel's work up: its block sizes, a program's warps, its loads' stages."""

    sizes: tuple[tuple[str, int], ...]  # by the names of the kernel's constants
    warps: int = 4
    stages: int = 1

    def arguments(self) -> dict[str, int]:
        """As a launch takes them."""
        return {**dict(self.sizes), "num_warps": self.warps, "num_stages": self.stages}


def unavailable(hardware: Hardware) -> str:
    """Why our kernels can't run on this hardware; "" if nothing is known against it."""
    if hardware.backend not in ("cuda", "rocm"):
        return f"it has no kernels for {hardware.backend}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if hardware.backend == "cuda":
        capability = int(hardware.architecture.removeprefix("sm_"))
        if capability < OLDEST_NVIDIA:
            return f"Triton compiles from sm_{OLDEST_NVIDIA} on, this is {hardware.architecture}"
    return ""


@functools.cache
def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter: on the host, in NumPy, for tests."""
    import triton

    return bool(triton.knobs.runtime.interpret)


@functools.cache
def current_device() -> Device:
    """The GPU that kernels are launched on, as Triton's driver describes it."""
    import torch
    from triton.runtime import driver

    target = driver.active.get_current_target()
    properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
    name = f"sm_{target.arch}" if target.backend == "cuda" else str(target.arch)
    return Device(name, int(properties["max_shared_mem"]))


def product_type(dtype: torch.dtype) -> Any:
    """Triton's type of a matrix product's factors: `dtype`'s own.

    The interpreter holds bfloat16 as bare bits and would multiply those: float32 there.
    """
    import torch
    import triton.language as tl

    if dtype == torch.bfloat16 and interpreted():
        return tl.float32
    return {
        torch.bfloat16: tl.bfloat16,
        torch.float16: tl.float16,
        torch.float32: tl.float32,
    }[dtype]


def launch(
    kernel: Any,
    grid: Callable[[dict[str, Any]], tuple[int, ...]],
    tilings: Sequence[Tiling],
    keys: Sequence[str],
    *arguments: Any,
    results: Sequence[str] = (),
    **constants: Any,
) -> None:
    """Run a kernel with its fastest tiling; measured once per value of the arguments in `keys`.

    A tiling that doesn't give the same as the first in the arguments named by `results` is out.
    Triton keeps the outcome beside the compiled kernels (TRITON_CACHE_DIR). One tiling is taken as
    it is, and the interpreter, which has nothing to measure, takes the first.
    """
    if len(tilings) == 1 or interpreted():
        kernel[grid](*arguments, **constants, **tilings[0].arguments())
    else:
        tuned = _tuned(kernel, tuple(tilings), tuple(keys), tuple(results))
        tuned[grid](*arguments, **constants)


@functools.cache
def _tuned(
    kernel: Any, tilings: tuple[Tiling, ...], keys: tuple[str, ...], results: tuple[str, ...]
) -> Any:
    import triton

    configs = [
        triton.Config(dict(t.sizes), num_warps=t.warps, num_stages=t.stages) for t in tilings
    ]
    return triton.autotune(
        configs,
        key=list(keys),
        do_bench=_time,
        post_hook=SameResults(tilings, results),
        cache_results=True,
    )(kernel)


def _time(call: Callable[[], Any], quantiles: Sequence[float]) -> Any:
    """Milliseconds of a call at these quantiles, briefly; infinite for a tiling that fails."""
    import triton

    try:
        return triton.testing.do_bench(call, warmup=5, rep=25, quantiles=quantiles)
    except RuntimeError:  # it doesn't compile here, wants more than the device has, or is wrong
        return [float("inf")] * len(quantiles)


class SameResults:
    """Raises RuntimeError after the first run of a tiling whose results aren't the first one's.

    Compilers err with some block sizes and not with others, and a launch check has seen one tiling.
    """

    def __init__(self, tilings: Sequence[Tiling], results: Sequence[str]) -> None:
        self.choices = [tiling.arguments() for tiling in tilings]
        self.results = results
        self.running: dict[str, int] = {}
        self.expected: list[torch.Tensor] = []

    def __call__(self, arguments: dict[str, Any], exception: BaseException | None) -> None:
        """As Triton calls it after each run while it measures."""
        running = next(c for c in self.choices if c.items() <= arguments.items())
        if running == self.running:
            return
        self.running = running
        if running == self.choices[0]:
            self.expected = []
        expected = self.expected
        if running == self.choices[-1]:
            self.expected = []  # their memory is the model's again
        found = [arguments[name] for name in self.results]
        if exception is None and not expected:
            expected.extend(t.clone() for t in found)
        elif exception is None:
            for name, mine, truth in zip(self.results, found, expected, strict=True):
                _agree(name, mine, truth)


def _agree(name: str, mine: torch.Tensor, truth: torch.Tensor) -> None:
    """Raise RuntimeError unless two results are the same but for rounding."""
    scale = float(truth.float().abs().max())
    difference = float((mine.float() - truth.float()).abs().max())
    if not difference <= AGREEMENT * scale:
        raise RuntimeError(f"{name} differs by {difference:.3g} where it reaches {scale:.3g}")

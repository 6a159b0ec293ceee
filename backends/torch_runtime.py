"""`runtime` on torch: what PyTorch has no common name for, spelled as on every backend.

    backward = runtime.backward(model)              # compiles model(x, y) -> scalar loss
    loss = backward(x, y, scale=1 / accumulation)   # adds scale * dloss/dp to p.grad
    y = runtime.attention(q, k, v, window)

Importing does no work. `hardware`, `policy`, `device` and `compute_dtype` are looked up on first
use and stay; the attention implementation is settled before anything is compiled.

Legend: B batch, T sequence, H heads, D head width.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import backends
from backends import attention as implementations
from backends import compiling, data_parallel, fp8, kernels, softcap
from backends import gram as plain_gram
from backends.errors import KernelUnavailable
from backends.loss_scaling import LossScaler
from backends.mps_memory import MpsPeak
from backends.policy import Overrides
from backends.process_memory import peak_rss_mb, reset_peak_rss
from backends.weights import load_weights, save_weights

if TYPE_CHECKING:
    from backends.hardware import Hardware
    from backends.policy import Policy

__all__ = [
    "attention",
    "backward",
    "compile",
    "compute_dtype",
    "device",
    "from_numpy",
    "gram",
    "hardware",
    "is_out_of_memory",
    "linear",
    "load_weights",
    "matmul_peak",
    "name",
    "peak_memory_mb",
    "policy",
    "reset_peak_memory",
    "save_weights",
    "seed",
    "softcap_cross_entropy",
    "synchronize",
    "to_numpy",
    "to_transport",
    "versions",
]

name = "torch"
MB = 2**20
SMALLEST_GRAM = 128  # rows: below two tiles of a kernel's there is no half to save
F = TypeVar("F", bound=Callable[..., Any])

_DEVICE_OF = {"cuda": "cuda", "rocm": "cuda", "xpu": "xpu", "mps": "mps", "cpu": "cpu"}


# What this machine is: resolved on first use, then plain module attributes.


hardware: Hardware
policy: Policy
device: torch.device
compute_dtype: torch.dtype


def __getattr__(attribute: str) -> Any:
    """`hardware`, `policy`, `device` and `compute_dtype`, on first use."""
    make = _LAZY.get(attribute)
    if make is None:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return globals().setdefault(attribute, make())


def _device() -> torch.device:
    kind, rank = _DEVICE_OF[_this("hardware").backend], data_parallel.rank()
    return torch.device(kind, rank) if rank and kind != "cpu" else torch.device(kind)


def _this(attribute: str) -> Any:
    found = globals().get(attribute)
    return __getattr__(attribute) if found is None else found


_LAZY: dict[str, Callable[[], Any]] = {
    "hardware": lambda: backends.selection_for("torch").hardware,
    "policy": lambda: backends.selection_for("torch").policy,
    "device": _device,
    "compute_dtype": lambda: getattr(torch, _this("policy").compute_dtype),
}


def _settle() -> None:
    """Resolve everything lazy, so that a trace of the compiler meets constants only."""
    for attribute in _LAZY:
        _this(attribute)
    if _attention.windowed is None:
        _attention.choose()
    if _products.loss is None:
        _products.choose()


# Random numbers, time, memory.


def seed(n: int) -> None:
    """Seed every random generator of torch, on all devices."""
    torch.manual_seed(n)


def synchronize() -> None:
    """Wait until the device has done all that was asked of it."""
    if _this("device").type != "cpu":
        getattr(torch, _this("device").type).synchronize()


def peak_memory_mb() -> float:
    """Highest memory use in MB (2**20 bytes): the allocator's peak; on a CPU that of the process.

    MPS keeps no peak: the driver's figure is sampled after each backward pass and here.
    """
    kind = _this("device").type
    if kind == "cpu":
        return peak_rss_mb()
    if kind == "mps":
        return _mps_peak.sample() / MB
    return getattr(torch, kind).max_memory_allocated() / MB


def reset_peak_memory() -> None:
    """Forget the peak so far (a CPU process can where the system lets it: Linux)."""
    kind = _this("device").type
    if kind == "cpu":
        reset_peak_rss()
    elif kind == "mps":
        _mps_peak.reset()
    else:
        getattr(torch, kind).reset_peak_memory_stats()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host ran out of memory.

    Accelerators raise a type of their own; the CPU's and MPS' allocators raise a plain
    RuntimeError that only its opening words tell apart.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


_mps_peak = MpsPeak()


# Arrays in and out.


def from_numpy(a: np.ndarray) -> Tensor:
    """A copy on the device; integers of any width become int64, fp64 becomes fp32 on MPS."""
    device = _this("device")
    dtype = np.dtype(np.int64) if np.issubdtype(a.dtype, np.integer) else a.dtype
    if device.type == "mps" and dtype == np.float64:
        dtype = np.dtype(np.float32)
    host = torch.from_numpy(np.array(a, dtype=dtype, order="C"))
    if device.type == "cuda":
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)


def to_numpy(t: Tensor) -> np.ndarray:
    """A copy on the host; bfloat16, which NumPy lacks, becomes float32."""
    t = t.detach()
    return np.array((t.float() if t.dtype == torch.bfloat16 else t).cpu().numpy())


def to_transport(t: Tensor) -> np.ndarray:
    """Contiguous and exact: bfloat16 as its bit pattern (uint16), other dtypes as they are."""
    t = t.detach().contiguous()
    if t.dtype == torch.bfloat16:
        return t.view(torch.int16).cpu().numpy().view(np.uint16)
    return t.cpu().numpy()


# Compiling, gradients, attention.


def compile(fn: F) -> F:
    """`fn` compiled on its first call if the policy compiles: fixed shapes, no graph break."""
    compiled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not compiled:
            _settle()
            compiled.append(compiling.compiled(fn, _this("policy"), _this("device")))
        return compiled[0](*args, **kwargs)

    return call  # type: ignore[return-value]


def backward(model: nn.Module) -> Callable[..., Tensor]:
    """`step(x, y, scale=1.0) -> loss`: adds scale * dloss/dp to each p.grad in p's dtype.

    `model(x, y)` returns a scalar; the loss comes back detached and unscaled, x and y are (B, T)
    int64. With fp16 compute the gradients are taken of a scaled-up loss and scaled down again; a
    step whose gradients overflow adds zeros. Where several devices train the model, x and y are
    this one's rows, and gradients and loss come out averaged over all.
    """
    data_parallel.watch(model)
    forward = compile(model)
    scaler = LossScaler(model.parameters()) if _this("policy").loss_scaling else None
    on_mps = _this("device").type == "mps"

    def step(x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        loss = forward(x, y)
        if scaler is None:
            loss.backward(gradient=torch.full_like(loss, scale))
        else:
            scaler.backward(loss, scale)
            data_parallel.average(model.parameters())
        if on_mps:
            _mps_peak.sample()
        return data_parallel.mean(loss.detach())

    return step


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D).

    Query i sees keys i - window .. i, both included; window None, or T - 1 and more: full causal.
    """
    if _attention.windowed is None:
        _attention.choose()
    if window is None or window >= q.shape[1] - 1:
        return _attention.full_causal(q, k, v, None)
    return _attention.windowed(q, k, v, window)


class _Attention:
    """The implementation in use; `passed_over` has the reason of each that comes before it."""

    def __init__(self) -> None:
        self.windowed: Any = None
        self.full_causal: Any = None
        self.name = ""
        self.passed_over: dict[str, str] = {}

    def choose(self) -> None:
        """Follow the policy; for full causal, PyTorch's own unless a flash kernel is in use.

        Raises AttentionUnavailable for an implementation that was asked for and can't be had.
        """
        policy, hardware = _this("policy"), _this("hardware")
        asked = Overrides.from_environment().attention
        if asked is not None:  # what somebody asked for by name is never replaced by another
            order = dict.fromkeys([asked])
        else:
            order = dict.fromkeys(
                [policy.attention, *policy.attention_order, "block_local", "sdpa"]
            )
        self.name, windowed, self.passed_over = implementations.first_available(order, hardware)
        own = self.name in ("fa3", "flash", "dense")
        self.full_causal = windowed if own else implementations.load("sdpa", hardware)
        self.windowed = windowed


_attention = _Attention()


def softcap_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float | None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of `cap * tanh(x @ weight.T / cap)` against integer targets, in nats.

    x (N, D) or (B, T, D); weight (V, D), cast to x's dtype; targets (N,) or (B, T), -1 is ignored.
    Reduction "mean" (over targets that count), "sum" or "none". Never holds all logits.
    """
    if _products.loss is None:
        _products.choose()
    return _products.loss(x, weight, targets, cap, reduction)


def gram(x: Tensor, alpha: float = 1.0, add: Tensor | None = None, beta: float = 0.0) -> Tensor:
    """beta * add + alpha * x @ x.mT: x (..., R, S), add and the result (..., R, R)."""
    if _products.loss is None:
        _products.choose()
    if x.shape[-2] < SMALLEST_GRAM:
        return plain_gram.gram(x, alpha, add, beta)
    return _products.gram(x, alpha, add, beta)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T with the weight in x's dtype: x (..., K), weight (N, K) -> (..., N).

    In FP8 where the policy says so, a gradient is wanted and the axes are multiples of 16.
    """
    if _products.loss is None:
        _products.choose()
    if _products.fp8 and torch.is_grad_enabled() and fp8.fits(x, weight):
        return fp8.linear(x, weight)
    return nn.functional.linear(x, weight.to(x.dtype))


class _Products:
    """Which implementations of the loss, of `gram` and of `linear` the policy chose."""

    def __init__(self) -> None:
        self.loss: Any = None
        self.gram: Any = None
        self.fp8 = False

    def choose(self) -> None:
        """Follow the policy. Raises KernelUnavailable where its kernel can't run."""
        policy = _this("policy")
        for item in ("loss", "gram"):
            why = kernels.unavailable(_this("hardware"))
            if getattr(policy, item) == "triton" and why:
                raise KernelUnavailable(item, why)
        self.fp8 = policy.linear == "fp8"
        if self.fp8 and (why := fp8.unavailable(_this("hardware"))):
            raise KernelUnavailable("linear", why)
        self.loss, self.gram = softcap.softcap_cross_entropy, plain_gram.gram
        if policy.loss == "triton":
            from backends.kernels import softcap as softcap_kernel

            self.loss = softcap_kernel.softcap_cross_entropy
        if policy.gram == "triton":
            from backends.kernels import gram as gram_kernel

            self.gram = gram_kernel.gram


_products = _Products()


# Measured and reported.


def matmul_peak(seconds: float = 0.3) -> float:
    """FLOP/s of a big square matrix product in the compute dtype: the best of several rounds."""
    size = 1024 if _this("device").type == "cpu" else 8192
    a, b = (
        torch.randn(size, size, device=_this("device")).to(_this("compute_dtype")) for _ in range(2)
    )
    a @ b
    best, until = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < until:
        synchronize()
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        synchronize()
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - start))
    return best


def versions() -> dict[str, str]:
    """Versions of what takes part in a result."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    found["numpy"] = np.__version__
    for key, version in (("cuda", torch.version.cuda), ("hip", torch.version.hip)):
        if version:
            found[key] = version
    for package in ("triton", "flash-attn", "flash-attn-3", "kernels"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

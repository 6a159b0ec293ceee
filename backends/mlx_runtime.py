"""`runtime` on MLX: the same names as torch_runtime.

    backward = runtime.backward(model)              # compiles model(x, y) -> scalar loss
    loss = backward(x, y, scale=1 / accumulation)   # adds scale * dloss/dp to p.grad
    y = runtime.attention(q, k, v, window)

Importing does no work. `hardware`, `policy` and `compute_dtype` are looked up on first use and
stay.

Legend: B batch, T sequence, H heads, D head width.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx
import numpy as np

import backends
from backends import mlx_attention
from backends import mlx_gradients as gradients
from backends.errors import KernelUnavailable
from backends.gram import gram
from backends.mlx_softcap import softcap_cross_entropy
from backends.mlx_torch import Tensor, nn
from backends.mlx_torch import device as _device
from backends.mlx_torch._compile import Compiled
from backends.mlx_torch._dtypes import DTYPES, dtype
from backends.mlx_torch._grad_mode import settle
from backends.mlx_torch._tensor import flush, to_array
from backends.mlx_weights import load_weights, save_weights

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

name = "mlx"
MB = 2**20
F = TypeVar("F", bound=Callable[..., Any])

device = _device("mlx")
hardware: Hardware
policy: Policy
compute_dtype: dtype


def __getattr__(attribute: str) -> Any:
    """`hardware`, `policy` and `compute_dtype`, on first use."""
    make = _LAZY.get(attribute)
    if make is None:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return globals().setdefault(attribute, make())


def _this(attribute: str) -> Any:
    found = globals().get(attribute)
    return __getattr__(attribute) if found is None else found


_LAZY: dict[str, Callable[[], Any]] = {
    "hardware": lambda: backends.selection_for("mlx").hardware,
    "policy": lambda: backends.selection_for("mlx").policy,
    "compute_dtype": lambda: DTYPES[_this("policy").compute_dtype],
}


# Random numbers, time, memory.


def seed(n: int) -> None:
    """Seed MLX's random numbers."""
    mx.random.seed(n)


def synchronize() -> None:
    """Compute everything written so far and wait for it."""
    flush()
    mx.synchronize()


def peak_memory_mb() -> float:
    """Highest memory use of MLX's allocator in MB (2**20 bytes)."""
    return mx.get_peak_memory() / MB


def reset_peak_memory() -> None:
    """Forget the peak so far."""
    mx.reset_peak_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether MLX ran out of memory; its allocators raise a RuntimeError that opens with these
    words.
    """
    words = (
        "[malloc",
        "[metal::malloc]",
        "Unable to allocate",
        "[METAL] Command buffer execution failed: Insuff",
    )
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(words)


# Arrays in and out.


def from_numpy(a: np.ndarray) -> Tensor:
    """A copy; integers of any width become int64, float64 becomes float32 (MLX GPUs lack it)."""
    if np.issubdtype(a.dtype, np.integer):
        a = a.astype(np.int64)
    elif a.dtype == np.float64:
        a = a.astype(np.float32)
    return Tensor(mx.array(np.ascontiguousarray(a)))


def to_numpy(t: Tensor) -> np.ndarray:
    """A copy on the host; bfloat16, which NumPy lacks, becomes float32."""
    a = to_array(t)
    return np.array(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a)


def to_transport(t: Tensor) -> np.ndarray:
    """Contiguous and exact: bfloat16 as its bit pattern (uint16), other dtypes as they are."""
    a = mx.contiguous(to_array(t))
    return np.ascontiguousarray(np.array(a.view(mx.uint16) if a.dtype == mx.bfloat16 else a))


# Compiling, gradients, attention.


def compile(fn: F) -> F:
    """`fn` compiled if the policy compiles: one trace per set of shapes and Python numbers.

    In-place updates of tensors in its arguments are kept, also inside lists, tuples and dicts.
    """
    compiled = Compiled(fn)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (compiled if _this("policy").compile else fn)(*args, **kwargs)

    return call  # type: ignore[return-value]


def backward(model: nn.Module) -> Callable[..., Tensor]:
    """`step(x, y, scale=1.0) -> loss`: adds scale * dloss/dp to each p.grad in p's dtype.

    `model(x, y)` returns a scalar; the loss comes back detached and unscaled, x and y are (B, T)
    int64. Frozen parameters and those the loss doesn't use keep their grad, None included. What
    the forward writes to buffers is kept. With fp16 compute the gradients are taken of a scaled-up
    loss and scaled down again; a step whose gradients overflow adds zeros.
    """
    settings = _this("policy")
    return gradients.backward(model, compiled=settings.compile, loss_scaling=settings.loss_scaling)


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D).

    Query i sees keys i - window .. i, both included; window None, or T - 1 and more: full causal.
    """
    return Tensor(settle(mlx_attention.attention(to_array(q), to_array(k), to_array(v), window)))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T with the weight in x's dtype: x (..., K), weight (N, K) -> (..., N).

    Raises KernelUnavailable where FP8 was asked for: MLX has no such products.
    """
    if _this("policy").linear == "fp8":
        raise KernelUnavailable("linear", "MLX has no FP8 products with gradients")
    return nn.functional.linear(x, weight.to(x.dtype))


# Measured and reported.


def matmul_peak(seconds: float = 0.3) -> float:
    """FLOP/s of a big square matrix product in the compute dtype: the best of several rounds."""
    size = 4096 if mx.default_device().type == mx.DeviceType.gpu else 1024
    a, b = (mx.random.normal((size, size)).astype(_this("compute_dtype").mx) for _ in range(2))
    mx.eval(a @ b)
    best, until = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < until:
        start = time.perf_counter()
        mx.eval([a @ b for _ in range(4)])
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - start))
    return best


def versions() -> dict[str, str]:
    """Versions of what takes part in a result."""
    found = {
        "python": platform.python_version(),
        "mlx": importlib.metadata.version("mlx"),
        "numpy": np.__version__,
    }
    if platform.system() == "Darwin":
        found["macos"] = platform.mac_ver()[0]
    for package in ("mlx-metal",):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

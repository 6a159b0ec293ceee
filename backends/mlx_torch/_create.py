"""Making tensors: constants, ranges, random numbers, conversions. Defaults are torch's: float32 and
int64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._errors import WrongFramework, wrong_framework
from backends.mlx_torch._registry import both, function, method
from backends.mlx_torch._shape import _ints
from backends.mlx_torch._tensor import Tensor, to_array, view, wrap

Shape = tuple[int, ...]


def _fresh(array: mx.array, device: Any = None, requires_grad: bool = False) -> Tensor:
    dt.check_device(device)
    if requires_grad:
        raise RuntimeError(
            "requires_grad=True: only an nn.Parameter of a module has a gradient on MLX"
        )
    return Tensor(array)


def _from_numpy(a: np.ndarray) -> mx.array:
    """The same type; float64 becomes an error, since no MLX GPU has it."""
    if a.dtype == np.float64:
        raise WrongFramework("MLX has no float64 on GPUs: write array.astype(numpy.float32)")
    if a.dtype.kind not in "biuf":
        raise TypeError(f"can't make a tensor of a NumPy array of {a.dtype}")
    return mx.array(np.ascontiguousarray(a))


@function
def from_numpy(a: np.ndarray) -> Tensor:
    """A copy of a NumPy array (torch shares the memory; MLX does not)."""
    return Tensor(_from_numpy(a))


@function
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of numbers, nested lists, a NumPy array, a Tensor or a bare mx.array."""
    if isinstance(data, Tensor):
        found = data.array
    elif isinstance(data, mx.array):
        found = data
    elif isinstance(data, (np.ndarray, np.generic)):
        a = np.asarray(data)
        found = _from_numpy(
            a.astype(np.float32) if dtype is not None and a.dtype == np.float64 else a
        )
    else:
        found = _of_lists(data)
    return _fresh(found.astype(dt.as_mlx(dtype, found.dtype)), device, requires_grad)


@function
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """tensor(data), keeping a Tensor of the right type as it is."""
    return (
        data.to(dtype=dtype)
        if isinstance(data, Tensor)
        else tensor(data, dtype=dtype, device=device)
    )


def _of_lists(data: Any) -> mx.array:
    def plain(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.tolist()
        if isinstance(x, (list, tuple, range)):
            return [plain(y) for y in x]
        if isinstance(x, (bool, int, float, np.generic)):
            return x
        wrong_framework(x, "numbers or nested lists of numbers")

    a = np.array(plain(data))
    kind = {"b": mx.bool_, "i": mx.int64, "u": mx.int64, "f": dt.DEFAULT_FLOAT}[a.dtype.kind]
    return mx.array(a.astype(np.float32) if a.dtype.kind == "f" else a).astype(kind)


@function
def zeros(*size: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros; float32 unless told."""
    return _fresh(mx.zeros(_ints(size), dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


@function
def ones(*size: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones; float32 unless told."""
    return _fresh(mx.ones(_ints(size), dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


@function
def empty(*size: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised in torch; zeros here."""
    return zeros(*size, dtype=dtype, device=device)


@function
def full(size: Sequence[int], fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A constant, in the type of the number unless told."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    kind = dt.as_mlx(dtype, dt.number_dtype(fill_value))
    return _fresh(mx.full(_ints((tuple(size),)), mx.array(fill_value, kind)), device)


def _like(x: Tensor, dtype: Any, device: Any) -> mx.Dtype:
    dt.check_device(device)
    return dt.as_mlx(dtype, to_array(x).dtype)


@function
def zeros_like(x: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros in x's shape and type."""
    return Tensor(mx.zeros(x.shape, _like(x, dtype, device)))


@function
def ones_like(x: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones in x's shape and type."""
    return Tensor(mx.ones(x.shape, _like(x, dtype, device)))


@function
def empty_like(x: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised in torch; zeros here."""
    return zeros_like(x, dtype=dtype, device=device)


@function
def full_like(x: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A constant in x's shape and type."""
    return Tensor(mx.full(x.shape, mx.array(fill_value, _like(x, dtype, device))))


@function
def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """start, start + step, ... below end; int64 for integers."""
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    integers = all(isinstance(v, int) for v in (start, end, step))
    kind = dt.as_mlx(dtype, mx.int64 if integers else dt.DEFAULT_FLOAT)
    count = max(0, math.ceil((end - start) / step))
    if dt.rank(kind) == 2:  # start + i * step as torch does, not a running sum
        steps = mx.arange(count, dtype=mx.float32) * step + start
        return _fresh(steps.astype(kind), device)
    return _fresh((mx.arange(count, dtype=mx.int64) * int(step) + int(start)).astype(kind), device)


@function
def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """`steps` numbers from start to end inclusive."""
    return _fresh(mx.linspace(start, end, steps, dtype=dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


@function
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Identity matrix."""
    return _fresh(mx.eye(n, m, dtype=dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


# -- random numbers: MLX's own streams, other numbers than torch's for the same seed ----------


@function
def manual_seed(seed: int) -> None:
    """Seed MLX's random numbers."""
    mx.random.seed(seed)


def uniform(shape: Shape, low: float, high: float, dtype: mx.Dtype) -> mx.array:
    """[low, high), drawn in float32 and rounded."""
    return mx.random.uniform(low, high, shape, mx.float32).astype(dtype)


def normal(shape: Shape, mean: float, std: float, dtype: mx.Dtype) -> mx.array:
    """Gaussian, drawn in float32 and rounded."""
    return (mx.random.normal(shape, mx.float32) * std + mean).astype(dtype)


@function
def rand(*size: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Uniform in [0, 1)."""
    return _fresh(uniform(_ints(size), 0.0, 1.0, dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


@function
def randn(*size: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Standard normal."""
    return _fresh(normal(_ints(size), 0.0, 1.0, dt.as_mlx(dtype, dt.DEFAULT_FLOAT)), device)


@function
def rand_like(x: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uniform in [0, 1) in x's shape and type."""
    return Tensor(uniform(x.shape, 0.0, 1.0, _like(x, dtype, device)))


@function
def randn_like(x: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Standard normal in x's shape and type."""
    return Tensor(normal(x.shape, 0.0, 1.0, _like(x, dtype, device)))


@function
def randint(
    low: int, high: Any, size: Any = None, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers in [low, high); randint(high, size) starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    return _fresh(
        mx.random.randint(low, high, tuple(size)).astype(dt.as_mlx(dtype, mx.int64)), device
    )


@function
def randperm(n: int, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A random order of 0 .. n - 1."""
    return _fresh(mx.random.permutation(n).astype(dt.as_mlx(dtype, mx.int64)), device)


@both
def bernoulli(x: Tensor, p: float | None = None) -> Tensor:
    """1 with probability x (or p), else 0, in x's type."""
    a = to_array(x)
    return wrap(
        mx.random.bernoulli(a.astype(mx.float32) if p is None else p, a.shape).astype(a.dtype)
    )


@both
def multinomial(x: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """Indices (int64) drawn with probabilities proportional to the rows of x (Gumbel's trick)."""
    logits = mx.log(to_array(x).astype(mx.float32))
    if replacement or num_samples == 1:
        drawn = mx.random.categorical(logits, axis=-1, num_samples=num_samples)
    else:
        drawn = mx.argsort(-(logits + mx.random.gumbel(logits.shape)), axis=-1)[..., :num_samples]
    return wrap(drawn.astype(mx.int64))


@method
def uniform_(x: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    return x.assign(uniform(x.shape, a, b, x.dtype.mx))


@method
def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with Gaussian numbers."""
    return x.assign(normal(x.shape, mean, std, x.dtype.mx))


@method
def bernoulli_(x: Tensor, p: float = 0.5) -> Tensor:
    """Fill with 1 with probability p, else 0."""
    return x.assign(mx.random.bernoulli(p, x.shape).astype(x.dtype.mx))


# -- conversions and copies -------------------------------------------------------------------


@method
def to(
    x: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Tensor:
    """x.to(dtype), x.to(device), x.to(device, dtype) or x.to(other)."""
    for arg in args:
        if isinstance(arg, Tensor):
            dtype = arg.dtype
        elif isinstance(arg, (str, dt.device)):
            device = arg
        elif isinstance(arg, dt.dtype):
            dtype = arg
        elif not isinstance(arg, bool):
            wrong_framework(arg, "a dtype such as torch.float32 or runtime.device")
    dt.check_device(device)
    kind = dt.as_mlx(dtype, to_array(x).dtype)
    if kind == to_array(x).dtype and not copy:
        return x
    return wrap(to_array(x).astype(kind))


for _name, _kind in {
    "float": "float32",
    "half": "float16",
    "bfloat16": "bfloat16",
    "long": "int64",
    "int": "int32",
    "bool": "bool",
}.items():

    def _convert(x: Tensor, kind: dt.dtype = dt.DTYPES[_kind]) -> Tensor:
        return x if x.dtype is kind else wrap(to_array(x).astype(kind.mx))

    _convert.__name__ = _name
    method(_convert)


@method
def type_as(x: Tensor, other: Tensor) -> Tensor:
    """x in other's type."""
    return to(x, other.dtype)


@both
def clone(x: Tensor) -> Tensor:
    """A copy with memory of its own: may be written in place."""
    return wrap(to_array(x))


@both
def detach(x: Tensor) -> Tensor:
    """The same values without a gradient."""
    return view(x, mx.stop_gradient)


@method
def contiguous(x: Tensor) -> Tensor:
    """The same values in row order."""
    return x if x._base is None else view(x, lambda a: a)


@method
def cpu(x: Tensor) -> Tensor:
    """x: MLX has unified memory."""
    return x


@method
def copy_(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Write source's values (broadcast and cast) into x."""
    return x.assign(mx.broadcast_to(to_array(source), x.shape).astype(x.dtype.mx))


@method
def fill_(x: Tensor, value: Any) -> Tensor:
    """Write one value everywhere."""
    a = value.array if isinstance(value, Tensor) else mx.array(value)
    return x.assign(mx.broadcast_to(a.astype(x.dtype.mx), x.shape))


@method
def zero_(x: Tensor) -> Tensor:
    """Write zeros."""
    return x.assign(mx.zeros(x.shape, x.dtype.mx))


def _new(maker: Any) -> Any:
    def new(x: Tensor, *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
        found: Tensor = maker(*args, dtype=x.dtype if dtype is None else dtype, device=device)
        return found

    return new


for _name in ("zeros", "ones", "empty", "full", "tensor"):
    setattr(Tensor, f"new_{_name}", _new(globals()[_name]))

"""Reductions. Half precision is summed in float32 and rounded once, as torch does: Muon's norms of
bfloat16 gave NaN where they were summed in bfloat16."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._registry import FUNCTIONS, both, function, inplace
from backends.mlx_torch._tensor import Tensor, to_array, wrap

Dims = int | tuple[int, ...] | list[int] | None


class ValuesIndices(NamedTuple):
    """What max(dim), min(dim), sort and topk return."""

    values: Tensor
    indices: Tensor


def axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Axes of a `dim` argument; None and () mean all. Raises IndexError out of range."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    limit = builtins.max(ndim, 1)
    for d in dims:
        if not -limit <= d < limit:
            raise IndexError(f"dimension {d} out of range for a tensor with {ndim} dimensions")
    return tuple(d % limit for d in dims) if ndim else ()


def _reduce(
    kernel: Callable[..., mx.array], x: Tensor, dim: Dims, keepdim: bool, dtype: Any, kind: str
) -> Tensor:
    """kind: 'sum' (integers to int64), 'mean' (floats only) or 'float' (result in the input's
    type).
    """
    a = to_array(x)
    if dtype is not None:
        a = a.astype(dt.as_mlx(dtype))
    elif kind == "sum" and dt.rank(a.dtype) < 2:
        a = a.astype(mx.int64)
    if kind != "sum" and dt.rank(a.dtype) < 2:
        raise RuntimeError(f"needs a floating point tensor, got {x.dtype}: write x.float() first")
    wide = a.astype(mx.float32) if a.dtype in dt.HALF else a
    where = axes(dim, a.ndim)
    found = kernel(wide, where, keepdim) if a.ndim else kernel(wide.reshape(1), (0,), False)
    return wrap(found.astype(a.dtype))


@both
def sum(x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over dim (all if None)."""
    return _reduce(mx.sum, x, dim, keepdim, dtype, "sum")


@both
def mean(x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over dim; integers are an error, as in torch."""
    return _reduce(mx.mean, x, dim, keepdim, dtype, "mean")


@both
def prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over one dim or all."""
    return _reduce(mx.prod, x, dim, keepdim, dtype, "sum")


@both
def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over dim."""
    return _reduce(mx.logsumexp, x, dim, keepdim, None, "float")


def _variance(
    root: bool, x: Tensor, dim: Any, correction: Any, keepdim: bool, unbiased: Any
) -> Tensor:
    if isinstance(dim, bool):  # torch's old spelling x.std(unbiased)
        dim, unbiased = None, dim
    n = correction if unbiased is None else int(unbiased)

    def kernel(a: mx.array, where: tuple[int, ...], keep: bool) -> mx.array:
        count = math.prod(a.shape[i] for i in where)
        off = a - mx.mean(a, where, keepdims=True)
        found = mx.sum(off * off, where, keepdims=keep) / mx.array(
            builtins.max(0.0, count - n), a.dtype
        )
        return mx.sqrt(found) if root else found

    return _reduce(kernel, x, dim, keepdim, None, "float")


@both
def var(
    x: Tensor,
    dim: Dims | bool = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> Tensor:
    """Variance divided by n - correction; torch's default correction is 1."""
    return _variance(False, x, dim, correction, keepdim, unbiased)


@both
def std(
    x: Tensor,
    dim: Dims | bool = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
    unbiased: bool | None = None,
) -> Tensor:
    """Standard deviation divided by n - correction; torch's default correction is 1."""
    return _variance(True, x, dim, correction, keepdim, unbiased)


@both
def norm(
    x: Tensor, p: Any = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """Vector p-norm (2, 1, 'fro', any number, inf) over dim, tuples included."""

    def kernel(a: mx.array, where: tuple[int, ...], keep: bool) -> mx.array:
        if p in (2, "fro", None):
            return mx.sqrt(mx.sum(mx.square(a), where, keepdims=keep))
        size = mx.abs(a)
        if p in (math.inf, -math.inf):
            return (mx.max if p > 0 else mx.min)(size, where, keepdims=keep)
        if p == 1:
            return mx.sum(size, where, keepdims=keep)
        return mx.power(mx.sum(mx.power(size, p), where, keepdims=keep), 1 / p)

    return _reduce(kernel, x, dim, keepdim, dtype, "float")


def _extreme(x: Tensor, other: Any, keepdim: bool, largest: bool) -> Any:
    """max and min: over all, over a dim (values and indices), or of two tensors."""
    a = to_array(x)
    best = mx.max if largest else mx.min
    if other is None:
        return wrap(best(a))
    if isinstance(other, Tensor):
        return FUNCTIONS["maximum" if largest else "minimum"](x, other)
    index = (argmax if largest else argmin)(x, other, True)
    values = mx.take_along_axis(a, index.array, other) if a.ndim else a
    if not keepdim and a.ndim:
        return ValuesIndices(wrap(mx.squeeze(values, other)), wrap(mx.squeeze(index.array, other)))
    return ValuesIndices(wrap(values), index)


@both
def max(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """max(x); max(x, dim) -> (values, indices); max(x, tensor) elementwise."""
    return _extreme(x, dim, keepdim, True)


@both
def min(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """min(x); min(x, dim) -> (values, indices); min(x, tensor) elementwise."""
    return _extreme(x, dim, keepdim, False)


@both
def amax(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """Largest values over dim, without indices."""
    return wrap(mx.max(to_array(x), axes(dim, x.ndim), keepdims=keepdim))


@both
def amin(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """Smallest values over dim, without indices."""
    return wrap(mx.min(to_array(x), axes(dim, x.ndim), keepdims=keepdim))


@both
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index (int64) of the largest value."""
    return wrap(mx.argmax(mx.stop_gradient(to_array(x)), dim, keepdims=keepdim).astype(mx.int64))


@both
def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index (int64) of the smallest value."""
    return wrap(mx.argmin(mx.stop_gradient(to_array(x)), dim, keepdims=keepdim).astype(mx.int64))


@both
def all(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all are non-zero."""
    return wrap(mx.all(to_array(x) != 0, axes(dim, x.ndim), keepdims=keepdim))


@both
def any(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some are non-zero."""
    return wrap(mx.any(to_array(x) != 0, axes(dim, x.ndim), keepdims=keepdim))


@both
def count_nonzero(x: Tensor, dim: Dims = None) -> Tensor:
    """How many are non-zero (int64)."""
    return wrap(mx.sum(to_array(x) != 0, axes(dim, x.ndim)).astype(mx.int64))


def _scan(kernel: Callable[..., mx.array], x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    a = to_array(x)
    if dtype is not None:
        a = a.astype(dt.as_mlx(dtype))
    elif dt.rank(a.dtype) < 2:
        a = a.astype(mx.int64)
    if a.ndim == 0:
        return wrap(a)
    wide = a.astype(mx.float32) if a.dtype in dt.HALF else a
    return wrap(kernel(wide, axis=dim).astype(a.dtype))


@inplace
def cumsum(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sum along dim."""
    return _scan(mx.cumsum, x, dim, dtype)


@inplace
def cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running product along dim."""
    return _scan(mx.cumprod, x, dim, dtype)


@both
def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """Running logsumexp along dim."""
    return _scan(mx.logcumsumexp, x, dim)


@both
def softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim, in float32 inside."""
    a = to_array(x) if dtype is None else to_array(x).astype(dt.as_mlx(dtype))
    return wrap(mx.softmax(a, dim, precise=True) if a.ndim else mx.ones_like(a))


@both
def log_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along dim, in float32 inside."""
    a = to_array(x) if dtype is None else to_array(x).astype(dt.as_mlx(dtype))
    wide = a.astype(mx.float32)
    return wrap((wide - mx.logsumexp(wide, dim, keepdims=True)).astype(a.dtype))


@function
def allclose(x: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether all elements agree within atol + rtol * |other|; evaluates."""
    return bool(mx.allclose(to_array(x), to_array(other), rtol=rtol, atol=atol).item())


@function
def equal(x: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements agree; evaluates."""
    return bool(mx.array_equal(to_array(x), to_array(other)).item())

"""Indexing, gathering, sorting. Boolean masks read eagerly (their shape depends on data); writes
through a mask are a where and work everywhere."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._reduce import ValuesIndices
from backends.mlx_torch._registry import both, function, inplace
from backends.mlx_torch._tensor import Tensor, operand, to_array, view, wrap


def _plain(index: Any) -> Any:
    """Replace tensors and lists by arrays; refuse what torch refuses."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    if isinstance(index, Tensor):
        return index.array
    if isinstance(index, list):
        return mx.array(np.array(index))
    if isinstance(index, np.generic):
        return index.item()
    if isinstance(index, np.ndarray):
        return mx.array(index)
    if isinstance(index, slice):
        start, stop, step = (
            v.__index__() if isinstance(v, Tensor) else v
            for v in (index.start, index.stop, index.step)
        )
        if step is not None and step <= 0:
            raise ValueError("slices need a step greater than zero, as in torch: use .flip(dim)")
        return slice(start, stop, step)
    return index


def _is_mask(i: Any) -> bool:
    return isinstance(i, mx.array) and i.dtype == mx.bool_


def _unmask(index: Any, what: Tensor) -> Any:
    """Turn boolean masks into the integers they select; needs their values."""
    parts = index if isinstance(index, tuple) else (index,)
    out: list[Any] = []
    for part in parts:
        if _is_mask(part):
            mask = np.array(Tensor(part)._concrete())
            out.extend(mx.array(i.astype(np.int64)) for i in np.nonzero(mask))
        else:
            out.append(part)
    return tuple(out)


def _check_bounds(index: Any, shape: tuple[int, ...]) -> None:
    """Integers out of range: MLX reads past the end without a word."""
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(1 for p in parts if p is not None and p is not Ellipsis)
    if used > len(shape):
        raise IndexError(f"too many indices for a tensor with {len(shape)} dimensions")
    axis = 0
    for part in parts:
        if part is None:
            continue
        if part is Ellipsis:
            axis += len(shape) - used
            continue
        if (
            isinstance(part, int)
            and not isinstance(part, bool)
            and not -shape[axis] <= part < shape[axis]
        ):
            raise IndexError(
                f"index {part} is out of bounds for dimension {axis} with size {shape[axis]}"
            )
        axis += 1


def read(x: Tensor, index: Any) -> Tensor:
    """x[index]: a view for numbers, slices, None and Ellipsis, else a copy."""
    plain = _plain(index)
    parts = plain if isinstance(plain, tuple) else (plain,)
    if any(_is_mask(p) for p in parts):
        plain = _unmask(plain, x)
        parts = plain
    _check_bounds(plain, x.shape)
    if any(isinstance(p, mx.array) and p.ndim for p in parts):
        return wrap(to_array(x)[plain])
    if any(isinstance(p, mx.array) for p in parts):  # 0-d integers: torch copies
        return wrap(to_array(x)[plain])
    return view(x, lambda a: a[plain])


def write(a: mx.array, index: Any, value: Any) -> mx.array:
    """The array that x[index] = value leaves."""
    plain = _plain(index)
    new = operand(value)
    if isinstance(new, mx.array) and dt.rank(new.dtype) > dt.rank(a.dtype):
        new = new.astype(a.dtype)
    cast = new.astype(a.dtype) if isinstance(new, mx.array) else mx.array(new, a.dtype)
    if _is_mask(plain) and cast.ndim == 0:
        mask = plain.reshape(plain.shape + (1,) * (a.ndim - plain.ndim))
        return mx.where(mask, cast, a)
    if any(_is_mask(p) for p in (plain if isinstance(plain, tuple) else (plain,))):
        plain = _unmask(plain, Tensor(a))
    _check_bounds(plain, a.shape)
    copied = mx.array(a)
    copied[plain] = cast
    return copied


@inplace
def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """x with `value` where mask is true."""
    a = to_array(x)
    new = operand(value)
    cast = new.astype(a.dtype) if isinstance(new, mx.array) else mx.array(new, a.dtype)
    return wrap(mx.where(to_array(mask), cast, a))


@both
def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """The elements where mask is true; eager only."""
    a, m = mx.broadcast_arrays(to_array(x), to_array(mask))
    return read(Tensor(a), Tensor(m))


@both
def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j] = x[index[i][j]][j] for dim 0, and so on."""
    a, i = to_array(x), to_array(index)
    where = tuple(slice(None) if d == dim % a.ndim else slice(0, i.shape[d]) for d in range(a.ndim))
    return wrap(mx.take_along_axis(a[where], i, dim))


@both
def take_along_dim(x: Tensor, indices: Tensor, dim: int) -> Tensor:
    """gather with broadcasting."""
    return wrap(mx.take_along_axis(to_array(x), to_array(indices), dim))


@both
def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Rows of a dim by number."""
    return wrap(mx.take(to_array(x), to_array(index), dim))


def _grid(a: mx.array, dim: int, index: mx.array) -> tuple[mx.array, ...]:
    """Full integer coordinates of a scatter along dim."""
    grid = list(mx.meshgrid(*(mx.arange(n) for n in index.shape), indexing="ij"))
    grid[dim % a.ndim] = index
    return tuple(grid)


@inplace
def scatter(x: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """x with src (tensor or number) written at index along dim."""
    a, i = to_array(x), to_array(index)
    new = operand(src)
    values = (
        new[tuple(slice(0, n) for n in i.shape)] if isinstance(new, mx.array) else mx.array(new)
    )
    copied = mx.array(a)
    copied[_grid(a, dim, i)] = mx.broadcast_to(values.astype(a.dtype), i.shape)
    return wrap(copied)


@inplace
def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """x with src added at index along dim."""
    a, i = to_array(x), to_array(index)
    values = to_array(src)[tuple(slice(0, n) for n in i.shape)]
    return wrap(a.at[_grid(a, dim, i)].add(values.astype(a.dtype)))


@inplace
def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """x with rows of source added at index along dim."""
    a = mx.moveaxis(to_array(x), dim, 0)
    rows = mx.moveaxis(to_array(source), dim, 0) * alpha
    return wrap(mx.moveaxis(a.at[to_array(index)].add(rows.astype(a.dtype)), 0, dim))


@inplace
def index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """x with rows of source written at index along dim."""
    moved = mx.array(mx.moveaxis(to_array(x), dim, 0))
    moved[to_array(index)] = mx.moveaxis(to_array(source), dim, 0)
    return wrap(mx.moveaxis(moved, 0, dim))


def _order(a: mx.array, dim: int, descending: bool) -> mx.array:
    """argsort; MLX would differentiate through the indices."""
    fixed = mx.stop_gradient(a)
    return mx.argsort(-fixed if descending else fixed, axis=dim)


@both
def topk(
    x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesIndices:
    """The k largest (or smallest) values and their indices, in order."""
    a = to_array(x)
    order = _order(a, dim, largest)
    index = mx.take(order, mx.arange(k), axis=dim)
    return ValuesIndices(wrap(mx.take_along_axis(a, index, dim)), wrap(index.astype(mx.int64)))


@both
def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Indices (int64) that sort x."""
    return wrap(_order(to_array(x), dim, descending).astype(mx.int64))


@both
def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> ValuesIndices:
    """Sorted values and their indices."""
    index = argsort(x, dim, descending)
    return ValuesIndices(wrap(mx.take_along_axis(to_array(x), index.array, dim)), index)


@both
def nonzero(x: Tensor) -> Tensor:
    """Coordinates (n, ndim) of what is non-zero; eager only."""
    return Tensor(mx.array(np.argwhere(np.array(x._concrete()) != 0).astype(np.int64)))


@function
def searchsorted(sorted_sequence: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    """Where values would be inserted in a sorted 1-d tensor (int64)."""
    side = "right" if right else "left"
    return wrap(
        mx.searchsorted(to_array(sorted_sequence), to_array(values), side=side).astype(mx.int64)
    )


@both
def bincount(x: Tensor, minlength: int = 0) -> Tensor:
    """How often each integer occurs; eager only."""
    a = x._concrete()
    n = max(minlength, int(np.array(a).max()) + 1 if a.size else 0)
    return Tensor(mx.zeros((n,), mx.int64).at[a].add(mx.ones(a.shape, mx.int64)))

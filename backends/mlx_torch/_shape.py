"""Shapes, views, joins and splits. What torch may return as a view is a view here (see _tensor)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._reduce import axes
from backends.mlx_torch._registry import FUNCTIONS, both, function, inplace, method
from backends.mlx_torch._tensor import Tensor, to_array, view, wrap


def _ints(args: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape given as one sequence or as several numbers."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = tuple(args[0])
    return tuple(int(a) for a in args)


def _shape_for(a: mx.array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Resolve -1; raise RuntimeError when the numbers of elements differ."""
    known = math.prod(s for s in shape if s != -1)
    if shape.count(-1) == 1 and known and a.size % known == 0:
        return tuple(a.size // known if s == -1 else s for s in shape)
    if -1 in shape or known != a.size:
        raise RuntimeError(f"shape {list(shape)} is invalid for a tensor of shape {list(a.shape)}")
    return shape


def _view(x: Tensor, *shape: Any) -> Tensor:
    """x.view(*shape): the same elements in another shape; x.view(dtype) reinterprets the bits."""
    if len(shape) == 1 and isinstance(shape[0], dt.dtype):
        kind = shape[0].mx
        return view(x, lambda a: a.view(kind))
    return reshape(x, *shape)


Tensor.view = _view  # type: ignore[attr-defined]


@both
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape."""
    to = _shape_for(to_array(x), _ints(shape))
    return view(x, lambda a: a.reshape(to))


@method
def view_as(x: Tensor, other: Tensor) -> Tensor:
    """x in other's shape."""
    return reshape(x, other.shape)


Tensor.reshape_as = view_as  # type: ignore[attr-defined]


@both
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge dims start_dim .. end_dim."""
    if x.ndim == 0:
        return reshape(x, 1)
    return view(x, lambda a: mx.flatten(a, start_dim, end_dim))


@both
def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split one dim into several."""
    return view(x, lambda a: mx.unflatten(a, dim, tuple(sizes)))


@both
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two dims."""
    axes((dim0, dim1), x.ndim)
    return view(x, lambda a: mx.swapaxes(a, dim0, dim1))


@both
def permute(x: Tensor, *dims: Any) -> Tensor:
    """Reorder all dims."""
    order = axes(_ints(dims), x.ndim)
    return view(x, lambda a: mx.transpose(a, order))


@both
def movedim(x: Tensor, source: int, destination: int) -> Tensor:
    """Move one dim to another place."""
    return view(x, lambda a: mx.moveaxis(a, source, destination))


@both
def t(x: Tensor) -> Tensor:
    """Transpose of a matrix."""
    if x.ndim > 2:
        raise RuntimeError(f"t() wants at most 2 dimensions, got {x.ndim}: use transpose or .mT")
    return view(x, mx.transpose)


Tensor.T = property(t)  # type: ignore[attr-defined]
Tensor.mT = property(lambda x: transpose(x, -2, -1))  # type: ignore[attr-defined]


@both
def squeeze(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Drop dims of size 1; other dims named are left."""
    ones = tuple(d for d in axes(dim, x.ndim) if x.shape[d] == 1)
    return view(x, lambda a: mx.squeeze(a, ones) if ones else a)


@both
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """Insert a dim of size 1."""
    return view(x, lambda a: mx.expand_dims(a, dim))


@method
def expand(x: Tensor, *sizes: Any) -> Tensor:
    """Repeat dims of size 1 without copying; -1 keeps a size."""
    want = _ints(sizes)
    new = len(want) - x.ndim
    if new < 0:
        raise RuntimeError(f"expand to {list(want)} has fewer dimensions than {list(x.shape)}")
    to = tuple(x.shape[i - new] if s == -1 else s for i, s in enumerate(want))
    return view(x, lambda a: mx.broadcast_to(a, to))


@method
def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """x expanded to other's shape."""
    return expand(x, other.shape)


@both
def broadcast_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """x expanded to size."""
    return expand(x, tuple(size))


@both
def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The slice start .. start + length of one dim."""
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, start + length),)]


@both
def select(x: Tensor, dim: int, index: int) -> Tensor:
    """Index one dim away."""
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


@both
def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along a dim."""
    return tuple(select(x, dim, i) for i in range(x.shape[dim]))


@both
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of split_size (the last may be smaller), or of the sizes given."""
    n = x.shape[dim]
    if isinstance(split_size, int):
        sizes = [min(split_size, n - i) for i in range(0, n, split_size)] or [0]
    else:
        sizes = list(split_size)
        if sum(sizes) != n:
            raise RuntimeError(f"split sizes {sizes} don't add up to {n}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(narrow(x, dim, s, k) for s, k in zip(starts, sizes, strict=True))


@both
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` equal pieces."""
    return split(x, max(1, -(-x.shape[dim] // chunks)), dim)


@function
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join along a dim that exists; types are promoted."""
    arrays = [to_array(t) for t in tensors]
    out = dt.result_dtype(*arrays)
    return wrap(
        mx.concatenate([a.astype(out) for a in arrays if a.shape != (0,)] or arrays, axis=dim)
    )


@function
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join along a new dim; types are promoted."""
    arrays = [to_array(t) for t in tensors]
    out = dt.result_dtype(*arrays)
    return wrap(mx.stack([a.astype(out) for a in arrays], axis=dim))


FUNCTIONS["concat"] = FUNCTIONS["concatenate"] = cat


@both
def roll(
    x: Tensor, shifts: int | tuple[int, ...], dims: int | tuple[int, ...] | None = None
) -> Tensor:
    """Rotate along dims; None rotates the flattened tensor."""
    return wrap(mx.roll(to_array(x), shifts, dims))  # type: ignore[arg-type]


@both
def flip(x: Tensor, *dims: Any) -> Tensor:
    """Reverse the order along dims."""
    return wrap(mx.flip(to_array(x), axes(_ints(dims), x.ndim)))


@method
def repeat(x: Tensor, *sizes: Any) -> Tensor:
    """Tile: the whole tensor repeated sizes[i] times along dim i."""
    return wrap(mx.tile(to_array(x), _ints(sizes)))


@both
def tile(x: Tensor, *dims: Any) -> Tensor:
    """Tile, with missing leading sizes taken as 1."""
    return wrap(mx.tile(to_array(x), _ints(dims)))


@both
def repeat_interleave(x: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element repeated `repeats` times in a row."""
    if isinstance(repeats, Tensor):
        raise TypeError("repeat_interleave takes one number here: a shape can't depend on data")
    return wrap(mx.repeat(to_array(x), repeats, dim))


@inplace
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """Lower triangle, zeros above."""
    return wrap(mx.tril(to_array(x), diagonal))


@inplace
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """Upper triangle, zeros below."""
    return wrap(mx.triu(to_array(x), diagonal))


@both
def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal over two dims, as the last dim."""
    return view(x, lambda a: mx.diagonal(a, offset, dim1, dim2))


@both
def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """Matrix of a diagonal, or diagonal of a matrix."""
    return wrap(mx.diag(to_array(x), diagonal))


@method
def size(x: Tensor, dim: int | None = None) -> Any:
    """Shape, or one size."""
    return x.shape if dim is None else x.shape[dim]


@both
def numel(x: Tensor) -> int:
    """Number of elements."""
    return to_array(x).size


@method
def dim(x: Tensor) -> int:
    """Number of dimensions."""
    return x.ndim


@method
def element_size(x: Tensor) -> int:
    """Bytes per element."""
    return x.dtype.itemsize


@both
def is_floating_point(x: Tensor) -> bool:
    """Whether the dtype is floating."""
    return x.dtype.is_floating_point


@function
def is_tensor(x: object) -> bool:
    """Whether x is a Tensor."""
    return isinstance(x, Tensor)


@function
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All expanded to their common shape."""
    shape = mx.broadcast_shapes(*(to_array(t).shape for t in tensors))
    return tuple(expand(t, tuple(shape)) for t in tensors)


Tensor.swapaxes = transpose  # type: ignore[attr-defined]
Tensor.nelement = numel  # type: ignore[attr-defined]
Tensor.nbytes = property(lambda x: to_array(x).nbytes)  # type: ignore[attr-defined]
Tensor.itemsize = property(element_size)  # type: ignore[attr-defined]
FUNCTIONS["swapaxes"] = transpose

"""Matrix products and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from backends.mlx_torch._elementwise import binary
from backends.mlx_torch._reduce import norm as _norm
from backends.mlx_torch._registry import both, function, inplace
from backends.mlx_torch._tensor import Tensor, to_array, wrap


def product(a: mx.array, b: mx.array) -> mx.array:
    """a @ b of one dtype; torch promotes nothing here, and neither do we."""
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"matrix product of {a.dtype} and {b.dtype}: cast one, e.g. w.to(x.dtype)"
        )
    return mx.matmul(a, b)


@both
def matmul(x: Tensor, other: Tensor) -> Tensor:
    """x @ other, batched over leading dims."""
    return wrap(product(to_array(x), to_array(other)))


def _product_of(name: str, dims: int) -> None:
    def op(x: Tensor, other: Tensor) -> Tensor:
        if x.ndim != dims or other.ndim != dims:
            raise RuntimeError(
                f"{name} wants two {dims}-d tensors, got {list(x.shape)} and {list(other.shape)}"
            )
        return matmul(x, other)

    op.__name__ = name
    both(op)


for _name, _dims in (("mm", 2), ("bmm", 3), ("dot", 1)):
    _product_of(_name, _dims)


@both
def mv(x: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector."""
    return matmul(x, vector)


setattr(Tensor, "__matmul__", matmul)  # noqa: B010


@both
def outer(x: Tensor, vec2: Tensor) -> Tensor:
    """x[:, None] * vec2[None, :]."""
    return wrap(binary(mx.multiply, "arith", to_array(x[:, None]), to_array(vec2[None, :])))


@inplace
def addmm(x: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * x + alpha * mat1 @ mat2, rounded once."""
    return wrap(mx.addmm(to_array(x), to_array(mat1), to_array(mat2), alpha=alpha, beta=beta))


@inplace
def baddbmm(
    x: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """addmm over a batch."""
    return addmm(x, batch1, batch2, beta=beta, alpha=alpha)


@function
def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation."""
    tensors = (
        operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    )
    return wrap(mx.einsum(equation, *(to_array(t) for t in tensors)))


@function
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    return tuple(wrap(a) for a in mx.meshgrid(*(to_array(t) for t in given), indexing=indexing))


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """torch.linalg.vector_norm."""
    return _norm(x, ord, dim, keepdim, dtype)


def matrix_norm(x: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """torch.linalg.matrix_norm, Frobenius only."""
    if ord != "fro":
        raise NotImplementedError("matrix_norm has ord='fro' only on MLX")
    return _norm(x, 2, dim, keepdim)


def _pairs(name: str, operation: str) -> Any:
    def foreach(tensors: Sequence[Tensor], others: Any, **kwargs: Any) -> None:
        many = others if isinstance(others, (list, tuple)) else [others] * len(tensors)
        for t, o in zip(tensors, many, strict=True):
            getattr(t, operation)(o, **kwargs)

    foreach.__name__ = name
    return function(foreach)


for _operation in ("copy_", "add_", "sub_", "mul_", "div_"):
    _pairs(f"_foreach_{_operation}", _operation)


@function
def _foreach_lerp_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Any) -> None:
    """lerp_ of each tensor towards its end."""
    for t, e in zip(tensors, ends, strict=True):
        t.lerp_(e, weight)

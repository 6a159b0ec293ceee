"""Where ops are registered: as torch.<name>, as Tensor.<name>, and in place as Tensor.<name>_."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from backends.mlx_torch._tensor import Tensor

Op = TypeVar("Op", bound=Callable[..., Any])
FUNCTIONS: dict[str, Callable[..., Any]] = {}  # torch.<name>


def function(op: Op) -> Op:
    """Export as torch.<name>."""
    FUNCTIONS[op.__name__] = op
    return op


def method(op: Op) -> Op:
    """Export as Tensor.<name>."""
    setattr(Tensor, op.__name__, op)
    return op


def both(op: Op) -> Op:
    """Export as torch.<name> and Tensor.<name>."""
    return method(function(op))


def inplace(op: Op) -> Op:
    """Export as torch.<name>, Tensor.<name> and Tensor.<name>_, which writes the result back."""
    add_inplace(op.__name__, op)
    return both(op)


def add_inplace(name: str, op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make Tensor.<name>_ out of an out-of-place op."""

    @functools.wraps(op)
    def write(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.assign(op(self, *args, **kwargs).array)

    write.__name__ = f"{name}_"
    setattr(Tensor, f"{name}_", write)
    return write

"""torch.nn.utils: gradient clipping."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import NoReturn

import mlx.core as mx

from backends.mlx_torch._errors import missing
from backends.mlx_torch._tensor import Tensor


def _with_grad(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    many = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in many if p.grad is not None]


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all tensors as one vector."""
    norms = [t.norm(norm_type).float().array for t in tensors]
    if not norms:
        return Tensor(mx.array(0.0))
    return Tensor(mx.stack(norms)).norm(norm_type)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale gradients so that their joint norm is at most max_norm; returns the norm before (0-d
    tensor).
    """
    held = _with_grad(parameters)
    total = get_total_norm([p.grad for p in held if p.grad is not None], norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError("the gradient norm is not finite")
    factor = mx.minimum(max_norm / (total.array + 1e-6), 1.0)
    for p in held:
        assert p.grad is not None
        p.grad.mul_(Tensor(factor))
    return total


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp each gradient to +-clip_value."""
    for p in _with_grad(parameters):
        p.grad.clamp_(-clip_value, clip_value)  # type: ignore[union-attr]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All as one flat tensor."""
    return Tensor(mx.concatenate([p.array.reshape(-1) for p in parameters]))


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.nn.utils", name, (n for n in vars(sys.modules[__name__]) if n.endswith("_")))

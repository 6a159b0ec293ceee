"""Gradients on MLX, which differentiates functions, not tensors.

    step = backward(model, compiled=True, loss_scaling=False)
    loss = step(x, y, scale=0.5)        # adds 0.5 * dloss/dp to each p.grad

A step is one function: parameters, buffers, random state and old gradients go in; the loss, the
gradients and what the forward pass wrote come out. Its computation starts at once, so that no lazy
graph grows from step to step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from backends.errors import BackendError
from backends.mlx_torch import Tensor, nn
from backends.mlx_torch._compile import Compiled, module_tensors, with_arrays
from backends.mlx_torch._grad_mode import MODE, differentiating
from backends.mlx_torch._tensor import flush, to_array

Gradients = list[Tensor | None]


def backward(model: nn.Module, *, compiled: bool, loss_scaling: bool) -> Callable[..., Tensor]:
    """See mlx_runtime.backward."""
    plain = functools.partial(_accumulate, model)
    run = Compiled(plain) if compiled else plain
    scaler = LossScaler() if loss_scaling else None

    def step(x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        flush()
        trained = [p for p in model.parameters() if p.requires_grad]
        factor = Tensor(mx.array(scale, mx.float32))
        # what Compiled has to take in besides the arguments themselves
        more = (model, None if scaler is None else [scaler.factor, scaler.good_passes])
        loss, grads = run(x, y, factor, [p.grad for p in trained], scaler, more)
        for p, grad in zip(trained, grads, strict=True):
            p.grad = grad
        mx.async_eval(loss.array, [g.array for g in grads if g is not None])
        return loss

    return step


def _accumulate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    old: Gradients,
    scaler: LossScaler | None,
    more: object,
) -> tuple[Tensor, Gradients]:
    """Loss, and the old gradients with the new ones added."""
    if scaler is not None:
        scale = Tensor(scale.array * scaler.factor.array)
    trained = [p for p in model.parameters() if p.requires_grad]
    loss, found, used = _differentiate(model, x, y, scale, trained)
    found = [g.astype(p.dtype.mx) for p, g in zip(trained, found, strict=True)]
    if scaler is not None:
        found = scaler.unscale(found)
    new: Gradients = []
    for p, before, grad in zip(trained, old, found, strict=True):
        if id(p) not in used:  # torch leaves the grad of what the loss doesn't use alone
            new.append(before)
        else:
            new.append(Tensor(grad if before is None else before.array + grad))
    return Tensor(loss), new


def _differentiate(
    model: nn.Module, x: Tensor, y: Tensor, scale: Tensor, trained: list[Any]
) -> tuple[mx.array, list[mx.array], set[int]]:
    """Loss, d(scale * loss) of each trained parameter, ids of the parameters that were read."""
    held = list({id(t): t for t in module_tensors(model)}.values())
    place = {id(t): i for i, t in enumerate(held)}
    written: list[int] = []

    def loss_of(arrays: list[mx.array]) -> Any:
        full = [t._value for t in held]
        for p, a in zip(trained, arrays, strict=True):
            full[place[id(p)]] = a
        with differentiating():
            loss, written[:], values = with_arrays(held, full, lambda: to_array(model(x, y)))
        if loss.size != 1:
            raise BackendError(f"model(x, y) must return a scalar, got shape {tuple(loss.shape)}")
        loss = loss.reshape(())
        return loss.astype(mx.float32) * scale.array, loss, values

    outer, MODE.used = MODE.used, set()
    try:
        (_, loss, values), found = mx.value_and_grad(loss_of)([p._value for p in trained])
        used = MODE.used
    finally:
        MODE.used = outer
    for i, value in zip(written, values, strict=True):
        held[i]._value = value
    return loss, found, used


class LossScaler:
    """loss_scaling.py's rule on MLX: the factor and the good passes since it changed, fp32 0-d."""

    initial, growth_interval, largest = 2.0**16, 2000, 2.0**24

    def __init__(self) -> None:
        self.factor = Tensor(mx.array(self.initial))
        self.good_passes = Tensor(mx.array(0.0))

    def unscale(self, grads: list[mx.array]) -> list[mx.array]:
        """Gradients over the factor, or zeros if one overflowed; adapts the factor."""
        factor, good = self.factor.array, self.good_passes.array
        finite = mx.all(mx.stack([mx.all(mx.isfinite(g)) for g in grads]))
        grown = good + 1 >= self.growth_interval
        larger = mx.where(grown, mx.minimum(factor * 2, self.largest), factor)
        self.factor.assign(mx.where(finite, larger, mx.maximum(factor / 2, 1.0)))
        self.good_passes.assign(mx.where(finite & ~grown, good + 1, 0.0))
        inverse = 1.0 / factor
        return [mx.where(finite, (g * inverse).astype(g.dtype), mx.zeros_like(g)) for g in grads]

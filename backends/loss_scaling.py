"""Loss scaling for fp16 compute on torch: small gradients survive, overflowing ones are dropped.

    scaler = LossScaler(model.parameters())
    scaler.backward(loss, scale=1.0)        # adds scale * dloss/dp to each p.grad

The loss is multiplied by a power of two before the backward pass and the gradients divided by it
in their parameter's dtype (fp32 masters). A pass with a non-finite gradient adds zeros and halves
the factor; GROWTH_INTERVAL good passes in a row double it. All on the device: no waiting. Where
several devices train one model, a gradient that overflows on one counts on all.
Constants: the defaults of torch.amp.GradScaler.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from backends import data_parallel

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000
LARGEST = 2.0**24  # beyond it a scaled fp16 loss gradient is above what fp16 holds anyway


class LossScaler:
    """The factor and the number of good passes since it changed, as tensors on the device."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        device = self.parameters[0].device
        self.factor = torch.full((), INITIAL, device=device)
        self.good_passes = torch.zeros((), device=device)

    def backward(self, loss: Tensor, scale: float) -> None:
        """Add scale * dloss/dp to p.grad, or zeros if a gradient overflowed."""
        upstream = (scale * self.factor).to(loss.dtype)
        used = torch.autograd.grad(loss, self.parameters, upstream, allow_unused=True)
        pairs = [(p, g) for p, g in zip(self.parameters, used, strict=True) if g is not None]
        finite = torch.stack([g.isfinite().all() for _, g in pairs]).all()
        finite = data_parallel.everywhere(finite)
        inverse = 1.0 / self.factor
        for parameter, gradient in pairs:
            unscaled = gradient.to(parameter.dtype) * inverse
            unscaled = torch.where(finite, unscaled, torch.zeros_like(unscaled))
            if parameter.grad is None:
                parameter.grad = unscaled
            else:
                parameter.grad += unscaled
        self._adapt(finite)

    def _adapt(self, finite: Tensor) -> None:
        self.good_passes = torch.where(finite, self.good_passes + 1, 0.0)
        grow = self.good_passes >= GROWTH_INTERVAL
        grown = torch.where(grow, (self.factor * 2).clamp(max=LARGEST), self.factor)
        self.factor = torch.where(finite, grown, (self.factor / 2).clamp(min=1.0))
        self.good_passes = torch.where(grow, 0.0, self.good_passes)

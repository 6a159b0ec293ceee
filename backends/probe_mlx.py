"""The variants that MLX can be asked to compare: compute types.

Loaded only in a probe process. A step is one forward and backward pass, evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mlx.core as mx

from backends.hardware import Hardware
from backends.policy import dtype_options


class Probes:
    """Makes steps on MLX's default device."""

    def __init__(self, hardware: Hardware, shape: Mapping[str, int]) -> None:
        self.shape = shape
        self.dtypes = dtype_options(hardware)[0]

    def step(self, item: str, variant: str, dtype: str, compiled: bool) -> Callable[[], None]:
        """A step for one compute type: a transformer's MLP on fp32 master weights."""
        if item != "dtype":
            raise NotImplementedError(f"MLX has one way to do {item}")
        compute = getattr(mx, variant)
        tokens = self.shape["tokens"]
        width = self.shape["heads"] * self.shape["head_dim"]
        x = mx.random.normal((tokens, width)).astype(compute)
        weights = [
            mx.random.normal((width, 4 * width)) * width**-0.5,
            mx.random.normal((4 * width, width)) * width**-0.5,
        ]

        def loss(up: mx.array, down: mx.array) -> mx.array:
            h = mx.fast.rms_norm(x, None, 1e-6) @ up.astype(compute)
            h = mx.square(mx.maximum(h, 0)) @ down.astype(compute)
            return mx.square((x + h).astype(mx.float32)).mean()

        gradient = mx.compile(mx.value_and_grad(loss, argnums=(0, 1)))
        return lambda: mx.eval(gradient(*weights))

    def alive(self) -> bool:
        """Whether the device still computes."""
        return bool(mx.ones(2).sum().item() == 2.0)

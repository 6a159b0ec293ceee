"""torch.nn.init: fill a tensor in place. Random numbers are MLX's, distributions torch's."""

from __future__ import annotations

import math
import sys
from typing import NoReturn

import mlx.core as mx

from backends.mlx_torch import _create
from backends.mlx_torch._errors import missing
from backends.mlx_torch._grad_mode import no_grad
from backends.mlx_torch._tensor import Tensor


def _fill(tensor: Tensor, value: mx.array) -> Tensor:
    with no_grad():
        return tensor.assign(value.astype(tensor.dtype.mx))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    return _fill(tensor, _create.uniform(tensor.shape, a, b, mx.float32))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Gaussian."""
    return _fill(tensor, _create.normal(tensor.shape, mean, std, mx.float32))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Gaussian cut to [a, b]."""
    low, high = (a - mean) / std, (b - mean) / std
    drawn = mx.random.truncated_normal(low, high, tensor.shape, mx.float32)
    return _fill(tensor, drawn * std + mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value."""
    return _fill(tensor, mx.full(tensor.shape, val, mx.float32))


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Identity matrix."""
    return _fill(tensor, mx.eye(*tensor.shape))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight (out, in, ...)."""
    if tensor.ndim < 2:
        raise ValueError("fan in and fan out need at least 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """torch's recommended gain."""
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
    }  # fmt: skip
    if nonlinearity not in gains:
        raise ValueError(f"unsupported nonlinearity {nonlinearity!r}; there is {', '.join(gains)}")
    return gains[nonlinearity]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010, uniform."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010, Gaussian."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. 2015, uniform."""
    bound = (
        math.sqrt(3) * calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode == "fan_out"])
    )
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. 2015, Gaussian."""
    return normal_(
        tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[mode == "fan_out"])
    )


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Saxe et al. 2013: a (semi-)orthogonal matrix."""
    rows = tensor.shape[0]
    cols = math.prod(tensor.shape[1:])
    flat = mx.random.normal((max(rows, cols), min(rows, cols)))
    q, r = mx.linalg.qr(flat, stream=mx.cpu)
    q = q * mx.sign(mx.diagonal(r))
    q = q.T if rows < cols else q
    return _fill(tensor, gain * q.reshape(tensor.shape))


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.nn.init", name, (n for n in vars(sys.modules[__name__]) if n.endswith("_")))

"""Layers, with torch's parameter names, shapes and initial distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from backends.mlx_torch import _create
from backends.mlx_torch._tensor import Tensor
from backends.mlx_torch.nn import functional as F
from backends.mlx_torch.nn import init
from backends.mlx_torch.nn.module import Module
from backends.mlx_torch.nn.parameter import Parameter


class Identity(Module):
    """Returns its input; takes any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x


class Linear(Module):
    """x @ weight.T + bias; weight (out, in), uniform in +-1/sqrt(in)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(
            _create.empty(out_features, in_features, dtype=dtype, device=device)
        )
        self.bias = (
            Parameter(_create.empty(out_features, dtype=dtype, device=device)) if bias else None
        )
        if not bias:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias again."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of weight (V, D) by integer; standard normal."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        self.weight = Parameter(
            _create.empty(num_embeddings, embedding_dim, dtype=dtype, device=device)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight again."""
        init.normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (...) integers -> (..., D)."""
        return F.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


class LayerNorm(Module):
    """Normalise the last dims; weight of ones, bias of zeros."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        shape, kind = self.normalized_shape, {"device": device, "dtype": dtype}
        weight = Parameter(_create.ones(*shape, **kind)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.register_parameter(
            "bias",
            Parameter(_create.zeros(*shape, **kind)) if elementwise_affine and bias else None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Root-mean-square norm of the last dims; weight of ones."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.register_parameter(
            "weight",
            Parameter(_create.ones(*self.normalized_shape, device=device, dtype=dtype))
            if elementwise_affine
            else None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class Dropout(Module):
    """Zeroes with probability p while training."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.dropout(x, self.p, self.training)


class Conv1d(Module):
    """x (B, in, T) -> (B, out, T'); weight (out, in / groups, K)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = Parameter(
            _create.empty(out_channels, in_channels // groups, F._one(kernel_size))
        )
        bound = 1 / math.sqrt(self.weight.shape[1] * self.weight.shape[2])
        init.uniform_(self.weight, -bound, bound)
        self.register_parameter("bias", Parameter(_create.empty(out_channels)) if bias else None)
        if bias:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Channels first."""
        return F.conv1d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Flatten(Module):
    """flatten(start_dim, end_dim)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """Merge dims."""
        return x.flatten(self.start_dim, self.end_dim)


class _Simple(Module):
    """A function as a module: constructor arguments are its keywords."""

    function: Callable[..., Tensor]
    names: tuple[str, ...] = ()

    def __init__(self, *args: Any, inplace: bool = False, **kwargs: Any) -> None:
        super().__init__()
        self.arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}

    def forward(self, *tensors: Tensor) -> Tensor:
        """The function on its input."""
        return type(self).function(*tensors, **self.arguments)


# class name -> (function, names of positional constructor arguments)
SIMPLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "ReLU": ("relu", ()),
    "ReLU6": ("relu6", ()),
    "SiLU": ("silu", ()),
    "GELU": ("gelu", ()),
    "Mish": ("mish", ()),
    "Tanh": ("tanh", ()),
    "Sigmoid": ("sigmoid", ()),
    "Hardswish": ("hardswish", ()),
    "ELU": ("elu", ("alpha",)),
    "LeakyReLU": ("leaky_relu", ("negative_slope",)),
    "Softplus": ("softplus", ("beta", "threshold")),
    "GLU": ("glu", ("dim",)),
    "Softmax": ("softmax", ("dim",)),
    "LogSoftmax": ("log_softmax", ("dim",)),
    "CrossEntropyLoss": ("cross_entropy", ("weight",)),
    "MSELoss": ("mse_loss", ()),
    "L1Loss": ("l1_loss", ()),
}
for _name, (_function, _names) in SIMPLE.items():
    globals()[_name] = type(
        _name,
        (_Simple,),
        {
            "function": staticmethod(getattr(F, _function)),
            "names": _names,
            "__doc__": f"F.{_function}",
        },
    )

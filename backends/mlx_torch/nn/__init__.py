"""torch.nn over MLX."""

from __future__ import annotations

from typing import Any

from backends.mlx_torch._errors import missing
from backends.mlx_torch.nn import functional, init, layers, utils
from backends.mlx_torch.nn.containers import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from backends.mlx_torch.nn.layers import (
    SIMPLE,
    Conv1d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    RMSNorm,
)
from backends.mlx_torch.nn.module import Module
from backends.mlx_torch.nn.parameter import Buffer, Parameter

__all__ = [
    "Buffer",
    "Conv1d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RMSNorm",
    "Sequential",
    "functional",
    "init",
    "utils",
    *SIMPLE,
]
globals().update({name: getattr(layers, name) for name in SIMPLE})


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.nn", name, __all__)

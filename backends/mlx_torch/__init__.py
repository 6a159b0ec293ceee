"""The torch spelling over MLX: what train.py and common edits need, and nothing that isn't torch's.

    from backends import torch, nn, F, runtime      # under MLX these are this package

Semantics are torch's (promotion, 0-d tensors, n - 1, values with indices). A closed set: a name
that is missing raises MissingName with the nearest names there are. Known differences, all of
them errors or supersets, never other numbers: see _tensor (views), _create (random streams),
_indexing (masks).
"""

from __future__ import annotations

import math
from typing import Any

from backends.mlx_torch import (
    _create,
    _elementwise,
    _indexing,
    _linalg,
    _reduce,
    _shape,
    linalg,
    nn,
    optim,
)
from backends.mlx_torch._compile import compile
from backends.mlx_torch._dtypes import (
    ALIASES,
    DTYPES,
    OF_MLX,
    device,
    dtype,
    finfo,
    iinfo,
    result_dtype,
)
from backends.mlx_torch._errors import missing
from backends.mlx_torch._grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad
from backends.mlx_torch._registry import FUNCTIONS
from backends.mlx_torch._tensor import Size, Tensor, operand

_OP_MODULES = (
    _create,
    _elementwise,
    _indexing,
    _linalg,
    _reduce,
    _shape,
)  # importing them fills FUNCTIONS

inf, nan, pi, e = math.inf, math.nan, math.pi, math.e
__version__ = "mlx"


def is_inference_mode_enabled() -> bool:
    """Whether gradients are off."""
    return not is_grad_enabled()


def get_default_dtype() -> dtype:
    """float32."""
    return DTYPES["float32"]


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted and ignored: MLX multiplies float32 in float32."""


def result_type(a: Any, b: Any) -> dtype:
    """The dtype a + b would have."""
    return OF_MLX[result_dtype(operand(a), operand(b))]


globals().update(FUNCTIONS)
globals().update(DTYPES)
globals().update({alias: DTYPES[name] for alias, name in ALIASES.items()})

__all__ = [
    "Size",
    "Tensor",
    "compile",
    "device",
    "dtype",
    "e",
    "enable_grad",
    "finfo",
    "get_default_dtype",
    "iinfo",
    "inf",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "linalg",
    "nan",
    "nn",
    "no_grad",
    "optim",
    "pi",
    "result_type",
    "set_float32_matmul_precision",
    *FUNCTIONS,
    *DTYPES,
    *ALIASES,
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch", name, __all__)

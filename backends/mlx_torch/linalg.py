"""torch.linalg over MLX: norms."""

from __future__ import annotations

from typing import NoReturn

from backends.mlx_torch._errors import missing
from backends.mlx_torch._linalg import matrix_norm, vector_norm
from backends.mlx_torch._reduce import norm

__all__ = ["matrix_norm", "norm", "vector_norm"]


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.linalg", name, __all__)

"""A matrix times its own transpose, in the spelling that torch and MLX share."""

from __future__ import annotations

from typing import Any


def gram(x: Any, alpha: float = 1.0, add: Any = None, beta: float = 0.0) -> Any:
    """beta * add + alpha * x @ x.mT: x (..., R, S), add and the result (..., R, R)."""
    if add is not None and add.ndim == 3:  # one pass over the result instead of three
        return add.baddbmm(x, x.mT, beta=beta, alpha=alpha)
    product = x @ x.mT
    if alpha != 1.0:
        product = alpha * product
    return product if add is None else beta * add + product

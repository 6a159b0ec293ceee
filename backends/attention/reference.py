"""The definition of attention that every implementation is tested against, in NumPy.

Query i sees keys i - window .. i, both ends included: window + 1 keys (FlashAttention's
`window_size=(window, 0)`). No window, or one of T - 1 and more, is full causal attention.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def attention(q: Array, k: Array, v: Array, window: int | None) -> Array:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D) fp64, O(T^2) memory."""
    length, heads, width = q.shape[1:]
    group = heads // k.shape[2]
    k, v = np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)
    scores = np.einsum("bihd,bjhd->bhij", q.astype(np.float64), k.astype(np.float64))
    scores = np.where(visible(length, window), scores / np.sqrt(width), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", weights, v.astype(np.float64))


def visible(length: int, window: int | None) -> npt.NDArray[np.bool_]:
    """(T, T): may query i (row) see key j (column)?"""
    behind = np.arange(length)[:, None] - np.arange(length)[None, :]
    return (behind >= 0) & (behind <= (length if window is None else window))

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
    return _heads(_weights(q, k, window) @ _heads(_shared(v, q)))


def gradients(
    q: Array, k: Array, v: Array, window: int | None, dy: Array
) -> tuple[Array, Array, Array]:
    """d sum(dy * y) / d(q, k, v), each in the shape of its input, fp64."""
    weights, dy_BHTD = _weights(q, k, window), _heads(dy)
    dweights = dy_BHTD @ _heads(_shared(v, q)).swapaxes(2, 3)
    dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
    dscores /= np.sqrt(q.shape[-1])
    dq = _heads(dscores @ _heads(_shared(k, q)))
    dk = _heads(dscores.swapaxes(2, 3) @ _heads(q))
    dv = _heads(weights.swapaxes(2, 3) @ dy_BHTD)
    return dq, _summed(dk, k), _summed(dv, k)


def _weights(q: Array, k: Array, window: int | None) -> Array:
    """Softmax of the scores, (B, H, T, T)."""
    scores = _heads(q) @ _heads(_shared(k, q)).swapaxes(2, 3) / np.sqrt(q.shape[-1])
    scores = np.where(visible(q.shape[1], window), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _heads(t: Array) -> Array:
    """(B, T, H, D) <-> (B, H, T, D), fp64."""
    return t.astype(np.float64).swapaxes(1, 2)


def _shared(t: Array, q: Array) -> Array:
    """Keys or values repeated for the query heads that share them."""
    return np.repeat(t, q.shape[2] // t.shape[2], axis=2)


def _summed(d: Array, k: Array) -> Array:
    """The gradients of the query heads that share a key head, added up."""
    batch, length, heads, width = k.shape
    return d.reshape(batch, length, heads, -1, width).sum(axis=3)


def visible(length: int, window: int | None) -> npt.NDArray[np.bool_]:
    """(T, T): may query i (row) see key j (column)?"""
    behind = np.arange(length)[:, None] - np.arange(length)[None, :]
    return (behind >= 0) & (behind <= (length if window is None else window))

"""Attention on MLX: exact, causal, with an inclusive window and grouped key heads.

    y = attention(q, k, v, window)      # mx.arrays (B, T, H, D); k and v may have fewer heads

Query i sees keys i - window .. i. Full causal goes to MLX's own kernel. A window is cut into blocks of
queries; each block sees its own keys and the `window` keys before it, so neither the T x T scores nor a
T x T mask exist.

Legend: B batch, T sequence, H heads, D head width.
"""

from __future__ import annotations

import math

import mlx.core as mx

MIN_BLOCK = 128  # below this, products are too small to be worth a launch


def attention(q_BTHD: mx.array, k_BTHD: mx.array, v_BTHD: mx.array, window: int | None) -> mx.array:
    """Softmax attention scaled by 1/sqrt(D); window None or >= T - 1 is full causal."""
    q, k, v = (mx.swapaxes(a, 1, 2) for a in (q_BTHD, k_BTHD, v_BTHD))
    length = q.shape[2]
    scale = 1.0 / math.sqrt(q.shape[-1])
    if window is None or window >= length - 1:
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")
        return mx.swapaxes(out, 1, 2)
    return mx.swapaxes(_windowed(q, k, v, window, scale), 1, 2)


def block_size(window: int) -> int:
    """Queries per block: half a window wastes a third of the scores, and needs few blocks."""
    return max(MIN_BLOCK, math.ceil(window / 2))


def _windowed(q: mx.array, k: mx.array, v: mx.array, window: int, scale: float) -> mx.array:
    """q (B, H, T, D). One product per block of queries."""
    length, block = q.shape[2], block_size(window)
    outs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        first = max(0, start - window)
        keys = k[:, :, first:end], v[:, :, first:end]
        mask = _mask(end - start, end - first, window)
        outs.append(
            mx.fast.scaled_dot_product_attention(q[:, :, start:end], *keys, scale=scale, mask=mask)
        )
    return mx.concatenate(outs, axis=2)


def _mask(queries: int, keys: int, window: int) -> mx.array:
    """(queries, keys) bool: the last query stands at the last key; each sees itself and `window` before."""
    at = mx.arange(keys - queries, keys)[:, None]
    key = mx.arange(keys)[None]
    return (key <= at) & (key >= at - window)

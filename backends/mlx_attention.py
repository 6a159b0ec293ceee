"""Attention on MLX: exact, causal, with an inclusive window and grouped key heads.

    y = attention(q, k, v, window)      # mx.arrays (B, T, H, D); k and v may have fewer heads

Query i sees keys i - window .. i. Queries are cut into blocks; each block sees its own keys and the
`window` keys before it, so neither the T x T scores nor a T x T mask exist. The backward pass goes
block by block too. On a CPU the forward pass keeps each block's weights for it: to make them again
is one product in seven, and memory is not what is short. On GPUs it makes them again, the forward
pass is MLX's fused kernel, and so is all of full causal.

Legend: B batch, T sequence, H heads, D head width; arrays inside are (B, H, T, D).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import mlx.core as mx


def attention(q_BTHD: mx.array, k_BTHD: mx.array, v_BTHD: mx.array, window: int | None) -> mx.array:
    """Softmax attention scaled by 1/sqrt(D); window None or >= T - 1 is full causal."""
    q, k, v = (mx.swapaxes(a, 1, 2) for a in (q_BTHD, k_BTHD, v_BTHD))
    length, on_gpu = q.shape[2], mx.default_device().type == mx.DeviceType.gpu
    full = window is None or window >= length - 1
    if full and (on_gpu or length <= _rows(on_gpu)):
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=_scale(q), mask="causal")
    else:
        group = q.shape[1] // k.shape[1]
        if group > 1:
            k, v = mx.repeat(k, group, axis=1), mx.repeat(v, group, axis=1)
        out, *_ = _blockwise(length - 1 if full else window, on_gpu)(q, k, v)
    return mx.swapaxes(out, 1, 2)


def _rows(on_gpu: bool) -> int:
    """Queries of a block: smaller ones save scores, larger ones save launches."""
    return 128 if on_gpu else 64


@functools.cache
def _blockwise(window: int, on_gpu: bool):  # type: ignore[no-untyped-def]
    """(q, k, v) -> [y, what is kept] for one window, with its backward pass."""

    @mx.custom_function
    def run(q: mx.array, k: mx.array, v: mx.array) -> list[mx.array]:
        outs: list[mx.array] = []
        kept: list[mx.array] = []
        for queries, keys in _spans(q.shape[2], window, on_gpu):
            q_b, k_b, v_b = q[:, :, queries], k[:, :, keys], v[:, :, keys]
            if on_gpu:
                mask = _mask(q_b, k_b, window)
                outs.append(
                    mx.fast.scaled_dot_product_attention(q_b, k_b, v_b, scale=_scale(q), mask=mask)
                )
                continue
            if outs:  # one block after the other, or the scheduler holds the scores of several
                (q_b,) = mx.depends([q_b], outs[-1:])
            kept.append(_weights(q_b, k_b, window))
            outs.append(kept[-1] @ v_b)
        return [mx.concatenate(outs, axis=2), *kept]

    @run.vjp
    def backward(primals, upstream, output):  # type: ignore[no-untyped-def]
        q, k, v = primals
        dy, (y, *kept) = upstream[0], output
        common = (_wide(dy) * _wide(y)).sum(axis=-1, keepdims=True)
        dq: list[mx.array] = []
        dk, dv = mx.zeros(k.shape, mx.float32), mx.zeros(v.shape, mx.float32)
        for i, (queries, keys) in enumerate(_spans(q.shape[2], window, on_gpu)):
            q_b, dy_b = q[:, :, queries], dy[:, :, queries]
            k_b, v_b = k[:, :, keys], v[:, :, keys]
            if dq:
                q_b, dy_b, dk, dv = mx.depends([q_b, dy_b, dk, dv], [dq[-1], dk, dv])
            weights = kept[i] if kept else _weights(q_b, k_b, window)
            d_weights = _wide(dy_b @ mx.swapaxes(v_b, 2, 3)) - common[:, :, queries]
            d_scores = (_wide(weights) * d_weights * _scale(q)).astype(q.dtype)
            dq.append(d_scores @ k_b)
            # Sliced and set, as `at[...].add` scatters number by number.
            dk[:, :, keys] = dk[:, :, keys] + _wide(mx.swapaxes(d_scores, 2, 3) @ q_b)
            dv[:, :, keys] = dv[:, :, keys] + _wide(mx.swapaxes(weights, 2, 3) @ dy_b)
        return mx.concatenate(dq, axis=2), dk.astype(k.dtype), dv.astype(v.dtype)

    return run


def _spans(length: int, window: int, on_gpu: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, each with the keys it may see."""
    rows = _rows(on_gpu)
    for start in range(0, length, rows):
        end = min(start + rows, length)
        yield slice(start, end), slice(max(0, start - window), end)


def _weights(q: mx.array, k: mx.array, window: int) -> mx.array:
    """Softmax over the keys, in q's dtype, of queries whose last one stands at the last key."""
    scores = (q * _scale(q)) @ mx.swapaxes(k, 2, 3)
    scores = mx.where(_mask(q, k, window), scores, -mx.inf)
    return mx.softmax(scores, axis=-1, precise=True)


def _mask(q: mx.array, k: mx.array, window: int) -> mx.array:
    """Which key each query sees."""
    queries, keys = q.shape[2], k.shape[2]
    at = mx.arange(keys - queries, keys)[:, None]
    key = mx.arange(keys)[None]
    return (key <= at) & (key >= at - window)


def _scale(q: mx.array) -> float:
    return 1.0 / math.sqrt(q.shape[-1])


def _wide(a: mx.array) -> mx.array:
    return a.astype(mx.float32)

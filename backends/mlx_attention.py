"""Attention on MLX: exact, causal, with an inclusive window and grouped key heads.

    y = attention(q, k, v, window)      # mx.arrays (B, T, H, D); k and v may have fewer heads

Query i sees keys i - window .. i. Queries are cut into blocks; each block sees its own keys and the
`window` keys before it, so neither the T x T scores nor a T x T mask exist. The backward pass goes
block by block too and makes a block's scores again. On GPUs, full causal is MLX's fused kernel.

Legend: B batch, T sequence, H heads, D head width; arrays inside are (B, H, T, D).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import mlx.core as mx

BLOCK = 128  # queries; smaller ones save scores, larger ones save launches


def attention(q_BTHD: mx.array, k_BTHD: mx.array, v_BTHD: mx.array, window: int | None) -> mx.array:
    """Softmax attention scaled by 1/sqrt(D); window None or >= T - 1 is full causal."""
    q, k, v = (mx.swapaxes(a, 1, 2) for a in (q_BTHD, k_BTHD, v_BTHD))
    length = q.shape[2]
    full = window is None or window >= length - 1
    if (length <= BLOCK and full) or (full and _on_gpu()):
        scale = 1.0 / math.sqrt(q.shape[-1])
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask="causal")
    else:
        out = _blockwise(length - 1 if window is None else min(window, length - 1))(q, k, v)
    return mx.swapaxes(out, 1, 2)


def _on_gpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.gpu)


@functools.cache
def _blockwise(window: int):  # type: ignore[no-untyped-def]
    """(q, k, v) -> y for one window, with a backward pass that keeps nothing but its inputs."""

    @mx.custom_function
    def run(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        outs: list[mx.array] = []
        for queries, keys in _spans(q.shape[2], window):
            block = q[:, :, queries], k[:, :, keys], v[:, :, keys]
            outs.append(_block(*block, window))
        return mx.concatenate(outs, axis=2)

    @run.vjp
    def backward(primals, upstream, output):  # type: ignore[no-untyped-def]
        q, k, v = primals
        dq: list[mx.array] = []
        dk, dv = mx.zeros(k.shape, mx.float32), mx.zeros(v.shape, mx.float32)
        for queries, keys in _spans(q.shape[2], window):
            block = [q[:, :, queries], k[:, :, keys], v[:, :, keys]]
            if dq:  # one block after the other, or the scheduler holds the scores of several
                block = mx.depends(block, [dq[-1], dk, dv])
            one = functools.partial(_block, window=window)
            _, (dq_b, dk_b, dv_b) = mx.vjp(one, block, [upstream[:, :, queries]])
            dq.append(dq_b)
            dk = dk.at[:, :, keys].add(dk_b.astype(mx.float32))
            dv = dv.at[:, :, keys].add(dv_b.astype(mx.float32))
        return mx.concatenate(dq, axis=2), dk.astype(k.dtype), dv.astype(v.dtype)

    return run


def _spans(length: int, window: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, each with the keys it may see."""
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        yield slice(start, end), slice(max(0, start - window), end)


def _block(q: mx.array, k: mx.array, v: mx.array, window: int) -> mx.array:
    """Attention of queries whose last one stands at the last key."""
    queries, keys = q.shape[2], k.shape[2]
    at = mx.arange(keys - queries, keys)[:, None]
    key = mx.arange(keys)[None]
    mask = (key <= at) & (key >= at - window)
    scale = 1.0 / math.sqrt(q.shape[-1])
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

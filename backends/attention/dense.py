"""Attention as plain matrix products: a block of queries, all the keys it may see, one softmax.

What a processor does best is multiply matrices. Its fused kernels keep the scores out of memory,
but they multiply small tiles and compute every key that a mask hides; here hidden blocks of keys
are never touched, and the compiler fuses scale, mask and softmax between two large products. The
mask is numbers to add, made once: to compare positions anew for each score cost a third of the
forward pass. The weights of one block of queries are held in the compute dtype for the backward
pass: T x T / 2 numbers a head, which is little for a row of a few hundred tokens and too much for
long ones.

Both passes are written out (as in FlashAttention-2, arXiv:2307.08691, algorithms 1 and 2): weights
stay unnormalised (but in fp16), what is divided is the output, and the backward pass takes its sum
over the keys from the output, so that each goes over the scores once less. What a product reads is
laid out densely first: torch's batched ones copy anything else, slowly and each time.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.attention.sdpa import full_causal, heads_first

# Queries of a block. On two cores of an EPYC with avx512_bf16, forward and backward, compiled:
# 128 was best at T 256; at T 2,048 256, where 128 took 1.3 times and 512 1.1 times as long. The
# compiler unrolls them, so long rows get wider ones.
BLOCK, MANY_BLOCKS = 128, 8
# Tokens of a row without a window: at 2,048 a training step took 0.9 of the fused kernel's time,
# for a memory that grows with the square.
LONGEST_CAUSAL = 2048


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D), any T from 1.

    Differentiable once: asked for a gradient of the gradient, autograd raises RuntimeError.
    """
    length = q.shape[1]
    if window is None or window >= length - 1:
        if length > LONGEST_CAUSAL:
            return full_causal(q, k, v)
        window = length - 1
    q, k, v = heads_first(q, k, v)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        y: Tensor = _Attention.apply(q, k, v, window)
    else:
        spans = _spans(length, window)
        y = torch.cat([_forward(*_dense(span, q, k, v), window)[0] for span in spans], dim=2)
    return y.transpose(1, 2)


class _Span(NamedTuple):
    """A block of queries, from `start` to `end`, and its keys, from `first` to `end`."""

    first: int
    start: int
    end: int


def _spans(length: int, window: int) -> list[_Span]:
    rows = BLOCK * max(1, length // (MANY_BLOCKS * BLOCK))
    return [
        _Span(max(0, start - window), start, min(start + rows, length))
        for start in range(0, length, rows)
    ]


def _dense(span: _Span, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The block's own queries, keys and values."""
    first, start, end = span
    return (
        q[:, :, start:end].contiguous(),
        k[:, :, first:end].contiguous(),
        v[:, :, first:end].contiguous(),
    )


def _forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """One block, its last query at the last key: output, weights, and the weights' sums.

    q (B, H, R, D), k and v (B, H, S, D) -> (B, H, R, D), unnormalised (B, H, R, S), (B, H, R, 1).
    """
    rows, keys = q.shape[2], k.shape[2]
    scores = q @ k.transpose(2, 3)
    wide = torch.promote_types(scores.dtype, torch.float32)
    band = _band(window, rows, q.dtype, q.device)[:, window + rows - keys :]
    scores = scores.to(wide) * q.shape[-1] ** -0.5 + band
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    if q.dtype == torch.float16:  # in which thousands of values could overflow
        weights = weights / weights.sum(dim=-1, keepdim=True)
    weights = weights.to(q.dtype)
    sums = weights.to(wide).sum(dim=-1, keepdim=True)  # of what is multiplied, rounded as it is
    return ((weights @ v).to(wide) / sums).to(q.dtype), weights, sums


class _Attention(torch.autograd.Function):
    """q, k, v (B, H, T, D) -> (B, H, T, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        spans = _spans(q.shape[2], window)
        blocks = [_forward(*_dense(span, q, k, v), window) for span in spans]
        y = torch.cat([block[0] for block in blocks], dim=2)
        ctx.window = window
        ctx.save_for_backward(q, k, v, y, *(kept for block in blocks for kept in block[1:]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *kept = ctx.saved_tensors
        spans = _spans(q.shape[2], ctx.window)
        dq, dk, dv = [], [], []
        for span, weights, sums in zip(spans, kept[::2], kept[1::2], strict=True):
            queries, wide = slice(span.start, span.end), sums.dtype
            q_b, k_b, v_b = _dense(span, q, k, v)
            dy = (upstream[0][:, :, queries].to(wide) / sums).to(q.dtype).contiguous()
            common = (dy.to(wide) * y[:, :, queries].to(wide)).sum(dim=-1, keepdim=True)
            d_weights = (dy @ v_b.transpose(2, 3)).to(wide) - common
            d_scores = (weights.to(wide) * d_weights * q.shape[-1] ** -0.5).to(q.dtype)
            dq.append(d_scores @ k_b)
            dk.append(d_scores.transpose(2, 3) @ q_b)
            dv.append(weights.transpose(2, 3) @ dy)
        return torch.cat(dq, dim=2), _summed(dk, spans), _summed(dv, spans), None


def _summed(parts: list[Tensor], spans: list[_Span]) -> Tensor:
    """One part per span, of that span's keys -> their sum over all keys, added up in fp32."""
    edges = sorted({edge for span in spans for edge in span})
    wide = torch.promote_types(parts[0].dtype, torch.float32)
    sums = []
    for low, high in itertools.pairwise(edges):
        seen = [
            part[:, :, low - span.first : high - span.first].to(wide)
            for part, span in zip(parts, spans, strict=True)
            if span.first <= low and high <= span.end
        ]
        sums.append(functools.reduce(torch.add, seen).to(parts[0].dtype))
    return torch.cat(sums, dim=2)


@torch.compiler.assume_constant_result
def _band(window: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`_made_band` as a constant: the compiler would fuse its making into the softmax otherwise."""
    return _made_band(window, rows, dtype, device)


@functools.lru_cache(maxsize=64)
def _made_band(window: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(rows, window + rows): 0 where query row i sees key column i .. i + window, else -inf."""
    ahead = torch.arange(window + rows)[None, :] - torch.arange(rows)[:, None]
    hidden = (ahead < 0) | (ahead > window)
    return torch.zeros(ahead.shape, dtype=dtype).masked_fill(hidden, -torch.inf).to(device)

"""Attention as plain matrix products: a block of queries, all the keys it may see, one softmax.

What a processor does best is multiply matrices. Its fused kernels keep the scores out of memory,
but they multiply small tiles and compute every key that a mask hides; here hidden blocks of keys
are never touched, and the compiler fuses scale, mask and softmax between two large products. The
mask is numbers to add, made once: to compare positions anew for each score cost a third of the
forward pass. The scores of one block of queries are held in the compute dtype for the backward
pass: T x T / 2 numbers a head, which is little for a row of a few hundred tokens and too much for
long ones.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from backends.attention.sdpa import full_causal, heads_first

# Queries of a block. On two cores of an EPYC with avx512_bf16, forward and backward, compiled:
# 128 was best at T 256, 128 and 256 alike at T 512 to 2,048; 64 and 512 slower. The compiler
# unrolls them, so long rows get wider ones.
BLOCK, MANY_BLOCKS = 128, 8
# Tokens of a row without a window: at 1,024 the fused kernel took 122 ms on one core and this 89;
# at 2,048, on two, 110 and 103, for a memory that grows with the square.
LONGEST_CAUSAL = 1024


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D), any T from 1."""
    length = q.shape[1]
    if window is None or window >= length - 1:
        if length > LONGEST_CAUSAL:
            return full_causal(q, k, v)
        window = length - 1
    q, k, v = heads_first(q, k, v)
    rows = BLOCK * max(1, length // (MANY_BLOCKS * BLOCK))
    blocks = [
        _block(q, k, v, window, start, min(start + rows, length))
        for start in range(0, length, rows)
    ]
    return torch.cat(blocks, dim=2).transpose(1, 2)


def _block(q: Tensor, k: Tensor, v: Tensor, window: int, start: int, end: int) -> Tensor:
    """Queries start .. end - 1 of (B, H, T, D), with the keys that any of them sees."""
    first = max(0, start - window)
    scores = q[:, :, start:end] @ k[:, :, first:end].transpose(2, 3)
    wide = torch.promote_types(scores.dtype, torch.float32)
    band = _band(window, end - start, wide, q.device)[:, first - start + window :]
    scores = scores.to(wide) * q.shape[-1] ** -0.5 + band
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v[:, :, first:end]


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

"""Exact sliding-window attention as dense products over blocks of queries: no T x T anything.

The first `window` queries see every key before them: plain causal attention. Behind them each block
of BLOCK queries meets the window + BLOCK keys that any of them sees, and one small mask, the same
for all blocks, cuts the corners. Works where scaled_dot_product_attention works.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.attention.sdpa import full_causal, heads_first

BLOCK = 128  # queries: wide enough for a full matrix product, narrow enough to waste little


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D), any T from 1."""
    length = q.shape[1]
    if window is None or window >= length - 1:
        return full_causal(q, k, v)
    blocks = -(-(length - window) // BLOCK)
    span = -(-(window + BLOCK) // BLOCK) * BLOCK
    rest = _blocks(q[:, window:], k, v, window, blocks, span)
    if window == 0:
        return rest
    head = full_causal(q[:, :window], k[:, :window], v[:, :window])
    return torch.cat([head, rest], dim=1)


def _blocks(q: Tensor, k: Tensor, v: Tensor, window: int, blocks: int, span: int) -> Tensor:
    """Queries from position `window` on: block b meets the keys b * BLOCK .. b * BLOCK + span."""
    batch, rows, heads, width = q.shape
    mask = _mask(window, span, q.device)
    q = _padded(q, blocks * BLOCK).reshape(batch * blocks, BLOCK, heads, width)
    k, v = (_spans(t, blocks, span) for t in (k, v))
    y = F.scaled_dot_product_attention(*heads_first(q, k, v), attn_mask=mask)
    return y.transpose(1, 2).reshape(batch, blocks * BLOCK, heads, width)[:, :rows]


def _spans(t: Tensor, blocks: int, span: int) -> Tensor:
    """(B, T, H, D) -> (B * blocks, span, H, D), the keys of each block side by side.

    Shifted copies, so that the backward pass is a sum of span / BLOCK slices.
    """
    batch, _, heads, width = t.shape
    t = _padded(t, (blocks - 1) * BLOCK + span)
    shifted = [
        t[:, start : start + blocks * BLOCK].reshape(batch, blocks, BLOCK, heads, width)
        for start in range(0, span, BLOCK)
    ]
    return torch.cat(shifted, dim=2).reshape(batch * blocks, span, heads, width)


def _padded(t: Tensor, length: int) -> Tensor:
    missing = length - t.shape[1]
    return F.pad(t, (0, 0, 0, 0, 0, missing)) if missing > 0 else t


def _mask(window: int, span: int, device: torch.device) -> Tensor:
    """(BLOCK, span) bool: query row i sees key columns i .. i + window, padding never."""
    ahead = torch.arange(span, device=device)[None, :] - torch.arange(BLOCK, device=device)[:, None]
    return (ahead >= 0) & (ahead <= window)

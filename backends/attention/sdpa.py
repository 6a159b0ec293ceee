"""PyTorch's own scaled_dot_product_attention: best for full causal, last resort for a window.

With a window it needs a T x T mask, so it computes (and then drops) every score outside the band.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D)."""
    length = q.shape[1]
    if window is None or window >= length - 1:
        return full_causal(q, k, v)
    q, k, v = heads_first(q, k, v)
    make = band if torch.compiler.is_compiling() else _cached_band
    mask = make(length, window, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def full_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every query sees all keys up to its own: no mask in memory."""
    q, k, v = heads_first(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def heads_first(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, T, D) views, with shared key heads repeated.

    Not `enable_gqa`: with it the CPU and memory-efficient kernels step aside for plain math, which
    holds the T x T scores.
    """
    group = q.shape[2] // k.shape[2]
    if group > 1:
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def band(length: int, window: int, device: torch.device) -> Tensor:
    """(T, T) bool: query i may see key j if i - window <= j <= i."""
    position = torch.arange(length, device=device)
    behind = position[:, None] - position[None, :]
    return (behind >= 0) & (behind <= window)


@lru_cache(maxsize=8)
def _cached_band(length: int, window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # the cache outlives the caller's mode
        return band(length, window, device)

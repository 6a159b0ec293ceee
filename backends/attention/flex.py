"""PyTorch's flex_attention, compiled: blocks outside the window are never visited.

Needs Triton for speed and for its backward pass (a CPU has the forward only). The block mask is
written down from the window, block by block, so that no T x T mask is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

if TYPE_CHECKING:
    from backends.attention import AttentionFunction
    from backends.hardware import Hardware

BLOCK = 128  # rows and columns of a block: what flex_attention's kernels are tuned for


def load(hardware: Hardware) -> AttentionFunction:
    """The compiled function; inside a compiled model it becomes part of its graph."""
    return using(torch.compile(flex_attention, dynamic=False))


def using(flex: Callable[..., Any]) -> AttentionFunction:
    """Our convention on top of `flex_attention`, compiled or not."""

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        make = block_mask if torch.compiler.is_compiling() else _cached_block_mask
        mask = make(q.shape[1], window, q.device)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return flex(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)

    return attention


def block_mask(length: int, window: int | None, device: torch.device) -> BlockMask:
    """Which blocks of keys a block of queries meets: wholly (full), in part, or not at all."""
    reach = length if window is None else window

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (i - j <= reach)

    start = torch.arange(0, length, BLOCK, device=device)
    apart = start[:, None] - start[None, :]  # first query of a block minus first key of another
    some = (apart >= 0) & (apart - (BLOCK - 1) <= reach)
    full = (apart > 0) & (apart + (BLOCK - 1) <= reach)
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(n, n) bool -> how many per row (1, 1, n), and their columns first (1, 1, n, n), int32."""
    counts = blocks.sum(dim=1, dtype=torch.int32)
    columns = torch.argsort(blocks.int(), dim=1, descending=True, stable=True).int()
    return counts[None, None], columns[None, None].contiguous()


@lru_cache(maxsize=32)
def _cached_block_mask(length: int, window: int | None, device: torch.device) -> BlockMask:
    with torch.inference_mode(False), torch.no_grad():  # the cache outlives the caller's mode
        return block_mask(length, window, device)

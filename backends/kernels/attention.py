"""Sliding-window causal flash attention of our own, as an operator that torch.compile keeps whole.

    y = attention(q, k, v, window)      # (B, T, H, D); k and v may have fewer heads

Query i sees keys i - window .. i, both included; None is full causal. float16, bfloat16 and
float32, any T, D to WIDEST, tensors by their strides: nothing is copied, nothing is T x T.
Importing this imports Triton; `backends.attention.triton` says where that is of use.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from backends.kernels import (
    Tiling,
    attention_kernels,
    current_device,
    interpreted,
    launch,
    product_type,
)
from backends.kernels.attention_tilings import tilings

WIDEST = 256  # D: wider tiles fit in no GPU's shared memory
KEYS = ("size_class", "WIDTH")  # what the best tiling depends on, besides types
SHORT = 1024  # tokens of a sequence below which a tiling is taken unmeasured
# It has no device to ask; tests set others.
IN_THE_INTERPRETER = (Tiling((("BLOCK", 32), ("STEP", 16))),)


def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """q (B, T, H, D), k and v (B, T, H or fewer, D) -> (B, T, H, D), differentiable.

    Raises ValueError for shapes and types that it isn't made for.
    """
    length, heads, width = q.shape[1:]
    if width > WIDEST or heads % k.shape[2] or k.shape != v.shape or k.shape[1] != length:
        shapes = ", ".join(str(tuple(t.shape)) for t in (q, k, v))
        raise ValueError(f"shapes {shapes}: (B, T, H, D) with D to {WIDEST}, the same T")
    reach = length if window is None else min(window, length)
    return torch.ops.autoresearch.window_attention(q, k, v, reach)[0]


@torch.library.custom_op("autoresearch::window_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """y, contiguous, and (B, H, T) float32: log2 of the sum of each query's 2**score."""
    q, k, v = (_dense_rows(t) for t in (q, k, v))
    batch, length, heads, width = q.shape
    y, lse = _forward_like(q, k, v, window)
    launch(
        attention_kernels.forward,
        lambda meta: (triton.cdiv(length, meta["BLOCK"]) * batch * heads,),
        _tilings("forward", q),
        KEYS,
        *(q, k, v, y, lse, length, window, heads, heads // k.shape[2], _scale(width)),
        *(*_strides(q), *_strides(k), *_strides(v), _size_class(length, window)),
        results=("y", "lse"),
        **_constants(q),
    )
    return y, lse


@_forward.register_fake
def _forward_like(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, length), dtype=torch.float32)


@torch.library.custom_op("autoresearch::window_attention_backward", mutates_args=())
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv, contiguous."""
    dy, q, k, v = (_dense_rows(t) for t in (dy, q, k, v))
    y, lse = y.contiguous(), lse.contiguous()  # which they are, unless a compiler moved them
    batch, length, heads, width = q.shape
    key_heads = k.shape[2]
    dq, dk, dv = _backward_like(dy, q, k, v, y, lse, window)
    delta = torch.empty_like(lse)
    sizes = heads // key_heads, _scale(width), width**-0.5
    strides = *_strides(q), *_strides(k), *_strides(v), *_strides(dy)
    launch(
        attention_kernels.query_gradients,
        lambda meta: (triton.cdiv(length, meta["BLOCK"]) * batch * heads,),
        _tilings("query_gradients", q),
        KEYS,
        *(q, k, v, y, dy, lse, delta, dq, length, window, heads, *sizes),
        *(*strides, _size_class(length, window)),
        results=("dq", "delta"),
        **_constants(q),
    )
    launch(
        attention_kernels.key_gradients,
        lambda meta: (triton.cdiv(length, meta["BLOCK"]) * batch * key_heads,),
        _tilings("key_gradients", q),
        KEYS,
        *(q, k, v, dy, lse, delta, dk, dv, length, window, key_heads, *sizes),
        *(*strides, _size_class(length, window)),
        results=("dk", "dv"),
        **_constants(q),
    )
    return dq, dk, dv


@_backward.register_fake
def _backward_like(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.window = inputs[3]


def _differentiate(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, y, lse = ctx.saved_tensors
    operator = torch.ops.autoresearch.window_attention_backward
    return *operator(dy, q, k, v, y, lse, ctx.window), None


_forward.register_autograd(_differentiate, setup_context=_remember)


def _dense_rows(t: Tensor) -> Tensor:
    """The tensor itself if its rows lie in one piece each, as kernels read them; else a copy."""
    return t if t.stride(-1) == 1 else t.contiguous()


def _strides(t: Tensor) -> tuple[int, int, int]:
    return t.stride(0), t.stride(1), t.stride(2)


def _scale(width: int) -> float:
    """Of scores, into log2's units."""
    return width**-0.5 * math.log2(math.e)


def _constants(q: Tensor) -> dict[str, Any]:
    width = q.shape[-1]
    return {"WIDTH": width, "PADDED": _padded(width), "PRODUCT": product_type(q.dtype)}


def _padded(width: int) -> int:
    return max(16, triton.next_power_of_2(width))  # a product is at least 16 wide


def _size_class(length: int, window: int) -> int:
    """Equal for problems that the same tiling suits: both sizes to a power of two."""
    return 64 * length.bit_length() + min(window, length).bit_length()


def _tilings(kernel: str, q: Tensor) -> tuple[Tiling, ...]:
    """To choose from; one alone for short sequences, which aren't worth measuring."""
    if interpreted():
        return IN_THE_INTERPRETER
    found = tilings(kernel, current_device(), _padded(q.shape[-1]), q.element_size())
    return found if q.shape[1] >= SHORT else found[:1]

# mypy: disable-error-code="no-untyped-def"
"""Rotary position and RMS norm of queries or keys in one pass over them, forward and backward.

    q = rotate_norm(q, cos, sin)        # train.py's norm(rotate(q, cos, sin))

In eager mode the plain spelling reads and writes the tensor some ten times; torch.compile fuses it
as this kernel does. benchmarks/gpu.py compares the three.

Legend: B batch, T time, H heads, D head channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.errors import BackendError

EPSILON = torch.finfo(torch.float32).eps  # what F.rms_norm adds to a mean that it takes in fp32
ELEMENTS = 2048  # of a program: 16 per thread of 4 warps of 32, whatever the head's width


def rotate_norm(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RMS norm over D of x whose channel pairs (d, d + D/2) are turned by their angles.

    x (B, T, H, D) in fp32, fp16 or bf16 with any strides; cos and sin (1, T, 1, D/2), which get no
    gradient. The result is contiguous; arithmetic is fp32 and rounded once.
    """
    _, T, _, D = x.shape
    for table in (cos, sin):
        if D % 2 or table.shape != (1, T, 1, D // 2):
            raise BackendError(
                f"x {tuple(x.shape)} needs tables (1, {T}, 1, {D} / 2), and got "
                f"{tuple(cos.shape)} and {tuple(sin.shape)}"
            )
    return _rotate_norm(x, cos, sin)


@torch.library.custom_op("autoresearch::rotate_norm", mutates_args=())
def _rotate_norm(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return _launch(x, cos, sin, None)


@torch.library.custom_op("autoresearch::rotate_norm_backward", mutates_args=())
def _rotate_norm_backward(x: Tensor, cos: Tensor, sin: Tensor, upstream: Tensor) -> Tensor:
    return _launch(x, cos, sin, upstream.contiguous())


@_rotate_norm.register_fake
def _(x, cos, sin):
    return x.new_empty(x.shape)


@_rotate_norm_backward.register_fake
def _(x, cos, sin, upstream):
    return x.new_empty(x.shape)


def _keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, upstream):
    return _rotate_norm_backward(*ctx.saved_tensors, upstream), None, None


_rotate_norm.register_autograd(_backward, setup_context=_keep_inputs)


def _launch(x: Tensor, cos: Tensor, sin: Tensor, upstream: Tensor | None) -> Tensor:
    """The normalised tensor or, given its gradient, that of x."""
    B, T, H, D = x.shape
    out = x.new_empty(x.shape)
    half = triton.next_power_of_2(D // 2)
    rows = max(1, ELEMENTS // (2 * half))
    _rotate_norm_rows[(triton.cdiv(B * T * H, rows),)](
        x,
        cos.contiguous(),
        sin.contiguous(),
        upstream,
        out,
        B * T * H,
        T,
        H,
        D // 2,
        *x.stride(),
        EPSILON,
        ROWS=rows,
        HALF=half,
        num_warps=4,
    )
    return out


@triton.jit
def _rotate_norm_rows(
    x_ptr,
    cos_ptr,
    sin_ptr,
    upstream_ptr,
    out_ptr,
    count,
    T,
    H,
    half,
    x_b,
    x_t,
    x_h,
    x_d,
    epsilon,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
):
    """ROWS heads of tokens: turned and normalised, or the gradient of that (upstream given)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, HALF)
    inside = (row < count)[:, None] & (channel < half)[None, :]
    head = row % H
    time = (row // H) % T
    batch = row // H // T
    x_at = (batch * x_b + time * x_t + head * x_h)[:, None] + channel[None, :] * x_d
    turn_at = time[:, None] * half + channel[None, :]
    out_at = row[:, None] * (2 * half) + channel[None, :]

    left = tl.load(x_ptr + x_at, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(x_ptr + x_at + half * x_d, mask=inside, other=0.0).to(tl.float32)
    cos = tl.load(cos_ptr + turn_at, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + turn_at, mask=inside, other=0.0).to(tl.float32)
    left, right = left * cos + right * sin, right * cos - left * sin
    square = tl.sum(left * left + right * right, axis=1) / (2 * half)
    inverse = (1.0 / tl.sqrt(square + epsilon))[:, None]
    left *= inverse
    right *= inverse

    if upstream_ptr is not None:
        d_left = tl.load(upstream_ptr + out_at, mask=inside, other=0.0).to(tl.float32)
        d_right = tl.load(upstream_ptr + out_at + half, mask=inside, other=0.0).to(tl.float32)
        along = (tl.sum(d_left * left + d_right * right, axis=1) / (2 * half))[:, None]
        d_left = (d_left - left * along) * inverse
        d_right = (d_right - right * along) * inverse
        left, right = d_left * cos - d_right * sin, d_left * sin + d_right * cos
    dtype = out_ptr.dtype.element_ty
    tl.store(out_ptr + out_at, left.to(dtype), mask=inside)
    tl.store(out_ptr + out_at + half, right.to(dtype), mask=inside)

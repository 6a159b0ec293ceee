"""x @ weight.T with FP8 operands, forward and backward: what `runtime.linear` can be asked for.

    why = unavailable(hardware)      # "" where it can run
    y = linear(x, weight)            # as F.linear(x, weight.to(x.dtype)), each operand in 8 bits

One scale per operand, chosen from its largest value each time. Values and weights are e4m3 (4 bits
of exponent, 3 of mantissa), gradients e5m2, which reaches further: Micikevicius et al., FP8 formats
for deep learning (arXiv:2209.05433). Products are accumulated in fp32 and leave in x's dtype.

A scale is shared by all rows of a batch, so a row's result depends a little on its neighbours. That
is rounding noise in training, but a score may not depend on who else is asked: where no gradient is
wanted, `runtime.linear` multiplies in x's dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from backends.hardware import Hardware

MULTIPLE = 16  # of every axis: what cuBLAS asks of FP8 operands
OLDEST_NVIDIA = 89  # compute capability: Ada; Hopper is 90, Blackwell 100 and later
VALUES, GRADIENTS = torch.float8_e4m3fn, torch.float8_e5m2


def unavailable(hardware: Hardware) -> str:
    """Why FP8 products can't run on this hardware; "" where they can.

    On a CPU torch computes them without special instructions: slow, but the same numbers, so that
    what FP8 does to a model can be looked at anywhere.
    """
    if hardware.backend == "cpu":
        return ""
    if hardware.backend != "cuda":
        return f"FP8 products are written for NVIDIA GPUs, not for {hardware.backend}"
    capability = int(hardware.architecture.removeprefix("sm_"))
    if capability < OLDEST_NVIDIA:
        return f"FP8 tensor cores begin with sm_{OLDEST_NVIDIA}, this is {hardware.architecture}"
    return ""


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether all three products of x (..., K) and weight (N, K) have axes that FP8 can take."""
    rows = x.numel() // x.shape[-1]
    return all(size % MULTIPLE == 0 for size in (rows, *weight.shape))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K) bf16, fp16 or fp32, weight (N, K) of any dtype -> (..., N) in x's dtype."""
    y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], weight.shape[0])


def quantise(t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """t in 8 bits, its largest value at the end of the type's range, and the fp32 () factor that
    undoes the scaling. What is all zeros stays so.
    """
    most = torch.finfo(dtype).max
    # Where denormal numbers are taken for 0, a smaller factor would be one, and 0 / 0 no number.
    largest = t.abs().amax().float().clamp(min=2 * torch.finfo(torch.float32).tiny * most)
    factor = largest / most
    return (t.float() / factor).to(dtype), factor


class _Linear(torch.autograd.Function):
    """Saves the 8-bit operands: half the memory of bf16's."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        x8_MK, x_factor = quantise(x_MK, VALUES)
        w8_NK, w_factor = quantise(weight_NK, VALUES)
        ctx.save_for_backward(x8_MK, x_factor, w8_NK, w_factor)
        ctx.weight_dtype = weight_NK.dtype
        return _product(x8_MK, w8_NK.t(), x_factor, w_factor, x_MK.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, g_MN: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x8_MK, x_factor, w8_NK, w_factor = ctx.saved_tensors
        g8_MN, g_factor = quantise(g_MN, GRADIENTS)
        to = g_MN.dtype
        # Tensor cores take FP8 operands with the summed axis innermost only: hence the copies.
        w8_columns = w8_NK.t().contiguous().t()
        x8_columns = x8_MK.t().contiguous().t()
        g8_NM = g8_MN.t().contiguous()
        dx_MK = _product(g8_MN, w8_columns, g_factor, w_factor, to, fast=False)
        dw_NK = _product(g8_NM, x8_columns, g_factor, x_factor, to, fast=False)
        return dx_MK, dw_NK.to(ctx.weight_dtype)


def _product(
    a: Tensor, b: Tensor, a_factor: Tensor, b_factor: Tensor, to: torch.dtype, fast: bool
) -> Tensor:
    """a @ b, unscaled. `fast`: sums in the tensor cores' registers, good enough for values."""
    return torch._scaled_mm(
        a, b, scale_a=a_factor, scale_b=b_factor, out_dtype=to, use_fast_accum=fast
    )

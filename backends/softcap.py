"""Cross-entropy of soft-capped logits on torch, without ever holding all logits.

    loss = softcap_cross_entropy(x, weight, targets, cap=15.0)      # x (B, T, D), weight (V, D)

The logits of one chunk of tokens exist at a time. Mean and sum reductions make both gradients
during the forward pass, while the chunk is at hand, and the backward pass only scales them; that
is why a mean over tokens is divided out in the backward: unscaled, the fp16 gradient of x stays
away from fp16's smallest numbers. Per-token losses ("none") need the upstream gradient of every
token before the weight's gradient can be summed, so they keep the log-sum-exp of each token
(N floats) and make the chunk's logits a second time in the backward pass.

Legend: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from backends.errors import BackendError

IGNORE_INDEX = -1
CHUNK_BYTES = 128 << 20  # fp32 logits of one chunk, at most: far past the size where a GPU is full
MIN_CHUNKS = 8  # a short batch is still cut: its peak is what a small machine runs out of
SMALL_BYTES = 8 << 20  # but not smaller than this: it fits the cache, and products want many rows
MAX_CHUNKS = 32  # the loop is unrolled by the compiler; compile time grows with every chunk
FP16_CHUNK = 1024  # rows: the fp16 weight gradient of one chunk sums at most this many terms
SAFE_CAP = 60.0  # exp of a logit no greater, summed over any vocabulary, is far from fp32's end
REDUCTIONS = ("mean", "sum", "none")


def softcap_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float | None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of `cap * tanh(x @ weight.T / cap)` against integer targets, in nats.

    x (N, D) or (B, T, D) in any float dtype; weight (V, D), cast once to x's dtype for the
    products; targets (N,) or (B, T), -1 is ignored. Logits and softmax are fp32. "mean" is over
    targets that count (0 where none does); "none" has the shape of targets and 0 where ignored.
    """
    if reduction not in REDUCTIONS:
        raise BackendError(f"reduction {reduction!r} is unknown; it is one of {REDUCTIONS}")
    x_ND, target_N = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if reduction == "none":
        loss_N = _PerToken.apply(x_ND, weight, target_N, cap) if needs_grad else None
        if loss_N is None:
            loss_N, _ = _token_losses(x_ND, weight.to(x.dtype), target_N, cap)
        return loss_N.view(targets.shape)
    if needs_grad:
        loss = _Summed.apply(x_ND, weight, target_N, cap)
    else:
        loss = _token_losses(x_ND, weight.to(x.dtype), target_N, cap)[0].sum()
    return loss / _counted(target_N) if reduction == "mean" else loss


def _counted(target_N: Tensor) -> Tensor:
    return (target_N != IGNORE_INDEX).sum().clamp(min=1).float()


def chunk_rows(n: int, vocab: int, dtype: torch.dtype) -> int:
    """Tokens per chunk: a pure function of sizes, so that compiled shapes are constants."""
    rows = max(math.ceil(n / MIN_CHUNKS), min(n, SMALL_BYTES // (4 * vocab)))
    rows = min(rows, max(1, CHUNK_BYTES // (4 * vocab)))
    rows = max(rows, math.ceil(n / MAX_CHUNKS), 1)
    if dtype == torch.float16:
        rows = min(rows, FP16_CHUNK)
    return rows


def _capped(x_ND: Tensor, weight_VD: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """fp32 logits (N, V) and, with a cap, tanh(raw / cap), whose 1 - square is the cap's slope."""
    raw_NV = (x_ND @ weight_VD.T).float()
    if cap is None:
        return raw_NV, None
    if torch.compiler.is_compiling():  # by way of exp: off by 1e-7, and quicker on a CPU
        tanh_NV = 1.0 - 2.0 / ((raw_NV * (2.0 / cap)).exp() + 1.0)
    else:
        tanh_NV = raw_NV.div_(cap).tanh_()
    return cap * tanh_NV, tanh_NV


def _losses(logits_NV: Tensor, target_N: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
    """Loss (0 where ignored) and log-sum-exp, both (N,) fp32."""
    if torch.compiler.is_compiling() and cap is not None and cap <= SAFE_CAP:
        lse_N = logits_NV.exp().sum(dim=-1).log()  # no pass for the greatest is needed
    else:
        lse_N = torch.logsumexp(logits_NV, dim=-1)
    picked_N = logits_NV.gather(1, target_N.clamp(min=0)[:, None])[:, 0]
    return torch.where(target_N == IGNORE_INDEX, 0.0, lse_N - picked_N), lse_N


def _raw_gradient(
    logits_NV: Tensor, tanh_NV: Tensor | None, lse_N: Tensor, target_N: Tensor, scale_N: Tensor
) -> Tensor:
    """scale * d loss / d raw logits (N, V) fp32: (softmax - one hot) times the cap's slope.

    Overwrites logits and tanh, which are done with: a chunk's peak is two such arrays.
    """
    grad_NV = logits_NV.sub_(lse_N[:, None]).exp_()
    if torch.compiler.is_compiling():  # a comparison fuses with its neighbours, a scatter doesn't
        vocabulary = torch.arange(logits_NV.shape[1], device=logits_NV.device)
        grad_NV = torch.where(vocabulary == target_N[:, None], grad_NV - 1.0, grad_NV)
    else:
        one = grad_NV.new_full((1, 1), -1.0).expand(len(grad_NV), 1)
        grad_NV.scatter_add_(1, target_N.clamp(min=0)[:, None], one)
    grad_NV = grad_NV.mul_(torch.where(target_N == IGNORE_INDEX, 0.0, scale_N)[:, None])
    if tanh_NV is None:
        return grad_NV
    return grad_NV.mul_(tanh_NV.square_().neg_().add_(1.0))


def _token_losses(
    x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Loss and log-sum-exp of every token, chunk by chunk, without gradients."""
    rows = chunk_rows(len(x_ND), len(weight_VD), x_ND.dtype)
    parts = [
        _losses(_capped(x_nD, weight_VD, cap)[0], target_n, cap)
        for x_nD, target_n in zip(x_ND.split(rows), target_N.split(rows), strict=True)
    ]
    return torch.cat([loss for loss, _ in parts]), torch.cat([lse for _, lse in parts])


class _Summed(torch.autograd.Function):
    """Sum of token losses; both gradients are made here, one chunk at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
        weight_VD = weight.to(x.dtype)
        rows = chunk_rows(len(x), len(weight), x.dtype)
        total = torch.zeros((), dtype=torch.float32, device=x.device)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=x.device)
        grad_x = []
        for x_nD, target_n in zip(x.split(rows), targets.split(rows), strict=True):
            logits, tanh = _capped(x_nD, weight_VD, cap)
            loss_n, lse_n = _losses(logits, target_n, cap)
            total = total + loss_n.sum()
            raw = _raw_gradient(logits, tanh, lse_n, target_n, torch.ones_like(lse_n)).to(x.dtype)
            grad_x.append(raw @ weight_VD)
            grad_weight += raw.T @ x_nD
        ctx.save_for_backward(torch.cat(grad_x), grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        (scale,) = upstream
        return (
            (grad_x * scale).to(grad_x.dtype),
            (grad_weight * scale).to(ctx.weight_dtype),
            None,
            None,
        )


class _PerToken(torch.autograd.Function):
    """Token losses; the backward pass makes each chunk's logits again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
        loss_N, lse_N = _token_losses(x, weight.to(x.dtype), targets, cap)
        ctx.save_for_backward(x, weight, targets, lse_N)
        ctx.cap = cap
        return loss_N

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets, lse = ctx.saved_tensors
        weight_VD = weight.to(x.dtype)
        rows = chunk_rows(len(x), len(weight), x.dtype)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=x.device)
        grad_x = []
        chunks = zip(*(t.split(rows) for t in (x, targets, lse, upstream[0])), strict=True)
        for x_nD, target_n, lse_n, scale_n in chunks:
            logits, tanh = _capped(x_nD, weight_VD, ctx.cap)
            raw = _raw_gradient(logits, tanh, lse_n, target_n, scale_n).to(x.dtype)
            grad_x.append(raw @ weight_VD)
            grad_weight += raw.T @ x_nD
        return torch.cat(grad_x), grad_weight.to(weight.dtype), None, None

"""Cross-entropy of soft-capped logits on MLX, without ever holding all logits; see softcap.py for
the rules.

Inside runtime.backward, mean and sum reductions make both gradients in the forward pass, while
the chunk is at hand, and the backward pass only scales them. Per-token losses ("none"), and
losses computed outside a backward pass, make none; should they be differentiated, they make each
chunk's logits a second time.

Legend: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

import functools
import math

import mlx.core as mx

from backends.errors import BackendError
from backends.mlx_torch import Tensor
from backends.mlx_torch._grad_mode import MODE, settle
from backends.mlx_torch._tensor import to_array

IGNORE_INDEX = -1
CHUNK_BYTES = 128 << 20  # fp32 logits of one chunk, at most
MIN_CHUNKS = 16  # a short batch is still cut: its peak is what a small machine runs out of
MAX_CHUNKS = 32  # the loop is unrolled by the compiler
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
    x_ND, target_N = to_array(x).reshape(-1, x.shape[-1]), to_array(targets).reshape(-1)
    weight_VD = to_array(weight)
    if reduction == "none":
        return Tensor(settle(_recomputed(cap)(x_ND, weight_VD, target_N)).reshape(targets.shape))
    if MODE.differentiating and MODE.enabled:
        loss = _summed(cap)(x_ND, weight_VD, target_N)[0]
    else:
        loss = mx.sum(_recomputed(cap)(x_ND, weight_VD, target_N))
    if reduction == "mean":
        loss = loss / mx.maximum(mx.sum(target_N != IGNORE_INDEX), 1).astype(mx.float32)
    return Tensor(settle(loss))


def chunk_rows(n: int, vocab: int) -> int:
    """Tokens per chunk."""
    rows = min(math.ceil(n / MIN_CHUNKS), max(1, CHUNK_BYTES // (4 * vocab)))
    return max(rows, math.ceil(n / MAX_CHUNKS), 1)


def _losses(
    x_nD: mx.array, weight_VD: mx.array, target_n: mx.array, cap: float | None
) -> tuple[mx.array, mx.array, mx.array, mx.array | None]:
    """Loss (n,) fp32, 0 where ignored; log-sum-exp (n,); logits (n, V); tanh(raw / cap)."""
    raw_nV = (x_nD @ weight_VD.T).astype(mx.float32)
    tanh_nV, logits_nV = None, raw_nV
    if cap is not None:
        tanh_nV = mx.tanh(raw_nV / cap)
        logits_nV = cap * tanh_nV
    lse_n = mx.logsumexp(logits_nV, axis=-1)
    picked_n = mx.take_along_axis(logits_nV, mx.maximum(target_n, 0)[:, None], axis=1)[:, 0]
    return mx.where(target_n != IGNORE_INDEX, lse_n - picked_n, 0.0), lse_n, logits_nV, tanh_nV


def _raw_gradient(
    lse_n: mx.array,
    logits_nV: mx.array,
    tanh_nV: mx.array | None,
    target_n: mx.array,
    scale_n: mx.array,
) -> mx.array:
    """scale * d loss / d raw logits (n, V) fp32: (softmax - one hot) times the cap's slope."""
    grad_nV = mx.exp(logits_nV - lse_n[:, None])
    grad_nV = mx.where(mx.arange(grad_nV.shape[1]) == target_n[:, None], grad_nV - 1.0, grad_nV)
    grad_nV = grad_nV * mx.where(target_n != IGNORE_INDEX, scale_n, 0.0)[:, None]
    return grad_nV if tanh_nV is None else grad_nV * (1.0 - tanh_nV * tanh_nV)


def _with_gradients(
    x: mx.array, weight: mx.array, targets: mx.array, scale: mx.array, cap: float | None
) -> tuple[mx.array, mx.array, mx.array]:
    """Sum of losses, d/dx (N, D) in x's dtype and d/dweight (V, D) fp32 of sum(scale * loss)."""
    weight_VD = weight.astype(x.dtype)
    rows = chunk_rows(x.shape[0], weight.shape[0])
    total, grad_weight = mx.array(0.0), mx.zeros(weight.shape, mx.float32)
    grad_x: list[mx.array] = []
    for start in range(0, x.shape[0], rows):
        here = slice(start, start + rows)
        x_nD = x[here]
        if grad_x:  # one chunk after the other, or the scheduler holds the logits of several
            (x_nD,) = mx.depends([x_nD], [total, grad_x[-1], grad_weight])
        loss_n, lse_n, logits_nV, tanh_nV = _losses(x_nD, weight_VD, targets[here], cap)
        total = total + mx.sum(loss_n)
        raw_nV = _raw_gradient(lse_n, logits_nV, tanh_nV, targets[here], scale[here]).astype(
            x.dtype
        )
        grad_x.append(raw_nV @ weight_VD)
        grad_weight = grad_weight + (raw_nV.T @ x_nD).astype(mx.float32)
    return total, mx.concatenate(grad_x), grad_weight


def _without_gradients(
    x: mx.array, weight: mx.array, targets: mx.array, cap: float | None
) -> mx.array:
    """Losses (N,), chunk by chunk."""
    weight_VD = weight.astype(x.dtype)
    rows = chunk_rows(x.shape[0], weight.shape[0])
    losses: list[mx.array] = []
    for start in range(0, x.shape[0], rows):
        here = slice(start, start + rows)
        (x_nD,) = mx.depends([x[here]], losses[-1:]) if losses else (x[here],)
        losses.append(_losses(x_nD, weight_VD, targets[here], cap)[0])
    return mx.concatenate(losses)


@functools.cache
def _summed(cap: float | None):  # type: ignore[no-untyped-def]
    """(x, weight, targets) -> (sum of losses, d/dx, d/dweight); the last two serve the backward
    pass.
    """

    @mx.custom_function
    def run(
        x: mx.array, weight: mx.array, targets: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        return _with_gradients(x, weight, targets, mx.ones(targets.shape, mx.float32), cap)

    @run.vjp
    def backward(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
        upstream = cotangents[0]
        x, weight, targets = primals
        return (
            (outputs[1] * upstream).astype(x.dtype),
            (outputs[2] * upstream).astype(weight.dtype),
            mx.zeros_like(targets),
        )

    return run


@functools.cache
def _recomputed(cap: float | None):  # type: ignore[no-untyped-def]
    """(x, weight, targets) -> losses (N,)."""

    @mx.custom_function
    def run(x: mx.array, weight: mx.array, targets: mx.array) -> mx.array:
        return _without_gradients(x, weight, targets, cap)

    @run.vjp
    def backward(primals, cotangent, output):  # type: ignore[no-untyped-def]
        x, weight, targets = primals
        _, grad_x, grad_weight = _with_gradients(x, weight, targets, cotangent, cap)
        return grad_x, grad_weight.astype(weight.dtype), mx.zeros_like(targets)

    return run

# mypy: disable-error-code="no-untyped-def"
"""Cross-entropy of soft-capped logits: the library's products, one Triton kernel between them.

    loss = softcap_cross_entropy(x, weight, targets, cap=15.0)    # as backends.softcap's

A chunk of tokens at a time: the library makes its raw logits in the compute dtype, the kernel turns
each row into its loss and, in place, into the gradient of its raw logits, and the library makes
both gradients of that. The kernel reads a row once and writes it once, which is all the traffic
between two products; a vocabulary too large to hold is read twice, then from a cache. The whole
loop is one operator: a compiled model holds one node, however many chunks there are.

Legend: N tokens, D width, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.errors import BackendError
from backends.softcap import IGNORE_INDEX, REDUCTIONS

# Raw logits of one chunk at most. 32 MiB stay in the 40 to 126 MB of level-2 cache of a datacenter
# GPU (A100, H100, B200) and in the 64 to 256 MB of AMD's Infinity Cache (7900 XTX 96, MI300X 256)
# until the products that follow have read them; a product of that size fills every one of them.
CHUNK_BYTES = 32 << 20
MIN_CHUNKS = 8  # a short batch is still cut: its peak is what a small machine runs out of
ROW_MULTIPLE = 128  # whole tiles of the library's products
FP16_CHUNK = 1024  # rows: the fp16 weight gradient of one chunk sums at most this many terms
WHOLE_ROW = 8192  # the largest vocabulary that one program holds
BLOCK = 4096  # columns at a time of a larger one
PER_WARP = 512  # columns: 16 to a thread, loaded 16 bytes at a time
# With 64 registers a thread, which suffice, 1,024 threads fit on a multiprocessor of 64 K registers
# (all from sm_75 on): two programs, one of which computes while the other loads.
REGISTERS = 64
LOG2_E = tl.constexpr(1.4426950408889634)


def softcap_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float | None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of `cap * tanh(x @ weight.T / cap)` against integer targets, in nats.

    x (N, D) or (B, T, D) in any float dtype; weight (V, D), cast once to x's dtype for the
    products; targets (N,) or (B, T), -1 is ignored. Softmax and losses are fp32. "mean" is over
    targets that count (0 where none does); "none" has the shape of targets and 0 where ignored.
    """
    if reduction not in REDUCTIONS:
        raise BackendError(f"reduction {reduction!r} is unknown; it is one of {REDUCTIONS}")
    x_ND, target_N = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if reduction != "none" and needs_grad:
        loss = _summed(x_ND, weight, target_N, cap or 0.0)[0]
    else:
        loss_N = _token_losses(x_ND, weight, target_N, cap or 0.0)
        if reduction == "none":
            return loss_N.view(targets.shape)
        loss = loss_N.sum()
    if reduction == "sum":
        return loss
    return loss / (target_N != IGNORE_INDEX).sum().clamp(min=1).float()


def chunk_rows(n: int, vocab: int, dtype: torch.dtype) -> int:
    """Tokens per chunk."""
    fitting = CHUNK_BYTES // (dtype.itemsize * vocab)
    rows = max(1, min(-(-n // MIN_CHUNKS), fitting))
    rows = -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
    return min(rows, FP16_CHUNK) if dtype == torch.float16 else rows


# Operators. A cap of 0.0 stands for none. With mean and sum reductions both gradients are made in
# the forward pass, while the chunk is at hand; per-token losses need every token's upstream
# gradient first and make the chunk's logits a second time.


@torch.library.custom_op("autoresearch::softcap_sum", mutates_args=())
def _summed(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the losses, its gradient to x (N, D) and to weight (V, D), the latter fp32."""
    loss_N, grad_x, grad_weight = _loop(x, weight, targets, cap, None)
    return loss_N.sum(), grad_x, grad_weight


@_summed.register_fake
def _(x, weight, targets, cap):
    return x.new_empty((), dtype=torch.float32), _like(x), _like(weight, torch.float32)


def _keep_gradients(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.weight_dtype = inputs[1].dtype
    ctx.save_for_backward(*output[1:])


def _scale_gradients(ctx, upstream, *_):
    grad_x, grad_weight = ctx.saved_tensors
    grad_x = (grad_x * upstream).to(grad_x.dtype)
    return grad_x, (grad_weight * upstream).to(ctx.weight_dtype), None, None


_summed.register_autograd(_scale_gradients, setup_context=_keep_gradients)


@torch.library.custom_op("autoresearch::softcap_losses", mutates_args=())
def _token_losses(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Loss of every token (N,) fp32."""
    weight = weight.to(x.dtype)
    loss_N = x.new_empty(len(x), dtype=torch.float32)
    for part, logits in _logits(x, weight):
        _launch(logits, targets[part], loss_N[part], cap, None, gradient=False)
    return loss_N


@_token_losses.register_fake
def _(x, weight, targets, cap):
    return x.new_empty(len(x), dtype=torch.float32)


@torch.library.custom_op("autoresearch::softcap_gradients", mutates_args=())
def _token_gradients(
    x: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor, cap: float
) -> tuple[Tensor, Tensor]:
    """Gradients to x (N, D) and weight (V, D) of token losses weighed by upstream (N,) fp32."""
    _, grad_x, grad_weight = _loop(x, weight, targets, cap, upstream.contiguous())
    return grad_x, grad_weight.to(weight.dtype)


@_token_gradients.register_fake
def _(x, weight, targets, upstream, cap):
    return _like(x), _like(weight)


def _keep_inputs(ctx, inputs, output):
    x, weight, targets, ctx.cap = inputs
    ctx.save_for_backward(x, weight, targets)


def _make_gradients(ctx, upstream):
    return *_token_gradients(*ctx.saved_tensors, upstream, ctx.cap), None, None


_token_losses.register_autograd(_make_gradients, setup_context=_keep_inputs)


def _like(t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous tensor of the same shape."""
    return t.new_empty(t.shape, dtype=dtype)


# The loop and the kernel.


def _loop(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (N,), and the gradients of their sum, each weighed by its `scale` (N,) if given."""
    weight_VD = weight.to(x.dtype)
    loss_N = x.new_empty(len(x), dtype=torch.float32)
    grad_x, grad_weight = _like(x), torch.zeros_like(weight, dtype=torch.float32)
    for part, logits in _logits(x, weight_VD):
        scale_n = None if scale is None else scale[part]
        _launch(logits, targets[part], loss_N[part], cap, scale_n, gradient=True)
        torch.mm(logits, weight_VD, out=grad_x[part])
        _add_product(grad_weight, logits.T, x[part])
    return loss_N, grad_x, grad_weight


def _logits(x: Tensor, weight_VD: Tensor):
    """(slice of the tokens, their raw logits), one chunk after the other in the same memory."""
    rows = chunk_rows(len(x), len(weight_VD), x.dtype)
    memory = x.new_empty((min(rows, len(x)), len(weight_VD)))
    for start in range(0, len(x), rows):
        part = slice(start, min(start + rows, len(x)))
        yield part, torch.mm(x[part], weight_VD.T, out=memory[: part.stop - part.start])


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in fp32: where the library can, without rounding the product first."""
    if a.is_cuda and torch.version.hip is None and a.dtype != torch.float32:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += a @ b


def _launch(
    logits: Tensor,
    targets: Tensor,
    losses: Tensor,
    cap: float,
    scale: Tensor | None,
    gradient: bool,
) -> None:
    n, vocab = logits.shape
    whole = vocab <= WHOLE_ROW
    block = max(128, triton.next_power_of_2(vocab)) if whole else BLOCK
    _softcap_rows[(n,)](
        logits,
        targets.contiguous(),
        scale,
        losses,
        vocab,
        logits.stride(0),
        cap,
        IGNORED=IGNORE_INDEX,
        CAPPED=cap > 0.0,
        GRADIENT=gradient,
        WHOLE=whole,
        BLOCK=block,
        num_warps=max(1, block // PER_WARP),
        **({"maxnreg": REGISTERS} if torch.version.hip is None else {}),  # no such option on AMD
    )


@triton.jit
def _capped(raw, cap, CAPPED: tl.constexpr):
    """Capped logits and the cap's slope. tanh(u) = 1 - 2 / (e^2u + 1): the slope keeps its digits
    where tanh saturates, and an overflow of e^2u ends at the right limit."""
    if CAPPED:
        rest = 1.0 / (tl.exp2(raw * (2.0 * LOG2_E / cap)) + 1.0)
        return cap * (1.0 - 2.0 * rest), 4.0 * rest * (1.0 - rest)
    else:
        return raw, 1.0


@triton.jit
def _softcap_rows(
    logits_ptr,
    target_ptr,
    scale_ptr,
    loss_ptr,
    V,
    row_stride,
    cap,
    IGNORED: tl.constexpr,
    CAPPED: tl.constexpr,
    GRADIENT: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row of raw logits: its loss, and with GRADIENT its own gradient in its place.

    WHOLE rows fit into one block: they are read once, and nothing is computed again.
    """
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    target = tl.load(target_ptr + row)
    counts = target != IGNORED
    scale = 1.0
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + row)
    scale = tl.where(counts, scale, 0.0)
    columns = tl.arange(0, BLOCK)

    if WHOLE:
        inside = columns < V
        raw = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        value, slope = _capped(raw, cap, CAPPED)
        value = tl.where(inside, value, -float("inf"))
        highest = tl.max(value, axis=0)
        share = tl.exp2((value - highest) * LOG2_E)
        total = tl.sum(share, axis=0)
        picked = tl.sum(tl.where(columns == target, value, 0.0), axis=0)
        loss = highest + tl.log(total) - picked
        if GRADIENT:
            gradient = _gradient(share * (1.0 / total), slope, columns == target, scale)
            tl.store(row_ptr + columns, gradient.to(logits_ptr.dtype.element_ty), mask=inside)
    else:
        highest = -float("inf")
        total = 0.0  # of exp(logit - highest)
        picked = 0.0  # the target's logit
        for start in range(0, V, BLOCK):
            at = start + columns
            raw = tl.load(row_ptr + at, mask=at < V, other=0.0).to(tl.float32)
            value, _ = _capped(raw, cap, CAPPED)
            value = tl.where(at < V, value, -float("inf"))
            higher = tl.maximum(highest, tl.max(value, axis=0))
            here = tl.sum(tl.exp2((value - higher) * LOG2_E), axis=0)
            total = total * tl.exp2((highest - higher) * LOG2_E) + here
            highest = higher
            picked += tl.sum(tl.where(at == target, value, 0.0), axis=0)
        lse = highest + tl.log(total)
        loss = lse - picked
        if GRADIENT:
            for start in range(0, V, BLOCK):
                at = start + columns
                raw = tl.load(row_ptr + at, mask=at < V, other=0.0).to(tl.float32)
                value, slope = _capped(raw, cap, CAPPED)
                share = tl.exp2((value - lse) * LOG2_E)
                gradient = _gradient(share, slope, at == target, scale)
                tl.store(row_ptr + at, gradient.to(logits_ptr.dtype.element_ty), mask=at < V)
    tl.store(loss_ptr + row, tl.where(counts, loss, 0.0))


@triton.jit
def _gradient(share, slope, picked, scale):
    """scale * d loss / d raw logits from the softmax; 0 where scale is 0, whatever the rest is."""
    gradient = (share - tl.where(picked, 1.0, 0.0)) * slope * scale
    return tl.where(scale == 0.0, 0.0, gradient)

# mypy: disable-error-code="no-untyped-def"
"""One AdamW step for a list of tensors in one launch, however many and however small they are.

    numbers = torch.tensor([lr, mix1, mix2, bias1, bias2, eps, shrink])
    adamw_step(params, grads, means, squares, numbers)

The arithmetic is train.py's `adamw_step`. torch.compile makes one kernel per tensor of that, or one
for all of a list written with torch._foreach; which of the three is quickest benchmarks/gpu.py
measures. What they share is the limit: each byte of parameter, gradient and moments moves once.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.errors import BackendError

BLOCK = 1024  # elements of a program: 8 per thread of 4 warps of 32, 16 to 32 bytes of each array
COLUMNS = 5  # of the table: where parameter, gradient, mean and square are, and their length

_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def adamw_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    numbers: Tensor,
) -> None:
    """Update parameters and moments in place; lists of equal length, tensors contiguous.

    params and grads in fp32, bf16 or fp16; means and squares fp32. numbers (7,) fp32 on any device:
    rate, 1 - beta1, 1 - beta2, 1 - beta1^t, 1 - beta2^t, epsilon, 1 - rate * weight decay.
    Raises BackendError for tensors that don't fit together.
    """
    for quartet in zip(params, grads, means, squares, strict=True):
        _check(*quartet)
    _adamw(list(params), list(grads), list(means), list(squares), numbers)


def _check(param: Tensor, grad: Tensor, mean: Tensor, square: Tensor) -> None:
    all_four = (param, grad, mean, square)
    if len({t.shape for t in all_four}) > 1 or not all(t.is_contiguous() for t in all_four):
        found = ", ".join(f"{tuple(t.shape)} stride {t.stride()}" for t in all_four)
        raise BackendError(f"AdamW needs contiguous tensors of one shape, and got {found}")
    if mean.dtype != torch.float32 or square.dtype != torch.float32:
        raise BackendError(f"AdamW's moments are float32, not {mean.dtype} and {square.dtype}")
    if param.dtype not in _TYPES or grad.dtype not in _TYPES:
        raise BackendError(f"AdamW knows {list(_TYPES)}, not {param.dtype} with {grad.dtype}")


@torch.library.custom_op("autoresearch::adamw", mutates_args=("params", "means", "squares"))
def _adamw(
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    numbers: Tensor,
) -> None:
    quartets = sorted(zip(params, grads, means, squares, strict=True), key=_kind)
    for (_, _, aligned), alike in groupby(quartets, key=_kind):
        _launch(list(alike), numbers, aligned)


@_adamw.register_fake
def _(params, grads, means, squares, numbers):
    return None


def _kind(quartet: tuple[Tensor, ...]) -> tuple[str, str, bool]:
    """What a launch has in common: types, and whether loads of 16 bytes are possible."""
    param, grad, *_ = quartet
    aligned = param.numel() % 16 == 0 and all(t.data_ptr() % 16 == 0 for t in quartet)
    return str(param.dtype), str(grad.dtype), aligned


def _launch(quartets: list[tuple[Tensor, ...]], numbers: Tensor, aligned: bool) -> None:
    """One launch for tensors of one kind; blocks beyond a short tensor's end do nothing."""
    param, grad = quartets[0][:2]
    rows = [[*(t.data_ptr() for t in quartet), quartet[0].numel()] for quartet in quartets]
    table = torch.tensor(rows, dtype=torch.int64)
    if param.is_cuda:
        table = table.pin_memory()
    longest = max(quartet[0].numel() for quartet in quartets)
    _adamw_block[(triton.cdiv(longest, BLOCK), len(quartets))](
        table.to(param.device, non_blocking=True),
        numbers.to(param.device, non_blocking=True),
        PARAM=_TYPES[param.dtype],
        GRAD=_TYPES[grad.dtype],
        ALIGNED=aligned,
        COLUMNS=COLUMNS,
        BLOCK=BLOCK,
        num_warps=4,
    )


@triton.jit
def _adamw_block(
    table_ptr,
    numbers_ptr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    ALIGNED: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK elements of one tensor of the table."""
    row_ptr = table_ptr + tl.program_id(1) * COLUMNS
    length = tl.load(row_ptr + 4)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if start < length:
        param_ptr = tl.load(row_ptr).to(tl.pointer_type(PARAM))
        grad_ptr = tl.load(row_ptr + 1).to(tl.pointer_type(GRAD))
        mean_ptr = tl.load(row_ptr + 2).to(tl.pointer_type(tl.float32))
        square_ptr = tl.load(row_ptr + 3).to(tl.pointer_type(tl.float32))
        if ALIGNED:
            length = tl.multiple_of(length, 16)
            param_ptr = tl.multiple_of(param_ptr, 16)
            grad_ptr = tl.multiple_of(grad_ptr, 16)
            mean_ptr = tl.multiple_of(mean_ptr, 16)
            square_ptr = tl.multiple_of(square_ptr, 16)
        lr = tl.load(numbers_ptr)
        mix1 = tl.load(numbers_ptr + 1)
        mix2 = tl.load(numbers_ptr + 2)
        bias1 = tl.load(numbers_ptr + 3)
        bias2 = tl.load(numbers_ptr + 4)
        eps = tl.load(numbers_ptr + 5)
        shrink = tl.load(numbers_ptr + 6)

        at = start + tl.arange(0, BLOCK)
        inside = at < length
        param = tl.load(param_ptr + at, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + at, mask=inside, other=0.0)
        square = tl.load(square_ptr + at, mask=inside, other=0.0)
        mean += (grad - mean) * mix1
        square += (grad * grad - square) * mix2
        update = (mean / bias1) / (tl.sqrt(square / bias2) + eps)
        param = param * shrink - lr * update
        tl.store(param_ptr + at, param.to(PARAM), mask=inside)
        tl.store(mean_ptr + at, mean, mask=inside)
        tl.store(square_ptr + at, square, mask=inside)

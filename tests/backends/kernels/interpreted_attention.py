"""The attention kernels in Triton's interpreter against the NumPy reference: see conftest.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends import kernels
from backends.attention import reference
from backends.kernels import Tiling
from backends.kernels import attention as module
from backends.kernels.attention import attention

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
OPERATORS = torch.ops.autoresearch


def tiling(block: int, step: int) -> tuple[Tiling, ...]:
    return (Tiling((("BLOCK", block), ("STEP", step))),)


def tensors(
    batch: int, length: int, heads: int, key_heads: int, width: int, dtype=torch.float32
) -> list[torch.Tensor]:
    """q, k, v and dy."""
    random = np.random.default_rng(length + width)
    sizes = (heads, key_heads, key_heads, heads)
    made = [random.standard_normal((batch, length, h, width)) for h in sizes]
    return [torch.tensor(a, dtype=dtype) for a in made]


def check(q, k, v, dy, window: int | None, function=attention) -> None:
    """Output and gradients agree with the reference, or the largest difference is named."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    y = function(*leaves, window)
    assert y.shape == q.shape and y.dtype == q.dtype
    y.backward(dy)
    exact = [t.detach().double().numpy() for t in (q, k, v, dy)]
    wanted = [reference.attention(*exact[:3], window)]
    wanted += reference.gradients(*exact[:3], window, exact[3])
    got = [y.detach(), *(leaf.grad for leaf in leaves)]
    for name, mine, truth in zip(("y", "dq", "dk", "dv"), got, wanted, strict=True):
        assert mine.dtype == q.dtype
        difference = np.abs(mine.double().numpy() - truth) / max(1.0, np.abs(truth).max())
        difference[np.isnan(difference)] = np.inf
        worst = np.unravel_index(difference.argmax(), difference.shape)
        message = f"{name}: largest relative difference {difference[worst]:.3g} at {worst}"
        assert difference[worst] <= TOLERANCE[q.dtype], message


@pytest.mark.parametrize("window", [0, 1, 7, 33, 48, 49, 1000, None])
def test_windows(window: int | None) -> None:
    """50 tokens are no multiple of any block; the last windows are longer than they."""
    check(*tensors(1, 50, 1, 1, 16), window)


@pytest.mark.parametrize(("block", "step"), [(16, 32), (64, 16)])
@pytest.mark.parametrize("window", [5, 40])
def test_blocks_of_any_proportion(monkeypatch, block: int, step: int, window: int | None) -> None:
    monkeypatch.setattr(module, "IN_THE_INTERPRETER", tiling(block, step))
    check(*tensors(1, 50, 1, 1, 16), window)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 20, 4, 2, 64), 9),
        ((1, 20, 3, 1, 128), 9),
        ((1, 32, 1, 1, 64), None),
        ((1, 30, 1, 1, 24), 12),  # padded to 32
        ((1, 20, 1, 1, 8), 4),  # padded to 16
        ((1, 1, 2, 1, 64), None),
    ],
    ids=str,
)
def test_shapes(shape: tuple[int, ...], window: int | None) -> None:
    check(*tensors(*shape), window)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_training_precisions(dtype: torch.dtype) -> None:
    check(*tensors(1, 40, 1, 1, 64, dtype), 25)


def test_tensors_are_read_by_their_strides() -> None:
    """Slices of one product for q, k and v, heads outside T, and a gradient of stride 0."""
    random = np.random.default_rng(0)
    fused = torch.tensor(random.standard_normal((2, 12, 3, 2, 16)), dtype=torch.float32)
    q, k, v = fused.unbind(2)
    dy = torch.tensor(random.standard_normal((2, 2, 12, 16)), dtype=torch.float32).transpose(1, 2)
    check(q, k.transpose(1, 2).contiguous().transpose(1, 2), v, dy, 5)
    check(q, k, v, torch.ones(()).expand(2, 12, 2, 16), 5)


@pytest.mark.parametrize("window", [0, 16, 17])
def test_what_lies_outside_the_window_is_never_read(window: int) -> None:
    """A NaN spreads to all rows of each block that reads it, also where its weight is 0."""
    length, (block, step) = 64, (32, 16)
    visible = reference.visible(length, window)
    q, k, v, dy = tensors(1, length, 1, 1, 16)
    y, lse = OPERATORS.window_attention(q, k, v, window)

    def reading(t: torch.Tensor) -> list[bool]:
        return t[0, :, 0].isnan().any(dim=1).tolist()

    def poisoned(t: torch.Tensor, row: int) -> torch.Tensor:
        t = t.clone()
        t[0, row] = np.nan
        return t

    pairs = visible.reshape(length // block, block, length // step, step).any(axis=(1, 3))
    expected = pairs[:, 15 // step].repeat(block).tolist()
    assert reading(OPERATORS.window_attention(q, k, poisoned(v, 15), window)[0]) == expected
    backward = OPERATORS.window_attention_backward
    dq, _, _ = backward(dy, q, poisoned(k, 15), v, y, lse, window)
    assert reading(dq) == expected
    pairs = visible.reshape(length // step, step, length // block, block).any(axis=(1, 3))
    expected = pairs[48 // step].repeat(block).tolist()
    _, dk, dv = backward(poisoned(dy, 48), q, k, v, y, lse, window)
    assert reading(dk) == expected and reading(dv) == expected


def test_a_compiler_sees_one_graph() -> None:
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True, dynamic=False)
    for window in (7, None):
        check(*tensors(1, 12, 2, 1, 16), window, compiled)


def test_the_operators_are_what_they_tell_torch() -> None:
    """Shapes, types and strides without data, no aliases, gradients registered."""
    q, k, v, dy = tensors(1, 6, 2, 1, 16)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    torch.library.opcheck(OPERATORS.window_attention.default, (*leaves, 5))
    y, lse = OPERATORS.window_attention(*(t.detach() for t in leaves), 5)
    arguments = (dy, *(t.detach() for t in leaves), y, lse, 5)
    torch.library.opcheck(OPERATORS.window_attention_backward.default, arguments)


@pytest.mark.parametrize(("agreement", "block"), [(kernels.AGREEMENT, 32), (-1.0, 16)])
def test_the_fastest_tiling_that_agrees_with_the_first_is_taken(
    monkeypatch, agreement: float, block: int
) -> None:
    """Through Triton's autotuner, with a clock of our own: 16 rows take 3 ms, 32 rows 2."""
    choices = (*tiling(16, 16), *tiling(32, 16))
    clock = iter((3.0, 2.0))

    def bench(call, warmup: int, rep: int, quantiles: tuple[float, ...]) -> list[float]:
        call()
        call()
        return [next(clock)] * len(quantiles)

    monkeypatch.setattr("triton.testing.do_bench", bench)
    monkeypatch.setattr(kernels, "interpreted", lambda: False)
    monkeypatch.setattr(kernels, "AGREEMENT", agreement)
    monkeypatch.setattr(module, "IN_THE_INTERPRETER", choices)
    kernels._tuned.cache_clear()
    q, k, v, _ = tensors(1, 40, 1, 1, 16)
    y, _ = OPERATORS.window_attention(q, k, v, 7)
    exact = [t.double().numpy() for t in (q, k, v)]
    assert np.abs(y.double().numpy() - reference.attention(*exact, 7)).max() < 1e-5
    tuned = kernels._tuned(module.attention_kernels.forward, choices, module.KEYS, ("y", "lse"))
    assert tuned.best_config.kwargs["BLOCK"] == block


def test_what_it_is_not_made_for_is_named() -> None:
    q, k, v, _ = tensors(1, 4, 2, 1, 512)
    with pytest.raises(ValueError, match=r"\(1, 4, 2, 512\)"):
        attention(q, k, v, None)
    q, k, v, _ = tensors(1, 4, 3, 2, 16)
    with pytest.raises(ValueError, match=r"\(1, 4, 3, 16\), \(1, 4, 2, 16\)"):
        attention(q, k, v, None)

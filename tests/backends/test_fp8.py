"""FP8 products: torch computes them on a CPU too, so the real path runs here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backends import fp8
from tests.unit import machines as fake
from tests.unit.test_policy import hardware

ROUNDING = {torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3}  # half of the last bit


@pytest.fixture
def operands() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 64, dtype=torch.bfloat16, requires_grad=True)
    return x, nn.Parameter(torch.randn(48, 64))


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e6])
def test_values_survive_in_8_bits_whatever_their_size(dtype: torch.dtype, size: float) -> None:
    t = torch.randn(64, 64) * size
    small, factor = fp8.quantise(t, dtype)
    back = small.float() * factor
    assert (t - back).double().norm() < ROUNDING[dtype] * t.double().norm()
    assert torch.isclose(back.abs().max(), t.abs().max(), rtol=1e-5)
    assert torch.isfinite(back).all()


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_zeros_stay_zeros(dtype: torch.dtype, flush: bool) -> None:
    """Weights that begin at 0, also where a program had denormal numbers taken for 0."""
    if torch.set_flush_denormal(flush) is False and flush:
        pytest.skip("this processor can't")
    try:
        small, factor = fp8.quantise(torch.zeros(16, 16), dtype)
        assert (small.float() * factor == 0).all()
    finally:
        torch.set_flush_denormal(False)


def test_products_and_gradients_are_those_of_rounded_operands(operands) -> None:
    x, weight = operands
    y = fp8.linear(x, weight)
    assert (y.shape, y.dtype) == ((2, 32, 48), torch.bfloat16)
    g = torch.randn(y.shape).to(y.dtype)
    y.backward(g)

    def rounded(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        small, factor = fp8.quantise(t.detach(), dtype)
        return small.float() * factor

    x8, w8 = rounded(x, fp8.VALUES).view(64, 64), rounded(weight, fp8.VALUES)
    g8 = rounded(g, fp8.GRADIENTS).view(64, 48)
    assert x.grad is not None and weight.grad is not None
    assert (x.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
    for got, truth in ((y, x8 @ w8.T), (x.grad, g8 @ w8), (weight.grad, g8.T @ x8)):
        torch.testing.assert_close(got.float().view(truth.shape), truth, rtol=2**-7, atol=1e-2)
    # It is FP8 and not the usual product by another name.
    exact = F.linear(x, weight.to(x.dtype)).detach()
    error = (y.detach() - exact).norm() / exact.norm()
    assert 0.01 < error < 0.06


def test_only_axes_of_multiples_of_16_fit(operands) -> None:
    x, weight = operands
    assert fp8.fits(x, weight)
    assert not fp8.fits(x[:, :31], weight)
    assert not fp8.fits(x, weight[:40])
    assert not fp8.fits(x[..., :40], weight[:, :40])


def test_runtime_uses_it_for_training_only(runtime, operands, monkeypatch) -> None:
    x, weight = operands
    plain = F.linear(x, weight.to(x.dtype))
    assert torch.equal(runtime.linear(x, weight), plain)  # nobody asked for it
    monkeypatch.setattr(runtime, "_products", runtime._Products())
    runtime.policy = fake_policy(runtime, "fp8")
    assert torch.equal(runtime.linear(x, weight), fp8.linear(x, weight))
    assert not torch.equal(runtime.linear(x, weight), plain)
    with torch.no_grad():  # a score doesn't depend on the other rows of its batch
        assert torch.equal(runtime.linear(x, weight), plain)
    odd = weight[:40]
    assert torch.equal(runtime.linear(x, odd), F.linear(x, odd.to(x.dtype)))


def test_it_compiles_without_a_graph_break(compiling, operands) -> None:
    x, weight = operands
    compiling.policy = fake_policy(compiling, "fp8")
    compiled = compiling.compile(lambda x, w: compiling.linear(x, w).float().square().mean())
    loss = compiled(x, weight)
    loss.backward()
    expected = fp8.linear(x, weight).float().square().mean()
    assert torch.allclose(loss, expected, rtol=1e-3)
    assert weight.grad is not None


def fake_policy(runtime, linear: str):
    return replace(runtime.policy, linear=linear)


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        (fake.H100, ""),
        (fake.RTX_4090, ""),
        (fake.RTX_5090, ""),
        (fake.machine(), ""),  # slow there, but the same numbers
        (fake.RTX_3090, "sm_86"),
        (fake.T4, "sm_75"),
        (fake.MI300X, "rocm"),
        (fake.mac(mlx=False), "mps"),
    ],
)
def test_where_it_runs(machine, word: str) -> None:
    why = fp8.unavailable(hardware(machine))
    assert (word in why) if word else why == ""


def test_a_small_network_learns_in_fp8_as_in_bf16() -> None:
    def final_loss(product) -> float:
        torch.manual_seed(1)
        first, second = nn.Parameter(torch.randn(64, 32) / 6), nn.Parameter(torch.randn(16, 64) / 8)
        truth = torch.randn(16, 32)
        for _ in range(150):
            x = torch.randn(64, 32).bfloat16()
            out = product(F.relu(product(x, first)), second)
            loss = (out.float() - torch.tanh(x.float() @ truth.T)).square().mean()
            for p, g in zip(
                (first, second), torch.autograd.grad(loss, (first, second)), strict=True
            ):
                p.data -= 0.2 * g
        return float(loss.detach())

    plain = final_loss(lambda x, w: F.linear(x, w.to(x.dtype)))
    assert plain < 0.5
    assert abs(final_loss(fp8.linear) - plain) < 0.05

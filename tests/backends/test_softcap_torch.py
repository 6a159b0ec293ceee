"""The chunked loss against the plain one: values, gradients, memory, compilation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from backends import softcap
from backends.errors import BackendError
from backends.softcap import softcap_cross_entropy

N, V, D = 53, 37, 8


def plain(x, weight, targets, cap, reduction):
    logits = x.reshape(-1, x.shape[-1]) @ weight.T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    loss = F.cross_entropy(logits, targets.reshape(-1), ignore_index=-1, reduction=reduction)
    return loss.view(targets.shape) if reduction == "none" else loss


def inputs(dtype: torch.dtype = torch.float32, n: int = N, ignored: bool = True):
    torch.manual_seed(0)
    x = torch.randn(n, D).to(dtype).requires_grad_()
    weight = torch.randn(V, D).requires_grad_()
    targets = torch.randint(V, (n,))
    if ignored:
        targets[::5] = -1
    return x, weight, targets


def assert_close(mine: torch.Tensor, truth: torch.Tensor, tolerance: float, what: str) -> None:
    largest = (mine.double() - truth).abs().max().item()
    scale = max(truth.abs().max().item(), 1e-12)
    assert largest <= tolerance * scale, f"{what}: largest difference {largest:.3g} of {scale:.3g}"


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small batches here would be one chunk each."""
    monkeypatch.setattr(softcap, "SMALL_BYTES", 0)


@pytest.mark.parametrize("reduction", softcap.REDUCTIONS)
@pytest.mark.parametrize("cap", [None, 3.0, 15.0])
@pytest.mark.parametrize("n", [1, 8, N])
def test_value_and_gradients_are_those_of_the_plain_loss(
    reduction: str, cap: float | None, n: int
) -> None:
    x, weight, targets = inputs(n=n, ignored=n > 1)
    upstream = torch.rand(targets.shape) if reduction == "none" else torch.tensor(0.3)
    mine = softcap_cross_entropy(x, weight, targets, cap, reduction)
    mine.backward(upstream)
    x64, weight64 = (t.detach().double().requires_grad_() for t in (x, weight))
    truth = plain(x64, weight64, targets, cap, reduction)
    truth.backward(upstream.double())
    assert mine.dtype == torch.float32
    assert_close(mine, truth, 2e-6, "loss")
    assert_close(x.grad, x64.grad, 5e-6, "dx")
    assert_close(weight.grad, weight64.grad, 5e-6, "dweight")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_activations_with_a_float_weight(dtype: torch.dtype) -> None:
    x, weight, targets = inputs(dtype)
    softcap_cross_entropy(x, weight, targets, 15.0).backward()
    x64, weight64 = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    plain(x64, weight64, targets, 15.0, "mean").backward()
    assert x.grad.dtype == dtype
    assert weight.grad.dtype == torch.float32
    assert_close(x.grad, x64.grad, 2e-2, "dx")
    assert_close(weight.grad, weight64.grad, 2e-2, "dweight")


def test_a_mean_over_many_tokens_does_not_underflow_in_half_precision() -> None:
    x, weight, targets = inputs(torch.float16, n=4096, ignored=False)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        softcap_cross_entropy(x, weight, targets, 15.0)
    gradient = next(t for t in saved if t.shape == x.shape)
    assert gradient.abs().median() > 1e-3  # of a token's own loss, not yet divided by 4096


def test_any_leading_shape() -> None:
    x, weight, targets = inputs(n=48)
    flat = softcap_cross_entropy(x, weight, targets, 15.0, "none")
    boxed = softcap_cross_entropy(x.view(4, 12, D), weight, targets.view(4, 12), 15.0, "none")
    assert boxed.shape == (4, 12)
    assert torch.equal(boxed.view(-1), flat)


def test_without_gradients_the_value_is_the_same() -> None:
    x, weight, targets = inputs()
    for reduction in softcap.REDUCTIONS:
        loss = softcap_cross_entropy(x, weight, targets, 15.0, reduction)
        with torch.no_grad():
            again = softcap_cross_entropy(x, weight, targets, 15.0, reduction)
        torch.testing.assert_close(again, loss.detach())
        assert not again.requires_grad


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, targets = inputs()
    softcap_cross_entropy(x.detach(), weight, targets, 15.0).backward()
    assert weight.grad is not None
    assert x.grad is None


def test_no_target_counts_is_zero_not_nan() -> None:
    x, weight, targets = inputs()
    loss = softcap_cross_entropy(x, weight, torch.full_like(targets, -1), 15.0)
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad.abs().max() == 0.0


def test_an_unknown_reduction_names_the_known_ones() -> None:
    x, weight, targets = inputs()
    with pytest.raises(BackendError, match=r"'median'.*mean.*sum.*none"):
        softcap_cross_entropy(x, weight, targets, 15.0, "median")


def test_the_gradient_is_made_in_the_forward_pass() -> None:
    """The backward pass multiplies no matrices: it scales what was kept."""
    x, weight, targets = inputs()
    loss = softcap_cross_entropy(x, weight, targets, 15.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()
    assert not {"aten::mm", "aten::addmm"} & {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("reduction", softcap.REDUCTIONS)
def test_a_compiler_sees_one_graph(reduction: str) -> None:
    x, weight, targets = inputs()

    def step(x, weight, targets):
        return softcap_cross_entropy(x, weight, targets, 15.0, reduction)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=False)
    results = []
    for function in (step, compiled):
        x.grad = weight.grad = None
        loss = function(x, weight, targets)
        loss.sum().backward()
        results.append((loss.detach(), x.grad, weight.grad))
    for mine, truth in zip(*results, strict=True):
        torch.testing.assert_close(mine, truth)


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert softcap.chunk_rows(4096, 8192, torch.float32) == 4096 // softcap.MIN_CHUNKS
    assert softcap.chunk_rows(1, 256, torch.float32) == 1
    monkeypatch.setattr(softcap, "SMALL_BYTES", 8 << 20)
    assert softcap.chunk_rows(1024, 2048, torch.float32) == 1024  # 8 MB of logits: not cut
    assert softcap.chunk_rows(4096, 2048, torch.float32) == 1024
    assert softcap.chunk_rows(4096, 8192, torch.float32) == 512
    assert softcap.chunk_rows(2**17, 8192, torch.bfloat16) * 8192 * 4 <= softcap.CHUNK_BYTES
    assert 2**19 / softcap.chunk_rows(2**19, 65536, torch.bfloat16) <= softcap.MAX_CHUNKS
    assert softcap.chunk_rows(2**19, 256, torch.float16) <= softcap.FP16_CHUNK


MEMORY = """
import sys, psutil, torch
import torch.nn.functional as F
from backends.process_memory import peak_rss_mb, reset_peak_rss
from backends.softcap import softcap_cross_entropy

x = torch.randn(4096, 64).requires_grad_()
weight = torch.randn(8192, 64).requires_grad_()
targets = torch.randint(8192, (4096,))
(torch.randn(64, 64, requires_grad=True) @ torch.randn(64, 64)).sum().backward()  # libraries load
reset_peak_rss()
before = psutil.Process().memory_info().rss / 2**20
if sys.argv[1] == "plain":
    loss = F.cross_entropy(15 * torch.tanh((x @ weight.T).float() / 15), targets)
else:
    loss = softcap_cross_entropy(x, weight, targets, 15.0)
loss.backward()
print(peak_rss_mb() - before)
"""


def test_peak_memory_is_about_a_third_of_the_plain_loss() -> None:
    """4,096 tokens, vocabulary 8,192, fp32: a process of its own for each."""
    peak = {
        which: float(
            subprocess.run(
                [sys.executable, "-c", MEMORY, which],
                capture_output=True,
                check=True,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            ).stdout
        )
        for which in ("plain", "chunked")
    }
    assert peak["plain"] > 300
    assert peak["chunked"] < 0.36 * peak["plain"], peak

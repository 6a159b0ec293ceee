"""Loss, gram, AdamW and rotate-norm kernels in Triton's interpreter, against the plain spelling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from backends import gram as plain
from backends import kernels, policy, probe_torch, softcap
from backends.errors import BackendError
from backends.hardware import detect
from backends.kernels import adamw, gram, rotate_norm
from backends.kernels import softcap as kernel

# The interpreter cuts bfloat16 off where a GPU rounds it.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def assert_close(mine: torch.Tensor, truth: torch.Tensor, dtype: torch.dtype, what: str) -> None:
    mine, truth = mine.detach().double(), truth.detach().double()
    difference = float((mine - truth).norm() / truth.norm())
    assert difference <= TOLERANCE[dtype], f"{what} differs by {difference:.3g}"


def plain_loss(x, weight, targets, cap, reduction):
    logits = x @ weight.T if cap is None else cap * torch.tanh(x @ weight.T / cap)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction=reduction)


def loss_inputs(n: int, vocabulary: int, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    x = (2 * torch.randn(n, 8)).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 8).requires_grad_()
    targets = torch.randint(vocabulary, (n,))
    targets[1::5] = -1
    return x, weight, targets


@pytest.mark.parametrize(
    ("reduction", "cap", "n", "vocabulary"),
    [
        ("mean", 15.0, 13, 37),
        ("sum", 3.0, 13, 300),  # two chunks of tokens, three blocks of vocabulary, both ragged
        ("none", 3.0, 13, 300),
        ("none", None, 1, 256),
        ("none", None, 2, 100),
        ("mean", None, 3, 300),
    ],
)
def test_loss_and_gradients(reduction, cap, n, vocabulary, monkeypatch) -> None:
    monkeypatch.setattr(kernel, "WHOLE_ROW", 128)
    monkeypatch.setattr(kernel, "BLOCK", 128)
    monkeypatch.setattr(kernel, "chunk_rows", lambda *sizes: 8)
    x, weight, targets = loss_inputs(n, vocabulary)
    upstream = torch.rand(targets.shape) if reduction == "none" else torch.tensor(0.3)
    mine = kernel.softcap_cross_entropy(x, weight, targets, cap, reduction)
    mine.backward(upstream)
    x64, weight64 = (t.detach().double().requires_grad_() for t in (x, weight))
    truth = plain_loss(x64, weight64, targets, cap, reduction)
    truth.backward(upstream.double())
    assert mine.dtype == torch.float32
    assert mine.shape == truth.shape
    assert_close(mine, truth, torch.float32, "loss")
    assert_close(x.grad, x64.grad, torch.float32, "dx")
    assert_close(weight.grad, weight64.grad, torch.float32, "dweight")
    with torch.no_grad():
        again = kernel.softcap_cross_entropy(x, weight, targets, cap, reduction)
    torch.testing.assert_close(again, mine.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_in_half_precision_is_that_of_the_chunked_one(dtype: torch.dtype) -> None:
    results = []
    for function in (kernel.softcap_cross_entropy, softcap.softcap_cross_entropy):
        x, weight, targets = loss_inputs(6, 300, dtype)
        loss = function(x.view(2, 3, 8), weight, targets.view(2, 3), 15.0)
        loss.backward()
        assert (x.grad.dtype, weight.grad.dtype) == (dtype, torch.float32)
        results.append((loss.detach(), x.grad, weight.grad))
    for what, mine, truth in zip(("loss", "dx", "dweight"), *results, strict=True):
        assert_close(mine, truth, dtype, what)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")
def test_loss_at_the_limits() -> None:
    x, weight, targets = loss_inputs(6, 37)
    ignored = kernel.softcap_cross_entropy(x, weight, torch.full_like(targets, -1), 15.0)
    ignored.backward()
    assert ignored.item() == x.grad.abs().max() == weight.grad.abs().max() == 0.0
    x.grad = None
    saturated = kernel.softcap_cross_entropy(1e4 * x, weight, targets, 15.0)  # tanh is 1 or -1
    saturated.backward()
    assert math.isfinite(saturated.item())
    assert x.grad.isfinite().all()
    with pytest.raises(BackendError, match=r"'median'.*mean.*sum.*none"):
        kernel.softcap_cross_entropy(x, weight, targets, 15.0, "median")


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_compiler_sees_one_graph(reduction: str) -> None:
    x, weight, targets = loss_inputs(3, 37)

    def step(x, weight, targets):
        return kernel.softcap_cross_entropy(x, weight, targets, 15.0, reduction).sum()

    results = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        x.grad = weight.grad = None
        loss = function(x, weight, targets)
        loss.backward()
        results.append((loss.detach(), x.grad, weight.grad))
    for mine, truth in zip(*results, strict=True):
        torch.testing.assert_close(mine, truth)


def test_chunks_are_whole_tiles_and_bounded() -> None:
    assert kernel.chunk_rows(2**18, 8192, torch.bfloat16) * 8192 * 2 == kernel.CHUNK_BYTES
    assert kernel.chunk_rows(4096, 8192, torch.bfloat16) == 4096 // kernel.MIN_CHUNKS
    assert kernel.chunk_rows(1, 256, torch.float32) == kernel.ROW_MULTIPLE
    assert kernel.chunk_rows(2**19, 256, torch.float16) == kernel.FP16_CHUNK


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("tall", [False, True])
def test_gram(dtype: torch.dtype, tall: bool) -> None:
    """Two tiles to a side, the last one ragged; also of a transposed view."""
    torch.manual_seed(0)
    x = torch.randn((2, 1, 40, 100) if tall else (2, 1, 100, 40)).to(dtype)
    x = x.mT if tall else x
    add = torch.randn(100, 100).to(dtype)
    once = gram.gram(x)
    assert (once.shape, once.dtype) == ((2, 1, 100, 100), dtype)
    # Tiles off the diagonal are computed once. Within one, a processor's product need not be
    # symmetric to the last bit.
    assert torch.equal(once[..., 64:, :64], once[..., :64, 64:].mT)
    assert_close(once, x.double() @ x.double().mT, dtype, "x @ x.mT")
    mine = gram.gram(x, alpha=0.5, add=add, beta=-20.0)
    assert_close(mine, plain.gram(x.double(), 0.5, add.double(), -20.0), dtype, "polynomial")


def test_gram_has_gradients_and_compiles() -> None:
    torch.manual_seed(0)
    x, add = torch.randn(1, 20, 9).requires_grad_(), torch.randn(1, 20, 20).requires_grad_()
    upstream = torch.randn(1, 20, 20)

    def step(function):
        out = function(x, 0.5, add, 3.0)
        return (out, *torch.autograd.grad(out, (x, add), upstream))

    truth = step(plain.gram)
    compiled = torch.compile(gram.gram, backend="aot_eager", fullgraph=True)
    for mine in (step(gram.gram), step(compiled)):
        for what, one, other in zip(("out", "dx", "dadd"), mine, truth, strict=True):
            assert_close(one, other, torch.float32, what)


def adamw_inputs() -> list[list[torch.Tensor]]:
    """Parameters, gradients, means, squares: two types, lengths that fit no block, one of 1."""
    torch.manual_seed(0)
    params = [torch.randn(40, 48), torch.randn(1), torch.randn(1300).bfloat16(), torch.randn(7)]
    grads = [torch.randn_like(p) for p in params]
    means = [torch.randn_like(p, dtype=torch.float32) for p in params]
    return [params, grads, means, [m.square() for m in means]]


NUMBERS = (0.01, 0.2, 0.05, 0.7, 0.3, 1e-8, 0.99)


def plain_adamw(param, grad, mean, square):
    """train.py's adamw_step in fp64."""
    lr, mix1, mix2, bias1, bias2, eps, shrink = NUMBERS
    param, grad, mean, square = (t.double() for t in (param, grad, mean, square))
    mean = mean + (grad - mean) * mix1
    square = square + (grad.square() - square) * mix2
    return param * shrink - lr * (mean / bias1) / ((square / bias2).sqrt() + eps), mean, square


@pytest.mark.parametrize("compiled", [False, True])
def test_adamw_updates_every_tensor_of_a_list(compiled: bool) -> None:
    lists = adamw_inputs()
    wanted = [plain_adamw(*quartet) for quartet in zip(*lists, strict=True)]
    step = adamw.adamw_step
    if compiled:
        step = torch.compile(step, backend="aot_eager", fullgraph=True)
    step(*lists, torch.tensor(NUMBERS))
    for i, (param, mean, square) in enumerate(wanted):
        assert_close(lists[0][i], param, lists[0][i].dtype, f"parameter {i}")
        assert_close(lists[2][i], mean, torch.float32, f"mean {i}")
        assert_close(lists[3][i], square, torch.float32, f"square {i}")


def test_adamw_refuses_what_it_would_corrupt() -> None:
    p = torch.zeros(4, 4)
    for grad, mean, says in (
        (p.T.contiguous().T, p, "contiguous"),
        (torch.zeros(16), p, "one shape"),
        (p, p.bfloat16(), "moments"),
        (p.double(), p, "float64"),
    ):
        with pytest.raises(BackendError, match=says):
            adamw.adamw_step([p], [grad], [mean], [p], torch.tensor(NUMBERS))


def plain_rotate_norm(x, cos, sin):
    half = x.size(-1) // 2
    left, right = x[..., :half], x[..., half:]
    y = torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)
    return F.rms_norm(y, (y.size(-1),), eps=rotate_norm.EPSILON)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 48), (torch.bfloat16, 128)])
def test_rotate_norm_and_its_gradient(dtype: torch.dtype, width: int) -> None:
    """Of one of three tensors in one memory, as a fused projection leaves them."""
    torch.manual_seed(0)
    B, T, H = 2, 7, 3
    x = torch.randn(B, T, 3, H, width).to(dtype)[:, :, 1].requires_grad_()
    angles = torch.randn(1, 9, 1, width // 2)
    cos, sin = angles.cos().to(dtype)[:, :T], angles.sin().to(dtype)[:, :T]
    upstream = torch.randn(B, T, H, width).to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    y64 = plain_rotate_norm(x.double(), cos.double(), sin.double())
    truth = torch.autograd.grad(y64, x, upstream.double())[0]
    compiled = torch.compile(rotate_norm.rotate_norm, backend="aot_eager", fullgraph=True)
    for function in (rotate_norm.rotate_norm, compiled):
        y = function(x, cos, sin)
        assert_close(y, y64, dtype, "y")
        assert_close(torch.autograd.grad(y, x, upstream)[0], truth, dtype, "dx")


def test_rotate_norm_needs_tables_of_its_shape() -> None:
    x, table = torch.zeros(1, 5, 2, 16), torch.zeros(1, 6, 1, 8)
    with pytest.raises(BackendError, match=r"\(1, 5, 1, 16 / 2\).*\(1, 6, 1, 8\)"):
        rotate_norm.rotate_norm(x, table, table)


def test_the_runtime_runs_what_the_policy_chose(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "unavailable", lambda hardware: "")
    for name, value in {"BACKEND": "cpu", "DTYPE": "float32", "COMPILE": "0"}.items():
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    from backends import torch_runtime as runtime

    asked = replace(runtime.policy, loss="triton", gram="triton")
    monkeypatch.setattr(runtime, "policy", asked)
    monkeypatch.setattr(runtime, "_products", runtime._Products())
    x, weight, targets = loss_inputs(3, 37)
    loss = runtime.softcap_cross_entropy(x, weight, targets, 15.0)
    torch.testing.assert_close(loss, softcap.softcap_cross_entropy(x, weight, targets, 15.0))
    assert "autoresearch" in type(loss.grad_fn.next_functions[0][0]).__name__
    assert runtime._products.gram is gram.gram
    called = []
    monkeypatch.setattr(runtime._products, "gram", lambda x, *_: called.append(x.shape[-2]))
    runtime.gram(torch.randn(runtime.SMALLEST_GRAM, 4))
    runtime.gram(torch.randn(runtime.SMALLEST_GRAM - 1, 4))
    assert called == [runtime.SMALLEST_GRAM], "small products stay the library's"


def test_the_probe_runs_every_variant_and_refuses_wrong_results(monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(probe_torch, "VOCABULARY", 40)
    sizes = {"batch": 1, "tokens": 6, "heads": 2, "head_dim": 8, "window": 3}
    probes = probe_torch.Probes(detect("cpu")[0], sizes)
    for item, variants in (("loss", policy.LOSS), ("gram", policy.GRAM)):
        for variant in variants:
            probes.step(item, variant, "float32", compiled=True)()
    right = kernel.softcap_cross_entropy
    monkeypatch.setattr(kernel, "softcap_cross_entropy", lambda *a: 2 * right(*a))
    monkeypatch.setattr(gram, "gram", lambda x, *_, **__: 2 * x @ x.mT)
    for item in ("loss", "gram"):
        with pytest.raises(ArithmeticError, match="results differ by"):
            probes.step(item, "triton", "float32", compiled=True)

"""Every implementation of attention against the NumPy reference, and what is passed over why."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from backends import attention as attentions
from backends.attention import block_local, dense, fa3, flex, reference, sdpa
from backends.errors import AttentionUnavailable
from backends.hardware import Hardware

CPU = Hardware("cpu", "amd", "test", "x86_64", 2**34, 2, "", "torch", "2", "Linux", ("host",))
HOPPER = replace(CPU, backend="cuda", vendor="nvidia", architecture="sm_90")
CONSUMER = replace(HOPPER, architecture="sm_120")

SHAPES = [
    (1, 1, 1, 1, 8),
    (2, 5, 4, 2, 8),
    (1, 128, 2, 2, 16),
    (2, 300, 6, 2, 8),
    (1, 513, 2, 1, 8),
]
IMPLEMENTATIONS = {
    "block_local": block_local.attention,
    "dense": dense.attention,
    "sdpa": sdpa.attention,
}


def windows(length: int) -> list[int | None]:
    wanted = {0, 1, 127, 128, length // 2, length - 2, length - 1, length}
    return [None, *sorted(w for w in wanted if w >= 0)]


def arrays(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, ...]:
    batch, length, heads, key_heads, width = shape
    random = np.random.default_rng(seed)
    sizes = (heads, key_heads, key_heads, heads)
    return tuple(random.standard_normal((batch, length, h, width)) for h in sizes)


def assert_close(mine: torch.Tensor, truth: np.ndarray, tolerance: float, what: str) -> None:
    difference = np.abs(mine.detach().double().numpy() - truth)
    worst = np.unravel_index(difference.argmax(), difference.shape)
    largest = difference[worst]
    assert largest <= tolerance, f"{what}: largest difference {largest:.3g} at {worst}"


def textbook(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """The textbook formula in torch, whose gradients autograd makes."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    i, j = torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None, :]
    hidden = (j > i) if window is None else (j > i) | (i - j > window)
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def test_dense_blocks_are_few_and_long_rows_left_to_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    forward = dense._forward
    monkeypatch.setattr(dense, "_forward", lambda *a: seen.append(a[1].shape) or forward(*a))
    q = torch.randn(1, 2048, 1, 8)
    dense.attention(q, q, q, 500)
    assert seen == [(1, 1, min(start, 500) + 256, 8) for start in range(0, 2048, 256)]
    seen.clear()
    longest = torch.randn(1, dense.LONGEST_CAUSAL + 1, 1, 8)
    dense.attention(longest, longest, longest, None)
    assert seen == []


def test_dense_keeps_no_weights_where_no_gradient_is_asked_for() -> None:
    held = []

    def keep(t: torch.Tensor) -> torch.Tensor:
        held.append(t.numel())
        return t

    q, k, v, _ = (torch.tensor(a) for a in arrays((1, 300, 2, 2, 8)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        dense.attention(q, k, v, 40)
        assert held == []
        v.requires_grad_()
        dense.attention(q, k, v, 40)
    assert max(held) > q.numel()


def test_a_second_derivative_of_dense_is_refused_and_not_wrong() -> None:
    q, k, v, _ = (torch.tensor(a, requires_grad=True) for a in arrays((1, 20, 1, 1, 4)))
    (dq,) = torch.autograd.grad(dense.attention(q, k, v, 5).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


def test_large_values_do_not_overflow_in_fp16() -> None:
    q = torch.zeros(1, 1024, 1, 8, dtype=torch.float16)
    assert (dense.attention(q, q, q + 100, None) - 100).abs().max() < 0.2


def test_large_scores_overflow_nothing() -> None:
    q, k, v, dy = arrays((1, 200, 2, 2, 16))
    leaves = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in (300 * q, k, v)]
    y = dense.attention(*leaves, 60)
    y.backward(torch.tensor(dy, dtype=torch.float32))
    assert_close(y, reference.attention(300 * q, k, v, 60), 1e-3, "y")
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_the_window_is_inclusive() -> None:
    visible = reference.visible(6, 2)
    assert visible.sum(axis=1).tolist() == [1, 2, 3, 3, 3, 3]
    assert visible[5].tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_reference_is_the_textbook_formula_with_its_gradients(shape: tuple[int, ...]) -> None:
    q, k, v, dy = arrays(shape)
    for window in windows(shape[1]):
        leaves = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
        y = textbook(*leaves, window)
        y.backward(torch.tensor(dy))
        assert_close(y, reference.attention(q, k, v, window), 1e-12, f"y, window {window}")
        truth = reference.gradients(q, k, v, window, dy)
        for name, leaf, gradient in zip("qkv", leaves, truth, strict=True):
            assert_close(leaf.grad, gradient, 1e-12, f"d{name}, window {window}")


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_in_double_precision(name: str, shape: tuple[int, ...]) -> None:
    q, k, v, dy = arrays(shape)
    for window in windows(shape[1]):
        leaves = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
        y = IMPLEMENTATIONS[name](*leaves, window)
        y.backward(torch.tensor(dy))
        assert_close(y, reference.attention(q, k, v, window), 1e-12, f"y, window {window}")
        truth = reference.gradients(q, k, v, window, dy)
        for part, leaf, gradient in zip("qkv", leaves, truth, strict=True):
            assert_close(leaf.grad, gradient, 1e-12, f"d{part}, window {window}")


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 4e-2)])
def test_output_in_training_precision(name: str, dtype: str, tolerance: float) -> None:
    q, k, v, _ = arrays((2, 300, 6, 2, 16))
    tensors = [torch.tensor(a, dtype=getattr(torch, dtype)) for a in (q, k, v)]
    rounded = [t.double().numpy() for t in tensors]
    y = IMPLEMENTATIONS[name](*tensors, 100)
    assert y.dtype == tensors[0].dtype
    assert_close(y, reference.attention(*rounded, 100), tolerance, f"{name} in {dtype}")


def test_block_local_holds_nothing_of_length_times_length() -> None:
    length, largest = 4096, 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    largest = max(largest, t.untyped_storage().nbytes())
            return out

    q = torch.zeros(1, length, 1, 4)
    with Sizes():
        block_local.attention(q, q, q, 256)
    assert largest < length * length / 8


def test_masks_cached_in_inference_mode_serve_training_later() -> None:
    q, k, v, _ = (torch.tensor(a) for a in arrays((1, 37, 2, 2, 8)))
    with torch.inference_mode():
        sdpa.attention(q, k, v, 5)
    q.requires_grad_()
    sdpa.attention(q, k, v, 5).sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_compiler_sees_one_graph(name: str) -> None:
    q, k, v, _ = (torch.tensor(a, dtype=torch.float32) for a in arrays((1, 150, 2, 1, 8)))
    function = IMPLEMENTATIONS[name]
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)
    for window in (7, None):
        torch.testing.assert_close(compiled(q, k, v, window), function(q, k, v, window))


@pytest.mark.parametrize(
    ("length", "window"), [(1, None), (128, 1), (300, 40), (513, 128), (640, 300)]
)
def test_flex_block_mask_is_the_one_that_torch_would_evaluate(
    length: int, window: int | None
) -> None:
    mine = flex.block_mask(length, window, torch.device("cpu"))
    reach = length if window is None else window
    torchs = create_block_mask(
        lambda b, h, i, j: (i >= j) & (i - j <= reach), None, None, length, length, device="cpu"
    )
    assert torch.equal(mine.to_dense(), torchs.to_dense())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("window", [0, 40, 128, 299, None])
def test_flex_forward(window: int | None) -> None:
    q, k, v, _ = arrays((1, 300, 4, 2, 16))
    y = flex.using(flex_attention)(*(torch.tensor(a) for a in (q, k, v)), window)
    assert_close(y, reference.attention(q, k, v, window), 1e-6, f"flex, window {window}")


# Kernels that this machine can't have: fake modules record what they are asked.


def fake_flash(calls: list[dict], fails: bool = False):
    def flash_attn_func(q, k, v, causal=False, window_size=(-1, -1)):
        if fails:
            raise RuntimeError(
                "CUDA error: no kernel image is available for execution on the device"
            )
        calls.append({"causal": causal, "window_size": window_size, "key_heads": k.shape[2]})
        left = window_size[0] if window_size[0] >= 0 else None
        return textbook(q, k, v, left), torch.zeros(1)

    return flash_attn_func


def module(name: str, **attributes: object) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
    made.__dict__.update(attributes)
    return made


@pytest.mark.parametrize(
    ("package", "name"), [("flash_attn_interface", "fa3"), ("flash_attn", "flash")]
)
def test_flash_attention_gets_the_inclusive_window(
    monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    calls: list[dict] = []
    fake = module(package, flash_attn_func=fake_flash(calls))
    monkeypatch.setitem(sys.modules, package, fake)
    function = attentions.load(name, HOPPER)
    q, k, v, _ = arrays((1, 20, 4, 2, 8))
    tensors = [torch.tensor(a) for a in (q, k, v)]
    assert_close(function(*tensors, 3), reference.attention(q, k, v, 3), 1e-12, name)
    function(*tensors, None)
    function(*tensors, 19)
    assert [c["window_size"] for c in calls] == [(3, 0), (-1, -1), (-1, -1)]
    assert all(c["causal"] and c["key_heads"] == 2 for c in calls)


@pytest.mark.parametrize(("hardware", "source"), [(HOPPER, fa3.HOPPER), (CONSUMER, fa3.OTHERS)])
def test_fa3_takes_the_hubs_kernel_at_a_commit(
    monkeypatch: pytest.MonkeyPatch, hardware: Hardware, source: tuple[str, str]
) -> None:
    asked: list[tuple[str, str]] = []

    def get_kernel(repository: str, revision: str, trust_remote_code: bool = False):
        asked.append((repository, revision))
        return types.SimpleNamespace(
            flash_attn_interface=types.SimpleNamespace(flash_attn_func=fake_flash([]))
        )

    monkeypatch.setitem(sys.modules, "kernels", module("kernels", get_kernel=get_kernel))
    attentions.load("fa3", hardware)
    assert asked == [source]
    assert len(source[1]) == 40


def test_fa3_without_network_says_what_it_could_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_kernel(repository: str, revision: str):
        raise ConnectionError("the network is unreachable")

    monkeypatch.setitem(sys.modules, "kernels", module("kernels", get_kernel=get_kernel))
    with pytest.raises(AttentionUnavailable, match=r"varunneal.*the network is unreachable"):
        attentions.load("fa3", HOPPER)


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, package in (("fa3", "kernels"), ("flash", "flash-attn")):
        with pytest.raises(AttentionUnavailable, match=r"(not|nor kernels is) installed") as caught:
            attentions.load(name, HOPPER)
        assert package in caught.value.hint


def test_a_kernel_that_dies_at_its_first_launch_is_passed_over_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sm_120 imports FA3, then has no kernel image for it."""
    fake = module("flash_attn_interface", flash_attn_func=fake_flash([], fails=True))
    monkeypatch.setitem(sys.modules, "flash_attn_interface", fake)
    loaded = attentions.load("fa3", CONSUMER)
    monkeypatch.setattr(
        attentions, "load", lambda name, _: loaded if name == "fa3" else block_local.attention
    )
    name, _, passed_over = attentions.first_available(["fa3", "block_local"], CPU, "float32")
    assert name == "block_local"
    assert "first launch failed: RuntimeError" in passed_over["fa3"]
    assert "no kernel image" in passed_over["fa3"]


def test_a_kernel_with_another_window_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_key_short(q, k, v, window):
        return sdpa.attention(q, k, v, window and window - 1)

    monkeypatch.setattr(attentions, "load", lambda *_: one_key_short)
    with pytest.raises(AttentionUnavailable, match=r"at window \d+ differs by"):
        attentions.launch_check("flash", CPU)


def test_launch_check_passes_what_works_here() -> None:
    for name in attentions.candidates(CPU):
        for dtype, tolerance in attentions.TOLERANCE.items():
            if dtype != "float16":
                assert attentions.launch_check(name, CPU, dtype) <= tolerance


def test_nothing_left_names_every_reason() -> None:
    with pytest.raises(AttentionUnavailable, match=r"fa3: .*cpu; flash: .*cpu"):
        attentions.first_available(["fa3", "flash"], CPU)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttentionUnavailable, match="no such implementation"):
        attentions.load("xformers", CPU)


def test_full_causal_and_windows_agree_where_they_meet() -> None:
    q, k, v, _ = (torch.tensor(a) for a in arrays((1, 200, 2, 2, 8)))
    whole = sdpa.attention(q, k, v, None)
    for function in IMPLEMENTATIONS.values():
        torch.testing.assert_close(function(q, k, v, 199), whole, rtol=0, atol=1e-12)
        assert not torch.allclose(function(q, k, v, 198), whole)

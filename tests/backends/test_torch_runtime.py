"""`runtime` on torch: arrays, gradients, compilation, weights, memory."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import backends
from backends.errors import AttentionUnavailable, KernelUnavailable, WeightsMismatch
from backends.loss_scaling import INITIAL, LossScaler


class Tiny(nn.Module):
    """Layers of attention with shared key heads and a soft-capped loss."""

    def __init__(
        self, runtime: ModuleType, windows: tuple[int | None, ...] = (5, None), width: int = 16
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self.embed = nn.Embedding(31, width)
        self.query = nn.ModuleList(nn.Linear(width, width) for _ in windows)
        self.key_value = nn.ModuleList(nn.Linear(width, width) for _ in windows)
        self.head = nn.Linear(width, 31, bias=False)
        self.windows = windows

    def forward(self, x, y=None):
        batch, length = x.shape
        h = self.embed(x)
        for query, key_value, window in zip(self.query, self.key_value, self.windows, strict=True):
            q = query(h).view(batch, length, 2, -1)
            k, v = key_value(h).view(batch, length, 1, -1).chunk(2, dim=-1)
            h = h + self.runtime.attention(q, k, v, window).reshape(batch, length, -1)
        if y is None:
            return self.head(h).float()
        return self.runtime.softcap_cross_entropy(h, self.head.weight, y, 15.0)


def batch(length: int = 23) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(31, (2, length)), torch.randint(31, (2, length))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_every_public_name_is_there(runtime: ModuleType) -> None:
    assert all(getattr(runtime, name, None) is not None for name in runtime.__all__)
    assert runtime.name == "torch"
    assert runtime.device == torch.device("cpu")
    assert runtime.compute_dtype is torch.float32


def test_importing_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> None:
        raise AssertionError("importing the runtime selected a backend")

    kept = sys.modules.pop("backends.torch_runtime", None)
    monkeypatch.setattr(backends, "selection_for", looked)
    try:
        fresh = importlib.import_module("backends.torch_runtime")
        assert not {"hardware", "policy", "device", "compute_dtype"} & set(vars(fresh))

        @fresh.compile
        def untouched(x):
            return x
    finally:
        if kept is not None:
            sys.modules["backends.torch_runtime"] = kept
            backends.torch_runtime = kept


def test_an_unknown_name_is_an_attribute_error(runtime: ModuleType) -> None:
    with pytest.raises(AttributeError, match="no attribute 'autocast'"):
        runtime.autocast  # noqa: B018


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64"])
def test_integers_of_any_width_become_int64(runtime: ModuleType, dtype: str) -> None:
    a = np.array([[0, 255], [7, 1]], dtype=dtype)
    t = runtime.from_numpy(a)
    assert t.dtype == torch.int64
    assert t.tolist() == a.tolist()
    a[:] = 0
    assert t[0, 1] == 255, "it must be a copy: the feed reuses its buffers"


def test_arrays_round_trip(runtime: ModuleType) -> None:
    a = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    t = runtime.from_numpy(a)
    back = runtime.to_numpy(t.requires_grad_())
    t.data.zero_()
    np.testing.assert_array_equal(back, a)
    assert runtime.to_numpy(torch.tensor(1.5, dtype=torch.bfloat16)).dtype == np.float32


def test_transport_is_exact(runtime: ModuleType) -> None:
    t = torch.randn(5, 7).bfloat16().T
    bits = runtime.to_transport(t)
    assert bits.dtype == np.uint16
    assert bits.flags.c_contiguous
    restored = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(restored, t.float().numpy())
    for dtype in (torch.float16, torch.float32):
        np.testing.assert_array_equal(runtime.to_transport(t.to(dtype)), t.to(dtype).numpy())


def test_seed_repeats_random_numbers(runtime: ModuleType) -> None:
    runtime.seed(3)
    first = torch.randn(4)
    runtime.seed(3)
    assert torch.equal(torch.randn(4), first)


def test_backward_is_bit_identical_to_plain_torch(runtime: ModuleType) -> None:
    model, (x, y) = Tiny(runtime), batch()
    model(x, y).backward()
    truth = gradients(model)
    model.zero_grad()
    loss = runtime.backward(model)(x, y)
    assert torch.equal(loss, model(x, y))
    assert not loss.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), truth, strict=True))


def test_scaled_micro_batches_add_up(runtime: ModuleType) -> None:
    model, (x, y) = Tiny(runtime), batch()
    step = runtime.backward(model)
    step(x, y)
    truth = gradients(model)
    model.zero_grad(set_to_none=True)
    losses = [step(x[i : i + 1], y[i : i + 1], scale=0.5) for i in range(2)]
    for mine, whole in zip(gradients(model), truth, strict=True):
        torch.testing.assert_close(mine, whole)
    torch.testing.assert_close(sum(losses) / 2, model(x, y).detach())


def test_compiled_model_is_one_graph_with_the_same_gradients(compiling: ModuleType) -> None:
    model, (x, y) = Tiny(compiling), batch(140)
    compiling.backward(model)(x, y)
    mine = gradients(model)
    model.zero_grad()
    model(x, y).backward()
    for compiled, eager in zip(mine, gradients(model), strict=True):
        torch.testing.assert_close(compiled, eager)
    explained = torch._dynamo.explain(model)(x, y)
    assert explained.graph_break_count == 0, explained.break_reasons


def test_entering_again_compiles_nothing(compiling: ModuleType) -> None:
    """A second train(), new weights in the same model, another model of its class: one graph."""
    stats = torch._dynamo.utils.counters["stats"]
    model, (x, y) = Tiny(compiling), batch()
    compiling.backward(model)(x, y)
    compiled = stats["unique_graphs"]
    step = compiling.backward(model)
    step(x, y, scale=0.25)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(Tiny(compiling).state_dict())
    step(x, y)
    other = Tiny(compiling)
    compiling.backward(other)(x, y)
    assert stats["unique_graphs"] == compiled
    assert gradients(other)


def test_compile_keeps_updates_in_place(compiling: ModuleType) -> None:
    @compiling.compile
    def decay(p, factor):
        p.mul_(factor)

    p = torch.ones(3)
    decay(p, torch.tensor(0.5))
    assert p.tolist() == [0.5] * 3
    assert decay.__name__ == "decay"


def test_a_compiled_step_serves_more_shapes_than_torchs_limit(compiling: ModuleType) -> None:
    @compiling.compile
    def double(x):
        return x * 2

    for size in range(1, 13):
        assert double(torch.ones(size)).sum() == 2 * size


def test_a_graph_break_is_an_error(compiling: ModuleType) -> None:
    @compiling.compile
    def breaks(x):
        torch._dynamo.graph_break()
        return x + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        breaks(torch.ones(2))


def test_inductor_agrees(runtime: ModuleType) -> None:
    """The real compiler on the whole of it: attention, chunked loss, gradients."""
    if not runtime.hardware.has("cxx_compiler"):
        pytest.skip("no C++ compiler here")
    torch._dynamo.reset()
    runtime.policy = replace(runtime.policy, compile=True, compile_mode="default")
    model, (x, y) = Tiny(runtime, windows=(5,)), batch(24)
    loss = runtime.backward(model)(x, y)
    mine = gradients(model)
    model.zero_grad()
    eager = model(x, y)
    eager.backward()
    torch.testing.assert_close(loss, eager.detach())
    for compiled, truth in zip(mine, gradients(model), strict=True):
        torch.testing.assert_close(compiled, truth, rtol=1e-4, atol=1e-6)


class Lookup(nn.Module):
    """A table of 16-bit numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 64, dtype=torch.bfloat16)

    def forward(self, tokens, weight):
        return (self.table(tokens).float() * weight).sum()


def test_a_compiled_table_adds_its_gradients_as_an_eager_one_does(
    runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of tokens, not of chance, which 16-bit sums show."""
    monkeypatch.setenv("CI", "true")  # where the compiler refuses fall-backs that weren't asked for
    if not runtime.hardware.has("cxx_compiler"):
        pytest.skip("no C++ compiler here")
    torch._dynamo.reset()
    runtime.policy = replace(runtime.policy, compile=True, compile_mode="default")
    model, tokens = Lookup(), torch.randint(3, (2, 400))
    weight = torch.randn(2, 400, 64)
    runtime.backward(model)(tokens, weight)
    (mine,) = gradients(model)
    model.zero_grad()
    model(tokens, weight).backward()
    assert torch.equal(mine, *gradients(model))


class Half(nn.Module):
    """fp32 master weight, fp16 arithmetic; `tiny` makes gradients that fp16 can't hold."""

    def __init__(self, tiny: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.tiny = tiny

    def forward(self, x, y):
        h = x.half() @ self.weight.half()
        return (h.float() * self.tiny).sum()


def test_loss_scaling_saves_small_gradients(runtime: ModuleType) -> None:
    x = torch.ones(2, 4)
    plain = Half(1e-8)
    plain(x, None).backward()
    assert plain.weight.grad.abs().max() == 0.0, "1e-8 is nothing in fp16"
    runtime.policy = replace(runtime.policy, compute_dtype="float16", loss_scaling=True)
    scaled = Half(1e-8)
    step = runtime.backward(scaled)
    loss = step(x, None, 0.5)
    step(x, None, 0.5)
    torch.testing.assert_close(scaled.weight.grad, torch.full((4, 4), 2e-8), rtol=1e-2, atol=0.0)
    torch.testing.assert_close(loss, torch.tensor(8 * 4e-8), rtol=1e-3, atol=0.0)
    assert scaled.weight.grad.dtype == torch.float32


def test_an_overflow_adds_zeros_and_halves_the_factor() -> None:
    model = Half(1e4)
    scaler = LossScaler(model.parameters())
    scaler.backward(model(torch.ones(2, 4), None), 1.0)
    assert model.weight.grad.abs().max() == 0.0
    assert scaler.factor == INITIAL / 2
    for _ in range(20):
        scaler.backward(model(torch.ones(2, 4), None), 1.0)
    assert torch.isfinite(model.weight.grad).all()
    assert model.weight.grad.abs().max() > 0.0


def test_weights_round_trip_in_their_own_types(runtime: ModuleType, tmp_path: Path) -> None:
    model, other = Tiny(runtime), Tiny(runtime)
    model.embed.bfloat16()
    other.embed.bfloat16()
    path = tmp_path / "weights.safetensors"
    runtime.save_weights(model, path)
    assert load_file(path)["embed.weight"].dtype == torch.bfloat16
    runtime.load_weights(other, path)
    for (name, mine), theirs in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def tied() -> nn.Module:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    return model


@pytest.mark.parametrize(
    "names", [("embed.weight",), ("head.weight",), ("embed.weight", "head.weight")]
)
def test_tied_weights_load_from_any_of_their_names(
    runtime: ModuleType, tmp_path: Path, names: tuple[str, ...]
) -> None:
    from safetensors.torch import save_file

    model = tied()
    runtime.save_weights(model, tmp_path / "own.safetensors")
    assert list(load_file(tmp_path / "own.safetensors")) == ["embed.weight"]
    value = torch.randn(5, 3)
    save_file({name: value.clone() for name in names}, tmp_path / "file.safetensors")
    runtime.load_weights(model, tmp_path / "file.safetensors")
    assert torch.equal(model["head"].weight, value)
    assert model["head"].weight is model["embed"].weight


def test_weights_of_another_model_are_refused_by_name(runtime: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    runtime.save_weights(nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 2)}), path)
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "c": nn.Linear(2, 2, bias=False)})
    before = model["a"].bias.clone()
    with pytest.raises(WeightsMismatch) as caught:
        runtime.load_weights(model, path)
    for said in ("missing: c.weight", "unexpected: b.", "a.weight (3, 2)", "(3, 4) in the model"):
        assert said in str(caught.value)
    assert torch.equal(model["a"].bias, before), "a refused file changes nothing"


def test_a_broken_file_is_refused(runtime: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not a header")
    with pytest.raises(WeightsMismatch, match="can't read weights"):
        runtime.load_weights(nn.Linear(2, 2), path)
    with pytest.raises(WeightsMismatch, match="can't read weights"):
        runtime.load_weights(nn.Linear(2, 2), tmp_path / "absent.safetensors")


FAULTS = """
import resource, sys
from backends import process_memory

getattr(process_memory, sys.argv[1])()
before = 0
for turn in range(25):
    if turn == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (2**26 + turn)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone can be told")
def test_freed_memory_is_kept_or_returned() -> None:
    """By the pages that the system hands out anew for 64 MB."""
    faults = {}
    for which in ("keep_freed_memory", "return_freed_memory"):
        command = [sys.executable, "-c", FAULTS, which]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        faults[which] = float(done.stdout)
    assert faults["keep_freed_memory"] < 1_000 < 10_000 < faults["return_freed_memory"]


def test_peak_memory_sees_what_was_freed(runtime: ModuleType) -> None:
    runtime.reset_peak_memory()
    before = runtime.peak_memory_mb()
    torch.ones(64 * 2**20 // 4).sum()
    assert before > 10
    assert runtime.peak_memory_mb() >= before + (60 if sys.platform == "linux" else 0)


def test_matmul_peak_and_versions(runtime: ModuleType) -> None:
    assert runtime.matmul_peak(seconds=0.01) > 1e8
    assert runtime.versions()["torch"] == torch.__version__
    runtime.synchronize()


def test_attention_follows_the_policy_and_says_what_it_passed_over(
    runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.policy = replace(runtime.policy, attention="fa3", attention_order=("fa3", "flash"))
    assert runtime.hardware  # looked up before nothing is asked for and speeds would be measured
    monkeypatch.delenv("AUTORESEARCH_ATTENTION")
    q = torch.randn(1, 9, 2, 4)
    runtime.attention(q, q, q, 3)
    assert runtime._attention.name == "block_local"
    assert set(runtime._attention.passed_over) == {"fa3", "flash"}


def test_attention_window_none_is_torchs_causal(runtime: ModuleType) -> None:
    q = torch.randn(1, 9, 2, 4)
    heads = q.transpose(1, 2)
    truth = F.scaled_dot_product_attention(heads, heads, heads, is_causal=True).transpose(1, 2)
    for window in (None, 8, 100):
        assert torch.equal(runtime.attention(q, q, q, window), truth)


@pytest.mark.parametrize("rows", [3, 150])  # beside SMALLEST_GRAM
def test_gram_is_a_product_with_the_own_transpose(runtime: ModuleType, rows: int) -> None:
    x, add = torch.randn(2, rows, 5), torch.randn(2, rows, rows)
    assert torch.equal(runtime.gram(x), x @ x.mT)
    polynomial = runtime.gram(x, alpha=0.5, add=add, beta=-3.0)
    torch.testing.assert_close(polynomial, -3.0 * add + 0.5 * (x @ x.mT))
    torch.testing.assert_close(runtime.gram(x[0], alpha=0.5, add=add[0], beta=-3.0), polynomial[0])


@pytest.mark.parametrize("item", ["loss", "gram"])
def test_a_kernel_that_was_asked_for_and_cannot_run_is_an_error(runtime, item):
    runtime.policy = replace(runtime.policy, **{item: "triton"})
    with pytest.raises(KernelUnavailable, match=f"{item}.*cpu\nunset AUTORESEARCH_{item.upper()}"):
        runtime.gram(torch.randn(2, 3))


def test_attention_that_was_asked_for_is_never_replaced(runtime, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "fa3")
    q = torch.randn(1, 8, 2, 16)
    with pytest.raises(AttentionUnavailable, match="fa3"):
        runtime.attention(q, q, q, 3)

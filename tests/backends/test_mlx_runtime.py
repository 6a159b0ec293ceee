"""runtime on MLX: gradients, compiling, attention, chunked loss, weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
import torch as real  # noqa: E402

from backends import mlx_runtime as runtime  # noqa: E402
from backends import mlx_torch as torch  # noqa: E402
from backends import softcap, weights  # noqa: E402
from backends.attention import reference  # noqa: E402
from backends.errors import BackendError, KernelUnavailable, WeightsMismatch  # noqa: E402
from backends.mlx_torch import nn  # noqa: E402
from backends.mlx_torch._grad_mode import differentiating  # noqa: E402
from backends.policy import Policy  # noqa: E402

F = nn.functional
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_to_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that leaves no speed to be measured, which takes a minute."""
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "mlx")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    policy(monkeypatch, compile=request.param)
    return request.param


def policy(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    plain = Policy("float32", "block_local", ("block_local",), False, "", False)
    monkeypatch.setattr(runtime, "policy", dataclasses.replace(plain, **changes), raising=False)


class Net(nn.Module):
    """A bit of everything that a step has to carry through."""

    def __init__(self, T: Any = torch) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 11)
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.drop = nn.Dropout(0.0)
        self.gain = 1.0

    def forward(self, x: Any, y: Any) -> Any:
        h = self.table(x) * self.frozen
        h = self.drop(h + self.gain * F.relu(self.hidden(h)).square())
        with torch.no_grad():
            self.steps.add_(1)
        return F.cross_entropy(self.head(h).flatten(0, 1), y.flatten())


def twin(net: Net) -> Any:
    """The same module in real torch."""

    class Twin(real.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = real.nn.Embedding(11, 8)
            self.hidden = real.nn.Linear(8, 8, bias=False)
            self.head = real.nn.Linear(8, 11)
            self.frozen = real.nn.Parameter(real.ones(8), requires_grad=False)
            self.unused = real.nn.Parameter(real.ones(2))
            self.register_buffer("steps", real.zeros((), dtype=real.int64))

        def forward(self, x: Any, y: Any) -> Any:
            h = self.table(x) * self.frozen
            h = h + real.relu(self.hidden(h)).square()
            return real.nn.functional.cross_entropy(self.head(h).flatten(0, 1), y.flatten())

    made = Twin()
    made.load_state_dict({k: real.tensor(runtime.to_numpy(v)) for k, v in net.state_dict().items()})
    return made


def batch() -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 11, (3, 5)), RNG.integers(0, 11, (3, 5))


def test_backward_gives_torchs_gradients(compiled: bool) -> None:
    runtime.seed(0)
    net = Net()
    theirs = twin(net)
    step = runtime.backward(net)
    for scale in (0.25, 0.75):
        x, y = batch()
        loss = step(runtime.from_numpy(x), runtime.from_numpy(y), scale=scale)
        expected = theirs(real.tensor(x), real.tensor(y))
        (expected * scale).backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, p in theirs.named_parameters():
        got = net.get_parameter(name).grad
        if p.grad is None:
            assert got is None, name
        else:
            np.testing.assert_allclose(
                runtime.to_numpy(got), p.grad.numpy(), 1e-4, 1e-6, err_msg=name
            )
    assert net.steps.item() == 2


def test_backward_follows_what_changes_between_steps(compiled: bool) -> None:
    net = Net()
    step = runtime.backward(net)
    x, y = (runtime.from_numpy(a) for a in batch())
    first = step(x, y).item()
    net.gain = 0.0
    assert step(x, y).item() != first  # a constant of the module is part of what is compiled
    net.gain = 1.0
    assert step(x, y).item() == first
    with torch.no_grad():
        net.head.weight.mul_(2.0)
    assert step(x, y).item() != first
    net.requires_grad_(False)
    net.head.weight.requires_grad_(True)
    net.zero_grad()
    step(x, y)
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["head.weight"]
    assert step(x[:, :3], y[:, :3]).item() > 0  # another shape


def test_gradients_have_the_parameters_type(compiled: bool) -> None:
    net = Net()
    net.table.to(torch.bfloat16)
    step = runtime.backward(net)
    x, y = (runtime.from_numpy(a) for a in batch())
    with torch.no_grad():
        net.hidden.weight.zero_()

    def forward(x: Any, y: Any) -> Any:
        return F.cross_entropy(net.head(net.table(x).float()).flatten(0, 1), y.flatten())

    net.forward = forward
    step(x, y)
    step(x, y)
    assert net.table.weight.grad.dtype is torch.bfloat16
    assert net.head.weight.grad.dtype is torch.float32


def test_dropout_draws_a_new_mask_each_step(compiled: bool) -> None:
    net = Net()
    net.drop.p = 0.5
    step = runtime.backward(net)
    x, y = (runtime.from_numpy(a) for a in batch())
    assert len({step(x, y).item() for _ in range(4)}) == 4
    runtime.seed(3)
    first = [step(x, y).item() for _ in range(2)]
    runtime.seed(3)
    assert [step(x, y).item() for _ in range(2)] == first
    net.eval()
    assert len({step(x, y).item() for _ in range(3)}) == 1


def test_a_loss_must_be_a_scalar(compiled: bool) -> None:
    net = Net()
    net.forward = lambda x, y: net.head.weight * 1
    with pytest.raises(BackendError, match="scalar"):
        runtime.backward(net)(torch.ones(1), torch.ones(1))


def test_fp16_gradients_survive_by_loss_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    policy(monkeypatch, compute_dtype="float16", loss_scaling=True)
    layer = nn.Linear(4, 4, bias=False)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.size = 1e-7

        def forward(self, x: Any, y: Any) -> Any:
            h = F.linear(x.half(), self.layer.weight.half())
            return (h * h).float().sum() * self.size

    net = Tiny()
    step = runtime.backward(net)
    x = torch.full((2, 4), 0.1)
    step(x, x)
    expected = (
        2e-7 * runtime.to_numpy(x).T @ (runtime.to_numpy(x) @ runtime.to_numpy(layer.weight).T)
    )
    np.testing.assert_allclose(runtime.to_numpy(layer.weight.grad), expected.T, rtol=0.03)
    net.size, before = 1e30, runtime.to_numpy(layer.weight.grad)
    step(x, x)  # overflows: adds nothing
    assert (runtime.to_numpy(layer.weight.grad) == before).all()


# -- compile ---------------------------------------------------------------------------------


def test_compile_keeps_updates_of_arguments(compiled: bool) -> None:
    @runtime.compile
    def update(p: Any, state: dict[str, Any], many: list[Any], lr: Any) -> Any:
        state["m"].lerp_(p, 0.5)
        p.sub_(lr * state["m"])
        for t in many:
            t.add_(1)
        return p.norm(), {"same": p}

    p, lr = nn.Parameter(torch.ones(3)), torch.tensor(0.5)
    state, many = {"m": torch.zeros(3)}, [torch.zeros(2), torch.zeros(())]
    expected_p, expected_m = 1.0, 0.0
    for i in range(3):
        lr.fill_(0.5 / (i + 1))
        with torch.no_grad():
            norm, named = update(p, state, many, lr)
        expected_m += 0.5 * (expected_p - expected_m)
        expected_p -= 0.5 / (i + 1) * expected_m
        assert p[0].item() == pytest.approx(expected_p) and state["m"][0].item() == pytest.approx(
            expected_m
        )
        assert norm.item() == pytest.approx(abs(expected_p) * 3**0.5)
        assert named["same"] is p
    assert many[0].tolist() == [3, 3] and many[1].item() == 3


def test_compile_sees_what_a_function_closes_over(compiled: bool) -> None:
    layer, factor = nn.Linear(2, 2, bias=False), torch.tensor(1.0)
    run = runtime.compile(lambda x: layer(x) * factor)
    x = torch.ones(1, 2)
    first = run(x).tolist()
    factor.fill_(2.0)
    assert run(x).tolist()[0] == pytest.approx([2 * v for v in first[0]])
    with torch.no_grad():
        layer.weight.zero_()
    assert run(x).tolist() == [[0, 0]]


def test_compile_takes_modules_methods_and_shapes(compiled: bool) -> None:
    class Adder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(()))

        @runtime.compile
        def forward(self, x: Any) -> Any:
            self.total.add_(x.sum())
            return x + self.total

    adder = Adder()
    assert adder(torch.ones(2)).tolist() == [3, 3]
    assert adder(torch.ones(3)).tolist() == [6, 6, 6]
    assert adder.total.item() == 5
    whole = runtime.compile(nn.Linear(2, 3))
    assert tuple(whole(torch.ones(4, 2)).shape) == (4, 3)


def test_python_numbers_are_constants_and_many_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    policy(monkeypatch, compile=True)
    scale = runtime.compile(lambda x, k: x * k)
    with pytest.warns(UserWarning, match="0-d tensor"):
        values = [scale(torch.ones(1), float(k)).item() for k in range(17)]
    assert values == list(range(17))


def test_random_numbers_differ_from_call_to_call(compiled: bool) -> None:
    draw = runtime.compile(lambda x: torch.rand_like(x))
    assert draw(torch.ones(3)).tolist() != draw(torch.ones(3)).tolist()


def test_torch_compile_is_the_same() -> None:
    @torch.compile(dynamic=False, fullgraph=True)
    def double(x: Any) -> Any:
        return x * 2

    assert double(torch.ones(2)).tolist() == [2, 2]


# -- attention -------------------------------------------------------------------------------


def qkv(shape: tuple[int, int, int, int, int]) -> list[np.ndarray]:
    b, t, h, k, d = shape
    return [RNG.standard_normal((b, t, n, d)).astype(np.float32) for n in (h, k, k)]


@pytest.mark.parametrize("window", [None, 0, 1, 5, 127, 128, 200, 298, 299, 1000])
@pytest.mark.parametrize(
    "shape", [(2, 300, 4, 2, 8), (1, 129, 3, 3, 4), (2, 1, 2, 1, 4), (1, 5, 2, 1, 4)]
)
def test_attention_equals_the_reference(
    shape: tuple[int, int, int, int, int], window: int | None
) -> None:
    arrays = qkv(shape)
    got = runtime.to_numpy(runtime.attention(*(runtime.from_numpy(a) for a in arrays), window))
    np.testing.assert_allclose(got, reference.attention(*arrays, window), 1e-4, 2e-6)


@pytest.mark.parametrize("window", [None, 3, 140])
def test_attention_gradients_equal_torchs(window: int | None) -> None:
    from backends.attention import block_local

    arrays, upstream = (
        qkv((1, 290, 4, 2, 8)),
        RNG.standard_normal((1, 290, 4, 8)).astype(np.float32),
    )

    def loss(given: list[Any]) -> Any:
        out = runtime.attention(*(torch.Tensor(a) for a in given), window)
        return (out * torch.tensor(upstream)).sum().array

    got = mx.grad(loss)([mx.array(a) for a in arrays])
    held = [real.tensor(a, requires_grad=True) for a in arrays]
    out = block_local.attention(*held, 289 if window is None else window)
    out.backward(real.tensor(upstream))
    for g, t in zip(got, held, strict=True):
        np.testing.assert_allclose(np.array(g), t.grad.numpy(), 1e-3, 2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_attention_gradients_in_blocks_as_on_cpus_and_on_gpus(on_gpu: bool, dtype: str) -> None:
    from backends import mlx_attention

    q, k, v, dy = (a.swapaxes(1, 2) for a in (*qkv((2, 290, 2, 2, 16)), qkv((2, 290, 2, 2, 16))[0]))
    given = [mx.array(a).astype(getattr(mx, dtype)) for a in (q, k, v)]
    run = mlx_attention._blockwise(140, on_gpu)

    def total(*arrays: mx.array) -> mx.array:
        return (run(*arrays)[0].astype(mx.float32) * mx.array(dy)).sum()

    found = mx.grad(total, argnums=(0, 1, 2))(*given)
    rounded = [np.array(a.astype(mx.float32)).swapaxes(1, 2).astype(np.float64) for a in given]
    truth = reference.gradients(*rounded, 140, dy.swapaxes(1, 2).astype(np.float64))
    tolerance = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    for mine, theirs in zip(found, truth, strict=True):
        assert mine.dtype == getattr(mx, dtype)
        mine = np.array(mine.astype(mx.float32)).swapaxes(1, 2)
        assert np.abs(mine - theirs).max() < tolerance * np.abs(theirs).max()


def test_attention_window_is_inclusive() -> None:
    """Query i sees exactly window + 1 keys."""
    q, v = np.zeros((1, 400, 1, 2), np.float32), np.zeros((1, 400, 1, 2), np.float32)
    v[0, 50] = 1.0
    out = runtime.to_numpy(runtime.attention(*(runtime.from_numpy(a) for a in (q, q, v)), 130))
    assert np.nonzero(out[0, :, 0, 0])[0].tolist() == list(range(50, 181))


# -- loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("cap", [None, 15.0])
def test_softcap_cross_entropy_equals_torchs(dtype: str, reduction: str, cap: float | None) -> None:
    x, w = RNG.standard_normal((3, 7, 8)), RNG.standard_normal((20, 8)) * 3
    y = RNG.integers(-1, 20, (3, 7))
    theirs = [real.tensor(a).to(getattr(real, dtype)).requires_grad_() for a in (x, w)]
    theirs[1] = theirs[1].detach().float().requires_grad_()
    expected = softcap.softcap_cross_entropy(*theirs, real.tensor(y), cap, reduction)
    up = real.linspace(0.5, 2, expected.numel()).view(expected.shape)
    expected.backward(up)

    def loss(arrays: list[Any]) -> Any:
        a, b = (torch.Tensor(v) for v in arrays)
        out = runtime.softcap_cross_entropy(a, b, torch.tensor(y), cap, reduction)
        return (out * torch.tensor(up.numpy())).sum().array, out.array

    ours = [mx.array(t.detach().float().numpy()) for t in theirs]
    ours[0] = ours[0].astype(getattr(mx, dtype))
    with differentiating():
        (_, out), gradients = mx.value_and_grad(loss)(ours)
    loose = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(np.array(out), expected.detach().numpy(), loose, loose)
    for g, t in zip(gradients, theirs, strict=True):
        assert str(g.dtype).split(".")[-1] == str(t.dtype).split(".")[-1]
        np.testing.assert_allclose(
            np.array(g.astype(mx.float32)), t.grad.float().numpy(), loose * 10, loose * 2
        )


def test_gram_equals_torchs() -> None:
    a, b = RNG.standard_normal((2, 7, 5)), RNG.standard_normal((2, 7, 7))
    x, add = (real.tensor(t).float() for t in (a, b))
    ours = [torch.Tensor(mx.array(t.numpy())) for t in (x, add)]
    out = runtime.to_numpy(runtime.gram(ours[0], alpha=0.5, add=ours[1], beta=-3.0))
    np.testing.assert_allclose(out, (-3.0 * add + 0.5 * (x @ x.mT)).numpy(), 1e-5, 1e-5)
    np.testing.assert_allclose(runtime.to_numpy(runtime.gram(ours[0])), x @ x.mT, 1e-5, 1e-5)


def test_softcap_cross_entropy_without_targets_or_reduction() -> None:
    x, w = torch.ones(4, 8), torch.ones(20, 8)
    ignored = torch.full((4,), -1)
    assert runtime.softcap_cross_entropy(x, w, ignored, 15.0).item() == 0
    with pytest.raises(BackendError, match="average"):
        runtime.softcap_cross_entropy(x, w, ignored, 15.0, "average")


def peak(function: Any, *arrays: Any) -> int:
    mx.eval(arrays)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    result = function(*arrays)
    mx.eval(result)
    return mx.get_peak_memory() - before


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("compile_", [False, True])
def test_softcap_cross_entropy_never_holds_all_logits(reduction: str, compile_: bool) -> None:
    n, vocabulary, width = 2048, 2048, 16
    logits = 4 * n * vocabulary
    x, w = (mx.random.normal(s) * 0.1 for s in ((n, width), (vocabulary, width)))
    y = mx.random.randint(0, vocabulary, (n,))

    def chunked(x: Any, w: Any) -> Any:
        t = [torch.Tensor(v) for v in (x, w, y)]
        with differentiating():
            return runtime.softcap_cross_entropy(*t, 15.0, reduction).mean().array

    def plain(x: Any, w: Any) -> Any:
        capped = 15.0 * mx.tanh(x @ w.T / 15.0)
        picked = mx.take_along_axis(capped, y[:, None], axis=1)[:, 0]
        return mx.mean(mx.logsumexp(capped, axis=-1) - picked)

    runs = [mx.value_and_grad(f, argnums=(0, 1)) for f in (chunked, plain)]
    if compile_:
        runs = [mx.compile(r) for r in runs]
    ours, theirs = (peak(r, x, w) for r in runs)
    assert ours < 0.8 * logits
    assert ours < 0.35 * theirs


# -- arrays, weights, figures ----------------------------------------------------------------


def test_arrays_go_in_and_out() -> None:
    assert runtime.from_numpy(np.arange(3, dtype=np.uint16)).dtype is torch.int64
    assert runtime.from_numpy(np.zeros(3)).dtype is torch.float32
    half = torch.tensor([1.0, 2.5, -3.0], dtype=torch.bfloat16)
    assert runtime.to_numpy(half).dtype == np.float32
    bits = runtime.to_transport(half.view(3, 1).mT)
    assert bits.dtype == np.uint16 and bits.flags["C_CONTIGUOUS"]
    assert (bits.astype(np.uint32) << 16).view(np.float32).tolist() == [[1.0, 2.5, -3.0]]
    assert runtime.to_transport(torch.ones(2)).dtype == np.float32
    assert runtime.to_transport(torch.ones(2, dtype=torch.float16)).dtype == np.float16


def modules() -> Iterator[Any]:
    for T in (torch, real):

        class Model(T.nn.Module):
            def __init__(self, T: Any = T) -> None:
                super().__init__()
                self.table = T.nn.Embedding(5, 4).to(T.bfloat16)
                self.layer = T.nn.Linear(4, 3)
                self.layer_again = self.layer
                self.register_buffer("count", T.tensor(7))
                self.register_buffer("scratch", T.zeros(2), persistent=False)

        yield Model()


@pytest.mark.parametrize("direction", ["to MLX", "to torch", "MLX to MLX"])
def test_weights_are_interchangeable(direction: str, tmp_path: Path) -> None:
    ours, theirs = modules()
    path = tmp_path / "weights.st"
    saved, target = {"to MLX": (theirs, ours), "to torch": (ours, theirs)}.get(
        direction, (ours, next(modules()))
    )
    (weights.save_weights if saved is theirs else runtime.save_weights)(saved, path)
    with (real if target is theirs else torch).no_grad():
        target.count.fill_(0)
    (weights.load_weights if target is theirs else runtime.load_weights)(target, path)
    assert list(saved.state_dict()) == list(target.state_dict())
    for (name, a), b in zip(saved.state_dict().items(), target.state_dict().values(), strict=True):
        assert str(a.dtype) == str(b.dtype), name
        assert a.float().tolist() == b.float().tolist(), name


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    model = nn.Linear(3, 2)
    with pytest.raises(WeightsMismatch, match="can't read"):
        runtime.load_weights(model, path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsMismatch, match="can't read"):
        runtime.load_weights(model, path)
    runtime.save_weights(nn.Linear(3, 4, bias=False), path)
    before = model.weight.tolist()
    with pytest.raises(WeightsMismatch, match=r"missing: bias.*of another shape: weight \(4, 3\)"):
        runtime.load_weights(model, path)
    assert model.weight.tolist() == before


def test_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "compute_dtype", torch.float32, raising=False)
    runtime.reset_peak_memory()
    kept = torch.ones(1024, 1024) + 1
    kept.sum().item()
    runtime.synchronize()
    assert 4 <= runtime.peak_memory_mb() < 1000
    assert runtime.matmul_peak(0.01) > 1e6
    assert runtime.versions()["mlx"] == mx.__version__
    assert runtime.name == "mlx" and str(runtime.device) == "mlx"


def test_out_of_memory_is_recognised() -> None:
    """By MLX's own words; really running out ends a process on Linux."""
    for said in (
        "[malloc_or_wait] Unable to allocate 9 bytes.",
        "[metal::malloc] Attempting to allocate 9 bytes",
    ):
        assert runtime.is_out_of_memory(RuntimeError(said))
    assert runtime.is_out_of_memory(MemoryError())
    assert not runtime.is_out_of_memory(ValueError("no"))
    assert not runtime.is_out_of_memory(RuntimeError("shapes differ"))


def test_in_place_updates_do_not_grow_a_graph() -> None:
    """An average that nobody reads is computed step by step, not kept as a chain."""
    net = Net()
    step = runtime.backward(net)
    average = torch.zeros(8, 8)
    x, y = (runtime.from_numpy(a) for a in batch())
    for _ in range(3):
        step(x, y)
        average.lerp_(net.hidden.weight.detach(), 0.1)
    held = mx.get_active_memory()
    for _ in range(60):
        step(x, y)
        average.lerp_(torch.rand(8, 8) + net.hidden.weight, 0.1)
    assert mx.get_active_memory() - held < 64 * 1024


def test_linear_casts_the_weight_and_knows_no_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = (real.tensor(RNG.standard_normal(s)).float() for s in ((2, 3, 16), (32, 16)))
    ours = [torch.Tensor(mx.array(t.numpy())) for t in (x, weight)]
    out = runtime.to_numpy(runtime.linear(*ours))
    np.testing.assert_allclose(out, (x @ weight.T).numpy(), 1e-5, 1e-5)
    half = runtime.linear(ours[0].to(torch.bfloat16), ours[1])
    assert half.dtype == torch.bfloat16
    monkeypatch.setattr(
        runtime, "policy", dataclasses.replace(runtime.policy, linear="fp8"), raising=False
    )
    with pytest.raises(KernelUnavailable, match="MLX has no FP8"):
        runtime.linear(*ours)

"""nn, optim and init of the torch spelling over MLX, and the list of all exported names."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
import torch  # noqa: E402

from backends import mlx_torch  # noqa: E402
from tests.backends import mlx_cases, mlx_code  # noqa: E402
from tests.backends.test_mlx_torch import check, given, mlx_gradients, numpy  # noqa: E402

BOTH = (torch, mlx_torch)
RNG = np.random.default_rng(0)
X = mlx_cases.make("normal", (2, 6, 8), RNG)
TOKENS = RNG.integers(0, 7, (2, 5))

MODULES: dict[str, Callable[[Any], Any]] = {
    "Linear": lambda nn: nn.Linear(8, 5),
    "Linear without bias": lambda nn: nn.Linear(8, 5, bias=False),
    "LayerNorm": lambda nn: nn.LayerNorm(8),
    "LayerNorm without bias": lambda nn: nn.LayerNorm((6, 8), bias=False),
    "RMSNorm": lambda nn: nn.RMSNorm(8),
    "RMSNorm eps": lambda nn: nn.RMSNorm(8, eps=1e-3, elementwise_affine=False),
    "Conv1d": lambda nn: nn.Conv1d(6, 4, 3, padding=1, groups=2),
    "Identity": lambda nn: nn.Identity(),
    "Dropout": lambda nn: nn.Dropout(0.5).eval(),
    "Flatten": lambda nn: nn.Flatten(),
    "ReLU": lambda nn: nn.ReLU(),
    "ReLU6": lambda nn: nn.ReLU6(),
    "SiLU": lambda nn: nn.SiLU(),
    "GELU": lambda nn: nn.GELU(),
    "GELU tanh": lambda nn: nn.GELU(approximate="tanh"),
    "Mish": lambda nn: nn.Mish(),
    "Tanh": lambda nn: nn.Tanh(),
    "Sigmoid": lambda nn: nn.Sigmoid(),
    "Hardswish": lambda nn: nn.Hardswish(),
    "ELU": lambda nn: nn.ELU(0.5),
    "LeakyReLU": lambda nn: nn.LeakyReLU(0.2),
    "Softplus": lambda nn: nn.Softplus(),
    "GLU": lambda nn: nn.GLU(-1),
    "Softmax": lambda nn: nn.Softmax(dim=-1),
    "LogSoftmax": lambda nn: nn.LogSoftmax(-1),
    "Sequential": lambda nn: nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)),
}
LOSSES = {
    "CrossEntropyLoss": lambda nn: nn.CrossEntropyLoss(ignore_index=0),
    "MSELoss": lambda nn: nn.MSELoss(),
    "L1Loss": lambda nn: nn.L1Loss(reduction="sum"),
}


def share(theirs: Any, ours: Any) -> None:
    """Give the MLX module the torch module's weights, by name."""
    state = {k: mlx_torch.tensor(v.numpy()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)


@pytest.mark.parametrize("name", MODULES)
def test_module_equals_torch(name: str) -> None:
    theirs, ours = (MODULES[name](T.nn) for T in BOTH)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    share(theirs, ours)
    check(name, theirs(torch.tensor(X)), ours(mlx_torch.tensor(X)), "float32")


def weighed(T: Any, name: str) -> Any:
    """A module of the table whose input is a parameter too, and a scalar of what it gives."""

    class Net(T.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MODULES[name](T.nn)
            self.input = T.nn.Parameter(T.tensor(X))

        def forward(self, x: Any, weights: Any) -> Any:
            return (self.inner(self.input).float() * weights).sum()

    return Net()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_a_module_equal_torchs(name: str, dtype: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "mlx")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    from backends import mlx_runtime

    theirs, ours = (weighed(T, name) for T in BOTH)
    share(theirs, ours)
    theirs, ours = theirs.to(getattr(torch, dtype)), ours.to(getattr(mlx_torch, dtype))
    shape = theirs.inner(theirs.input).shape
    weights = np.random.default_rng(1).normal(size=tuple(shape)).astype(np.float32)
    expected = theirs(None, torch.from_numpy(weights))
    expected.backward()
    x = mlx_torch.tensor(X)
    got = mlx_runtime.backward(ours)(x, mlx_torch.tensor(weights))
    check(name, expected, got, dtype, loose=4)
    mine = dict(ours.named_parameters())
    for key, p in theirs.named_parameters():
        check(f"{name}: {key}", p.grad, mine[key].grad, dtype, loose=4)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_module_equals_torch(name: str) -> None:
    target = TOKENS.reshape(-1) if name == "CrossEntropyLoss" else X[0] * 0.5
    x = X.reshape(-1, 8)[: len(target)] if name == "CrossEntropyLoss" else X[0]
    outs = [LOSSES[name](T.nn)(T.tensor(x), T.tensor(target)) for T in BOTH]
    check(name, *outs, "float32")


def test_embedding_equals_torch() -> None:
    theirs, ours = (T.nn.Embedding(7, 4) for T in BOTH)
    share(theirs, ours)
    check("Embedding", theirs(torch.tensor(TOKENS)), ours(mlx_torch.tensor(TOKENS)), "float32")


def build(T: Any) -> Any:
    """A module with everything that has a name."""
    nn = T.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(T.ones(3))
            self.register_buffer("table", T.arange(4, dtype=T.float32))
            self.register_buffer("scratch", T.zeros(2), persistent=False)
            self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
            self.by_name = nn.ModuleDict({"a": nn.Linear(3, 2, bias=False), "b": nn.Identity()})
            self.vectors = nn.ParameterList([T.zeros(2), T.ones(3)])
            self.named = nn.ParameterDict({"k": T.zeros(1)})
            self.chain = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
            self.tied = self.by_name["a"]
            self.nothing = None

    return Net()


def test_names_are_torchs() -> None:
    theirs, ours = (build(T) for T in BOTH)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(theirs, walk)()] == [n for n, _ in getattr(ours, walk)()], (
            walk
        )
    for walk in ("parameters", "buffers", "modules", "children"):
        assert len(list(getattr(theirs, walk)())) == len(list(getattr(ours, walk)())), walk
    assert ours.get_submodule("blocks.1") is ours.blocks[1]
    assert ours.get_parameter("blocks.1.weight") is ours.blocks[1].weight
    assert [type(m).__name__ for m in ours.modules()] == [
        type(m).__name__ for m in theirs.modules()
    ]


def test_containers_behave() -> None:
    for T in BOTH:
        net = build(T)
        assert len(net.blocks) == 2 and len(net.blocks[:1]) == 1 and net.blocks[-1] is net.blocks[1]
        assert "a" in net.by_name and list(net.by_name.keys()) == ["a", "b"]
        assert [k for k, _ in net.by_name.items()] == list(net.by_name)
        net.blocks.append(T.nn.Identity())
        net.by_name["c"] = T.nn.Identity()
        assert len(net.blocks) == 3 and len(net.by_name) == 3
        assert len(net.chain) == 2 and isinstance(net.chain[0], T.nn.Linear)
        assert "Linear" in repr(net)


def test_modes_conversions_and_freezing() -> None:
    for T in BOTH:
        net = build(T)
        assert not any(m.training for m in net.eval().modules())
        assert all(m.training for m in net.train().modules())
        net.to(T.bfloat16)
        assert net.scale.dtype is T.bfloat16 and net.table.dtype is T.bfloat16
        net.float()
        assert net.scale.dtype is T.float32
        seen: list[str] = []
        net.apply(lambda m, seen=seen: seen.append(type(m).__name__))
        assert seen[-1] == "Net"
        net.requires_grad_(False)
        assert not any(p.requires_grad for p in net.parameters())
        net.scale.grad = T.ones(3)
        net.zero_grad()
        assert net.scale.grad is None
        with pytest.raises(TypeError):
            net.scale = T.ones(3)
        net.table = T.zeros(4)
        assert "table" in dict(net.named_buffers())
        twin = copy.deepcopy(net)
        assert twin.scale is not net.scale and twin.blocks[0].weight is not net.blocks[0].weight


def test_load_state_dict_refuses_what_does_not_fit() -> None:
    for T in BOTH:
        layer = T.nn.Linear(3, 2)
        with pytest.raises(RuntimeError, match="bias"):
            layer.load_state_dict({"weight": T.zeros(2, 3)})
        with pytest.raises(RuntimeError, match="extra"):
            layer.load_state_dict({**layer.state_dict(), "extra": T.zeros(1)})
        with pytest.raises(RuntimeError):
            layer.load_state_dict({**layer.state_dict(), "weight": T.zeros(3, 3)})
        layer.load_state_dict({"weight": T.zeros(2, 3)}, strict=False)
        assert layer.weight.sum().item() == 0


OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "AdamW": lambda T, p: T.optim.AdamW(p, lr=0.03, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.1),
    "AdamW defaults": lambda T, p: T.optim.AdamW(p),
    "AdamW amsgrad": lambda T, p: T.optim.AdamW(p, amsgrad=True),
    "Adam": lambda T, p: T.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "SGD": lambda T, p: T.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda T, p: T.optim.SGD(
        p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_equals_torch(name: str, dtype: str) -> None:
    start = mlx_cases.make("normal", (4, 5), RNG)
    gradients = [mlx_cases.make("normal", (4, 5), RNG) for _ in range(10)]
    ends = []
    for T in BOTH:
        p = T.nn.Parameter(given(T, start, "normal", dtype))
        frozen = T.nn.Parameter(T.ones(2))
        optimizer = OPTIMIZERS[name](T, [{"params": [p]}, {"params": [frozen], "lr": 0.5}])
        for g in gradients:
            p.grad = given(T, g, "normal", dtype)
            optimizer.step()
            optimizer.zero_grad()
            assert p.grad is None
        ends.append(p)
        assert frozen.tolist() == [1, 1]
    check(name, ends[0], ends[1], dtype, loose=4)


def test_optimizer_state_survives() -> None:
    for T in BOTH:
        p = T.nn.Parameter(T.ones(3))
        first = T.optim.AdamW([p], lr=0.1)
        p.grad = T.ones(3)
        first.step()
        second = T.optim.AdamW([p], lr=0.5)
        second.load_state_dict(first.state_dict())
        assert second.param_groups[0]["lr"] == 0.1
        assert second.state[p]["exp_avg"].tolist() == pytest.approx([0.1] * 3)
        with pytest.raises(ValueError):
            T.optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)


def test_adam_scalars_are_not_cast_to_bfloat16() -> None:
    """0.999 in bfloat16 is 1: the second moment would never move."""
    p = mlx_torch.nn.Parameter(mlx_torch.ones(4, dtype=mlx_torch.bfloat16))
    optimizer = mlx_torch.optim.AdamW([p], betas=(0.9, 0.999))
    p.grad = mlx_torch.ones(4, dtype=mlx_torch.bfloat16)
    optimizer.step()
    assert optimizer.state[p]["exp_avg_sq"][0].item() == pytest.approx(1e-3, rel=5e-3)


def test_clip_grad() -> None:
    results = []
    for T in BOTH:
        ps = [T.nn.Parameter(T.zeros(3)), T.nn.Parameter(T.zeros(2)), T.nn.Parameter(T.zeros(1))]
        ps[0].grad, ps[1].grad = T.tensor([3.0, 4.0, 0.0]), T.tensor([12.0, 0.0])
        total = T.nn.utils.clip_grad_norm_(ps, 1.0)
        results.append([total, ps[0].grad, ps[1].grad])
        T.nn.utils.clip_grad_value_(ps, 0.5)
        results[-1].append(ps[1].grad)
        results[-1].append(T.nn.utils.get_total_norm([ps[0].grad, ps[1].grad]))
        results[-1].append(T.nn.utils.parameters_to_vector([ps[0].grad, ps[1].grad]))
    check("clip", *results, "float32")


# name -> (call, mean, standard deviation, lowest, highest) of a (300, 200) weight
S = math.sqrt
INITS: dict[str, tuple[Callable[[Any, Any], Any], float, float, float, float]] = {
    "uniform_": (lambda i, w: i.uniform_(w, -2, 1), -0.5, 3 / S(12), -2, 1),
    "normal_": (lambda i, w: i.normal_(w, 1.0, 0.5), 1.0, 0.5, -9, 9),
    "trunc_normal_": (lambda i, w: i.trunc_normal_(w, std=0.5, a=-1, b=1), 0.0, 0.44, -1, 1),
    "constant_": (lambda i, w: i.constant_(w, 0.3), 0.3, 0, 0.3, 0.3),
    "zeros_": (lambda i, w: i.zeros_(w), 0, 0, 0, 0),
    "ones_": (lambda i, w: i.ones_(w), 1, 0, 1, 1),
    "eye_": (lambda i, w: i.eye_(w), 1 / 300, 0.0576, 0, 1),
    "xavier_uniform_": (lambda i, w: i.xavier_uniform_(w), 0, S(2 / 500), -S(6 / 500), S(6 / 500)),
    "xavier_normal_": (lambda i, w: i.xavier_normal_(w), 0, S(2 / 500), -9, 9),
    "kaiming_uniform_": (
        lambda i, w: i.kaiming_uniform_(w),
        0,
        S(2 / 200),
        -S(6 / 200),
        S(6 / 200),
    ),
    "kaiming_normal_": (
        lambda i, w: i.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
        0,
        S(2 / 300),
        -9,
        9,
    ),
    "orthogonal_": (lambda i, w: i.orthogonal_(w), 0, S(1 / 300), -9, 9),
}


@pytest.mark.parametrize("name", INITS)
def test_init_draws_torchs_distribution(name: str) -> None:
    call, mean, std, low, high = INITS[name]
    for T in BOTH:
        T.manual_seed(0)
        w = T.nn.Parameter(T.empty(300, 200))
        assert call(T.nn.init, w) is w
        a = numpy(w)
        assert abs(a.mean() - mean) < 0.015
        assert abs(a.std() - std) < 0.01
        assert a.min() >= low - 1e-5 and a.max() <= high + 1e-5
    if name == "orthogonal_":
        assert np.allclose(a.T @ a, np.eye(200), atol=1e-4)


def test_gains_equal_torchs() -> None:
    for kind in ("linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert mlx_torch.nn.init.calculate_gain(kind) == pytest.approx(
            torch.nn.init.calculate_gain(kind)
        )


def test_fresh_layers_are_drawn_as_torchs() -> None:
    for T in BOTH:
        T.manual_seed(0)
        linear, table = T.nn.Linear(100, 200), T.nn.Embedding(200, 100)
        assert abs(numpy(linear.weight).std() - 0.1 / S(3)) < 2e-3
        assert abs(numpy(linear.weight)).max() <= 0.1
        assert abs(numpy(table.weight).std() - 1) < 0.02


@pytest.mark.parametrize(
    "name", ["rand", "randn", "randint", "randperm", "bernoulli", "multinomial"]
)
def test_random_functions(name: str) -> None:
    calls = {
        "rand": lambda T: T.rand(4000),
        "randn": lambda T: T.randn(4000),
        "randint": lambda T: T.randint(2, 7, (4000,)),
        "randperm": lambda T: T.randperm(100),
        "bernoulli": lambda T: T.bernoulli(T.full((4000,), 0.3)),
        "multinomial": lambda T: T.multinomial(T.tensor([0.2, 0.0, 0.8]), 4000, replacement=True),
    }
    stats = []
    for T in BOTH:
        T.manual_seed(1)
        drawn = calls[name](T)
        a = numpy(drawn)
        stats.append((str(drawn.dtype), a.shape, a.mean(), a.std()))
        T.manual_seed(1)
        assert (numpy(calls[name](T)) == a).all()
    assert stats[0][:2] == stats[1][:2]
    assert stats[0][2:] == pytest.approx(stats[1][2:], abs=0.08)


def test_random_writes_and_likes() -> None:
    for T in BOTH:
        T.manual_seed(0)
        x = T.empty(2000)
        assert abs(x.uniform_(-1, 1).mean().item()) < 0.06
        assert abs(x.normal_(2, 0.1).mean().item() - 2) < 0.02
        assert abs(x.bernoulli_(0.25).mean().item() - 0.25) < 0.05
        half = T.zeros(5, dtype=T.bfloat16)
        for like in (T.rand_like, T.randn_like, T.empty_like):
            assert like(half).dtype is T.bfloat16
        assert T.multinomial(T.tensor([0.2, 0.3, 0.5]), 3).sort().values.tolist() == [0, 1, 2]


def test_dropout_scales_and_hits_its_rate() -> None:
    x = mlx_torch.ones(20000)
    mlx_torch.manual_seed(0)
    kept = mlx_torch.nn.Dropout(0.25)(x)
    assert set(np.unique(numpy(kept))) == {0.0, np.float32(1 / 0.75)}
    assert abs(numpy(kept).mean() - 1) < 0.02
    (gradient,) = mlx_gradients(
        lambda T, t: T.nn.functional.dropout(t, 0.5),
        [mlx_torch.ones(64)],
        [np.ones(64, np.float32)],
    )
    assert set(np.unique(numpy(gradient))) == {0.0, 2.0}


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_finfo(name: str) -> None:
    ours, theirs = (T.finfo(getattr(T, name)) for T in (mlx_torch, torch))
    for limit in ("eps", "max", "min", "tiny", "bits"):
        assert getattr(ours, limit) == getattr(theirs, limit), limit


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_iinfo(name: str) -> None:
    ours, theirs = (T.iinfo(getattr(T, name)) for T in (mlx_torch, torch))
    assert (ours.min, ours.max, ours.bits) == (theirs.min, theirs.max, theirs.bits)


# Names whose tests are here or in test_mlx_errors and test_mlx_runtime, not in the tables.
OWN = {
    "torch": [
        "Size",
        "Tensor",
        "compile",
        "device",
        "dtype",
        "e",
        "enable_grad",
        "finfo",
        "get_default_dtype",
        "iinfo",
        "inf",
        "inference_mode",
        "is_grad_enabled",
        "is_inference_mode_enabled",
        "linalg",
        "nan",
        "nn",
        "no_grad",
        "optim",
        "pi",
        "set_float32_matmul_precision",
        "manual_seed",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "randint",
        "randperm",
        "bernoulli",
        "multinomial",
        "empty",
        "empty_like",
        "from_numpy",
        "float",
        "half",
        "long",
        "int",
        "short",
    ],
    "Tensor": [
        "array",
        "assign",
        "backward",
        "requires_grad_",
        "requires_grad",
        "grad",
        "is_cuda",
        "is_leaf",
        "item",
        "bernoulli_",
        "normal_",
        "uniform_",
        "bernoulli",
        "multinomial",
        "device",
        "dtype",
        "itemsize",
        "nbytes",
        "where",
    ],
    "F": [],
    "nn": [
        "Buffer",
        "Module",
        "ModuleDict",
        "ModuleList",
        "Parameter",
        "ParameterDict",
        "ParameterList",
        "Embedding",
        "functional",
        "init",
        "utils",
    ],
}


def test_every_exported_name_is_tested() -> None:
    tables = set(mlx_cases.CALLS)
    for group in (mlx_code.CREATE, mlx_code.TENSOR, mlx_code.FUNCTIONAL):
        tables |= {name.split(" ")[0] for name in group}
    T, F = mlx_torch, mlx_torch.nn.functional
    dtypes = {n for n in T.__all__ if isinstance(getattr(T, n), T.dtype)}
    assert set(T.__all__) - dtypes - tables - set(OWN["torch"]) == set()
    methods = {n for n in dir(T.Tensor) if not n.startswith("_")}
    inplace = {n for n in methods if n.endswith("_") and n[:-1] in tables}
    assert methods - tables - inplace - set(OWN["Tensor"]) == set()
    assert set(F.__all__) - set(mlx_code.FUNCTIONAL) - set(OWN["F"]) == set()
    layers = {n.split(" ")[0] for n in (*MODULES, *LOSSES)}
    assert set(T.nn.__all__) - layers - set(OWN["nn"]) == set()
    assert {n for n in vars(T.nn.init) if n.endswith("_") and not n.startswith("_")} == set(INITS)
    assert {o.split(" ")[0] for o in OPTIMIZERS} | {"Optimizer"} == set(T.optim.__all__)


def test_every_exported_name_is_torchs() -> None:
    """A spelling that real torch lacks would make a train.py that runs on MLX only."""
    T = mlx_torch
    ours = {"array", "assign"}
    assert [n for n in T.__all__ if not hasattr(torch, n)] == []
    assert [n for n in T.nn.__all__ if not hasattr(torch.nn, n)] == []
    assert [n for n in T.nn.functional.__all__ if not hasattr(torch.nn.functional, n)] == []
    named = {n for n in dir(T.Tensor) if not n.startswith("_")} - ours
    assert [n for n in sorted(named) if not hasattr(torch.Tensor, n)] == []

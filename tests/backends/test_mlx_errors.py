"""Mistakes under MLX are errors that say what to write instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
import torch as real  # noqa: E402

from backends import mlx_torch as torch  # noqa: E402
from backends.errors import BackendError, UnsupportedOperation  # noqa: E402
from backends.mlx_torch import nn  # noqa: E402
from backends.mlx_torch._compile import Compiled  # noqa: E402
from backends.mlx_torch._errors import (  # noqa: E402
    MissingName,
    NoAutograd,
    TracedValue,
    ViewWrite,
    WrongFramework,
)

F = nn.functional


@pytest.mark.parametrize(
    ("look_up", "near"),
    [
        (lambda: torch.sigmod, "sigmoid"),
        (lambda: torch.foreach_copy, "_foreach_copy_"),
        (lambda: F.scaled_dot_product_atention, "scaled_dot_product_attention"),
        (lambda: nn.Liner, "Linear"),
        (lambda: nn.init.xavier_unifrom_, "xavier_uniform_"),
        (lambda: nn.utils.clip_gradnorm_, "clip_grad_norm_"),
        (lambda: torch.optim.AdaW, "AdamW"),
        (lambda: torch.optim.Muon, "AdamW"),
        (lambda: torch.linalg.vectornorm, "vector_norm"),
        (lambda: torch.zeros(2).unsqeeze, "unsqueeze"),
        (lambda: nn.Linear(2, 2).wieght, "weight"),
        (lambda: torch.cuda, "runtime.device"),
        (lambda: torch.autograd, "runtime.backward"),
        (lambda: torch.float64, "float32"),
    ],
)
def test_a_missing_name_lists_what_is_near(look_up: Any, near: str) -> None:
    with pytest.raises(MissingName) as caught:
        look_up()
    assert near in str(caught.value)
    assert isinstance(caught.value, (AttributeError, UnsupportedOperation))


def test_hasattr_and_getattr_still_work() -> None:
    assert not hasattr(torch, "compiler_of_dreams")
    assert getattr(torch.zeros(1), "kind", None) is None
    assert not hasattr(nn.Linear(1, 1), "__wrapped__")


@pytest.mark.parametrize(
    "use",
    [
        lambda t: torch.zeros(2) + t,
        lambda t: t + torch.zeros(2),
        lambda t: torch.exp(t),
        lambda t: torch.cat([torch.zeros(2), t]),
        lambda t: F.silu(t),
        lambda t: nn.Linear(2, 2)(t),
        lambda t: torch.where(t > 0, t, 0.0),
        lambda t: torch.zeros(2).copy_(t),
        lambda t: nn.Parameter(t),
        lambda t: torch.optim.AdamW([t]),
    ],
)
def test_real_torch_is_recognised(use: Any) -> None:
    with pytest.raises((WrongFramework, TypeError)) as caught:
        use(real.zeros(2))
    if isinstance(caught.value, WrongFramework):
        assert "from backends import torch" in str(caught.value)


def test_real_dtypes_and_devices_are_recognised() -> None:
    for use in (
        lambda: torch.zeros(2, dtype=real.float32),
        lambda: torch.zeros(2).to(real.bfloat16),
        lambda: torch.zeros(2, device=real.device("cpu")),
        lambda: nn.Linear(2, 2).to(real.bfloat16),
    ):
        with pytest.raises(WrongFramework, match="from backends import torch"):
            use()
    with pytest.raises(WrongFramework, match=r"runtime\.device"):
        torch.zeros(2, device="cuda")


def test_other_arrays_are_told_how_to_come_in() -> None:
    with pytest.raises(WrongFramework, match="from_numpy"):
        torch.exp(np.zeros(2))
    with pytest.raises(WrongFramework, match=r"torch\.tensor"):
        torch.exp(mx.zeros(2))
    with pytest.raises(WrongFramework, match="float32"):
        torch.from_numpy(np.zeros(2))


def test_autograd_says_what_to_write() -> None:
    for use in (
        lambda: torch.zeros(()).backward(),
        lambda: torch.zeros(2).requires_grad_(),
        lambda: torch.zeros(2).grad_fn,
    ):
        with pytest.raises((NoAutograd, MissingName), match=r"runtime\.backward|nn\.Parameter"):
            use()


X = torch.ones(4, 6)


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x.view(-1),
        lambda x: x.reshape(6, 4),
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(1, 0),
        lambda x: x.mT,
        lambda x: x.T,
        lambda x: x[0],
        lambda x: x[:, 1:3],
        lambda x: x[..., None],
        lambda x: x.chunk(2)[0],
        lambda x: x.split(2, 1)[0],
        lambda x: x.unbind(0)[1],
        lambda x: x.expand(2, 4, 6),
        lambda x: x.unsqueeze(0),
        lambda x: x.flatten(),
        lambda x: x.narrow(0, 0, 2),
        lambda x: x.detach(),
        lambda x: x.data,
        lambda x: x[1:].contiguous(),
        lambda x: x.view(2, 12).mT[0],
    ],
)
def test_a_write_to_a_view_says_what_to_write(take: Any) -> None:
    x = torch.ones(4, 6)
    for write in (
        lambda v: v.add_(1),
        lambda v: v.__iadd__(1),
        lambda v: v.zero_(),
        lambda v: v.__setitem__(0, 2.0),
    ):
        with pytest.raises(ViewWrite, match="clone"):
            write(take(x))
    assert x.sum().item() == 24
    take(x).clone().add_(1)


def test_new_values_are_not_views() -> None:
    x = torch.ones(4, 6)
    for y in (x + 0, x.clone(), x[torch.tensor([0, 1])], x.float(), torch.cat([x]), x.repeat(1, 2)):
        y.add_(1)
    x[0] = 5
    assert x[0].sum().item() == 30


def test_parameters_are_written_under_no_grad_only() -> None:
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError, match="no_grad"):
        p.add_(1)
    with torch.no_grad():
        p.add_(1)
    assert p.tolist() == [2, 2]


def test_a_traced_value_has_no_number() -> None:
    def leaky(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(TracedValue, match=r"torch\.where"):
        Compiled(leaky)(torch.ones(3))
    torch.rand(2).tolist()  # a failed trace leaves the random numbers in order


@pytest.mark.parametrize(
    "use",
    [
        lambda: torch.ones(3).long().mean(),
        lambda: torch.ones(2, 3).view(5),
        lambda: torch.ones(2, 3) @ torch.ones(2, 3),
        lambda: torch.ones(2) @ torch.ones(2, dtype=torch.bfloat16),
        lambda: torch.ones(3)[5],
        lambda: torch.ones(3)[0, 0],
        lambda: torch.ones(3)[::-1],
        lambda: torch.ones(3).sum(2),
        lambda: bool(torch.ones(3)),
        lambda: torch.ones(3).item(),
        lambda: torch.ones(3).long().add_(0.5),
        lambda: torch.ones(3).add_(torch.ones(2, 3)),
        lambda: torch.ones(3, dtype=torch.bfloat16).numpy(),
        lambda: torch.split(torch.ones(5), [2, 2]),
        lambda: F.rms_norm(torch.ones(2, 3), (4,)),
        lambda: F.cross_entropy(torch.ones(2, 3), torch.zeros(2).long(), reduction="average"),
        lambda: len(torch.ones(())),
    ],
)
def test_what_torch_refuses_is_refused(use: Any) -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError, TypeError)) as caught:
        use()
    assert not isinstance(caught.value, BackendError) or caught.value.message


def test_no_grad_is_a_context_and_a_decorator() -> None:
    @torch.no_grad()
    def off() -> bool:
        return torch.is_grad_enabled()

    @torch.no_grad
    def also_off() -> bool:
        return torch.is_inference_mode_enabled()

    assert not off() and also_off() and torch.is_grad_enabled()
    with torch.no_grad(), torch.enable_grad():
        assert torch.is_grad_enabled()
    with torch.inference_mode():
        assert not torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        1 / 0  # noqa: B018
    assert torch.is_grad_enabled()


def test_no_grad_cuts_the_gradient() -> None:
    from backends.mlx_torch._grad_mode import differentiating

    def loss(a: Any) -> Any:
        x = torch.Tensor(a)
        with differentiating():
            with torch.no_grad():
                scale = (x * 3).sum()
            return (x * scale).sum().array

    assert mx.grad(loss)(mx.ones(2)).tolist() == [6, 6]


def test_small_things() -> None:
    assert torch.device("cpu").type == "cpu" and str(torch.device("mlx")) == "mlx"
    with torch.device("cpu"):
        assert torch.zeros(1).device.type == "mlx"
    assert torch.get_default_dtype() is torch.float32 and torch.long is torch.int64
    assert torch.float is torch.float32 and torch.half is torch.float16
    assert torch.Size((2, 3)).numel() == 6 and repr(torch.Size((2,))) == "torch.Size([2])"
    torch.set_float32_matmul_precision("high")
    assert torch.from_numpy(np.arange(3)).tolist() == [0, 1, 2]
    assert "tensor(" in repr(torch.ones(2)) and "Parameter" in repr(nn.Parameter(torch.ones(2)))
    assert torch.inf > 0 and torch.pi > 3 and torch.nan != torch.nan and torch.e > 2
    layer = nn.Module()
    layer.table = nn.Buffer(torch.ones(2))
    assert list(layer.state_dict()) == ["table"]

"""Every name of the torch spelling over MLX gives what torch gives: values, dtypes, shapes,
gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
import torch  # noqa: E402

from backends import mlx_torch  # noqa: E402
from tests.backends import mlx_cases, mlx_code  # noqa: E402

TYPES = ("float32", "bfloat16")
# One unit in the last place of bfloat16 is 2**-8 of the value; sums of a few terms may be two off.
TOLERANCE = {"float32": (2e-5, 5e-6), "bfloat16": (2**-6, 2**-7), "float16": (2**-8, 2**-9)}
FLOATS = ("normal", "positive", "unit")


def arrays_of(specs: Any, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [mlx_cases.make(kind, shape, rng) for kind, shape in specs]


def given(T: Any, a: np.ndarray, kind: str, dtype: str) -> Any:
    t = T.tensor(a.tolist(), dtype=getattr(T, dtype)) if kind in FLOATS else T.tensor(a.tolist())
    return t.reshape(a.shape)


def leaves(value: Any) -> list[Any]:
    """Tensors and plain values of a result, in order."""
    if isinstance(value, (list, tuple)) and not isinstance(value, (torch.Size, mlx_torch.Size)):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]


def is_tensor(x: Any) -> bool:
    return isinstance(x, (torch.Tensor, mlx_torch.Tensor))


def numpy(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return x.detach().float().numpy() if x.is_floating_point() else x.numpy()
    return np.array(x.array.astype(mx.float32)) if x.is_floating_point() else np.array(x.array)


def check(label: str, expected: Any, got: Any, dtype: str, loose: float = 1.0) -> None:
    expected, got = leaves(expected), leaves(got)
    assert len(expected) == len(got), label
    for number, (e, g) in enumerate(zip(expected, got, strict=True)):
        where = f"{label}[{number}]"
        if not is_tensor(e):
            assert np.allclose(e, g) if isinstance(e, (float, np.ndarray)) else e == g, where
            continue
        assert str(e.dtype) == str(g.dtype), where
        assert tuple(e.shape) == tuple(g.shape), where
        a, b = numpy(e), numpy(g)
        narrowest = min(
            (dtype, str(e.dtype).removeprefix("torch.")),
            key=lambda d: {"bfloat16": 0, "float16": 1}.get(d, 2),
        )
        rtol, atol = TOLERANCE[narrowest if narrowest in TOLERANCE else dtype]
        np.testing.assert_allclose(b, a, rtol * loose, atol * loose, err_msg=where)


def differentiable(values: Any) -> list[Any]:
    return [v for v in leaves(values) if is_tensor(v) and v.is_floating_point()]


def torch_gradients(f: Any, inputs: list[Any], cotangents: list[np.ndarray]) -> list[Any]:
    held = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]
    outs = [o for o in differentiable(f(torch, *held)) if o.requires_grad]
    if not outs:
        return []
    total = sum(
        (o.float() * torch.from_numpy(w)).sum() for o, w in zip(outs, cotangents, strict=False)
    )
    wanted = [t for t in held if t.is_floating_point()]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)]


def mlx_gradients(f: Any, inputs: list[Any], cotangents: list[np.ndarray]) -> list[Any]:
    places = [i for i, t in enumerate(inputs) if t.is_floating_point()]

    def total(arrays: list[Any]) -> Any:
        held = list(inputs)
        for i, a in zip(places, arrays, strict=True):
            held[i] = mlx_torch.Tensor(a)
        outs = differentiable(f(mlx_torch, *held))
        parts = [
            mx.sum(o.array.astype(mx.float32) * mx.array(w))
            for o, w in zip(outs, cotangents, strict=False)
        ]
        return sum(parts)

    return [mlx_torch.Tensor(g) for g in mx.grad(total)([inputs[i].array for i in places])]


def compare(
    label: str, f: Any, specs: Any, dtype: str, grad: bool = True, tolerance: str | None = None
) -> bool:
    """Values and, for floating inputs, gradients of f(torch, *inputs) on both; False if torch
    refuses.
    """
    raw = arrays_of(specs)
    kinds = [kind for kind, _ in specs]
    ours = [given(mlx_torch, a, k, dtype) for a, k in zip(raw, kinds, strict=True)]
    theirs = [given(torch, a, k, dtype) for a, k in zip(raw, kinds, strict=True)]
    try:
        expected = f(torch, *theirs)
    except (RuntimeError, TypeError):
        return False
    check(label, expected, f(mlx_torch, *ours), dtype)
    if not grad or not any(k in FLOATS for k in kinds) or not differentiable(expected):
        return True
    rng = np.random.default_rng(1)
    cotangents = [
        rng.standard_normal(tuple(o.shape)).astype(np.float32) for o in differentiable(expected)
    ]
    try:
        want = torch_gradients(f, theirs, cotangents)
    except RuntimeError as error:
        if "differentia" in str(error) or "derivative" in str(error):
            return True
        raise
    if want:
        check(f"{label} gradient", want, mlx_gradients(f, ours, cotangents), tolerance or dtype, 4)
    return True


def forms(name: str) -> list[tuple[str, Any]]:
    """The ways to call a name that exist in both frameworks."""
    out: list[tuple[str, Any]] = []
    if callable(getattr(torch, name, None)) and callable(vars(mlx_torch).get(name)):
        out.append((f"torch.{name}", lambda T, x, *a, **k: getattr(T, name)(x, *a, **k)))
    if hasattr(mlx_torch.Tensor, name) and hasattr(torch.Tensor, name):
        out.append((f"Tensor.{name}", lambda T, x, *a, **k: getattr(x, name)(*a, **k)))
    if hasattr(mlx_torch.Tensor, f"{name}_") and hasattr(torch.Tensor, f"{name}_"):
        out.append(
            (f"Tensor.{name}_", lambda T, x, *a, **k: getattr(x.clone(), f"{name}_")(*a, **k))
        )
    return out


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", mlx_cases.CALLS)
def test_call_equals_torch(name: str, dtype: str) -> None:
    found = forms(name)
    assert found, f"{name} is in the table but not in both frameworks"
    for number, call in enumerate(mlx_cases.CALLS[name]):
        ran = []
        for label, form in found:

            def f(T: Any, *x: Any, form: Any = form, call: Any = call) -> Any:
                return form(T, *x, *call.args, **call.kwargs)

            ran.append(compare(f"{label} #{number}", f, call.inputs, dtype, call.grad))
        assert any(ran), f"torch refuses {name} #{number} in every form"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g in ("CREATE", "TENSOR", "FUNCTIONAL") for n in getattr(mlx_code, g)],
)
def test_code_equals_torch(group: str, name: str, dtype: str) -> None:
    for number, (f, specs) in enumerate(getattr(mlx_code, group)[name]):
        tolerance = "bfloat16" if name in ("mixed", "zero-dim") else None
        assert compare(f"{name} #{number}", f, specs, dtype, tolerance=tolerance), (
            "torch refuses it"
        )

"""What the torch spelling over MLX is compared with real torch on: one table per kind of name.

CALLS: name -> calls. A call is tried as torch.name(x, ...), as x.name(...) and as
x.clone().name_(...), whichever of them exist in both frameworks. CODE: name -> functions of
(torch, inputs...). Inputs are (kind, shape) pairs, see `make`; N normal, P positive, U within
+-0.9, I integers, B booleans.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def _spec(kind: str) -> Callable[..., tuple[str, tuple[int, ...]]]:
    return lambda *shape: (kind, shape)


N, P, U, I, B, J = (  # noqa: E741
    _spec(k) for k in ("normal", "positive", "unit", "integer", "boolean", "small")
)


def make(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values that bfloat16 holds exactly, so that both types start alike. Integers are in 0..4, or
    -9..9.
    """
    if kind == "integer":
        return rng.integers(0, 5, shape)
    if kind == "small":
        return rng.integers(-9, 10, shape)
    if kind == "boolean":
        return rng.random(shape) < 0.5
    a = rng.standard_normal(shape).astype(np.float32)
    a = (
        np.abs(a) + 0.1
        if kind == "positive"
        else np.clip(a * 0.4, -0.9, 0.9)
        if kind == "unit"
        else a
    )
    bits = np.ascontiguousarray(a).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).reshape(shape)


@dataclass(frozen=True)
class Call:
    """inputs, further arguments, and whether gradients are compared."""

    inputs: tuple[Any, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    grad: bool = True


def c(*inputs: Any, a: tuple[Any, ...] = (), grad: bool = True, **kwargs: Any) -> Call:
    return Call(inputs, a, kwargs, grad)


def shapes(kind: Callable[..., Any], n: int = 1, **kwargs: Any) -> list[Call]:
    """The usual shapes for n equal inputs."""
    return [c(*[kind(*s)] * n, **kwargs) for s in ((5,), (3, 4), (2, 3, 4), ())]


BROADCAST = [
    c(N(3, 4), N(4)),
    c(N(2, 1, 4), N(3, 1)),
    c(N(5), N()),
    c(N(), N(5)),
    c(N(2, 3), a=(0.1,)),
    c(N(3), a=(2,)),
]
MIXED = [c(J(3, 4), N(4)), c(J(4), a=(2,)), c(J(4), a=(0.5,)), c(B(4), a=(3,)), c(J(4), J(4))]
POSITIVE = [c(P(3, 4), P(4)), c(P(4), a=(0.3,)), c(P(4), a=(3,))]
REDUCED = [
    c(N(3, 4)),
    c(N(3, 4), a=(1,)),
    c(N(2, 3, 4), a=((0, 2),)),
    c(N(2, 3, 4), a=(-2,), keepdim=True),
    c(N(3, 300), a=(-1,)),
]

CALLS: dict[str, list[Call]] = {
    **{
        n: shapes(N)
        for n in (
            "exp",
            "expm1",
            "sin",
            "cos",
            "tanh",
            "sigmoid",
            "abs",
            "neg",
            "square",
            "erf",
            "exp2",
        )
    },
    **{n: shapes(U) for n in ("sinh", "cosh", "tan", "asin", "acos", "atan", "erfinv", "arctan")},
    **{n: shapes(P) for n in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal")},
    **{
        n: shapes(N, grad=False)
        for n in ("sign", "floor", "ceil", "trunc", "round", "isnan", "isinf", "isfinite")
    },
    **{n: shapes(N) for n in ("relu", "frac", "absolute", "negative", "clone", "detach")},
    **dict.fromkeys(("add", "mul", "multiply"), BROADCAST + MIXED),
    **{
        n: BROADCAST + [m for m in MIXED if m.inputs[0][0] != "boolean"]
        for n in ("sub", "subtract")
    },
    "rsub": BROADCAST,
    **dict.fromkeys(("maximum", "minimum", "atan2", "logaddexp"), BROADCAST[:4]),
    **{
        n: [*POSITIVE, c(J(4), a=(2,)), c(J(4), a=(4,)), c(P(4), P())]
        for n in ("div", "true_divide", "divide")
    },
    **{
        n: [*BROADCAST, c(J(4), a=(2,)), c(J(4), J(4)), c(N(4), a=(0.1,))]
        for n in ("eq", "ne", "lt", "le", "gt", "ge", "greater", "less", "not_equal")
    },
    "remainder": [c(N(3, 4), P(4)), c(N(4), a=(0.3,)), c(J(9), a=(4,)), c(J(9), a=(-4,))],
    "fmod": [c(N(3, 4), P(4)), c(J(9), a=(4,)), c(J(9), a=(-4,))],
    "floor_divide": [
        c(N(3, 4), P(4), grad=False),
        c(J(9), a=(4,)),
        c(J(9), a=(-4,)),
        c(N(5), a=(0.3,), grad=False),
    ],
    "pow": [
        c(P(3, 4), N(4)),
        c(N(4), a=(2,)),
        c(N(4), a=(3,)),
        c(P(4), a=(0.5,)),
        c(P(4), a=(-1.5,)),
        c(J(4), a=(2,)),
    ],
    "lerp": [c(N(3, 4), N(3, 4), a=(0.3,)), c(N(3, 4), N(3, 4), a=(0.95,)), c(N(4), N(4), N(4))],
    "addcmul": [c(N(3, 4), N(3, 4), N(4)), c(N(4), N(4), N(4), value=0.05)],
    "addcdiv": [c(N(3, 4), N(3, 4), P(4)), c(N(4), N(4), P(4), value=-0.3)],
    "clamp": [
        c(N(3, 4), a=(-0.5, 0.5)),
        c(N(4), min=0.1),
        c(N(4), max=0),
        c(N(4), N(4)),
        c(J(9), a=(-3, 3)),
    ],
    "clip": [c(N(3, 4), a=(-0.5, 0.5))],
    "clamp_min": [c(N(3, 4), a=(0.2,)), c(N(4), a=(1e-10,))],
    "clamp_max": [c(N(3, 4), a=(0.2,))],
    "nan_to_num": [c(N(3, 4))],
    **{n: [c(B(3, 4), B(4)), c(J(4), J(4))] for n in ("logical_and", "logical_or", "logical_xor")},
    **{
        n: [c(B(3, 4), B(4)), c(J(4), J(4)), c(J(4), a=(3,))]
        for n in ("bitwise_and", "bitwise_or", "bitwise_xor")
    },
    "logical_not": [c(B(4)), c(J(4)), c(N(4), grad=False)],
    "bitwise_not": [c(B(4)), c(J(4))],
    # reductions
    **dict.fromkeys(("sum", "mean", "amax", "amin"), REDUCED),
    "norm": [
        c(N(3, 4)),
        c(N(300, 40)),
        c(N(2, 3, 4), dim=(0, 2)),
        c(N(2, 3, 4), p=2, dim=-1, keepdim=True),
        c(N(4), a=(1,)),
    ],
    "prod": [c(P(3, 4)), c(P(3, 4), a=(1,)), c(J(4))],
    "logsumexp": REDUCED[1:],
    **{
        n: [*REDUCED, c(N(5), correction=0), c(N(3, 4), dim=-1, unbiased=False)]
        for n in ("var", "std")
    },
    **{
        n: [c(N(3, 4)), c(N(3, 4), a=(1,)), c(N(2, 3, 4), a=(-2,), keepdim=True), c(N(3), N(3))]
        for n in ("max", "min")
    },
    **{
        n: [c(N(3, 4)), c(N(3, 4), a=(1,)), c(N(2, 3, 4), a=(-2,), keepdim=True)]
        for n in ("argmax", "argmin")
    },
    **{n: [c(B(3, 4)), c(B(3, 4), a=(1,)), c(J(3, 4), a=(0,))] for n in ("all", "any")},
    "count_nonzero": [c(B(3, 4)), c(J(3, 4), a=(1,))],
    **{
        n: [c(N(3, 4), a=(1,)), c(N(2, 3, 4), a=(0,)), c(N(3, 40), a=(-1,))]
        for n in ("cumsum", "logcumsumexp")
    },
    "cumprod": [c(P(3, 4), a=(1,))],
    **{
        n: [c(N(3, 4), a=(1,)), c(N(2, 3, 4), a=(0,)), c(N(3, 40), a=(-1,))]
        for n in ("softmax", "log_softmax")
    },
    # shapes
    "reshape": [c(N(3, 4), a=(2, 6)), c(N(3, 4), a=((2, -1),)), c(N(3, 4), a=(-1,))],
    "flatten": [c(N(2, 3, 4)), c(N(2, 3, 4), a=(1,)), c(N(2, 3, 4, 5), a=(1, 2)), c(N())],
    "unflatten": [c(N(2, 12), a=(1, (3, 4))), c(N(2, 12), a=(-1, (3, -1)))],
    **{n: [c(N(3, 4), a=(0, 1)), c(N(2, 3, 4), a=(-1, 0))] for n in ("transpose", "swapaxes")},
    "permute": [c(N(2, 3, 4), a=((2, 0, 1),)), c(N(2, 3, 4), a=((0, -1, 1),))],
    "movedim": [c(N(2, 3, 4), a=(0, -1))],
    "t": [c(N(3, 4)), c(N(3))],
    "squeeze": [
        c(N(1, 3, 1)),
        c(N(1, 3, 1), a=(0,)),
        c(N(1, 3, 1), a=(1,)),
        c(N(1, 3, 1), a=((0, 2),)),
    ],
    "unsqueeze": [c(N(3, 4), a=(0,)), c(N(3, 4), a=(-1,)), c(N(3, 4), a=(1,))],
    "broadcast_to": [c(N(3, 1), a=((2, 3, 4),))],
    "narrow": [c(N(3, 7), a=(1, 2, 3)), c(N(3, 7), a=(-1, 0, 2))],
    "select": [c(N(3, 7), a=(1, 2)), c(N(3, 7), a=(-1, -1))],
    "unbind": [c(N(3, 4)), c(N(3, 4), a=(1,))],
    "split": [c(N(7, 4), a=(3,)), c(N(7, 4), a=([2, 5],)), c(N(3, 4), a=(2, -1))],
    "chunk": [c(N(7, 4), a=(3,)), c(N(3, 4), a=(2, -1)), c(N(5), a=(4,))],
    "roll": [
        c(N(3, 4), a=(1, 0)),
        c(N(3, 4), a=((1, 2), (0, 1))),
        c(N(3, 4), a=(2,)),
        c(N(3, 4), a=(-1, 1)),
    ],
    "flip": [c(N(3, 4), a=((0,),)), c(N(3, 4), a=((0, -1),))],
    "tile": [c(N(3, 4), a=((2, 1),)), c(N(3, 4), a=((2,),))],
    "repeat_interleave": [c(N(3, 4), a=(2, 1)), c(N(3, 4), a=(2,))],
    **{n: [c(N(4, 4)), c(N(2, 3, 4), a=(1,)), c(N(3, 5), a=(-1,))] for n in ("tril", "triu")},
    "diagonal": [c(N(4, 4)), c(N(2, 3, 4), a=(0, 1, 2)), c(N(4, 4), a=(1,))],
    "diag": [c(N(4)), c(N(4, 4)), c(N(4), a=(1,))],
    "numel": [c(N(3, 4)), c(N())],
    "is_floating_point": [c(N(3)), c(I(3))],
    # products
    "matmul": [
        c(N(3, 4), N(4, 5)),
        c(N(2, 3, 4), N(2, 4, 5)),
        c(N(2, 1, 3, 4), N(3, 4, 5)),
        c(N(4), N(4)),
        c(N(3, 4), N(4)),
    ],
    "mm": [c(N(3, 4), N(4, 5))],
    "bmm": [c(N(2, 3, 4), N(2, 4, 5))],
    "mv": [c(N(3, 4), N(4))],
    "dot": [c(N(4), N(4))],
    "outer": [c(N(3), N(4))],
    "addmm": [c(N(3, 5), N(3, 4), N(4, 5)), c(N(5), N(3, 4), N(4, 5), alpha=0.3, beta=0.7)],
    "baddbmm": [c(N(2, 3, 5), N(2, 3, 4), N(2, 4, 5), beta=0.5)],
    # indexing
    "masked_fill": [c(N(3, 4), B(3, 4), a=(-math.inf,), grad=False), c(N(3, 4), B(4), a=(0.3,))],
    "take_along_dim": [c(N(5, 4), I(2, 4), a=(0,))],
    "topk": [c(N(3, 9), a=(2,)), c(N(3, 9), a=(3, 0)), c(N(9), a=(4,), largest=False)],
    "sort": [c(N(3, 9)), c(N(3, 9), a=(0,)), c(N(3, 9), descending=True)],
    "argsort": [c(N(3, 9)), c(N(3, 9), a=(0,)), c(N(3, 9), descending=True)],
    "nonzero": [c(B(3, 4))],
    "bincount": [c(I(9)), c(I(9), minlength=7)],
    "masked_select": [c(N(3, 4), B(3, 4), grad=False), c(N(3, 4), B(4), grad=False)],
    # Tensor only
    "expand": [c(N(3, 1), a=(2, 3, 4)), c(N(3, 1), a=((-1, 4),))],
    "expand_as": [c(N(3, 1), N(3, 4))],
    "view_as": [c(N(3, 4), N(2, 6))],
    "reshape_as": [c(N(3, 4), N(2, 6))],
    "repeat": [c(N(3, 4), a=(2, 1)), c(N(3), a=(2, 2)), c(N(3, 4), a=((1, 2),))],
    "size": [c(N(3, 4)), c(N(3, 4), a=(-1,))],
    **{n: [c(N(3, 4)), c(N())] for n in ("dim", "nelement", "contiguous", "cpu", "tolist")},
    **{n: [c(N(3, 4)), c(J(3)), c(B(3))] for n in ("float", "half", "bfloat16")},
    **{n: [c(N(3, 4)), c(J(3)), c(B(3))] for n in ("long", "int", "bool")},
    "type_as": [c(N(3), J(3)), c(J(3), N(3))],
    "element_size": [c(N(3)), c(J(3)), c(B(3))],
    "item": [c(N()), c(N(1, 1)), c(J())],
    "new_zeros": [c(N(3), a=(2, 3)), c(J(3), a=((2, 3),))],
    "new_ones": [c(N(3), a=(2, 3))],
    "new_full": [c(N(3), a=((2, 3), 0.5))],
    "zeros_like": [c(N(3)), c(J(3))],
    "ones_like": [c(N(3)), c(J(3))],
    "full_like": [c(N(3), a=(0.5,))],
    "is_tensor": [c(N(3))],
}

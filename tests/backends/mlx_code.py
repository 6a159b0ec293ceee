"""CODE: name -> [(function of (torch, inputs...), inputs), ...] for names that a plain call doesn't
cover.

The function gets real torch or its spelling over MLX as T. See mlx_cases for the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.backends.mlx_cases import B, I, J, N, P

Code = list[tuple[Callable[..., Any], tuple[Any, ...]]]


def _n(T: Any) -> Any:
    return T.nn.functional


def one(function: Callable[..., Any], *inputs: Any) -> Code:
    return [(function, inputs)]


def _f(name: str, *calls: tuple[Any, ...], **kwargs: Any) -> Code:
    """F.name on each tuple of inputs."""
    return [(lambda T, *x: getattr(_n(T), name)(*x, **kwargs), call) for call in calls]


def _set(T: Any, x: Any, index: Any, value: Any) -> Any:
    y = x.clone()
    y[index] = value
    return y


def _write(T: Any, x: Any, do: Callable[[Any], Any]) -> Any:
    y = x.clone()
    do(y)
    return y


CREATE: dict[str, Code] = {
    "tensor": one(
        lambda T: [
            T.tensor(3),
            T.tensor(2.5),
            T.tensor([[1, 2], [3, 4]]),
            T.tensor([True]),
            T.tensor([1, 2.5]),
        ]
    )
    + one(
        lambda T: [T.tensor([1, 2], dtype=T.float32), T.tensor(0.1, dtype=T.bfloat16), T.tensor([])]
    ),
    "as_tensor": one(lambda T, x: [T.as_tensor(x), T.as_tensor([1, 2])], N(3)),
    "zeros": one(
        lambda T: [
            T.zeros(2, 3),
            T.zeros((2, 3)),
            T.zeros(3, dtype=T.int64),
            T.zeros(()),
            T.zeros([2]),
        ]
    ),
    "ones": one(lambda T: [T.ones(2, 3), T.ones(3, dtype=T.bfloat16)]),
    "full": one(
        lambda T: [T.full((2, 3), 0.5), T.full((2,), 7), T.full((2,), True), T.full((), 1.5)]
    ),
    "eye": one(lambda T: [T.eye(3), T.eye(2, 3, dtype=T.bfloat16)]),
    "arange": one(
        lambda T: [
            T.arange(5),
            T.arange(2, 9, 3),
            T.arange(0, 1, 0.3),
            T.arange(5.0),
            T.arange(9, 0, -2),
        ]
    )
    + one(
        lambda T: [
            T.arange(0, 64, 2, dtype=T.float32),
            T.arange(7, dtype=T.bfloat16),
            T.arange(3, dtype=T.int32),
        ]
    ),
    "linspace": one(lambda T: [T.linspace(0, 1, 5), T.linspace(-2, 3, 7)]),
    "where": one(
        lambda T, m, x, y: [T.where(m, x, y), T.where(m, x, 0.0), T.where(m, 1, y)],
        B(3, 4),
        N(3, 4),
        N(4),
    )
    + one(lambda T, x, m: x.where(m, 0.5), N(3, 4), B(4)),
    "cat": one(lambda T, x, y: [T.cat([x, y]), T.cat((x, y), dim=0)], N(2, 3), N(4, 3))
    + one(lambda T, x, y: T.cat([x, y], -1), N(2, 3), N(2, 5))
    + one(lambda T, x, y: T.cat([x, y]), N(2), J(3)),
    "concat": one(lambda T, x, y: T.concat([x, y], dim=1), N(2, 3), N(2, 5)),
    "concatenate": one(lambda T, x, y: T.concatenate([x, y], dim=1), N(2, 3), N(2, 5)),
    "stack": one(
        lambda T, x, y: [T.stack([x, y]), T.stack((x, y), -1), T.stack([x, y], dim=1)],
        N(2, 3),
        N(2, 3),
    ),
    "einsum": one(lambda T, x, y: T.einsum("bij,bjk->bik", x, y), N(2, 3, 4), N(2, 4, 5))
    + one(lambda T, x: T.einsum("ij->ji", [x]), N(3, 4)),
    "meshgrid": one(lambda T, x, y: list(T.meshgrid(x, y, indexing="ij")), N(3), N(4)),
    "broadcast_tensors": one(lambda T, x, y: list(T.broadcast_tensors(x, y)), N(3, 1), N(4)),
    "allclose": one(lambda T, x: [T.allclose(x, x), T.allclose(x, x + 1)], N(3)),
    "equal": one(lambda T, x: [T.equal(x, x), T.equal(x, x + 1)], N(3)),
    "searchsorted": one(
        lambda T: T.searchsorted(T.tensor([1.0, 3.0, 5.0]), T.tensor([0.0, 3.0, 9.0]), right=True)
    ),
    "result_type": one(
        lambda T, x: [str(T.result_type(x, 2)), str(T.result_type(x, T.tensor(2.0)))], N(3)
    ),
    "_foreach_copy_": one(
        lambda T, x, y: _write(T, x, lambda z: T._foreach_copy_([z], [y])), N(3), N(3)
    ),
    "_foreach_add_": one(
        lambda T, x, y: _write(T, x, lambda z: T._foreach_add_([z], [y], alpha=0.5)), N(3), N(3)
    ),
    "_foreach_sub_": one(
        lambda T, x, y: _write(T, x, lambda z: T._foreach_sub_([z], [y])), N(3), N(3)
    ),
    "_foreach_mul_": one(lambda T, x: _write(T, x, lambda z: T._foreach_mul_([z], 0.3)), N(3)),
    "_foreach_div_": one(
        lambda T, x, y: _write(T, x, lambda z: T._foreach_div_([z], [y])), N(3), P(3)
    ),
    "_foreach_lerp_": one(
        lambda T, x, y: _write(T, x, lambda z: T._foreach_lerp_([z], [y], 0.3)), N(3), N(3)
    ),
}

TENSOR: dict[str, Code] = {
    "view": one(lambda T, x: [x.view(2, 6), x.view(-1), x.view((4, 3)), x.view(2, -1, 2)], N(3, 4)),
    "T": one(lambda T, x: x.T, N(3, 4)),
    "mT": one(lambda T, x: x.mT, N(2, 3, 4)),
    "to": one(
        lambda T, x: [
            x.to(T.float32),
            x.to(T.bfloat16),
            x.to(dtype=T.int64),
            x.to("cpu"),
            x.to("cpu", T.float32),
        ],
        P(3),
    )
    + one(lambda T, x, y: x.to(y), N(3), J(3)),
    "copy_": one(lambda T, x, y: [x.clone().copy_(y), x.clone().copy_(y[0])], N(3, 4), N(3, 4))
    + one(lambda T, x, y: x.clone().copy_(y), N(3), J(3)),
    "fill_": one(lambda T, x: [x.clone().fill_(0.1), x.clone().fill_(T.tensor(3.0))], N(3)),
    "zero_": one(lambda T, x: x.clone().zero_(), N(3)),
    "new_empty": one(lambda T, x: x.new_empty(2, 3).shape, N(3)),
    "new_tensor": one(lambda T, x: x.new_tensor([1, 2]), N(3)),
    "shape": one(
        lambda T, x: [tuple(x.shape), x.shape.numel(), x.shape[-1], tuple(x.shape[:1])], N(3, 4)
    ),
    "ndim": one(
        lambda T, x: [x.ndim, x.itemsize, x.nbytes, x.is_leaf, x.requires_grad, len(x)], N(3, 4)
    ),
    "numpy": one(lambda T, x: x.float().numpy(), N(3)),
    "gather": one(lambda T, x, i: [x.gather(1, i), T.gather(x, 1, i)], N(3, 5), I(3, 2)),
    "index_select": one(
        lambda T, x, i: [x.index_select(1, i), T.index_select(x, 0, i)], N(5, 5), I(3)
    ),
    "scatter": one(lambda T, x: x.scatter(1, T.tensor([[0, 2], [1, 3]]), 0.5), N(2, 5))
    + one(lambda T, x, s: x.scatter(1, T.tensor([[0, 2], [1, 3]]), s), N(2, 5), N(2, 2)),
    "scatter_add": one(lambda T, x, i, s: x.scatter_add(1, i, s), N(3, 5), I(3, 4), N(3, 4)),
    "index_add": one(lambda T, x, i, s: x.index_add(0, i, s), N(5, 4), I(3), N(3, 4)),
    "index_copy": one(lambda T, x, s: x.index_copy(0, T.tensor([1, 3]), s), N(5, 4), N(2, 4)),
    "arithmetic": one(
        lambda T, x: [2 - x, 1 / x, 2**x, x // 0.3, 7 // x, x % 0.3, -x, +x, abs(x), x**2], P(3, 4)
    )
    + one(
        lambda T, i: [7 % (i + 1), 7 // (i + 1), ~i, i & 1, i | 2, i ^ 3, i / 2, 1.5 * i, i - 0.5],
        I(5),
    )
    + one(lambda T, m: [m & ~m, m | True, m ^ m, m * 2.5, m + 1, 1 * m], B(5)),
    "zero-dim": one(
        lambda T, x, s: [x * s, s * x, x + s, s - x, x / s, s / x, x * s * 2], N(3, 4), P()
    )
    + one(
        lambda T, x: [x * T.tensor(0.1), x.bfloat16() * T.tensor(0.1), T.tensor(0.3) + x.half()],
        N(3),
    )
    + one(lambda T, i: [i * T.tensor(0.5), i + T.tensor(2), i.int() + T.tensor(1)], I(3)),
    "mixed": one(
        lambda T, x: [x.bfloat16() + x.float(), x.half() * x.bfloat16(), x.bfloat16() * 0.1], N(3)
    )
    + one(
        lambda T, x: [(x.bfloat16() > 0.1), x.bfloat16() - 1e-3, x.bfloat16() ** 0.3, 1 + x.half()],
        P(5),
    ),
    "inplace": one(
        lambda T, x, y: _write(T, x, lambda z: z.mul_(0.3).add_(y, alpha=0.1).sub_(y).div_(3)),
        N(3),
        N(3),
    )
    + one(lambda T, x, y: _write(T, x, lambda z: z.__iadd__(y)), N(3), N(3)),
    "read": one(
        lambda T, x: [
            x[0],
            x[-1],
            x[1:],
            x[:, None],
            x[..., 0],
            x[:, ::2],
            x[1, 2],
            x[None],
            x[..., None, :],
            x[:0],
        ],
        N(3, 4),
    )
    + one(
        lambda T, x, i: [x[i], x[:, i], x[i, i], x[i[:, None], i], x[[0, 2]], x[i, 1:]],
        N(5, 5),
        I(3),
    )
    + one(lambda T, x, i: [x[i, :, i], x[:, i, None], x[0, i], x[i][..., :2]], N(5, 5, 5), I(3)),
    "mask": one(lambda T, x, m: [x[m], x[m, 0]], N(3, 4), B(3))
    + one(lambda T, x, m: x[m], N(3, 4), B(3, 4)),
    "write": one(
        lambda T, x, y: [_set(T, x, 0, y), _set(T, x, (slice(None), 1), 0.5), _set(T, x, ..., y)],
        N(3, 4),
        N(4),
    )
    + one(lambda T, x, m: [_set(T, x, m, 0.5), _set(T, x, (m, 0), 2)], N(3, 4), B(3))
    + one(lambda T, x, m, y: [_set(T, x, m, y.sum()), _set(T, x, m, -1)], N(3, 4), B(3, 4), N(2))
    + one(lambda T, x, y: _set(T, x, T.tensor([2, 0]), y), N(3, 4), N(2, 4))
    + one(lambda T, x, y: _set(T, x, (slice(1, None), slice(None, 2)), y), N(3, 4), N(2, 2)),
    "iterate": one(lambda T, x: list(x), N(3, 4)),
    "data": one(lambda T, x: x.data, N(3)),
    "views follow": one(lambda T, x: _follow(T, x), N(3, 4)),
    "norms": one(
        lambda T, x: [
            x.norm(1),
            x.norm(p=3, dim=1),
            x.norm(float("inf")),
            x.norm(dim=(-2, -1), keepdim=True),
        ],
        N(2, 3, 4),
    )
    + one(
        lambda T, x: [T.linalg.vector_norm(x, dim=-1), T.linalg.norm(x), T.linalg.matrix_norm(x)],
        N(3, 4),
    )
    + one(lambda T, x: (x * 100).norm(), N(300, 400)),
    "sums": one(
        lambda T, x: [
            x.sum(dtype=T.float32),
            x.mean(0, dtype=T.float32),
            x.cumsum(0, dtype=T.float32),
        ],
        N(3, 4),
    )
    + one(
        lambda T, i: [
            i.sum(),
            i.sum(0),
            i.prod(),
            i.cumsum(0),
            i.float().mean(),
            i.max(),
            i.bool().sum(),
        ],
        I(3, 4),
    ),
    "repr": one(
        lambda T, x: [
            str(x.dtype),
            str(x.shape),
            f"{x.sum():.2f}",
            float(x[0, 0]),
            int(x.sum() * 0),
        ],
        N(3, 4),
    ),
}


def _follow(T: Any, x: Any) -> Any:
    """A view sees what is written to its base afterwards."""
    base = x.clone()
    flat, row, transposed = base.view(-1), base[1], base.mT[0]
    base.mul_(2)
    base[1] = 0.5
    return [flat, row, transposed]


FUNCTIONAL: dict[str, Code] = {
    **{
        n: _f(n, (N(3, 4),), (N(2, 3, 4),))
        for n in (
            "silu",
            "gelu",
            "relu",
            "relu6",
            "sigmoid",
            "tanh",
            "softplus",
            "elu",
            "leaky_relu",
            "hardswish",
            "hardsigmoid",
            "hardtanh",
            "mish",
            "logsigmoid",
            "softsign",
            "selu",
            "glu",
        )
    },
    "gelu tanh": _f("gelu", (N(3, 4),), approximate="tanh"),
    "softmax": _f("softmax", (N(3, 4),), dim=-1),
    "log_softmax": _f("log_softmax", (N(3, 4),), dim=-1),
    "linear": _f("linear", (N(3, 4), N(5, 4)), (N(2, 3, 4), N(5, 4), N(5)), (N(4), N(5, 4))),
    "embedding": _f("embedding", (I(3, 4), N(5, 6))),
    "one_hot": _f("one_hot", (I(3, 4),), num_classes=5),
    "rms_norm": one(lambda T, x: _n(T).rms_norm(x, (4,)), N(2, 3, 4))
    + one(lambda T, x, w: _n(T).rms_norm(x, (8,), w, eps=1e-5), N(3, 8), N(8))
    + one(lambda T, x: _n(T).rms_norm(x * 1e-3, (x.size(-1),)), N(3, 16))
    + one(lambda T, x, w: _n(T).rms_norm(x, (3, 4), w), N(2, 3, 4), N(3, 4)),
    "layer_norm": one(lambda T, x: _n(T).layer_norm(x, (4,)), N(2, 3, 4))
    + one(lambda T, x, w, b: _n(T).layer_norm(x, (8,), w, b, 1e-3), N(3, 8), N(8), N(8)),
    "normalize": _f("normalize", (N(3, 4),), dim=-1),
    "dropout": one(lambda T, x: [_n(T).dropout(x, 0.5, False), _n(T).dropout(x, 0.0)], N(3)),
    "cross_entropy": _f("cross_entropy", (N(6, 5), I(6)), (N(2, 5, 3), I(2, 3)))
    + _f("cross_entropy", (N(6, 5), I(6)), ignore_index=2, reduction="sum")
    + _f("cross_entropy", (N(6, 5), I(6)), reduction="none", ignore_index=1)
    + _f("cross_entropy", (N(6, 5), I(6)), label_smoothing=0.1, ignore_index=3)
    + _f("cross_entropy", (N(6, 5), I(6), P(5)))
    + _f("cross_entropy", (N(6, 5), P(6, 5))),
    "nll_loss": _f("nll_loss", (N(6, 5), I(6)))
    + _f("nll_loss", (N(6, 5), I(6)), reduction="none", ignore_index=1),
    "mse_loss": _f("mse_loss", (N(3, 4), N(3, 4)))
    + _f("mse_loss", (N(3, 4), N(3, 4)), reduction="sum"),
    "l1_loss": _f("l1_loss", (N(3, 4), N(3, 4))),
    "binary_cross_entropy_with_logits": _f("binary_cross_entropy_with_logits", (N(3, 4), P(3, 4))),
    "pad": one(lambda T, x: [_n(T).pad(x, (1, 2)), _n(T).pad(x, (0, 0, 1, 0), value=0.5)], N(3, 4))
    + one(lambda T, x: _n(T).pad(x, (1, -1)), N(2, 3, 4)),
    "conv1d": _f("conv1d", (N(2, 4, 9), N(6, 4, 3), N(6)))
    + _f("conv1d", (N(2, 4, 9), N(4, 1, 3)), padding=2, groups=4),
    "scaled_dot_product_attention": _f("scaled_dot_product_attention", *[(N(2, 4, 7, 8),) * 3])
    + _f("scaled_dot_product_attention", *[(N(2, 4, 7, 8),) * 3], is_causal=True)
    + _f(
        "scaled_dot_product_attention",
        (N(2, 4, 7, 8), N(2, 2, 7, 8), N(2, 2, 7, 8)),
        is_causal=True,
        enable_gqa=True,
    )
    + _f("scaled_dot_product_attention", *[(N(2, 4, 7, 8),) * 3], scale=0.3)
    + one(
        lambda T, q, k, v, m: _n(T).scaled_dot_product_attention(q, k, v, m),
        *[N(2, 4, 7, 8)] * 3,
        N(7, 7),
    ),
}

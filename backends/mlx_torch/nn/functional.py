"""torch.nn.functional over MLX. Several-step functions run in float32 inside and round once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import mlx.core as mx

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._elementwise import in_float32, lerp
from backends.mlx_torch._errors import missing
from backends.mlx_torch._linalg import product
from backends.mlx_torch._reduce import log_softmax, softmax
from backends.mlx_torch._registry import FUNCTIONS
from backends.mlx_torch._tensor import Tensor, to_array, wrap


def _gelu(a: mx.array, approximate: str = "none") -> mx.array:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (a + 0.044715 * a * a * a)
        return 0.5 * a * (1 + mx.tanh(inner))
    return 0.5 * a * (1 + mx.erf(a * math.sqrt(0.5)))


def _softplus(a: mx.array, beta: float = 1.0, threshold: float = 20.0) -> mx.array:
    z = a * beta
    small = mx.minimum(z, threshold)  # keeps the branch not taken finite, and so its gradient
    return mx.where(z > threshold, a, mx.log1p(mx.exp(small)) / beta)


def _elu(a: mx.array, alpha: float = 1.0) -> mx.array:
    return mx.where(a > 0, a, alpha * mx.expm1(mx.minimum(a, 0)))


# name -> kernel in float32; further arguments as in torch
ACTIVATIONS: dict[str, Callable[..., mx.array]] = {
    "silu": lambda a: a * mx.sigmoid(a),
    "gelu": _gelu,
    "softplus": _softplus,
    "elu": _elu,
    "leaky_relu": lambda a, negative_slope=0.01: mx.where(a > 0, a, a * negative_slope),
    "relu6": lambda a: mx.clip(a, 0, 6),
    "hardtanh": lambda a, min_val=-1.0, max_val=1.0: mx.clip(a, min_val, max_val),
    "hardswish": lambda a: a * mx.clip(a + 3, 0, 6) / 6,
    "hardsigmoid": lambda a: mx.clip(a + 3, 0, 6) / 6,
    "mish": lambda a: a * mx.tanh(_softplus(a)),
    "logsigmoid": lambda a: -_softplus(-a),
    "softsign": lambda a: a / (1 + mx.abs(a)),
    "selu": lambda a: 1.0507009873554805 * _elu(a, 1.6732632423543772),
}


def _activation(name: str, kernel: Callable[..., mx.array]) -> Callable[..., Tensor]:
    run = in_float32(kernel)

    def op(x: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        found = wrap(run(to_array(x), *args, **kwargs))
        return x.assign(found.array) if inplace else found

    op.__name__ = name
    return op


for _name, _kernel in ACTIVATIONS.items():
    globals()[_name] = _activation(_name, _kernel)
relu = FUNCTIONS["relu"]
sigmoid = FUNCTIONS["sigmoid"]
tanh = FUNCTIONS["tanh"]


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """First half times sigmoid of the second."""
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias; x (..., in), weight (out, in). The dtypes must agree, as in torch."""
    a, w = to_array(x), to_array(weight)
    if bias is None:
        return wrap(product(a, w.T))
    return wrap(product(a, w.T) + to_array(bias).astype(a.dtype))


def embedding(x: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of weight (V, D) by integer index."""
    return wrap(mx.take(to_array(weight), to_array(x), axis=0))


def _default_eps(a: mx.array, eps: float | None) -> float:
    """torch's rule: the eps of the type it computes in, float32 for half precision."""
    return float(mx.finfo(mx.float32).eps) if eps is None else eps


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dims, times weight."""
    a = to_array(x)
    shape = tuple(normalized_shape)
    if a.shape[a.ndim - len(shape) :] != shape:
        raise RuntimeError(f"normalized_shape {list(shape)} doesn't fit input {list(a.shape)}")
    gain = None if weight is None else to_array(weight).reshape(-1)
    flat = a.reshape(*a.shape[: a.ndim - len(shape)], -1)
    if gain is not None and gain.dtype != a.dtype:
        out = mx.fast.rms_norm(
            flat.astype(mx.float32), gain.astype(mx.float32), _default_eps(a, eps)
        )
        return wrap(out.reshape(a.shape).astype(dt.promote(a.dtype, gain.dtype)))
    return wrap(mx.fast.rms_norm(flat, gain, _default_eps(a, eps)).reshape(a.shape))


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the last dims, times weight, plus bias."""
    a = to_array(x)
    flat = a.reshape(*a.shape[: a.ndim - len(tuple(normalized_shape))], -1)
    w, b = (None if v is None else to_array(v).reshape(-1).astype(a.dtype) for v in (weight, bias))
    return wrap(mx.fast.layer_norm(flat, w, b, eps).reshape(a.shape))


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(norm(x), eps) along dim."""
    return x / x.norm(p, dim, keepdim=True).clamp_min(eps)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero with probability p, scale the rest by 1 / (1 - p)."""
    a = to_array(x)
    if not training or p == 0:
        return x
    keep = mx.random.bernoulli(1 - p, a.shape)
    return wrap(in_float32(lambda v: mx.where(keep, v * (1 / (1 - p) if p < 1 else 0), 0))(a))


def _reduce_loss(
    per_item: mx.array, weights: mx.array | None, reduction: str, dtype: mx.Dtype
) -> Tensor:
    if reduction == "none":
        return wrap(per_item.astype(dtype))
    total = mx.sum(per_item)
    if reduction == "sum":
        return wrap(total.astype(dtype))
    if reduction == "mean":
        count = per_item.size if weights is None else mx.sum(weights)
        return wrap((total / count).astype(dtype))
    raise ValueError(f"reduction {reduction!r} is none of 'none', 'mean', 'sum'")


def nll_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-x[target] of log-probabilities x (N, C), ignoring ignore_index."""
    a, y = to_array(x).astype(mx.float32), to_array(target)
    valid = y != ignore_index
    safe = mx.where(valid, y, 0)
    if a.ndim > 2:  # (N, C, d...) as torch has it
        a = mx.moveaxis(a, 1, -1)
    picked = mx.take_along_axis(a, safe[..., None], axis=-1)[..., 0]
    weights = valid.astype(mx.float32)
    if weight is not None:
        weights = weights * mx.take(to_array(weight).astype(mx.float32), safe, axis=0)
    return _reduce_loss(-picked * weights, weights, reduction, x.dtype.mx)


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits x (N, C) or (N, C, d...) with integer targets or
    probabilities (N, C).
    """
    a = to_array(x).astype(mx.float32)
    classes = 1 if a.ndim > 1 else 0
    logp = a - mx.logsumexp(a, classes, keepdims=True)
    if target.dtype.is_floating_point:
        soft = to_array(target).astype(mx.float32)
        soft = soft * (1 - label_smoothing) + label_smoothing / a.shape[classes]
        return _reduce_loss(-mx.sum(soft * logp, classes), None, reduction, x.dtype.mx)
    y = to_array(target)
    log_probabilities, labels = (
        Tensor(logp[None] if classes == 0 else logp),
        Tensor(y[None] if classes == 0 else y),
    )
    hard = nll_loss(log_probabilities, labels, weight, ignore_index, reduction)
    if classes == 0 and reduction == "none":
        hard = hard[0]
    if label_smoothing == 0:
        return hard.to(x.dtype)
    if weight is not None:
        raise NotImplementedError("cross_entropy has weight or label_smoothing on MLX, not both")
    valid = (y != ignore_index).astype(mx.float32)
    smooth = _reduce_loss(-mx.mean(logp, classes) * valid, valid, reduction, mx.float32)
    return lerp(hard.float(), smooth, label_smoothing).to(x.dtype)


def _pairwise(kernel: Callable[[mx.array, mx.array], mx.array]) -> Callable[..., Tensor]:
    def loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        a, b = to_array(x), to_array(target)
        out = dt.result_dtype(a, b)
        return _reduce_loss(
            kernel(a.astype(mx.float32), b.astype(mx.float32)), None, reduction, out
        )

    return loss


mse_loss = _pairwise(lambda a, b: mx.square(a - b))
l1_loss = _pairwise(lambda a, b: mx.abs(a - b))
binary_cross_entropy_with_logits = _pairwise(lambda a, b: _softplus(a, threshold=80.0) - a * b)


def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """int64 (..., num_classes)."""
    if num_classes < 0:
        num_classes = int(x.max().item()) + 1
    return wrap((to_array(x)[..., None] == mx.arange(num_classes)).astype(mx.int64))


def pad(
    x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pad (last dim first: left, right, then the dim before); negative numbers crop."""
    if mode != "constant":
        raise NotImplementedError(f"pad has mode='constant' only on MLX, got {mode!r}")
    a = to_array(x)
    widths = [(0, 0)] * a.ndim
    for i in range(len(pad) // 2):
        before, after = pad[2 * i], pad[2 * i + 1]
        axis = a.ndim - 1 - i
        crop = slice(max(0, -before), a.shape[axis] - max(0, -after))
        a = a[(slice(None),) * axis + (crop,)]
        widths[axis] = (max(0, before), max(0, after))
    return wrap(mx.pad(a, widths, constant_values=mx.array(value or 0, a.dtype)))


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """x (B, C_in, T), weight (C_out, C_in / groups, K): channels first, as in torch."""
    a = mx.swapaxes(to_array(x), 1, 2)
    w = mx.swapaxes(to_array(weight), 1, 2)
    out = mx.conv1d(a, w, _one(stride), _one(padding), _one(dilation), groups)
    if bias is not None:
        out = out + to_array(bias)
    return wrap(mx.swapaxes(out, 1, 2))


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(B, H, T, D); boolean masks keep where true, floating ones are added."""
    if dropout_p:
        raise NotImplementedError("scaled_dot_product_attention has no dropout on MLX")
    q, k, v = (to_array(t) for t in (query, key, value))
    if q.shape[-3] != k.shape[-3] and not enable_gqa:
        raise RuntimeError(
            f"{q.shape[-3]} query heads and {k.shape[-3]} key heads: pass enable_gqa=True"
        )
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask: Any = None
    if is_causal:
        # torch aligns the diagonal to the first key, MLX to the last: the same for equal lengths
        square = q.shape[-2] == k.shape[-2]
        mask = "causal" if square else mx.tri(q.shape[-2], k.shape[-2], dtype=mx.bool_)
    elif attn_mask is not None:
        mask = to_array(attn_mask)
        mask = mask if mask.dtype == mx.bool_ else mask.astype(q.dtype)
    return wrap(mx.fast.scaled_dot_product_attention(q, k, v, scale=factor, mask=mask))


__all__ = [
    "binary_cross_entropy_with_logits",
    "conv1d",
    "cross_entropy",
    "dropout",
    "embedding",
    "glu",
    "l1_loss",
    "layer_norm",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "softmax",
    "tanh",
    *ACTIVATIONS,
]


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    missing("torch.nn.functional", name, __all__)

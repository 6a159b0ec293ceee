"""Elementwise ops, from tables.

In bfloat16 and float16 torch computes each op in float32 and rounds once. MLX does so for its own
single ops; ops made of several steps, and ops with a number that the narrow type cannot hold
(x * 0.1), are computed in float32 here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._registry import FUNCTIONS, add_inplace, both, function, inplace
from backends.mlx_torch._tensor import Tensor, operand, to_array, wrap

Kernel = Callable[..., mx.array]


def in_float32(kernel: Kernel) -> Kernel:
    """Run a kernel of half-precision arrays in float32 and round its result once."""

    def run(a: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        if a.dtype in dt.HALF:
            return kernel(a.astype(mx.float32), *args, **kwargs).astype(a.dtype)
        return kernel(a, *args, **kwargs)

    return run


def _softplus(a: mx.array, beta: float = 1.0, threshold: float = 20.0) -> mx.array:
    z = a * beta
    return mx.where(z > threshold, a, mx.logaddexp(z, mx.array(0, a.dtype)) / beta)


# name -> kernel of a floating array; integers become float32 first
FLOATING = {
    **{
        n: getattr(mx, n)
        for n in ("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "erf", "erfinv")
    },
    **{n: getattr(mx, n) for n in ("sin", "cos", "tanh", "sinh", "cosh")},
    "tan": in_float32(mx.tan),
    "asin": mx.arcsin,
    "acos": mx.arccos,
    "atan": mx.arctan,
    "rsqrt": in_float32(mx.rsqrt),
    "sigmoid": in_float32(mx.sigmoid),
    "reciprocal": in_float32(mx.reciprocal),
    "exp2": in_float32(lambda a: mx.power(mx.array(2.0, a.dtype), a)),
}
# name -> kernel that keeps the dtype
KEEPING = {
    "abs": mx.abs,
    "neg": mx.negative,
    "square": mx.square,
    "sign": mx.sign,
    "floor": mx.floor,
    "ceil": mx.ceil,
    "trunc": mx.trunc,
    "relu": lambda a: mx.maximum(a, mx.array(0, a.dtype)),
    "frac": in_float32(lambda a: a - mx.trunc(a)),
}
TESTS = {"isnan": mx.isnan, "isinf": mx.isinf, "isfinite": mx.isfinite}

# name -> (kernel, kind): "arith" in the promoted type; "float" as arith with integers to float32;
# "compare" in the promoted type, numbers rounded to it; "logic" on booleans; "bits" on integers
BINARY: dict[str, tuple[Kernel, str]] = {
    "mul": (mx.multiply, "arith"),
    "remainder": (mx.remainder, "arith"),
    "maximum": (mx.maximum, "arith"),
    "minimum": (mx.minimum, "arith"),
    "atan2": (mx.arctan2, "float"),
    "logaddexp": (mx.logaddexp, "float"),
    **{
        short: (getattr(mx, long), "compare")
        for short, long in (
            ("eq", "equal"),
            ("ne", "not_equal"),
            ("lt", "less"),
            ("le", "less_equal"),
            ("gt", "greater"),
            ("ge", "greater_equal"),
        )
    },
    "logical_and": (mx.logical_and, "logic"),
    "logical_or": (mx.logical_or, "logic"),
    "logical_xor": (mx.not_equal, "logic"),
    "bitwise_and": (mx.bitwise_and, "bits"),
    "bitwise_or": (mx.bitwise_or, "bits"),
    "bitwise_xor": (mx.bitwise_xor, "bits"),
}


def binary(kernel: Kernel, kind: str, a: Any, b: Any) -> mx.array:
    """Promote as torch does, run, round once. a, b: arrays or numbers, at least one array."""
    if kind == "logic":
        return kernel(*(x != 0 if isinstance(x, mx.array) else mx.array(bool(x)) for x in (a, b)))
    out = dt.result_dtype(a, b)
    if kind == "float" and dt.rank(out) < 2:
        out = dt.DEFAULT_FLOAT
    inner = out
    if out in dt.HALF and kind != "compare" and not (_fits(a, out) and _fits(b, out)):
        inner = mx.float32
    found = kernel(_cast(a, inner), _cast(b, inner))
    return found if kind == "compare" else found.astype(out)


def _fits(x: Any, half: mx.Dtype) -> bool:
    return x.dtype == half if isinstance(x, mx.array) else dt.exact_in_half(x)


def _cast(x: Any, to: mx.Dtype) -> mx.array:
    return x.astype(to) if isinstance(x, mx.array) else mx.array(x, to)


def _export_unary(name: str, kernel: Kernel, to_float: bool) -> None:
    def op(x: Tensor) -> Tensor:
        a = to_array(x)
        return wrap(kernel(a.astype(dt.DEFAULT_FLOAT) if to_float and dt.rank(a.dtype) < 2 else a))

    op.__name__ = name
    inplace(op)


def _export_binary(name: str, kernel: Kernel, kind: str) -> None:
    def op(x: Tensor, other: Any) -> Tensor:
        return wrap(binary(kernel, kind, operand(x), operand(other)))

    op.__name__ = name
    (both if name in ("maximum", "minimum", "logaddexp") else inplace)(op)


for _name, _kernel in FLOATING.items():
    _export_unary(_name, _kernel, True)
for _name, _kernel in KEEPING.items():
    _export_unary(_name, _kernel, False)
for _name, (_kernel, _kind) in BINARY.items():
    _export_binary(_name, _kernel, _kind)
for _name, _kernel in TESTS.items():

    def _test(x: Tensor, kernel: Kernel = _kernel) -> Tensor:
        return wrap(kernel(to_array(x)))

    _test.__name__ = _name
    both(_test)


@inplace
def add(x: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """x + alpha * other."""
    return wrap(_scaled_sum(operand(x), operand(other), alpha))


@inplace
def sub(x: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """x - alpha * other."""
    if isinstance(alpha, Tensor):
        return add(x, other, alpha=neg(alpha))
    return wrap(_scaled_sum(operand(x), operand(other), -alpha, mx.subtract))


def _scaled_sum(a: Any, b: Any, alpha: Any, plain: Kernel = mx.add) -> mx.array:
    factor = operand(alpha)
    if not isinstance(factor, mx.array) and factor == (1 if plain is mx.add else -1):
        return binary(plain, "arith", a, b)
    out = dt.result_dtype(a, b)
    inner = mx.float32 if out in dt.HALF else out
    scaled = _cast(b, inner) * _cast(factor, inner)
    return (_cast(a, inner) + scaled).astype(out)


@function
def rsub(x: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """other - alpha * x."""
    return sub(other, x, alpha=alpha)


@inplace
def div(x: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """True division; rounding_mode 'floor' or 'trunc' keeps integers."""
    a, b = operand(x), operand(other)
    if rounding_mode is None:
        return wrap(binary(mx.divide, "float", a, b))
    if rounding_mode == "floor":
        return floor_divide(x, other)
    return wrap(binary(lambda p, q: mx.trunc(p / q).astype(p.dtype), "arith", a, b))


@inplace
def floor_divide(x: Tensor, other: Any) -> Tensor:
    """Division rounded towards minus infinity, as Python's //."""

    def kernel(p: mx.array, q: mx.array) -> mx.array:
        if dt.rank(p.dtype) == 2:
            return mx.floor(p / q)
        # exact for all integers: MLX divides integers towards zero
        quotient = mx.floor_divide(p, q)
        rest = p - quotient * q
        return quotient - ((rest != 0) & ((rest < 0) != (q < 0))).astype(p.dtype)

    return wrap(binary(kernel, "arith", operand(x), operand(other)))


@inplace
def pow(x: Any, exponent: Any) -> Tensor:
    """x ** exponent; either may be a number."""
    a, b = operand(x), operand(exponent)
    if isinstance(a, mx.array) and not isinstance(b, mx.array):
        short = {2: mx.square, 0.5: mx.sqrt, 1: lambda v: v}.get(b)
        if short is not None and (dt.rank(a.dtype) == 2 or b in (1, 2)) and not isinstance(b, bool):
            return wrap(short(a))
    return wrap(binary(mx.power, "arith", a, b))


@inplace
def fmod(x: Tensor, other: Any) -> Tensor:
    """Remainder with the sign of x."""

    def kernel(p: mx.array, q: mx.array) -> mx.array:
        rest = mx.remainder(mx.abs(p), mx.abs(q))
        return mx.where(p < 0, -rest, rest)

    return wrap(binary(kernel, "arith", operand(x), operand(other)))


@inplace
def logical_not(x: Tensor) -> Tensor:
    """Whether each element is zero."""
    return wrap(mx.logical_not(to_array(x) != 0))


@inplace
def bitwise_not(x: Tensor) -> Tensor:
    """~x on integers and booleans."""
    return wrap(mx.bitwise_invert(to_array(x)))


@inplace
def round(x: Tensor, *, decimals: int = 0) -> Tensor:
    """Round half to even."""
    return wrap(mx.round(to_array(x), decimals))


@inplace
def clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limit to [min, max]; either may be None, a number or a tensor."""
    found = operand(x)
    if min is None and max is None:
        raise RuntimeError("clamp needs min, max or both")
    if min is not None:
        found = binary(mx.maximum, "arith", found, operand(min))
    if max is not None:
        found = binary(mx.minimum, "arith", found, operand(max))
    return wrap(_cast(found, dt.result_dtype(found)))


@inplace
def clamp_min(x: Tensor, min: Any) -> Tensor:
    """Limit from below."""
    return clamp(x, min=min)


@inplace
def clamp_max(x: Tensor, max: Any) -> Tensor:
    """Limit from above."""
    return clamp(x, max=max)


@inplace
def lerp(x: Tensor, end: Tensor, weight: Any) -> Tensor:
    """x + weight * (end - x), in float32 for half precision."""
    a, b, w = to_array(x), to_array(end), operand(weight)
    if a.dtype != b.dtype:
        raise RuntimeError(f"lerp: x is {x.dtype} and end {end.dtype}; they must agree")
    inner = mx.float32 if a.dtype in dt.HALF else a.dtype
    p, q, f = a.astype(inner), b.astype(inner), _cast(w, inner)
    # torch's two branches, each exact at its own end
    steps = mx.where(mx.abs(f) < 0.5, p + f * (q - p), q - (q - p) * (1 - f))
    return wrap(steps.astype(a.dtype))


def _fused(x: Tensor, a: Tensor, b: Tensor, value: Any, kernel: Kernel) -> Tensor:
    arrays = [to_array(t) for t in (x, a, b)]
    out = dt.result_dtype(*arrays)
    inner = mx.float32 if out in dt.HALF else out
    p, q, r = (t.astype(inner) for t in arrays)
    return wrap((p + _cast(operand(value), inner) * kernel(q, r)).astype(out))


@inplace
def addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """x + value * tensor1 * tensor2."""
    return _fused(x, tensor1, tensor2, value, mx.multiply)


@inplace
def addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """x + value * tensor1 / tensor2."""
    return _fused(x, tensor1, tensor2, value, mx.divide)


@both
def where(condition: Any, x: Any = None, other: Any = None) -> Tensor:
    """torch.where(condition, x, other); as a method the tensor itself is x: x.where(condition,
    other).
    """
    if other is None:
        raise TypeError(
            "where needs a condition and two values: MLX has no shapes that depend on data"
        )
    a, b = operand(x), operand(other)
    out = dt.result_dtype(a, b)
    return wrap(mx.where(to_array(condition), _cast(a, out), _cast(b, out)))


def _where_method(x: Tensor, condition: Tensor, other: Any) -> Tensor:
    return where(condition, x, other)


Tensor.where = _where_method  # type: ignore[attr-defined]


@inplace
def nan_to_num(
    x: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Replace NaN and infinities."""
    limits = dt.finfo(x.dtype) if x.dtype.is_floating_point else None
    if limits is None:
        return wrap(to_array(x))
    a = to_array(x)
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    a = mx.where(mx.isnan(a), mx.array(nan, a.dtype), a)
    a = mx.where(a == mx.inf, mx.array(high, a.dtype), a)
    return wrap(mx.where(a == -mx.inf, mx.array(low, a.dtype), a))


neg = FUNCTIONS["neg"]
ALIASES = {
    "absolute": "abs",
    "negative": "neg",
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "true_divide": "div",
    "clip": "clamp",
    "arctan": "atan",
    "greater": "gt",
    "less": "lt",
    "not_equal": "ne",
}
for _alias, _target in ALIASES.items():
    FUNCTIONS[_alias] = FUNCTIONS[_target]
    setattr(Tensor, _alias, FUNCTIONS[_target])
    add_inplace(_alias, FUNCTIONS[_target])


def _dunder(name: str, swap: bool = False) -> Callable[[Tensor, Any], Tensor]:
    op = FUNCTIONS[name]

    def forward(self: Tensor, other: Any) -> Any:
        if (
            not isinstance(other, (Tensor, bool, int, float))
            and name in ("eq", "ne")
            and (other is None or isinstance(other, str))
        ):
            return NotImplemented
        return op(other, self) if swap else op(self, other)

    return forward


for _dunder_name, _name in {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}.items():
    setattr(Tensor, f"__{_dunder_name}__", _dunder(_name))
    setattr(Tensor, f"__r{_dunder_name}__", _dunder(_name, swap=True))
    setattr(Tensor, f"__i{_dunder_name}__", getattr(Tensor, f"{_name}_"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _dunder(_name))
for _dunder_name, _name in {"neg": "neg", "abs": "abs", "invert": "bitwise_not"}.items():
    setattr(Tensor, f"__{_dunder_name}__", FUNCTIONS[_name])
setattr(Tensor, "__pos__", lambda self: self)  # noqa: B010

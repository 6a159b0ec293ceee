"""dtypes, devices and torch's rules of type promotion.

Promotion differs from MLX's in two places that change training: a 0-d float32 tensor times bfloat16
stays bfloat16, and integers with Python floats become the default float.
Rules: https://pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx

from backends.mlx_torch._errors import WrongFramework, wrong_framework

Number = bool | int | float


class dtype:
    """One element type; `mx` is MLX's."""

    def __init__(self, name: str, mlx: mx.Dtype, rank: int) -> None:
        self.name, self.mx, self.rank = name, mlx, rank
        self.is_floating_point = rank == 2
        self.is_complex = False
        self.is_signed = not (name.startswith("u") or name == "bool")
        self.itemsize = mlx.size

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


# name -> (MLX type, category): 0 bool, 1 integer, 2 floating
_TYPES = {
    "bool": (mx.bool_, 0),
    **{n: (getattr(mx, n), 1) for n in ("uint8", "uint16", "uint32", "uint64")},
    **{n: (getattr(mx, n), 1) for n in ("int8", "int16", "int32", "int64")},
    **{n: (getattr(mx, n), 2) for n in ("float16", "bfloat16", "float32")},
}
DTYPES = {name: dtype(name, *row) for name, row in _TYPES.items()}
ALIASES = {"float": "float32", "half": "float16", "long": "int64", "int": "int32", "short": "int16"}
OF_MLX = {d.mx: d for d in DTYPES.values()}
HALF = (mx.bfloat16, mx.float16)
DEFAULT_FLOAT = mx.float32


def _by_name(name: str) -> dtype:
    return DTYPES[name]


def as_mlx(value: object, default: mx.Dtype | None = None) -> mx.Dtype:
    """MLX type of a torch-spelled dtype; None gives `default`."""
    if value is None and default is not None:
        return default
    if isinstance(value, dtype):
        return value.mx
    python = {float: mx.float32, int: mx.int64, bool: mx.bool_}
    if isinstance(value, type) and value in python:
        return python[value]
    wrong_framework(value, "a dtype such as torch.float32")


def rank(d: mx.Dtype) -> int:
    """0 bool, 1 integer, 2 floating."""
    return OF_MLX[d].rank if d in OF_MLX else 2


@cache
def promote(a: mx.Dtype, b: mx.Dtype) -> mx.Dtype:
    """The type two tensors of equal standing meet in."""
    if a == b:
        return a
    if {a, b} == {mx.float16, mx.bfloat16}:
        return mx.float32
    if rank(a) != rank(b):
        return a if rank(a) > rank(b) else b
    return mx.result_type(a, b)


def _combine(higher: mx.Dtype | None, lower: mx.Dtype | None) -> mx.Dtype | None:
    """Type of a group of higher standing (dimensions > 0-d > Python numbers) with one of lower."""
    if higher is None or lower is None:
        return higher or lower
    return lower if rank(lower) > rank(higher) else higher


def result_dtype(*operands: mx.array | Number) -> mx.Dtype:
    """torch.result_type over MLX arrays and Python numbers."""
    groups: list[mx.Dtype | None] = [None, None, None]
    for x in operands:
        if isinstance(x, mx.array):
            standing, d = (0 if x.ndim else 1), x.dtype
        else:
            standing, d = 2, number_dtype(x)
        seen = groups[standing]
        groups[standing] = d if seen is None else promote(seen, d)
    found = _combine(groups[0], _combine(groups[1], groups[2]))
    return found if found is not None else DEFAULT_FLOAT


def number_dtype(x: Number) -> mx.Dtype:
    """The tensor type torch gives a Python number."""
    return mx.bool_ if isinstance(x, bool) else mx.int64 if isinstance(x, int) else DEFAULT_FLOAT


def exact_in_half(x: Number) -> bool:
    """Whether a number loses nothing in bfloat16 and float16: an op may then stay narrow."""
    if isinstance(x, int):
        return -256 <= x <= 256
    try:
        bits = struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        return False
    return bits & 0xFFFF == 0 and (x == 0 or 1e-4 < abs(x) < 6e4)


@dataclass(frozen=True)
class device:
    """MLX has unified memory: a device is only a label, also usable as a context manager."""

    type: str = "mlx"
    index: int | None = None

    def __post_init__(self) -> None:
        kind = self.type.split(":")[0] if isinstance(self.type, str) else None
        if kind not in ("mlx", "cpu"):
            raise WrongFramework(
                f"device {self.type!r} does not exist on the MLX backend; write "
                "device=runtime.device"
            )
        object.__setattr__(self, "type", kind)

    def __str__(self) -> str:
        return self.type

    def __enter__(self) -> device:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def check_device(value: object) -> None:
    """Accept None, a name or a device of ours; raise WrongFramework for another framework's."""
    if value is None or isinstance(value, device):
        return
    if isinstance(value, str):
        device(value)
        return
    wrong_framework(value, "runtime.device")


@dataclass(frozen=True)
class finfo:
    """Limits of a floating type."""

    dtype: dtype = DTYPES["float32"]

    @property
    def eps(self) -> float:
        return {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}[self.dtype.name]

    @property
    def max(self) -> float:
        return {
            "float32": (2 - 2.0**-23) * 2.0**127,
            "bfloat16": (2 - 2.0**-7) * 2.0**127,
            "float16": 65504.0,
        }[self.dtype.name]

    @property
    def min(self) -> float:
        return -self.max

    @property
    def tiny(self) -> float:
        return 2.0**-14 if self.dtype.name == "float16" else 2.0**-126

    @property
    def bits(self) -> int:
        return self.dtype.itemsize * 8


@dataclass(frozen=True)
class iinfo:
    """Limits of an integer type."""

    dtype: dtype

    @property
    def bits(self) -> int:
        return self.dtype.itemsize * 8

    @property
    def max(self) -> int:
        return int(2 ** (self.bits - self.dtype.is_signed) - 1)

    @property
    def min(self) -> int:
        return -(2 ** (self.bits - 1)) if self.dtype.is_signed else 0

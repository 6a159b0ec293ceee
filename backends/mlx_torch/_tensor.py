"""Tensor: a torch-shaped wrapper of an mx.array.

MLX arrays are values. Writing in place therefore means: this wrapper now holds another array.
What may share memory in torch (view, reshape, transpose, basic indexing, chunk, split, unbind,
expand, contiguous, detach) is a *view* here: it remembers its base and follows it when the base is
written, and writing to the view itself raises ViewWrite, so nothing differs from torch silently.
Methods are attached by `_registry` from the tables in the op modules.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import mlx.core as mx
import numpy as np

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._errors import (
    AUTOGRAD,
    NoAutograd,
    TracedValue,
    ViewWrite,
    missing,
    wrong_framework,
)
from backends.mlx_torch._grad_mode import MODE, settle

Derive = Callable[[mx.array], mx.array]
# Written since the last flush(), by id since == of tensors is elementwise; see flush.
WRITTEN: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()


class Size(tuple[int, ...]):
    """A shape: a tuple with numel()."""

    def numel(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"

    def __getitem__(self, i: Any) -> Any:
        found = super().__getitem__(i)
        return Size(found) if isinstance(i, slice) else found


class Tensor:
    """Torch's tensor over an mx.array, made by torch.tensor, torch.zeros, runtime.from_numpy."""

    requires_grad = False
    is_cuda = False
    is_leaf = True
    _permanent = False  # a Parameter: may not be written while gradients are on

    def __init__(self, value: mx.array, base: Tensor | None = None, derive: Derive | None = None):
        if not isinstance(value, mx.array):
            wrong_framework(
                value, "an mx.array inside torch.Tensor; make tensors with torch.tensor"
            )
        self._value = value
        self._base = base
        self._derive = derive
        self._source = base._value if base is not None else None
        self.grad: Tensor | None = None

    # -- reading ---------------------------------------------------------------------------

    @property
    def array(self) -> mx.array:
        """The mx.array behind; a view follows what its base holds now."""
        if self._base is not None:
            source = self._base.array
            if source is not self._source:
                assert self._derive is not None
                self._source, self._value = source, self._derive(source)
        return self._value

    @property
    def shape(self) -> Size:
        return Size(self.array.shape)

    @property
    def dtype(self) -> dt.dtype:
        return dt.OF_MLX[self._value.dtype]

    @property
    def device(self) -> dt.device:
        return dt.device("mlx")

    @property
    def ndim(self) -> int:
        return self._value.ndim

    @property
    def data(self) -> Tensor:
        """The same values without a gradient; write `with torch.no_grad(): p.mul_(...)` to change
        them.
        """
        return view(self, mx.stop_gradient)

    @data.setter
    def data(self, value: Tensor) -> None:
        self._value, self._base = to_array(value), None
        WRITTEN[id(self)] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_value":
            raise AttributeError(name)
        missing("Tensor", name, dir(type(self)))

    def item(self) -> Any:
        """The one number as Python's; evaluates."""
        try:
            return self.array.item()
        except ValueError as error:
            if "eval" in str(error):
                _traced(error)
            raise RuntimeError(
                f"item() needs one element, got shape {tuple(self.shape)}"
            ) from error

    def tolist(self) -> Any:
        """Nested lists of Python numbers; evaluates."""
        return self._concrete().tolist()

    def numpy(self) -> np.ndarray:
        """A NumPy copy; bfloat16 has no NumPy type, as in torch: write .float().numpy()."""
        if self._value.dtype == mx.bfloat16:
            raise TypeError("NumPy has no bfloat16: write .float().numpy()")
        return np.array(self._concrete())

    def _concrete(self) -> mx.array:
        array = self.array
        try:
            mx.eval(array)
        except ValueError as error:
            _traced(error)
        return array

    def __bool__(self) -> bool:
        if self._value.size != 1:
            raise RuntimeError(
                f"the truth of a tensor of shape {tuple(self.shape)} is ambiguous: use .any() "
                "or .all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if dt.rank(self._value.dtype) == 2:
            raise TypeError("only integer tensors of a single element can be an index")
        return int(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        try:
            body = np.array2string(np.array(self._concrete().astype(mx.float32)), separator=", ")
        except TracedValue:
            body = f"<traced {tuple(self.shape)}>"
        return f"tensor({body}, dtype={self.dtype})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else format(repr(self), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        Tensor.__init__(copied, mx.array(self.array))
        for key, value in self.__dict__.items():
            if key not in ("_value", "_base", "_derive", "_source", "grad"):
                copied.__dict__[key] = value
        return copied

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    # -- gradients live in runtime.backward ------------------------------------------------

    def backward(self, *args: object, **kwargs: object) -> NoReturn:
        raise NoAutograd(f"loss.backward() is not available on MLX: {AUTOGRAD}")

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        raise NoAutograd(
            "only parameters have gradients on MLX: make it an nn.Parameter of a module"
        )

    # -- writing in place ------------------------------------------------------------------

    def assign(self, value: mx.array) -> Tensor:
        """Hold `value` from now on, cast to this dtype; the one place where tensors are written.

        Raises ViewWrite on a view, RuntimeError on a shape or category that torch refuses.
        """
        if self._base is not None:
            raise ViewWrite(
                "in-place write to a view (of view, reshape, transpose, indexing, chunk, "
                "split, unbind, expand, "
                "contiguous or detach): MLX arrays share no memory. Write `x[index] = value` "
                "on the base, "
                "use the value the out-of-place op returns (`x = x + y` for `x += y`), or "
                "take `x = x.clone()` first"
            )
        if self._permanent and self.requires_grad and MODE.enabled:
            raise RuntimeError(
                "a parameter that requires grad is written in place: do it under `with "
                "torch.no_grad():`"
            )
        if value.shape != self._value.shape:
            raise RuntimeError(
                f"an in-place result of shape {tuple(value.shape)} doesn't fit shape "
                f"{tuple(self._value.shape)}"
            )
        if dt.rank(value.dtype) > dt.rank(self._value.dtype):
            raise RuntimeError(
                f"result type {dt.OF_MLX[value.dtype]} can't be cast to the {self.dtype} "
                "written in place"
            )
        self._value = settle(value.astype(self._value.dtype))
        if not MODE.tracing:
            WRITTEN[id(self)] = self
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        from backends.mlx_torch._indexing import write

        self.assign(write(self.array, index, value))

    def __getitem__(self, index: Any) -> Tensor:
        from backends.mlx_torch._indexing import read

        return read(self, index)


def _traced(error: Exception) -> NoReturn:
    raise TracedValue(
        "a number was asked of a tensor (.item(), float(), if, print, boolean-mask indexing) "
        "while its function is "
        "being traced: keep it a tensor (torch.where instead of if), or do it outside the "
        "compiled function"
    ) from error


def to_array(value: Any) -> mx.array:
    """The array of a Tensor; anything else is refused with advice."""
    if isinstance(value, Tensor):
        return value.array
    wrong_framework(value)


def operand(value: Any) -> mx.array | dt.Number:
    """The array of a Tensor, or a Python number as it is."""
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, np.generic):
        found: dt.Number = value.item()
        return found
    wrong_framework(value, "a Tensor or a Python number")


def wrap(array: mx.array) -> Tensor:
    """A new tensor that shares memory with nothing."""
    return Tensor(settle(array))


def view(x: Tensor, derive: Derive) -> Tensor:
    """A tensor that torch may give the memory of `x`: follows x, refuses in-place writes."""
    if MODE.differentiating and not MODE.enabled:
        return Tensor(mx.stop_gradient(derive(x.array)), x, lambda a: mx.stop_gradient(derive(a)))
    source = x.array
    return Tensor(derive(source), x, derive)


def flush() -> None:
    """Start computing everything written in place since last time, so that no lazy graph grows for
    ever.
    """
    pending = [t._value for t in WRITTEN.values()]
    WRITTEN.clear()
    if pending:
        mx.async_eval(pending)

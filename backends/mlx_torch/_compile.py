"""mx.compile for functions of Tensors: traced once per set of shapes, in-place updates kept.

A compiled MLX function sees only its inputs; everything else is baked in as a constant. So these
are made inputs, and what was written to them comes back as outputs: tensors in the arguments
(also inside lists, tuples, dicts), modules in the arguments with all their tensors, what the
function closes over (cells, its `self`, globals that it names) and the state of the random
numbers. Python numbers are constants: each new value compiles again, so a value that changes
every step belongs in a 0-d tensor, as with torch.compile(dynamic=False).
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import mlx.core as mx

from backends.mlx_torch._grad_mode import MODE
from backends.mlx_torch._tensor import WRITTEN, Tensor
from backends.mlx_torch.nn.module import Module

MANY = 16  # traces of one function after which a warning is due


def with_arrays(
    tensors: list[Tensor], arrays: list[mx.array], run: Callable[[], Any]
) -> tuple[Any, list[int], list[mx.array]]:
    """Run with the tensors holding other arrays; (result, numbers of those written, what they hold
    then).
    """
    before = [t._value for t in tensors]
    for t, a in zip(tensors, arrays, strict=True):
        t._value = a
    try:
        result = run()
        written = [
            i for i, (t, a) in enumerate(zip(tensors, arrays, strict=True)) if t._value is not a
        ]
        return result, written, [tensors[i]._value for i in written]
    finally:
        for t, a in zip(tensors, before, strict=True):
            t._value = a


def module_tensors(module: Module) -> Iterator[Tensor]:
    """Every tensor a module holds: parameters, buffers and plain attributes."""
    for m in module.modules():
        for registry in (m._parameters, m._buffers, m.__dict__):
            for value in registry.values():
                if isinstance(value, Tensor):
                    yield value
                elif isinstance(value, (list, tuple)):
                    yield from (v for v in value if isinstance(v, Tensor))


def module_constants(module: Module) -> Hashable:
    """The plain Python attributes of a module: a change compiles again."""
    plain = (bool, int, float, str, type(None))
    return tuple(
        tuple((k, type(v), v) for k, v in m.__dict__.items() if isinstance(v, plain))
        for m in module.modules()
    )


class _Inputs:
    """Tensors found in a tree of arguments, each once, and a hashable description of the tree."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.places: dict[int, int] = {}

    def place(self, t: Tensor) -> int:
        """The tensor's number."""
        found = self.places.setdefault(id(t), len(self.tensors))
        if found == len(self.tensors):
            self.tensors.append(t)
        return found

    def describe(self, value: Any) -> Hashable:
        """Collect the tensors of value; equal descriptions may share a trace."""
        if isinstance(value, Tensor):
            return ("tensor", self.place(value), value.requires_grad)
        if isinstance(value, (list, tuple)):
            return (type(value), *(self.describe(v) for v in value))
        if isinstance(value, dict):
            return (dict, *((k, self.describe(v)) for k, v in value.items()))
        if isinstance(value, Module):
            held = tuple(self.describe(t) for t in module_tensors(value))
            return (id(value), module_constants(value), held)
        try:
            hash(value)
        except TypeError:
            return ("id", id(value))
        return (type(value), value)

    def signature(self) -> Hashable:
        """Shapes and dtypes."""
        return tuple((t._value.shape, t._value.dtype) for t in self.tensors)


def captured(fn: Callable[..., Any]) -> list[Any]:
    """Tensors and modules a function uses without being given them."""
    found: list[Any] = [getattr(fn, "__self__", None)]
    plain = getattr(fn, "__func__", fn)
    code = getattr(plain, "__code__", None)
    if code is None:
        return [fn] if isinstance(fn, Module) else []
    for cell in plain.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a name of the enclosing function that is not set yet
            continue
    names, codes = set(), [code]
    while codes:
        c = codes.pop()
        names.update(c.co_names)
        codes.extend(k for k in c.co_consts if isinstance(k, types.CodeType))
    found += [plain.__globals__[n] for n in sorted(names) if n in plain.__globals__]
    return [f for f in found if isinstance(f, (Tensor, Module, list, tuple, dict)) and _holds(f)]


def _holds(value: Any) -> bool:
    if isinstance(value, dict):
        return any(isinstance(v, (Tensor, Module)) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(isinstance(v, (Tensor, Module)) for v in value)
    return True


class _Trace:
    """One compiled version of a function, for one description and set of shapes."""

    def __init__(self, call: Callable[[], Any], tensors: list[Tensor]) -> None:
        self.written: list[int] = []
        self.template: Any = None
        self.failure: BaseException | None = None

        def flat(arrays: list[mx.array]) -> list[mx.array]:
            before, MODE.tracing = MODE.tracing, True
            try:
                result, self.written, held = with_arrays(
                    tensors, arrays, lambda: self._outputs(call(), tensors)
                )
            except BaseException as failure:  # noqa: BLE001 - raised again by __call__
                # Let through here, it would leave MLX's random state holding a tracer for ever.
                self.failure = failure
                return []
            finally:
                MODE.tracing = before
            self.template, outputs = result
            return [*outputs, *held]

        self.run = mx.compile(flat, inputs=mx.random.state, outputs=mx.random.state)

    @staticmethod
    def _outputs(value: Any, tensors: list[Tensor]) -> tuple[Any, list[mx.array]]:
        """Result as a template (numbers for tensors, inputs by identity) and its arrays."""
        places = {id(t): i for i, t in enumerate(tensors)}
        arrays: list[mx.array] = []

        def strip(v: Any) -> Any:
            if isinstance(v, Tensor):
                if id(v) in places:
                    return _Slot(None, places[id(v)])
                arrays.append(v.array)
                return _Slot(len(arrays) - 1, None)
            return _map(strip, v)

        return strip(value), arrays

    def __call__(self, tensors: list[Tensor]) -> Any:
        arrays = self.run([t.array for t in tensors])
        if self.failure is not None:
            raise self.failure
        held = arrays[len(arrays) - len(self.written) :] if self.written else []
        for i, array in zip(self.written, held, strict=True):
            tensors[i]._value = array
            WRITTEN[id(tensors[i])] = tensors[i]

        def fill(v: Any) -> Any:
            if isinstance(v, _Slot):
                return (
                    tensors[v.argument] if v.argument is not None else Tensor(arrays[v.output or 0])
                )
            return _map(fill, v)

        return fill(self.template)


class _Slot:
    """Where a tensor of the result comes from: an output, or an argument returned as it is."""

    def __init__(self, output: int | None, argument: int | None) -> None:
        self.output, self.argument = output, argument


def _map(f: Callable[[Any], Any], v: Any) -> Any:
    """f over the items of a list, tuple (named or not) or dict; anything else as it is."""
    if isinstance(v, tuple) and hasattr(v, "_fields"):
        return type(v)(*(f(x) for x in v))
    if isinstance(v, (list, tuple)):
        return type(v)(f(x) for x in v)
    if isinstance(v, dict):
        return {k: f(x) for k, x in v.items()}
    return v


class Compiled:
    """A compiled function. Inside another compiled function it is simply called."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.traces: dict[Hashable, _Trace] = {}
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if MODE.tracing or MODE.differentiating:
            return self.fn(*args, **kwargs)
        inputs = _Inputs()
        described = inputs.describe((args, kwargs, captured(self.fn)))
        key = (described, inputs.signature(), MODE.enabled)
        trace = self.traces.get(key)
        if trace is None:
            trace = _Trace(lambda: self.fn(*args, **kwargs), inputs.tensors)
            result = trace(inputs.tensors)
            self.traces[key] = trace
            if len(self.traces) == MANY:
                warnings.warn(
                    f"{getattr(self.fn, '__name__', self.fn)} was compiled {MANY} times: "
                    "Python numbers are constants; "
                    "pass a number that changes as a 0-d tensor (torch.tensor(lr))",
                    stacklevel=2,
                )
            return result
        return trace(inputs.tensors)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)


def compile(fn: Any = None, **options: Any) -> Any:
    """torch.compile: as a function or decorator; torch's options are accepted and mean nothing
    here.
    """
    return (lambda f: Compiled(f)) if fn is None else Compiled(fn)

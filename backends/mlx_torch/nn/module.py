"""nn.Module with torch's names for parameters, buffers and state_dict, so that weights are
interchangeable.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from backends.mlx_torch import _dtypes as dt
from backends.mlx_torch._errors import missing
from backends.mlx_torch._grad_mode import no_grad
from backends.mlx_torch._tensor import Tensor
from backends.mlx_torch.nn.parameter import Buffer, Parameter

M = TypeVar("M", bound="Module")
Named = Iterator[tuple[str, Any]]


class IncompatibleKeys(NamedTuple):
    """What load_state_dict found missing and unexpected."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Torch's nn.Module: attributes that are parameters, buffers or modules are registered."""

    training: bool

    def __init__(self) -> None:
        for name in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_transient", set())  # buffers that stay out of state_dict
        object.__setattr__(self, "training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # -- registration ----------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        d = self.__dict__
        if "_parameters" not in d and isinstance(value, (Parameter, Module)):
            raise AttributeError(f"call super().__init__() before setting {name!r}")
        if isinstance(value, Parameter):
            self._forget(name)
            d["_parameters"][name] = value
        elif isinstance(value, Module):
            self._forget(name)
            d["_modules"][name] = value
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, value.persistent)
        elif name in d.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"can't assign {type(value).__name__} as parameter {name!r}: use nn.Parameter"
                )
            d["_parameters"][name] = None
        elif name in d.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"can't assign {type(value).__name__} as buffer {name!r}")
            d["_buffers"][name] = value
        elif name in d.get("_modules", ()) and value is None:
            d["_modules"][name] = None
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str) -> None:
        self.__dict__.pop(name, None)
        for registry in ("_parameters", "_buffers", "_modules"):
            self.__dict__[registry].pop(name, None)

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry, {})
            if name in found:
                return found[name]
        if name.startswith("__"):
            raise AttributeError(name)
        known = itertools.chain(dir(type(self)), self.__dict__, *(self.__dict__.get(r, ()) for r in
                                ("_parameters", "_buffers", "_modules")))  # fmt: skip
        missing(type(self).__name__, name, known)

    def __delattr__(self, name: str) -> None:
        if any(name in self.__dict__[r] for r in ("_parameters", "_buffers", "_modules")):
            self._forget(name)
        else:
            object.__delattr__(self, name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (or None as a placeholder)."""
        self._forget(name)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is kept, moved and (if persistent) saved, but not trained."""
        self._forget(name)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule by name."""
        self._forget(name)
        self._modules[name] = module

    register_module = add_module

    # -- walking ---------------------------------------------------------------------------

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = ""
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below, each once, depth first."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        memo.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """Direct submodules."""
        return (m for _, m in self.named_children())

    def _named(self, registry: str, prefix: str, recurse: bool, dedup: bool) -> Named:
        seen: set[int] = set()
        for path, module in self.named_modules(None, prefix) if recurse else [(prefix, self)]:
            for name, value in module.__dict__[registry].items():
                if value is None or (dedup and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Named:
        """(name, parameter), shared ones once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, shared ones once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Named:
        """(name, buffer)."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name."""
        found: Module = self
        for part in target.split(".") if target else ():
            found = found._modules[part] if part in found._modules else getattr(found, part)
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name."""
        path, _, name = target.rpartition(".")
        found: Parameter = getattr(self.get_submodule(path), name)
        return found

    # -- state -----------------------------------------------------------------------------

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Own parameters, own persistent buffers, then the children's: torch's order."""
        for name, p in self._parameters.items():
            if p is not None:
                yield prefix + name, p
        for name, b in self._buffers.items():
            if b is not None and name not in self._transient:
                yield prefix + name, b
        for name, child in self._modules.items():
            if child is not None:
                yield from child._state(f"{prefix}{name}.")

    def state_dict(self, prefix: str = "") -> OrderedDict[str, Tensor]:
        """name -> tensor; clone what must survive the next step."""
        return OrderedDict((name, t.detach()) for name, t in self._state(prefix))

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values in. Raises RuntimeError on missing or unexpected names (strict) and on
        shapes.
        """
        own = dict(self._state())
        absent = [n for n in own if n not in state_dict]
        extra = [n for n in state_dict if n not in own]
        wrong = [
            f"{n}: {tuple(state_dict[n].shape)} given, {tuple(t.shape)} wanted"
            for n, t in own.items()
            if n in state_dict and tuple(state_dict[n].shape) != tuple(t.shape)
        ]
        if wrong or (strict and (absent or extra)):
            raise RuntimeError(
                f"state_dict doesn't fit {type(self).__name__}: missing {absent}, unexpected "
                f"{extra}, shapes {wrong}"
            )
        with no_grad():
            for name, t in own.items():
                if name in state_dict:
                    value = state_dict[name].array
                    if assign:
                        t._value = value
                    else:
                        t.assign(value.astype(t.dtype.mx))
        return IncompatibleKeys(absent, extra)

    # -- modes and conversions -------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Training mode for this module and all below."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self: M) -> M:
        """Evaluation mode."""
        return self.train(False)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """fn on every submodule, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self: M, convert: Callable[[Tensor], Tensor]) -> M:
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            tensor._value = convert(tensor).array
            if tensor.grad is not None:
                tensor.grad = convert(tensor.grad)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Cast floating parameters and buffers (in place, as in torch); devices are checked and
        ignored.
        """
        dtype = kwargs.pop("dtype", None)
        for arg in args:
            dtype = (
                arg
                if isinstance(arg, dt.dtype)
                else arg.dtype
                if isinstance(arg, Tensor)
                else dtype
            )
            if not isinstance(arg, (dt.dtype, Tensor, bool)):
                dt.check_device(arg)
        dt.check_device(kwargs.pop("device", None))
        if dtype is None:
            return self
        kind = dt.as_mlx(dtype)
        return self._apply(
            lambda t: Tensor(t.array.astype(kind)) if t.dtype.is_floating_point else t
        )

    def float(self: M) -> M:
        """Everything floating to float32."""
        return self.to(dt.DTYPES["float32"])

    def bfloat16(self: M) -> M:
        """Everything floating to bfloat16."""
        return self.to(dt.DTYPES["bfloat16"])

    def half(self: M) -> M:
        """Everything floating to float16."""
        return self.to(dt.DTYPES["float16"])

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze or unfreeze all parameters."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients (or fill them with zeros)."""
        for p in self.parameters():
            p.grad = None if set_to_none or p.grad is None else Tensor(p.grad.array * 0)

    def extra_repr(self) -> str:
        """What to show in the parentheses."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({n}): " + repr(m).replace("\n", "\n  ") for n, m in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

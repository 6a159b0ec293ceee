"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backends.mlx_torch._tensor import Tensor
from backends.mlx_torch.nn.module import Module
from backends.mlx_torch.nn.parameter import Parameter


class _List(Module):
    """Children under the names 0, 1, 2, ..."""

    _registry = "_modules"

    @property
    def _items(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__[self._registry]
        return found

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.values())

    def __getitem__(self, i: Any) -> Any:
        values = list(self._items.values())
        make: Any = type(self)
        return make(values[i]) if isinstance(i, slice) else values[i]

    def __setitem__(self, i: int, value: Any) -> None:
        self._items[list(self._items)[i]] = value

    def append(self, value: Any) -> Any:
        """Add one at the end."""
        setattr(self, str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> Any:
        """Add several at the end."""
        for value in values:
            self.append(value)
        return self


class ModuleList(_List):
    """A list of modules."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)


class ParameterList(_List):
    """A list of parameters; plain tensors become parameters."""

    _registry = "_parameters"

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)

    def append(self, value: Tensor) -> ParameterList:
        """Add one at the end."""
        setattr(self, str(len(self)), value if isinstance(value, Parameter) else Parameter(value))
        return self


class Sequential(_List):
    """Modules called one after the other."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                setattr(self, name, module)
        else:
            self.extend(modules)

    def __getitem__(self, i: Any) -> Any:
        values = list(self._modules.values())
        return Sequential(*values[i]) if isinstance(i, slice) else values[i]

    def forward(self, x: Any) -> Any:
        """Each module on the output of the one before."""
        for module in self:
            x = module(x)
        return x


class _Dict(Module):
    """Children under their own names."""

    _registry = "_modules"

    def __init__(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.update(items)

    @property
    def _items(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__[self._registry]
        return found

    def update(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add several."""
        for name, value in items.items() if isinstance(items, Mapping) else items:
            self[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._items[name] = value

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._items.keys()

    def values(self) -> Iterable[Any]:
        """Children."""
        return self._items.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, child)."""
        return self._items.items()


class ModuleDict(_Dict):
    """A dict of modules."""


class ParameterDict(_Dict):
    """A dict of parameters; plain tensors become parameters."""

    _registry = "_parameters"

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._items[name] = value if isinstance(value, Parameter) else Parameter(value)

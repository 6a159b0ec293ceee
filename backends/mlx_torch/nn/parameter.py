"""Parameter: a tensor that a module trains; Buffer: one it keeps."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from backends.mlx_torch._grad_mode import MODE
from backends.mlx_torch._tensor import Tensor, to_array


class Parameter(Tensor):
    """A trainable tensor; runtime.backward adds to its .grad unless requires_grad is False."""

    _permanent = True

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data if isinstance(data, mx.array) else to_array(data))
        self.requires_grad = requires_grad

    @property
    def array(self) -> mx.array:
        """The mx.array behind; notes that it was read."""
        if MODE.used is not None:
            MODE.used.add(id(self))
        return self._value

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Freeze with False; read when the next backward runs."""
        self.requires_grad = requires_grad
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Buffer(Tensor):
    """A tensor that Module.__setattr__ registers as a buffer."""

    def __init__(self, data: Tensor, *, persistent: bool = True) -> None:
        super().__init__(to_array(data))
        self.persistent = persistent

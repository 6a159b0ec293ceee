"""no_grad: inside it, results carry no gradient and parameters may be written.

MLX differentiates functions, so outside runtime.backward there is no graph to leave out; inside it,
results made under no_grad pass through stop_gradient.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class _Mode(threading.local):
    enabled = True  # False inside no_grad
    differentiating = False  # True while mx.grad traces the model
    tracing = False  # True while mx.compile traces a function
    used: set[int] | None = None  # ids of the parameters read, while somebody wants to know


MODE = _Mode()


def settle(array: mx.array) -> mx.array:
    """Cut the gradient of a result made under no_grad."""
    return mx.stop_gradient(array) if MODE.differentiating and not MODE.enabled else array


@contextmanager
def differentiating() -> Iterator[None]:
    """Entered by runtime.backward while the loss is traced."""
    before = MODE.differentiating
    MODE.differentiating = True
    try:
        yield
    finally:
        MODE.differentiating = before


class _SetGrad:
    """Context manager and decorator; bare (`@torch.no_grad`) and called (`@torch.no_grad()`)."""

    enabled: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        self._before = []
        return self(function) if function is not None and callable(function) else self

    _before: list[bool]

    def __enter__(self) -> None:
        self._before.append(MODE.enabled)
        MODE.enabled = self.enabled

    def __exit__(self, *exc: object) -> None:
        MODE.enabled = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return inner


class no_grad(_SetGrad):
    enabled = False


class inference_mode(no_grad):
    pass


class enable_grad(_SetGrad):
    enabled = True


def is_grad_enabled() -> bool:
    """Whether gradients flow through what is computed now."""
    return MODE.enabled

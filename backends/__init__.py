"""The hardware behind train.py. Importing this is free: nothing is probed, no framework loads.

    from backends import torch, nn, F, runtime     # PyTorch, or its spelling over MLX
    backends.select().hardware.name                # what was chosen
    backends.select().passed_over                  # and what wasn't, each with its reason

The first use of one of the four names picks the backend: AUTORESEARCH_BACKEND, else the best.
"""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    import torch.nn as nn
    import torch.nn.functional as F

    import backends.torch_runtime as runtime
    from backends.hardware import Hardware, Miss
    from backends.policy import Overrides, Policy

__all__ = [
    "F",
    "Selection",
    "detected",
    "make_ready",
    "nn",
    "runtime",
    "select",
    "selection_for",
    "torch",
]

# Where each name lives: module, then attributes below it.
_NAMES = {
    "torch": {
        "torch": ("torch", ""),
        "nn": ("torch.nn", ""),
        "F": ("torch.nn.functional", ""),
        "runtime": ("backends.torch_runtime", ""),
    },
    "mlx": {
        "torch": ("backends.mlx_torch", ""),
        "nn": ("backends.mlx_torch", "nn"),
        "F": ("backends.mlx_torch", "nn.functional"),
        "runtime": ("backends.mlx_runtime", ""),
    },
}


@dataclass(frozen=True)
class Selection:
    """The hardware to train on, how, and what was passed over on the way."""

    hardware: Hardware
    policy: Policy
    passed_over: tuple[Miss, ...]

    def environment(self) -> dict[str, str]:
        """Variables that make a child process choose the same without probing."""
        from backends.policy import COMPILE

        spelled = {mode: said for said, mode in COMPILE.items()}
        return {
            **self.policy.environment,
            "AUTORESEARCH_BACKEND": self.hardware.backend,
            "AUTORESEARCH_DTYPE": self.policy.compute_dtype,
            "AUTORESEARCH_COMPILE": spelled[self.policy.compile_mode],
            "AUTORESEARCH_ATTENTION": self.policy.attention,
            "AUTORESEARCH_LOSS": self.policy.loss,
            "AUTORESEARCH_GRAM": self.policy.gram,
            "AUTORESEARCH_LINEAR": self.policy.linear,
        }


def select(requested: str | None = None) -> Selection:
    """Hardware and policy for a backend's name, "torch" or "auto"; None asks AUTORESEARCH_BACKEND.

    The first call may probe speeds for some seconds (cached on disk); later ones cost nothing.
    Raises UnknownBackend, BackendUnavailable or UnknownOverride.
    """
    from backends.policy import Overrides

    return _select(_name(requested), Overrides.from_environment())


def detected(requested: str | None = None) -> Hardware:
    """The hardware that `select` chooses; its speeds aren't asked for."""
    from backends.hardware import detect

    return detect(_name(requested))[0]


def _name(requested: str | None) -> str:
    return requested or os.environ.get("AUTORESEARCH_BACKEND", "").strip() or "auto"


@functools.cache
def _select(requested: str, overrides: Overrides) -> Selection:
    from backends.hardware import detect
    from backends.policy import choose_policy, questions
    from backends.speed import measure

    hardware, passed_over = detect(requested)
    figures = measure(hardware, questions(hardware, overrides), overrides)
    return Selection(hardware, choose_policy(hardware, figures, overrides), passed_over)


def make_ready(requested: str | None = None) -> Selection:
    """`select` for a loop of runs: makes once what each would make again."""
    from backends.compiled_headers import make_once

    selection = select(requested)
    if selection.policy.compile and selection.hardware.backend == "cpu":
        make_once()
    return selection


def selection_for(framework: str) -> Selection:
    """The selection in force if it is of this framework ("torch" or "mlx"), else its best."""
    chosen = select()
    return chosen if chosen.hardware.framework == framework else select(framework)


def __getattr__(name: str) -> Any:
    if name not in _NAMES["torch"]:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    selection = select()
    for variable, setting in selection.policy.environment.items():
        os.environ.setdefault(variable, setting)
    module, path = _NAMES[selection.hardware.framework][name]
    value: Any = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        value = getattr(value, part)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

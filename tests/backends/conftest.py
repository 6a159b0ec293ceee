"""The torch runtime as backend tests want it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch

LAZY = ("hardware", "policy", "device", "compute_dtype")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The torch runtime on this CPU, fp32, eager, and as it was afterwards."""
    for name, value in (("BACKEND", "cpu"), ("DTYPE", "float32"), ("COMPILE", "0")):
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "block_local")
    from backends import torch_runtime

    before = dict(vars(torch_runtime))
    for name in LAZY:
        vars(torch_runtime).pop(name, None)
    monkeypatch.setattr(torch_runtime, "_attention", torch_runtime._Attention())
    monkeypatch.setattr(torch_runtime, "_products", torch_runtime._Products())
    yield torch_runtime
    for name in LAZY:
        vars(torch_runtime).pop(name, None)
    vars(torch_runtime).update({name: before[name] for name in LAZY if name in before})


@pytest.fixture
def compiling(runtime: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runtime with compilation by a backend that traces only: seconds, not minutes."""
    torch._dynamo.reset()
    runtime.policy = replace(runtime.policy, compile=True, compile_mode="default")
    quick = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", quick)
    return runtime

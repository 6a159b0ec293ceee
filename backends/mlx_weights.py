"""Weights of an MLX model as a safetensors file, interchangeable with those of weights.py.

    save_weights(model, "weights.safetensors")
    load_weights(model, "weights.safetensors")      # strict: every name, every shape

A tensor that two names share (tied weights) is written once, under the first of its names; a file
that holds it under any of them, or under all, can be loaded.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from backends.errors import WeightsMismatch
from backends.mlx_torch import Tensor, nn


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write every parameter and persistent buffer in its own dtype."""
    state = dict(model._state())
    arrays = {names[0]: mx.contiguous(state[names[0]].array) for names in _shared(state)}
    target = Path(path)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / "weights.safetensors"  # MLX appends this suffix to other names
        mx.save_safetensors(str(written), arrays)
        os.replace(written, target)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the file's tensors into the model in place, cast to the model's dtypes.

    WeightsMismatch names what is missing, what is unexpected, and shapes that differ; the model is
    then untouched.
    """
    try:
        with Path(path).open("rb") as file:
            found: Any = mx.load(file, format="safetensors")
            mx.eval(found)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsMismatch(f"can't read weights from {path}: {error}") from error
    state = dict(model._state())
    _check(state, found, path)
    for names in _shared(state):
        t = state[names[0]]
        t._value = next(found[name] for name in names if name in found).astype(t.dtype.mx)


def _shared(state: dict[str, Tensor]) -> list[list[str]]:
    """Names in order, those of one and the same tensor together."""
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


def _check(state: dict[str, Tensor], found: dict[str, mx.array], path: str | Path) -> None:
    faults = {
        "missing": [n[0] for n in _shared(state) if not any(name in found for name in n)],
        "unexpected": [name for name in found if name not in state],
        "of another shape": [
            f"{name} {tuple(a.shape)} in the file, {tuple(state[name].shape)} in the model"
            for name, a in found.items()
            if name in state and tuple(a.shape) != tuple(state[name].shape)
        ],
    }
    said = [f"{what}: {', '.join(names)}" for what, names in faults.items() if names]
    if said:
        raise WeightsMismatch(f"{path} doesn't fit the model; {'; '.join(said)}")

"""Weights of a torch model as a safetensors file, the names those of its state_dict.

    save_weights(model, "weights.safetensors")
    load_weights(model, "weights.safetensors")      # strict: every name, every shape

A tensor that two names share (tied weights) is written once, under the first of its names; a file
that holds it under any of them, or under all, can be loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backends.errors import WeightsMismatch


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write every parameter and persistent buffer in its own dtype."""
    first_names = [names[0] for names in _shared(model.state_dict())]
    state = model.state_dict()
    save_file({name: state[name].detach().cpu().contiguous() for name in first_names}, str(path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the file's tensors into the model in place, cast to the model's dtypes.

    WeightsMismatch names what is missing, what is unexpected, and shapes that differ; the model is
    then untouched.
    """
    try:
        found = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(f"can't read weights from {path}: {error}") from error
    state = model.state_dict()
    _check(state, found, path)
    with torch.no_grad():
        for names in _shared(state):
            source = next(found[name] for name in names if name in found)
            state[names[0]].copy_(source)


def _shared(state: dict[str, Tensor]) -> list[list[str]]:
    """Names in order, those of one and the same tensor together."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr() or name
        key = (place, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _check(state: dict[str, Tensor], found: dict[str, Tensor], path: str | Path) -> None:
    missing = [names[0] for names in _shared(state) if not any(name in found for name in names)]
    unexpected = [name for name in found if name not in state]
    shapes = [
        f"{name} {tuple(found[name].shape)} in the file, {tuple(state[name].shape)} in the model"
        for name in found
        if name in state and found[name].shape != state[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    said = [f"{what}: {', '.join(names)}" for what, names in faults.items() if names]
    if said:
        raise WeightsMismatch(f"{path} doesn't fit the model; {'; '.join(said)}")

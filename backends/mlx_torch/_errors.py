"""Errors of the torch spelling over MLX: each says what to write instead.

BackendError
├── UnsupportedOperation
│   └── MissingName                 a torch name that is not here; lists the nearest that are
├── WrongFramework(TypeError)       a real torch (or bare MLX, NumPy) object came in
├── NoAutograd(RuntimeError)        loss.backward() and friends: MLX differentiates functions
├── ViewWrite(RuntimeError)         in-place write to something that may share memory in torch
└── TracedValue(RuntimeError)       a number was asked for while the function is being compiled
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn

from backends.errors import BackendError, UnsupportedOperation


class MissingName(UnsupportedOperation):
    """A torch name that this layer lacks."""


class WrongFramework(BackendError, TypeError):
    """An object of another framework was passed in."""

    exit_code = 5


class NoAutograd(BackendError, RuntimeError):
    """Autograd on tensors was asked for; MLX differentiates functions."""

    exit_code = 5


class ViewWrite(BackendError, RuntimeError):
    """In-place write to a view: MLX arrays do not share memory."""

    exit_code = 5


class TracedValue(BackendError, RuntimeError):
    """A Python number was asked of a tensor that has none yet."""

    exit_code = 5


AUTOGRAD = (
    "tensors carry no autograd graph on MLX: make `step = runtime.backward(model)` once, "
    "then `loss = step(x, y, scale=...)` adds the gradients to p.grad on every backend"
)
DEVICE = "runtime.device, .synchronize() and .peak_memory_mb() work on every backend"
# Names people will look for whose answer is not another spelling of the same name.
ADVICE = {
    "autograd": AUTOGRAD,
    "cuda": DEVICE,
    "mps": DEVICE,
    "amp": "there is no autocast: cast explicitly with x.to(runtime.compute_dtype)",
    "autocast": "there is no autocast: cast explicitly with x.to(runtime.compute_dtype)",
    "float64": "MLX has no float64 on GPUs: use torch.float32",
    "double": "MLX has no float64 on GPUs: use .float()",
    "save": "runtime.save_weights(model, path) writes safetensors on every backend",
    "load": "runtime.load_weights(model, path) reads safetensors on every backend",
    "scatter_reduce": "write scatter_add, or a matrix product with F.one_hot",
    "stride": "MLX arrays have no fixed strides: use .shape, .view and .contiguous()",
    "data_ptr": "MLX arrays have no fixed address",
    "grad_fn": AUTOGRAD,
}


def missing(owner: str, name: str, present: Iterable[str]) -> NoReturn:
    """Raise MissingName for `owner.name`, listing the nearest of `present`."""
    if name in ADVICE:
        raise MissingName(f"{owner}.{name} is not available on MLX: {ADVICE[name]}")
    names = sorted({p for p in present if not p.startswith("_") or p.startswith("_foreach")})
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    near += [p for p in names if len(name) > 3 and name in p and p not in near][:3]
    says = f"nearest here: {', '.join(near)}" if near else f"there is: {', '.join(names)}"
    raise MissingName(f"{owner}.{name} is not available on MLX; {says}")


def wrong_framework(
    value: object, expected: str = "a Tensor of `from backends import torch`"
) -> NoReturn:
    """Raise the error for an argument that is none of ours, telling real torch from the rest."""
    kind = type(value)
    where = f"{kind.__module__}.{kind.__qualname__}"
    root = kind.__module__.split(".")[0]
    if root == "torch":
        raise WrongFramework(
            f"got a real {where} while the backend is MLX, expected {expected}: write "
            "`from backends import torch, nn, F, runtime` instead of `import torch`"
        )
    if root == "mlx":
        raise WrongFramework(
            f"got a bare {where}, expected {expected}: wrap it with torch.tensor(...)"
        )
    if root == "numpy":
        raise WrongFramework(f"got a {where}, expected {expected}: use runtime.from_numpy(array)")
    raise WrongFramework(f"got {where}, expected {expected}")

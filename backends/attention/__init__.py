"""Attention on torch: several implementations of one function, chosen by what a device can run.

    function = load("block_local", hardware)
    y = function(q, k, v, window)        # (B, T, H, D); k and v may have fewer heads

Query i sees keys i - window .. i, both included; `window` None, or T - 1 and more, is full causal.
`reference.py` is the definition. `candidates` says what is worth trying on a device, in order;
`load` imports one; `launch_check` runs it once, forward and backward, against the reference:
an implementation that imports may still have no kernel for the device (FA3 on sm_120).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from backends.errors import AttentionUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from backends.hardware import Hardware

    AttentionFunction = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]

NAMES = ("fa3", "flash", "flex", "triton", "block_local", "dense", "sdpa")

# Largest difference from the reference, relative to its largest value. float32 may be TF32.
TOLERANCE = {"float32": 2e-3, "float16": 1e-2, "bfloat16": 4e-2}

# How a kernel that can't run says so: CUDA's and the compiler's errors are RuntimeErrors.
_LAUNCH_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    OSError,
)


def candidates(hardware: Hardware) -> tuple[str, ...]:
    """Names worth trying on this hardware, the likely fastest first."""
    from backends.policy import attention_order

    return attention_order(hardware)[0]


def load(name: str, hardware: Hardware) -> AttentionFunction:
    """The implementation, imported; AttentionUnavailable says why it can't be."""
    if name not in NAMES:
        raise AttentionUnavailable(name, "there is no such implementation", f"known: {NAMES}")
    module = importlib.import_module(f"backends.attention.{name}")
    if hasattr(module, "load"):
        return module.load(hardware)
    return module.attention


def first_available(
    names: Iterable[str], hardware: Hardware, dtype: str | None = None
) -> tuple[str, AttentionFunction, dict[str, str]]:
    """The first name that loads, its function, and the reason of each that was passed over.

    With a `dtype` a name also has to pass its `launch_check`. Raises AttentionUnavailable with all
    reasons if none is left.
    """
    passed_over: dict[str, str] = {}
    for name in names:
        try:
            function = load(name, hardware)
            if dtype is not None:
                launch_check(name, hardware, dtype)
        except AttentionUnavailable as error:
            passed_over[name] = error.reason
        else:
            return name, function, passed_over
    raise AttentionUnavailable(
        " or ".join(passed_over), "; ".join(f"{name}: {why}" for name, why in passed_over.items())
    )


def launch_check(
    name: str, hardware: Hardware, dtype: str = "float32", compiled: bool = False
) -> float:
    """Run an implementation forward and backward on the device; the largest relative difference.

    Several windows and shared key heads, against the reference; `compiled` runs it through
    torch.compile without graph breaks, as a compiled model will. Raises AttentionUnavailable with
    what failed. `dtype` is one of TOLERANCE.
    """
    from backends.attention.check import largest_difference

    function = load(name, hardware)
    try:
        difference, where = largest_difference(function, hardware.backend, dtype, compiled)
    except _LAUNCH_ERRORS as error:
        first_line = str(error).strip().partition("\n")[0]
        reason = f"its first launch failed: {type(error).__name__}: {first_line}"
        raise AttentionUnavailable(name, reason) from error
    if not difference <= TOLERANCE[dtype]:
        allowed = f"{TOLERANCE[dtype]} is allowed in {dtype}"
        raise AttentionUnavailable(name, f"{where} differs by {difference:.2g}; {allowed}")
    return difference

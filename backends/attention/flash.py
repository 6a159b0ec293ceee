"""FlashAttention 2, the package `flash_attn`: CUDA from sm_80, and ROCm."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from backends.attention.fa3 import from_interface
from backends.errors import AttentionUnavailable

if TYPE_CHECKING:
    from backends.attention import AttentionFunction
    from backends.hardware import Hardware

INSTALL = "pip install flash-attn --no-build-isolation"


def load(hardware: Hardware) -> AttentionFunction:
    """`flash_attn_func` under our convention; AttentionUnavailable says why it isn't there."""
    if hardware.backend not in ("cuda", "rocm"):
        raise AttentionUnavailable("flash", f"it has no kernels for {hardware.backend}")
    if importlib.util.find_spec("flash_attn") is None:
        raise AttentionUnavailable("flash", "flash_attn is not installed", INSTALL)
    try:
        interface = importlib.import_module("flash_attn")
    except (ImportError, OSError, RuntimeError) as error:
        raise AttentionUnavailable("flash", f"flash_attn is broken: {error}", INSTALL) from error
    return from_interface(interface)

"""FlashAttention 3: the package `flash_attn_interface`, else a prebuilt kernel by `kernels`.

The revisions are commits, so what runs is what was tested: the repositories that upstream takes
(varunneal's for Hopper, kernels-community's elsewhere), at commits that several public training
scripts pin. They were read in those scripts, not built or run by us; `launch_check` is the test.
The first load downloads; behind a sandbox without network it has to be in the hub's cache.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import TYPE_CHECKING, Any

import httpx

from backends.errors import AttentionUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from backends.attention import AttentionFunction
    from backends.hardware import Hardware

HOPPER = ("varunneal/flash-attention-3", "de87b9b5af06dd9984df595bef90b2eba44b181a")
OTHERS = ("kernels-community/flash-attn3", "9542c462013476380ce4b395b9ddc0e8118161ee")
INSTALL = "pip install kernels"


def load(hardware: Hardware) -> AttentionFunction:
    """The function for this GPU; AttentionUnavailable if neither source has it."""
    if hardware.backend != "cuda":
        raise AttentionUnavailable("fa3", f"it has CUDA kernels only, this is {hardware.backend}")
    interface = _package() or _kernel(hardware)
    return from_interface(interface)


def from_interface(interface: Any) -> AttentionFunction:
    """Our convention on top of `flash_attn_func` of either FlashAttention generation."""
    flash_attn_func = interface.flash_attn_func

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        sides = (-1, -1) if window is None or window >= q.shape[1] - 1 else (window, 0)
        y = flash_attn_func(q, k, v, causal=True, window_size=sides)
        return y[0] if isinstance(y, tuple) else y  # some builds add the log-sum-exp

    return attention


def _package() -> Any:
    """`flash_attn_interface`, or None where it is not installed."""
    if importlib.util.find_spec("flash_attn_interface") is None:
        return None
    try:
        return importlib.import_module("flash_attn_interface")
    except (ImportError, OSError, RuntimeError) as error:
        raise AttentionUnavailable("fa3", f"flash_attn_interface is broken: {error}") from error


def _kernel(hardware: Hardware) -> Any:
    """The prebuilt kernel for this architecture from the hub, or from the hub's cache."""
    if importlib.util.find_spec("kernels") is None:
        reason = "neither flash_attn_interface nor kernels is installed"
        raise AttentionUnavailable("fa3", reason, INSTALL)
    repository, revision = HOPPER if hardware.architecture == "sm_90" else OTHERS
    try:
        from kernels import get_kernel

        # Recent versions ask for consent to code outside their own organisation: the commit is it.
        consent = "trust_remote_code" in inspect.signature(get_kernel).parameters
        extra = {"trust_remote_code": True} if consent else {}
        module = get_kernel(repository, revision=revision, **extra)
    except (ImportError, OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        reason = f"{repository} at {revision[:8]}: {error}"
        raise AttentionUnavailable("fa3", reason, INSTALL) from error
    return getattr(module, "flash_attn_interface", module)

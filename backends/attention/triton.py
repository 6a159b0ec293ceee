"""Flash attention of our own in Triton, for NVIDIA GPUs from sm_75 and AMD's.

Written for what the libraries leave out, and used only where it is measured to be faster. Tested in
Triton's interpreter and compiled for each architecture; not yet run on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.errors import AttentionUnavailable
from backends.kernels import unavailable

if TYPE_CHECKING:
    from backends.attention import AttentionFunction
    from backends.hardware import Hardware

INSTALL = "pip install triton (torch's CUDA and ROCm builds bring it along)"


def load(hardware: Hardware) -> AttentionFunction:
    """The function; AttentionUnavailable says why it can't be used on this hardware."""
    reason = unavailable(hardware)
    if reason:
        hint = INSTALL if "installed" in reason else ""
        raise AttentionUnavailable("triton", reason, hint)
    try:
        from backends.kernels.attention import attention
    except (ImportError, OSError, RuntimeError) as error:
        raise AttentionUnavailable("triton", f"Triton is broken: {error}") from error
    return attention

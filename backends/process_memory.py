"""Memory of this process: its peak, which a CPU backend has no allocator to ask for, and what
becomes of what is freed.

peak_rss_mb()          # MB (2**20 bytes) since the process began, or since reset_peak_rss()
keep_freed_memory()    # for the next time: a training step frees and wants the same blocks
return_freed_memory()  # to the system, at once: a peak then counts what is in use
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT = 1 << 30  # bytes: blocks of up to so many, and so much free memory in all
_SMALLEST_MAPPING = 1 << 16  # bytes


def peak_rss_mb() -> float:
    """Highest resident set size of this process in MB."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024  # bytes there, KB elsewhere


def reset_peak_rss() -> bool:
    """Start a new peak where the system can (Linux: proc(5), clear_refs 5); True if it did."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def keep_freed_memory() -> None:
    """Have glibc's allocator keep what is freed; elsewhere nothing is done.

    It gives large blocks back to the system otherwise, which hands out and clears every page anew:
    35,000 page faults a step at T 2,048, 3% of its time, for the same peak.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)


def return_freed_memory() -> None:
    """Have glibc's allocator map what is large and unmap it when freed, from now on."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _SMALLEST_MAPPING)
        libc.malloc_trim(0)


def _glibc() -> Any:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None

"""Peak resident memory of this process: what a CPU backend has instead of an allocator's peak.

peak_rss_mb()        # MB (2**20 bytes) since the process began, or since reset_peak_rss()
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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

"""Under which conditions something was measured.

with Conditions(selection.hardware) as conditions: ...
conditions.to_dict()     # machine, versions, threads, load at the start and at the end
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING, Any

import psutil

from autoresearch.neighbours import Neighbours

if TYPE_CHECKING:
    from backends.hardware import Hardware

PACKAGES = ("autoresearch", "torch", "mlx", "triton", "numpy", "tiktoken", "rustbpe")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT")


class Conditions:
    """Looks at the machine when it is entered and when it is left."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._watch = Neighbours()

    def __enter__(self) -> Conditions:
        self._began, self._load = _now(), _load()
        self._watch.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._watch.__exit__(*exc)
        self._ended, self._load_end = _now(), _load()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, once it is left."""
        return {
            "device": self._hardware.name,
            "backend": self._hardware.backend,
            "hardware_id": self._hardware.id,
            "os": platform.platform(),
            "cpu_count": os.cpu_count(),
            "physical_cores": psutil.cpu_count(logical=False),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
            "versions": versions(),
            "began": self._began,
            "ended": self._ended,
            "load_average": [self._load, self._load_end],
            "others_cpu_share": round(self._watch.share, 3),
            "disturbance": self._watch.disturbance,
        }


def versions() -> dict[str, str]:
    """Versions of what takes part, as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

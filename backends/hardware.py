"""Which hardware we train on, and why not on the others.

    hardware, passed_over = detect("auto")
    hardware.backend, hardware.name      # "cuda", "NVIDIA GeForce RTX 4090"
    passed_over[0].reason                # "torch 2.13.0+cpu was built without CUDA"

A probe looks at facts and answers with a `Hardware` or with a `Miss`: the reason why not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backends.errors import BackendUnavailable, UnknownBackend
from backends.facts import Machine, this_machine

BACKENDS = ("cuda", "rocm", "xpu", "mlx", "mps", "cpu")  # in the order of auto
REQUESTS = ("auto", "torch", *BACKENDS)
GIB = 2**30
# Where several devices can train one model, and by whose exchange; torch calls AMD's RCCL nccl.
COLLECTIVES = {"cuda": "nccl", "rocm": "nccl", "cpu": "gloo"}


@dataclass(frozen=True)
class Hardware:
    """One device as this project sees it. Of several equal ones, one is used."""

    backend: str  # one of BACKENDS
    vendor: str  # "nvidia", "amd", "intel", "apple", "arm", ...
    name: str
    architecture: str  # "sm_90", "gfx942", "applegpu_g14s", "x86_64"
    memory_bytes: int  # of the device; of the host where they share it
    count: int  # devices; usable cores on cpu
    driver: str
    framework: str  # "torch" or "mlx"
    framework_version: str
    os: str  # "Linux", "Darwin", "Windows"
    features: tuple[str, ...] = ()  # sorted; what policies may ask for, see `features` in probes

    @property
    def id(self) -> str:
        """Short hash of the hardware class: results of one class may be compared.

        Versions are left out. Memory counts in steps of a quarter octave, since a driver may
        keep some for itself; on cpu the cores count instead, since they make the speed.
        """
        if self.backend == "cpu" or "host" in self.features:
            size = f"{self.count} cores"
        else:
            size = f"{round(4 * math.log2(max(self.memory_bytes, 1) / GIB))} quarter octaves"
        text = "\n".join((self.backend, self.name, self.architecture, size))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def memory_gib(self) -> float:
        """Memory in GiB."""
        return self.memory_bytes / GIB

    def has(self, feature: str) -> bool:
        """Whether this hardware has a feature."""
        return feature in self.features

    def to_dict(self) -> dict[str, Any]:
        """Plain values for records, with the id."""
        return {**asdict(self), "features": list(self.features), "id": self.id}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Hardware:
        """The inverse of `to_dict`."""
        known = {key: value for key, value in values.items() if key != "id"}
        return cls(**{**known, "features": tuple(known["features"])})


@dataclass(frozen=True)
class Miss:
    """A backend that was passed over: why, and what would change that."""

    backend: str
    reason: str
    hint: str = ""


def why_not_together(hardware: Hardware, devices: int) -> str:
    """Why this many devices of a machine can't train one model; "" if they can.

    On cpu a device is a process with its share of the cores, and there may be any number.
    """
    if devices == 1 or hardware.backend == "cpu":
        return ""
    if hardware.backend == "mlx":
        return "one trial on several devices is for torch: mlx.distributed is another matter"
    if hardware.backend not in COLLECTIVES:
        return f"one trial on several devices needs NCCL, RCCL or gloo, and {hardware.backend} none"
    if hardware.count < devices:
        return f"it takes {devices} devices, and this machine shows {hardware.count}"
    return ""


Probe = Callable[[Machine], "Hardware | Miss"]


def detect(
    requested: str = "auto",
    machine: Machine | None = None,
    probes: Mapping[str, Probe] | None = None,
) -> tuple[Hardware, tuple[Miss, ...]]:
    """The best hardware for a request, and each candidate passed over before it.

    Raises UnknownBackend for a name not in REQUESTS, BackendUnavailable if nothing answers.
    """
    if requested not in REQUESTS:
        raise UnknownBackend(requested, REQUESTS)
    probes = probes or _default_probes()
    machine = machine or this_machine()
    misses: list[Miss] = []
    for backend in _candidates(requested):
        refusal = _not_by_itself(backend, machine) if requested == "auto" else None
        found = refusal or probes[backend](machine)
        if isinstance(found, Hardware):
            return found, tuple(misses)
        misses.append(found)
    if len(misses) == 1:
        raise BackendUnavailable(requested, misses[0].reason, misses[0].hint)
    reasons = "; ".join(f"{miss.backend}: {miss.reason}" for miss in misses)
    raise BackendUnavailable(requested, reasons, misses[-1].hint)


def _default_probes() -> Mapping[str, Probe]:
    """One probe per backend; they live in a module that imports this one."""
    from backends.devices import DEFAULT_PROBES

    return DEFAULT_PROBES


def _candidates(requested: str) -> tuple[str, ...]:
    """Backends to try for a request, in order."""
    if requested == "auto":
        return BACKENDS
    if requested == "torch":
        return tuple(name for name in BACKENDS if name != "mlx")
    return (requested,)


def _not_by_itself(backend: str, machine: Machine) -> Miss | None:
    """Why auto leaves a backend out even if it is installed: mlx is Apple silicon's."""
    host = machine.host
    if backend != "mlx" or (host.system, host.machine) == ("Darwin", "arm64"):
        return None
    return Miss(
        "mlx",
        f"auto takes mlx on Apple silicon only, and this is {host.system} on {host.machine}",
        "ask for it by name: AUTORESEARCH_BACKEND=mlx",
    )

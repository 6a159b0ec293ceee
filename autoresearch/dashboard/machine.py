"""How busy this machine is at the moment: measured when asked, so only while somebody looks.

    look = Machine()
    look()      # {"meters": [...], "facts": [...], "missing": [...]}

What a machine doesn't tell is named in `missing`, not guessed. Temperatures come from psutil
(Linux), GPUs from `nvidia-smi` or `rocm-smi`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

FRESH = 1.0  # seconds that a measurement is told again
GPU_SECONDS = 5.0  # that a GPU's tool may take
_NVIDIA = (
    "name",
    "utilization.gpu",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "power.draw",
)


class Machine:
    """Measures the machine, and the disk of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: dict[str, Any] = {}
        self._at = float("-inf")
        self._before = _ticks()

    def __call__(self) -> dict[str, Any]:
        """Meters (name, share from 0 to 1, words), facts (name, words), and what isn't known."""
        if time.monotonic() - self._at >= FRESH:
            meters, facts, missing = [*self._own()], [*_temperatures()], []
            gpus = [*nvidia(), *rocm()]
            meters += [meter for gpu in gpus for meter in gpu]
            if not gpus:
                missing.append("GPU: neither nvidia-smi nor rocm-smi tells of one")
            if not facts and not any("°C" in meter["words"] for meter in meters):
                missing.append("temperature: this system tells none")
            self._told = {"meters": meters, "facts": facts, "missing": missing}
            self._at = time.monotonic()
        return self._told

    def _own(self) -> Iterator[dict[str, Any]]:
        before, self._before = self._before, _ticks()
        idle, total = (now - then for now, then in zip(self._before, before, strict=True))
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        if total > 0:
            busy = 1 - idle / total
            yield meter("Processor", busy, f"{busy:.0%} of {psutil.cpu_count()} cores{load}")
        memory = psutil.virtual_memory()
        yield meter("Memory", memory.percent / 100, _of(memory.total - memory.available,
                                                       memory.total))  # fmt: skip
        swap = psutil.swap_memory()
        if swap.total:
            yield meter("Swap", swap.percent / 100, _of(swap.used, swap.total))
        disk = shutil.disk_usage(self._folder)
        yield meter("Disk", 1 - disk.free / disk.total, f"{disk.free / 1e9:,.1f} GB free")


def _ticks() -> tuple[float, float]:
    """Seconds of all cores so far: idle, and altogether.

    psutil's own percentages are counted by thread, and each call here may be another one's.
    """
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # What guests take stands in `user`, too.
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return idle, sum(times) - twice


def meter(name: str, share: float, words: str) -> dict[str, Any]:
    """One thing that can be full."""
    return {"name": name, "share": min(1.0, max(0.0, share)), "words": words}


def _of(used: float, total: float) -> str:
    return f"{used / 1e9:,.1f} of {total / 1e9:,.1f} GB"


def _temperatures() -> Iterator[tuple[str, str]]:
    """The hottest sensor of each chip, where the system tells."""
    sensors: Any = getattr(psutil, "sensors_temperatures", dict)()
    for chip, found in sorted(sensors.items()):
        known = [each.current for each in found if each.current]
        if known:
            yield f"Temperature {chip}", f"{max(known):.0f} °C"


def nvidia() -> list[list[dict[str, Any]]]:
    """The meters of each NVIDIA GPU."""
    fields = ",".join(_NVIDIA)
    told = _run("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    return [read_nvidia(line) for line in told.splitlines() if line.count(",") == len(_NVIDIA) - 1]


def read_nvidia(line: str) -> list[dict[str, Any]]:
    """A line of nvidia-smi's CSV; what the device doesn't support reads `[N/A]`."""
    name, *figures = (part.strip() for part in line.split(","))
    busy, used, total, heat, power = map(_number, figures)
    meters = []
    if busy is not None:
        words = [f"{busy:.0f}%"]
        words += [f"{heat:.0f} °C"] if heat is not None else []
        words += [f"{power:.0f} W"] if power is not None else []
        meters.append(meter(name, busy / 100, ", ".join(words)))
    if used is not None and total:
        meters.append(meter(f"{name} memory", used / total, _of(used * 2**20, total * 2**20)))
    return meters


def rocm() -> list[list[dict[str, Any]]]:
    """The meters of each AMD GPU."""
    told = _run("rocm-smi", "--showuse", "--showmemuse", "--showtemp", "--json")
    try:
        cards = json.loads(told)
    except ValueError:
        return []
    return [read_rocm(name, card) for name, card in sorted(cards.items()) if name[:4] == "card"]


def read_rocm(name: str, card: Mapping[str, str]) -> list[dict[str, Any]]:
    """A card of rocm-smi's JSON, whose keys differ between its versions."""
    busy = next((_number(v) for k, v in card.items() if k.startswith("GPU use")), None)
    used = next((_number(v) for k, v in card.items() if "Memory Allocated" in k), None)
    heats = [_number(v) for k, v in card.items() if k.startswith("Temperature")]
    heat = max((value for value in heats if value is not None), default=None)
    words = "" if heat is None else f", {heat:.0f} °C"
    meters = [] if busy is None else [meter(f"GPU {name}", busy / 100, f"{busy:.0f}%{words}")]
    return meters + ([] if used is None else [meter(f"GPU {name} memory", used / 100,
                                                    f"{used:.0f}%")])  # fmt: skip


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _run(*command: str) -> str:
    """What a tool prints, "" where there is none or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""

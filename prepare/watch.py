"""Bounds that only somebody outside can hold: how many processes a candidate runs, how much it
writes. The kernel has none for root's processes, and none for a folder's size.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 1.0
# Walking a folder of compiled kernels takes some milliseconds: not at every look.
LOOKS_PER_WALK = 5
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """processes: how many at once; torch.compile starts one or two per core. folder_bytes: what
    lies in its folder, or was written to disks wherever that is. free_bytes: what must stay free
    on the folder's disk. log_bytes: what it prints."""

    processes: int = 512
    folder_bytes: int = 64 * 1024 * MEBIBYTE
    free_bytes: int = 512 * MEBIBYTE
    log_bytes: int = 256 * MEBIBYTE


class Watch(threading.Thread):
    """Looks at a process and its folder, and calls `exceeded(message)` once when it is too much."""

    def __init__(
        self,
        pid: int,
        folder: Path,
        exceeded: Callable[[str], None],
        bounds: Bounds | None = None,
        interval: float = INTERVAL,
    ) -> None:
        super().__init__(daemon=True)
        self._pid, self._folder, self._exceeded = pid, folder, exceeded
        self._bounds = bounds or Bounds()
        self._interval = interval
        self._stopped = threading.Event()

    def run(self) -> None:
        looks = 0
        while not self._stopped.wait(self._interval):
            message = self._processes()
            if not message and looks % LOOKS_PER_WALK == 0:
                message = self._disk()
            looks += 1
            if message:
                self._exceeded(message)
                return

    def _processes(self) -> str:
        try:
            count = 1 + len(psutil.Process(self._pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return ""
        if count <= self._bounds.processes:
            return ""
        return f"it runs {count} processes; {self._bounds.processes} are allowed"

    def _disk(self) -> str:
        used = max(folder_bytes(self._folder), written_bytes(self._pid))
        if used > self._bounds.folder_bytes:
            allowed = self._bounds.folder_bytes / MEBIBYTE
            return f"it wrote {used / MEBIBYTE:.0f} MiB; {allowed:.0f} MiB are allowed"
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._folder).free
            # Whoever else fills the disk is not the candidate's fault.
            if free < self._bounds.free_bytes < used:
                return f"it wrote {used / MEBIBYTE:.0f} MiB and left {free / MEBIBYTE:.0f} MiB free"
        return ""

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()


def written_bytes(pid: int) -> int:
    """What a process and those it started wrote to disks; 0 where the system doesn't tell.

    A process' count takes in that of its children when they end.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            # No such count on macOS.
            with contextlib.suppress(psutil.Error, AttributeError):
                total += int(member.io_counters().write_bytes)
    return total


def folder_bytes(folder: Path) -> int:
    """What a folder takes on its disk; links are not followed, and holes don't count."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):  # gone in the meantime
                about = os.lstat(os.path.join(place, name))
                total += getattr(about, "st_blocks", 0) * 512 or about.st_size
    return total

"""How much of this machine others took while something was measured, and whether it was too much.

    with Neighbours() as watch: ...
    watch.share          # of all cores, 0 to 1: what was busy and wasn't ours
    watch.disturbance    # why what was measured meanwhile can't be compared, or ""

Ours is this process and all that it started, and so of those that it keeps company with. What a
process has used that ended can be lost with it (bubblewrap doesn't wait for its own, Windows never
tells): such a stretch is left out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

Company = Callable[[], Iterable[int]]  # ids of processes that work for the same loop
# The machine slept: what ran was stopped amid, and a clock that goes on meanwhile ran with it.
ASLEEP_SECONDS = 1.0
# What other processes may take of this machine, as a share of all cores, averaged over a run.
# One core of two lost during a 30 s run was measured to cost 0.11 val_bpb, fifty times the noise.
BUSY_SHARE = 0.15
SAMPLE_SECONDS = 1.0
SHORTEST = 0.1  # seconds: the system counts in hundredths


@dataclass(frozen=True)
class _Look:
    """Processor seconds since the machine started, of all cores: passed, busy, ours."""

    at: float
    passed: float
    busy: float
    ours: float


class Neighbours:
    """Looks at the machine when it is entered and left, and every so many seconds in between."""

    def __init__(self, every: float = SAMPLE_SECONDS, company: Company = tuple) -> None:
        self._every, self._company = every, company
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._last: _Look | None = None
        self._passed = self._others = 0.0
        self._plugged = self.battery_lost = False
        self._asleep = self.slept = 0.0

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        self.battery_lost = self.battery_lost or (self._plugged and not _plugged())
        self.slept = _seconds_asleep() - self._asleep
        last, now = self._last, _look(self._company())
        if last is None or now.at - last.at < SHORTEST:
            return  # together with the next one
        self._last = now
        if now.ours >= last.ours and now.passed > last.passed:
            self._passed += now.passed - last.passed
            self._others += (now.busy - last.busy) - (now.ours - last.ours)

    @property
    def share(self) -> float:
        """Average share of the machine that others took."""
        return max(0.0, self._others / self._passed) if self._passed else 0.0

    @property
    def power(self) -> str:
        """Where the machine had its power from when it was entered."""
        return "mains" if self._plugged else "battery"

    @property
    def disturbance(self) -> str:
        """Why what was timed meanwhile can't be compared, or ""."""
        if self.battery_lost:
            return "the machine went from mains to battery"
        if self.slept > ASLEEP_SECONDS:
            return f"the machine slept for {self.slept:.0f} s"
        if self.share > BUSY_SHARE:
            return f"other processes took {self.share:.0%} of the machine"
        return ""

    def __enter__(self) -> Neighbours:
        self._plugged, self._asleep = _plugged(), _seconds_asleep()
        self._last = _look(self._company())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()


def _look(company: Iterable[int] = ()) -> _Look:
    times = psutil.cpu_times()
    # Linux counts a guest's time a second time, as the host's own.
    passed = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    return _Look(time.monotonic(), passed, passed - idle, _our_seconds(company))


def _our_seconds(company: Iterable[int] = ()) -> float:
    """Processor seconds of this process, company and descendants, living and waited for."""
    total = 0.0
    for member in _family({os.getpid(), *company}):
        try:
            times = member.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total + sum(os.times()[:4])


def _family(roots: set[int]) -> list[psutil.Process]:
    """These processes, but for this one, and all that they started."""
    if roots == {os.getpid()}:
        return psutil.Process().children(recursive=True)
    found: dict[int, psutil.Process] = {}
    started: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):  # once for all: it reads every process there is
        started.setdefault(process.info["ppid"], []).append(process)
        if process.pid in roots:
            found[process.pid] = process
    left = [*found]
    while left:
        for process in started.get(left.pop(), ()):
            if process.pid not in found:
                found[process.pid] = process
                left.append(process.pid)
    found.pop(os.getpid(), None)
    return [*found.values()]


def _plugged() -> bool:
    """Whether the machine runs on mains power; one without a battery does."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery is None or battery.power_plugged is not False


def _seconds_asleep() -> float:
    """Seconds that this machine has slept since it started; 0 where no two clocks tell."""
    if sys.platform == "linux":  # the second of these stands still in sleep
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":
        awake = time.clock_gettime(time.CLOCK_UPTIME_RAW)
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - awake
    if sys.platform == "win32":
        import ctypes

        kernel, awake = ctypes.windll.kernel32, ctypes.c_uint64()
        kernel.GetTickCount64.restype = ctypes.c_uint64
        if kernel.QueryUnbiasedInterruptTime(ctypes.byref(awake)):
            return float(kernel.GetTickCount64()) / 1e3 - awake.value / 1e7
    return 0.0

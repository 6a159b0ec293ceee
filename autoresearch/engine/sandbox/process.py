"""The tier that works everywhere: an ordinary process with limits, killed with all it started.

Native code in it can do what the user can. What holds is that batches, clock and score are the
harness's own, and that an audit hook in Python reports what is touched.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.engine.sandbox import windows_job
from autoresearch.engine.sandbox.base import Limits, Tier, Wrapped

LAUNCHER = Path(__file__).with_name("launch.py")


def launcher_command(spec: Mapping[str, Any], argv: Sequence[str]) -> list[str]:
    """`argv` behind the launcher, which reads `spec`."""
    text = json.dumps(spec, separators=(",", ":"))
    return [sys.executable, "-I", "-S", str(LAUNCHER), text, *argv]


def resource_limits(limits: Limits, *, own_count: bool) -> dict[str, int]:
    """Limits by the names of Python's `resource` module.

    own_count: whether the kernel counts the jail's processes alone, as in a user namespace; else
    it counts all of this user's, so those that run now are added.
    """
    wanted: dict[str, int | None] = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_bytes,
    }
    if limits.processes is not None:
        running = 0 if own_count else _threads_of_user()
        wanted["RLIMIT_NPROC"] = limits.processes + running
    return {name: value for name, value in wanted.items() if value is not None}


def _threads_of_user() -> int:
    import psutil

    total = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids = process.info["uids"]
        if uids is not None and uids.real == os.getuid():
            total += process.info["num_threads"] or 1
    return total


class ProcessTier(Tier):
    """An ordinary process: rlimits and a supervisor on POSIX, a job object on Windows."""

    name = "process"
    strict = False

    def __init__(self) -> None:
        self._limits = Limits()

    def wrap(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        listable: Sequence[Path] = (),
        network: bool = False,
        loopback: bool = False,
        limits: Limits | None = None,
    ) -> Wrapped:
        self._limits = limits or Limits()
        if os.name != "posix":
            return Wrapped(list(argv), dict(env))
        spec: dict[str, Any] = {"rlimits": resource_limits(self._limits, own_count=False)}
        if sys.platform == "linux":
            spec["supervise"] = os.getpid()
        return Wrapped(launcher_command(spec, argv), dict(env))

    def started(self, pid: int) -> None:
        if sys.platform == "win32":
            windows_job.confine(pid, self._limits)

    def problem(self) -> str:
        return ""

    def stops(self) -> tuple[str, ...]:
        return (
            "Python code that opens the text, the tokens, git's objects or a socket: an audit hook "
            "refuses it and ends the trial",
            "one file growing without end, and processes that outlive the trial",
        )

    def does_not_stop(self) -> tuple[str, ...]:
        return (
            "native code (ctypes, a compiled extension, a program it starts) that reads any file "
            "this user can read, the validation text and earlier weights among them",
            "native code that opens a socket, or inspects, stops or kills processes of this user",
            "native code that leaves the second scoring process a note of what the first was asked",
            "what raises no event in Python: named semaphores, stat() on files",
            "Python code that takes the audit hook's own state apart before it acts",
            "while it trains: writing outside the run folder, and reading what an earlier trial "
            "left there; both are reported",
            "many processes that leave their group faster than they are found and killed",
        )

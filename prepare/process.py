"""A candidate process: started by the harness, spoken to in messages, killed with all it started.

with CandidateProcess(run_dir, role="train", environment={...}) as process:
    process.send("configure", ...)
    message = process.receive(timeout=60)
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from prepare.channel import Channel, ChannelClosed, ProtocolError

LOG_TAIL_LINES = 50
LOG_TAIL_BYTES = 16_000
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.I)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class ProcessGone(Exception):
    """The candidate process ended; `returncode` says how."""

    def __init__(self, returncode: int) -> None:
        super().__init__(describe_exit(returncode))
        self.returncode = returncode


class TimedOut(Exception):
    """Nothing came from the candidate process in time."""


def describe_exit(returncode: int) -> str:
    """What an exit status means, in words."""
    if returncode >= 0:
        return f"the process exited with status {returncode} before it was done"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if name == "SIGKILL":
        return "the process was killed (SIGKILL): most often the system ran out of memory"
    return f"the process died of {name}"


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without anything that looks like a secret, plus `extra`."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    packages = str(Path(__file__).resolve().parents[1])
    inherited = kept.get("PYTHONPATH")
    kept["PYTHONPATH"] = packages + (os.pathsep + inherited if inherited else "")
    kept["PYTHONUNBUFFERED"] = "1"
    # Python puts the working directory first on the path otherwise: a file there named like one
    # of our packages would stand in for it (honoured from Python 3.11 on).
    kept["PYTHONSAFEPATH"] = "1"
    # OpenMP threads that spin while they wait crawl when another process wants the core, and it
    # must be said before the framework loads; where nothing competes it costs nothing.
    kept.setdefault("GOMP_SPINCOUNT", "0")
    return {**kept, **extra}


def kill_tree(pid: int) -> None:
    """Kill a process and everything it started, on any platform."""
    try:
        parent = psutil.Process(pid)
        victims = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        victims = []
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    if hasattr(os, "killpg"):
        # Children that were re-parented are still in the group that the process leads.
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


class CandidateProcess:
    """`python -m prepare.child` in `run_dir`, its output in `run_dir/<role>.log`."""

    def __init__(self, run_dir: Path, role: str, environment: Mapping[str, str]) -> None:
        self.log_path = run_dir / f"{role}.log"
        self._log = self.log_path.open("wb")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "prepare.child", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=run_dir,
            env=child_environment(environment),
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        if self._popen.stdin is None or self._popen.stdout is None:
            raise RuntimeError("the candidate process was started without pipes")
        self._channel = Channel(self._popen.stdout, self._popen.stdin)  # type: ignore[arg-type]
        self._inbox: queue.Queue[dict[str, Any] | Exception] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.killed_by_us = False

    def _read(self) -> None:
        while True:
            try:
                self._inbox.put({**self._channel.receive(), "received_at": time.monotonic()})
            except (ChannelClosed, ProtocolError) as error:
                self._inbox.put(error)
                return

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message; a process that is gone is noticed by the next `receive`."""
        try:
            self._channel.send(kind, **fields)
        except ChannelClosed:
            return

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next message, with `received_at` (this process's monotonic clock, seconds).

        Raises TimedOut, ProcessGone, or ProtocolError.
        """
        try:
            item = self._inbox.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise TimedOut from None
        if isinstance(item, ChannelClosed):
            self._inbox.put(item)
            raise ProcessGone(self._reap())
        if isinstance(item, Exception):
            raise item
        return item

    def _reap(self) -> int:
        try:
            return self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # It closed its channel on purpose and lives on: nothing it says counts any more.
            self.kill()
            return self._popen.wait()

    def rss_bytes(self) -> int:
        """Resident memory of the process now, in bytes; 0 when it is gone."""
        try:
            return int(psutil.Process(self._popen.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def kill(self) -> None:
        """End the process and everything it started, and wait until it is gone."""
        self.killed_by_us = True
        kill_tree(self._popen.pid)
        self._popen.wait()

    def log_tail(self) -> str:
        """The last lines the process printed, without control characters."""
        self._log.flush()
        return log_tail(self.log_path)

    def __enter__(self) -> CandidateProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._reader.join(timeout=5)
        for stream in (self._popen.stdin, self._popen.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue


def log_tail(path: Path) -> str:
    """The last 50 lines (16 kB) of a log, without control characters."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar rewrites its line with carriage returns: only its last state is of use.
    lines = deque(
        (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")), LOG_TAIL_LINES
    )
    return "\n".join(_CONTROL.sub("", line) for line in lines).strip()

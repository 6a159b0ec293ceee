"""One writer at a time, and a name for whoever it is.

    with Claim(folder / "results.jsonl"):
        ...

The lock itself is the operating system's (filelock), so it ends with its process. Beside it lies a
small file that says who holds it: a second writer is refused naming the first. That file may
outlive its writer; it is believed only if a process of that id and start time is alive.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import psutil

from autoresearch.engine.errors import LedgerBusy, LedgerUnwritable

_MAX_COMMAND = 200
_SAME_START = 2.0  # seconds: psutil derives the start from boot time, which is rounded


@dataclass(frozen=True)
class Holder:
    """Who writes: process id, host, when it took the lock (UTC), its command line and folder."""

    pid: int
    host: str
    started_at: str
    command: str
    process_started: float  # seconds since the epoch; tells a reused process id from the writer
    folder: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """The calling process."""
        now = datetime.datetime.now(datetime.timezone.utc)
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=now.isoformat(timespec="seconds"),
            command=shlex.join(sys.argv or [sys.executable])[:_MAX_COMMAND],
            process_started=psutil.Process().create_time(),
            folder=os.getcwd(),
        )

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """Who `path` names, or None if there is no such file or it is only half written."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def alive(self) -> bool | None:
        """Is that very process running? None if it is another machine's and can't be known."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.process_started) < _SAME_START
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        place = f" in {self.folder}" if self.folder else ""
        return f"process {self.pid} on {self.host}, since {self.started_at}{place}: {self.command}"


class Claim:
    """The sole right to write `path`. Raises LedgerBusy if another has it. Not reentrant.

    `what` is how a refusal calls it, the file's name unless given; `path` itself need not exist.
    """

    def __init__(self, path: Path, what: str = "") -> None:
        self.path = path
        self._what = what or path.name
        self._who = path.with_name(path.name + ".holder")
        self._lock = filelock.FileLock(str(path) + ".lock", timeout=0, thread_local=False)

    @property
    def held(self) -> bool:
        """Does this object hold the right now?"""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the right and say who has it. Raises LedgerBusy or LedgerUnwritable."""
        if not self.path.parent.is_dir():  # filelock would make it
            raise LedgerUnwritable(f"no folder {self.path.parent}", "run `autoresearch init` there")
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise LedgerBusy(
                f"{self._what} is being written by {self._describe()}",
                "wait until it ends, or stop it with Ctrl-C in its terminal",
            ) from error
        except OSError as error:
            raise LedgerUnwritable(
                f"can't lock {self.path}: {error.strerror or error}",
                "make the folder exist and be writable",
            ) from error
        try:
            fresh = self._who.with_name(self._who.name + ".new")
            fresh.write_text(json.dumps(asdict(Holder.this_process())), encoding="utf-8")
            os.replace(fresh, self._who)
        except OSError as error:
            self._lock.release()
            raise LedgerUnwritable(
                f"can't write {self._who}: {error.strerror or error}",
                "free some disk, and make the folder writable",
            ) from error

    def release(self) -> None:
        """Give the right back. Harmless if it isn't held."""
        if not self.held:
            return
        try:
            self._who.unlink(missing_ok=True)
        except OSError:
            pass  # read-only by now: a stale name is harmless, only living ones are believed
        finally:
            self._lock.release()

    def __enter__(self) -> Claim:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _describe(self) -> str:
        """The holder's name, if the file names one that can be alive."""
        holder = Holder.read(self._who)
        if holder is None:
            return "another process (it is just starting or ending)"
        alive = holder.alive()
        if alive is False:
            return f"a child that process {holder.pid} left behind (that process itself has ended)"
        return str(holder)

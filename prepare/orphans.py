"""Nothing that a candidate started outlives the harness, also when the harness is killed.

with Guard() as guard:
    subprocess.Popen([...], env={**environment, MARK_VARIABLE: guard.mark})

The guard is a process of its own that waits on a pipe. When the harness is gone, however it went,
the pipe ends, and the guard kills every process that carries the mark. A watch inside the candidate
could not promise that: native code may hold Python's lock for minutes, and a signal from the kernel
on the parent's death reaches the candidate alone, not what it started.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import psutil

# Every process that a candidate starts inherits this variable, unless it takes pains not to.
MARK_VARIABLE = "AUTORESEARCH_CANDIDATE"
KILL_ROUNDS = 20
# A process that was being started when the harness died shows its mark a moment later.
LATE_LOOKS, LATE_SECONDS = 4, 0.25
_DONE = b"done"


def kill_marked(mark: str) -> None:
    """Kill every process that inherited `mark`, also those that left their group and parents."""
    for _ in range(KILL_ROUNDS):  # what forks while we look is met in the next round
        victims = [process for process in psutil.process_iter() if _mark_of(process) == mark]
        if not victims:
            return
        # Stopped before any is killed: while some die, the others would start new ones.
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    act(victim)
        psutil.wait_procs(victims, timeout=1)


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return str(process.environ().get(MARK_VARIABLE))
    except (psutil.Error, OSError):  # somebody else's, or gone: none of ours
        return None


class Guard:
    """Kills what carries `mark` when this process ends before the guard was stopped.

    Start it before the processes it is for. It is in a session of its own, so that neither Ctrl-C
    nor a closed terminal ends it.
    """

    def __init__(self, mark: str | None = None) -> None:
        self.mark = mark or secrets.token_hex(16)
        packages = str(Path(__file__).resolve().parents[1])
        inherited = os.environ.get("PYTHONPATH")
        path = packages + (os.pathsep + inherited if inherited else "")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "prepare.orphans"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=packages,  # a folder that stays, and holds no module of the candidate's
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._say(self.mark.encode() + b"\n")

    def _say(self, data: bytes) -> None:
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):  # it was killed: then nobody guards
                self._popen.stdin.write(data)

    def stop(self) -> None:
        """The processes are gone already: the guard may go too."""
        self._say(_DONE)
        self._popen.kill()
        self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def main() -> None:
    """Read the mark, wait for the end of the pipe, then kill what carries the mark."""
    said = sys.stdin.buffer.read()
    mark, _, rest = said.partition(b"\n")
    if not mark or rest == _DONE:
        return
    for look in range(LATE_LOOKS):
        time.sleep(LATE_SECONDS if look else 0.0)
        kill_marked(mark.decode())


if __name__ == "__main__":
    main()

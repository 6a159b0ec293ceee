"""A program run to an end: own deadline, output bounded, nothing it started outlives it.

    done = run_program(["claude", "-p"], cwd=folder, env={...}, stdin=b"...", seconds=600)
    done.stopped            # "" or why we ended it: "deadline", "output", "cancelled"

Every process carries a random mark in its environment, which its children inherit. So those that
left the process group (a daemon, a second `setsid`) are found too, and `end_orphans` finds what a
killed loop left running: a guard does so at once, the next loop does so when it starts. Only a
child that wiped its own environment and left the group escapes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autoresearch.engine.proposers.text import clean

MARK = "AUTORESEARCH_JOB"  # "<pid of the loop>-<its start time>-<random>"
KEPT_BYTES = 1_000_000  # of each stream: the first half and the last half
FLOOD_BYTES = 100_000_000  # a program that prints more than this is ended
# The guard waits on a pipe that ends when we do, however we end. It looks several times: a dying
# process closes its pipes first, and what it was just starting shows its mark a moment later.
_GUARD = """
import sys, time
sys.stdin.buffer.read()
from autoresearch.engine.proposers.process import end_orphans
for _ in range(8):
    end_orphans()
    time.sleep(0.25)
"""
GRACE = 2.0  # seconds between asking to end and killing
POLL = 0.05

# What any program needs to run at all; nothing here is a secret.
COMMON_VARIABLES = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "COMSPEC",
    "PATHEXT",
    "WINDIR",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "PROGRAMFILES",
    "NUMBER_OF_PROCESSORS",
]


@dataclass(frozen=True)
class Finished:
    """How a program ended. `returncode` is negative for a signal (POSIX)."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    stopped: str = ""
    left_over: int = 0  # processes it had left behind, killed by us
    cut: int = 0  # bytes in the middle of its standard output that `stdout` lacks

    @property
    def tail(self) -> str:
        """The last 50 lines of what it printed, errors last, without control characters."""
        both = "\n".join(text for text in (self.stdout.strip(), self.stderr.strip()) if text)
        return clean("\n".join(both.splitlines()[-50:]))[-16_000:]


def needed_environment(
    names: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The common variables and those named, as far as they are set: all other secrets stay here."""
    source = os.environ if environ is None else environ
    return {name: source[name] for name in (*COMMON_VARIABLES, *names) if name in source}


def run_program(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes = b"",
    seconds: float,
    cancelled: Callable[[], bool] | None = None,
    kept_bytes: int = KEPT_BYTES,
    flood_bytes: int = FLOOD_BYTES,
    started: Callable[[int], None] | None = None,
) -> Finished:
    """Run `argv` with `stdin` fed and closed, until it ends, `seconds` pass or it floods.

    `started` is told the process id. The program is looked up on `env`'s PATH. Raises
    FileNotFoundError when it is missing and PermissionError when it can't be executed.
    """
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise FileNotFoundError(f"no program {argv[0]!r} on PATH")
    mark = f"{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(8)}"
    begin = time.monotonic()
    guard = _start_guard()
    with tempfile.TemporaryFile() as feed:
        feed.write(stdin)
        feed.seek(0)
        process = subprocess.Popen(
            [os.path.abspath(program), *argv[1:]],
            cwd=cwd,
            # A scratch folder has its own .git; if it is removed, git would find the one above.
            env={"GIT_CEILING_DIRECTORIES": str(Path(cwd).resolve().parent), **env, MARK: mark},
            stdin=feed,  # a file, not a pipe: reading past it is an end of file, never a wait
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    readers = [_Reader(process.stdout, kept_bytes), _Reader(process.stderr, kept_bytes)]
    stopped = ""
    try:
        if started is not None:
            started(process.pid)
        while process.poll() is None:
            if time.monotonic() - begin > seconds:
                stopped = "deadline"
            elif sum(reader.total for reader in readers) > flood_bytes:
                stopped = "output"
            elif cancelled is not None and cancelled():
                stopped = "cancelled"
            if stopped:
                break
            _wait(process, POLL)
    finally:
        left_over = _end(process, mark, gently=stopped in ("deadline", "cancelled"))
        for reader in readers:
            reader.thread.join(timeout=5)
        _stop_guard(guard)
    return Finished(
        returncode=process.returncode,
        stdout=readers[0].text(),
        stderr=readers[1].text(),
        seconds=time.monotonic() - begin,
        stopped=stopped,
        left_over=left_over,
        cut=readers[0].cut,
    )


def end_orphans() -> int:
    """Kill the marked processes whose loop is gone (killed, or the machine's session ended).

    Returns how many were killed. Call it when a loop starts.
    """
    count = 0
    for process, mark in _marked():
        pid, started = mark.split("-")[:2] if mark.count("-") == 2 else ("", "")
        if pid.isdigit() and _started(int(pid)) != started:
            count += _kill(process)
    return count


def _start_guard() -> subprocess.Popen[bytes]:
    """Start the process that ends what we started when we are killed."""
    packages = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH")
    return subprocess.Popen(
        [sys.executable, "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=packages,
        env={**os.environ, "PYTHONPATH": packages + (os.pathsep + inherited if inherited else "")},
        start_new_session=os.name == "posix",  # neither Ctrl-C nor a closed terminal ends it
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _stop_guard(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()


class _Reader:
    """Drains a stream in a thread, keeping its first and last bytes."""

    def __init__(self, stream: Any, kept: int) -> None:
        self.total = 0
        self._half = kept // 2
        self._head = bytearray()
        self._last = bytearray()
        self._stream = stream
        self.thread = threading.Thread(target=self._drain, daemon=True)
        self.thread.start()

    def _drain(self) -> None:
        with self._stream as stream:
            while chunk := stream.read1(65_536):
                self.total += len(chunk)
                room = self._half - len(self._head)
                self._head += chunk[: max(room, 0)]
                self._last += chunk[max(room, 0) :]
                if len(self._last) > 2 * self._half:
                    del self._last[: -self._half]

    @property
    def cut(self) -> int:
        """Bytes that were not kept."""
        return self.total - len(self._head) - len(self._tail)

    @property
    def _tail(self) -> bytes:
        return bytes(self._last[-self._half :]) if self._half else b""

    def text(self) -> str:
        """What was kept, as text; a cut is said."""
        middle = f"\n[... {self.cut} bytes left out ...]\n".encode() if self.cut > 0 else b""
        return (bytes(self._head) + middle + self._tail).decode("utf-8", errors="replace")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def _started(pid: int) -> str:
    """When a process started, as text that stays the same for its life; "" when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.exists():  # ticks since boot: unlike a time of day, no jump of the clock moves it
            fields = stat.read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]  # dead, if not yet reaped
    except (OSError, IndexError):
        return ""
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return "" if ended else f"{process.create_time():.2f}"
    except psutil.Error:
        return ""


def _marked() -> list[tuple[psutil.Process, str]]:
    """This user's processes that carry a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except (psutil.Error, OSError):
            continue  # another user's, or gone meanwhile
        if mark and process.pid != os.getpid():
            found.append((process, mark))
    return found


def _end(process: subprocess.Popen[bytes], mark: str, gently: bool) -> int:
    """End the process and all it started; returns how many were left behind it."""
    if gently and process.poll() is None:
        _signal_group(process.pid, "SIGTERM")
        _wait(process, GRACE)
    alive = process.poll() is None
    victims = []
    if alive:
        try:
            victims = psutil.Process(process.pid).children(recursive=True)
        except psutil.Error:
            victims = []
        process.kill()
    _signal_group(process.pid, "SIGKILL")
    for victim in victims:
        _kill(victim)
    # Those that left the group; a round may find children born during the one before.
    left_over = 0
    for _ in range(5):
        found = [item for item, its_mark in _marked() if its_mark == mark]
        if not found:
            break
        left_over += sum(_kill(item) for item in found)
    process.wait()
    return left_over


def _signal_group(pid: int, name: str) -> None:
    number = getattr(signal, name, None)
    if number is None or not hasattr(os, "killpg"):
        return
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _kill(process: psutil.Process) -> int:
    """1 if the process was there to be killed and is gone now, or a zombie nobody has reaped."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0
        process.kill()
        deadline = time.monotonic() + 5
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return 0
            time.sleep(0.005)
    except psutil.NoSuchProcess:
        return 1
    except psutil.Error:
        return 0
    return 1

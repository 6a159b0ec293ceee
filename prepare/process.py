"""A candidate process: started by the harness, spoken to in messages, killed with all it started.

with CandidateProcess(run_dir, role="train", environment={...}) as process:
    process.send("configure", ...)
    message = process.receive(timeout=60)

It may stop reading, stop itself, talk without end, or leave children behind that hold its pipes:
sending never waits, receiving always ends, and all that carry its mark are killed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from prepare.cache import CACHE_VARIABLE, cache_root
from prepare.channel import Channel, ChannelClosed, ProtocolError, SharedFile
from prepare.compiled import KERNELS, VARIABLES, begin_warm, cache_variables
from prepare.isolation import Access, Command, Unconfined
from prepare.logs import cut_log, log_tail
from prepare.messages import Touched, parse
from prepare.orphans import MARK_VARIABLE, Guard, kill_marked
from prepare.runfiles import create, fresh_folder
from prepare.watch import MEBIBYTE, Bounds, Watch

# Messages waiting in either direction: honest traffic is a handful.
INBOX, OUTBOX = 64, 256
# A wait is cut in slices, to notice a process that ended while others hold its pipes.
SLICE = 0.1
# A log longer than this is cut to its end when the process is gone.
KEPT_LOG_BYTES = 16 * MEBIBYTE
MAX_TOUCHED = 50
_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|WEBHOOK", re.IGNORECASE
)


class ProcessGone(Exception):
    """The candidate process ended; `returncode` says how."""

    def __init__(self, returncode: int) -> None:
        super().__init__(describe_exit(returncode))
        self.returncode = returncode


class TimedOut(Exception):
    """Nothing came from the candidate process in time."""


class CandidateStopped(Exception):
    """The harness stopped the process; `kind` is forbidden or resource_limit, `message` why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


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
    # Byte code beside a source file stands in for it: a candidate must not leave any.
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    # Python puts the working directory first on the path otherwise: a file there named like one
    # of our packages would stand in for it (honoured from Python 3.11 on).
    kept["PYTHONSAFEPATH"] = "1"
    # OpenMP threads that spin while they wait crawl when another process wants the core, and it
    # must be said before the framework loads; where nothing competes it costs nothing.
    kept.setdefault("GOMP_SPINCOUNT", "0")
    # In a sandbox its home is another: the speed figures that it may read would not be found from
    # there, and every start would measure again.
    kept[CACHE_VARIABLE] = str(cache_root().absolute())
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
    """`python -m prepare.child ROLE` in a new folder `run_dir/work/NAME`, log in `NAME.log`."""

    def __init__(
        self,
        run_dir: Path,
        role: str,
        environment: Mapping[str, str],
        *,
        name: str | None = None,
        access: Access | None = None,
        shared: Sequence[SharedFile] = (),
        touched: list[Touched] | None = None,
        bounds: Bounds | None = None,
        loopback: bool = False,
    ) -> None:
        """Start it.

        Args:
            access: what it may reach, and the sandbox it runs in; None: everything, and none.
            shared: what it shares with the harness. touched: where the audit hook's reports are
                added; a list of its own by default. bounds: beyond them it is killed. loopback:
                whether it starts others, of other devices, that it exchanges gradients with.
        """
        self._loopback = loopback
        self._access = access or Access(Unconfined())
        self._role, self._shared, self._run_dir = role, shared, run_dir
        self._bounds = bounds or Bounds()
        self.touched: list[Touched] = [] if touched is None else touched
        self._stopped: CandidateStopped | None = None
        self.log_path = run_dir / f"{name or role}.log"
        self.folder = fresh_folder(run_dir / "work" / (name or role))
        self._log = create(self.log_path)
        self._guard = Guard()
        self._mark = self._guard.mark
        command = self._command(role, environment, shared)
        self._popen = subprocess.Popen(
            command.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,  # closing a buffered pipe waits for the thread that reads it
            cwd=self.folder,
            env=command.env,
            pass_fds=[handle for block in shared for handle in block.handles],
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        if self._popen.stdin is None or self._popen.stdout is None:
            raise RuntimeError("the candidate process was started without pipes")
        self._channel = Channel(self._popen.stdout, self._popen.stdin)  # type: ignore[arg-type]
        self._inbox: queue.Queue[dict[str, Any] | Exception] = queue.Queue(INBOX)
        self._outbox: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(OUTBOX)
        self._closing = threading.Event()
        self._deaf = False
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()
        self.killed_by_us = False
        self._access.sandbox.started(self._popen.pid)
        self._watch = Watch(self._popen.pid, self.folder, self._exceeded, self._bounds)
        self._watch.start()

    def _command(
        self, role: str, environment: Mapping[str, str], shared: Sequence[SharedFile]
    ) -> Command:
        access = self._access
        temporary = self.folder / "tmp"  # a tier with a private /tmp names that instead
        temporary.mkdir()
        own = {**environment, MARK_VARIABLE: self._mark, **cache_variables(self.folder)}
        own |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
        return access.sandbox.wrap(
            [sys.executable, "-m", "prepare.child", role],
            child_environment(own),
            readable=access.readable,
            writable=[self.folder, *(path for block in shared for path in block.paths)],
            listable=access.listable,
            loopback=self._loopback,
        )

    def configure(self, **fields: Any) -> None:
        """Send the first message, with what the audit hook needs to know.

        The caches are filled first: while the process, which compiles nothing before it hears of a
        candidate, loads the framework.
        """
        parts = KERNELS if self._role == "answer" else tuple(VARIABLES.values())
        begin_warm(self.folder, self._access.warm_from, parts)
        rules = {
            "readable": [str(path) for path in self._access.readable],
            "writable": [
                str(path) for path in (self.folder, *(p for b in self._shared for p in b.paths))
            ],
            "hidden": [str(path) for path in (*self._access.hidden, self._run_dir)],
            "listable": [str(path) for path in self._access.listable],
            "refuse": not self._access.sandbox.strict,
            "confined": self._role == "answer" and not self._access.sandbox.strict,
        }
        self.send("configure", audit=rules, **fields)

    def _exceeded(self, message: str) -> None:
        self._stopped = CandidateStopped("resource_limit", message)
        self.kill()

    def _note(self, message: Mapping[str, Any]) -> None:
        """The audit hook reports; where nothing stronger holds, a forbidden act ends the run."""
        touched = parse(Touched, dict(message))
        if len(self.touched) < MAX_TOUCHED:
            self.touched.append(touched)
        if touched.forbidden and not self._access.sandbox.strict and self._stopped is None:
            text = f"it tried to {touched.act} {touched.target}"
            self._stopped = CandidateStopped("forbidden", text)

    def _read(self) -> None:
        while True:
            item: dict[str, Any] | Exception
            try:
                item = {**self._channel.receive(), "received_at": time.monotonic()}
                if item["kind"] == "touched":
                    self._note(item)
                    continue
            except (ChannelClosed, ProtocolError) as error:
                item = error
            while not self._closing.is_set():
                try:
                    self._inbox.put(item, timeout=SLICE)
                    break
                except queue.Full:  # it talks faster than we listen: let it wait
                    continue
            if isinstance(item, Exception) or self._closing.is_set():
                return

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            try:
                self._channel.send(item[0], **item[1])
            except ChannelClosed:  # noticed by the next `receive`
                return

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message without waiting; one that is gone or deaf is noticed by `receive`."""
        try:
            self._outbox.put_nowait((kind, fields))
        except queue.Full:
            self._deaf = True

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next message, with `received_at` (this process's monotonic clock, seconds).

        Raises TimedOut, ProcessGone, CandidateStopped or ProtocolError.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._check()
            remaining = deadline - time.monotonic()
            ended = self._popen.poll() is not None
            try:
                # What it said before it ended is still on its way through the pipe.
                item = self._inbox.get(
                    timeout=5 * SLICE if ended else max(0.0, min(SLICE, remaining))
                )
            except queue.Empty:
                if ended:
                    self._check()
                    raise ProcessGone(self._reap()) from None
                if remaining <= SLICE:
                    raise TimedOut from None
                continue
            self._check()  # the reason for its end, if it was ours
            if isinstance(item, ChannelClosed):
                self._inbox.put(item)
                raise ProcessGone(self._reap())
            if isinstance(item, Exception):
                self._inbox.put(item)
                raise item
            return item

    def _check(self) -> None:
        if self._stopped is not None:
            raise self._stopped
        if self._deaf:
            raise ProtocolError("the candidate does not read the messages it asked for")
        printed = os.fstat(self._log.fileno()).st_size
        if printed > self._bounds.log_bytes:
            allowed = self._bounds.log_bytes / MEBIBYTE
            text = f"it printed {printed / MEBIBYTE:.0f} MiB; {allowed:.0f} MiB are allowed"
            self._exceeded(text)
            raise CandidateStopped("resource_limit", text)

    def _reap(self) -> int:
        try:
            code = self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # It closed its channel on purpose and lives on: nothing it says counts any more.
            self.kill()
            code = self._popen.wait()
        return self._access.sandbox.exit_status(code)

    def rss_bytes(self) -> int:
        """Resident memory of the process and of what it started, in bytes; 0 when it is gone."""
        try:
            process = psutil.Process(self._popen.pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        total = 0
        for member in family:
            try:
                total += int(member.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return total

    def kill(self) -> None:
        """End the process and everything it started, and wait until it is gone."""
        self.killed_by_us = True
        kill_tree(self._popen.pid)
        self._popen.wait()
        kill_marked(self._mark)

    def log_tail(self) -> str:
        """The last lines the process printed, without control characters."""
        return log_tail(self.log_path)

    def __enter__(self) -> CandidateProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.stop()
        self.kill()
        self._closing.set()
        with contextlib.suppress(queue.Full):  # its writer waits on a pipe that nobody reads
            self._outbox.put_nowait(None)
        for thread in self._threads:
            thread.join(timeout=1)
        self._guard.stop()
        cut_log(self._log, KEPT_LOG_BYTES)
        for stream in (self._popen.stdin, self._popen.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

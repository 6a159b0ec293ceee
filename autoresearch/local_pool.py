"""Runs on this machine, several at a time: a worker process per slot, as an Executor.

    with LocalPool(measuring.spec(), find_slots(hardware), logs=folder, tell=print) as pool:
        ticket = pool.submit(MeasureRequest(folder, seed, run_dir))
        for done in pool.collect(timeout=1.0): ...

A worker (`autoresearch.worker`) that dies is started anew and its run made again, on another device
where there is one; in the end the run is LOST. One that says nothing for too long while it makes a
run is ended. A device that can't make runs is left out, see `autoresearch.places`. When this
process dies, however it does, the pipes end and so do the workers, and what they started.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from autoresearch.engine.errors import EngineError
from autoresearch.engine.executor import BEGUN, LOST, Done
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.places import Lost, Places
from autoresearch.slots import Slot
from autoresearch.worker import facts_of, job_of
from prepare.cache import CACHE_VARIABLE, cache_root
from prepare.process import describe_exit, log_tail
from prepare.runfiles import clear

COMMAND = (sys.executable, "-m", "autoresearch.worker")
# What earlier runs tell is kept of so many: more than enough for each precision of a machine.
EARLIER = 60
ENDING_SECONDS = 10.0  # in which guards end what a killed worker had started; the rest is killed
SILENCE = 1800.0  # seconds: a run tells its phases and steps, and each phase has a limit of its own
LOOK_SECONDS = 5.0  # between two looks for workers that hang, while nobody says anything
LOG_BYTES = 10_000_000  # beyond which a worker's log begins anew when the worker does


class WorkerProblem(EngineError):
    """The request or this machine is at fault, says a worker; `exit_code` is that of the error."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code  # type: ignore[misc]


@dataclass
class _Run:
    """A request that isn't collected yet.

    heard: when its worker was last heard of. hung: it was ended for saying nothing.
    """

    ticket: int
    request: MeasureRequest
    lost: Lost = field(default_factory=Lost)
    heard: float = 0.0
    hung: bool = False


class LocalPool:
    """An Executor of one kind of device, "", on worker processes of this machine.

    spec: how to measure, see `autoresearch.worker`. logs: where workers' logs go. earlier: runs
    that tell how fast this machine usually is, the oldest first. silence: seconds after which a
    worker that says nothing hangs. tell: is told of devices that are left out.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        slots: Sequence[Slot],
        logs: Path,
        earlier: Iterable[Replicate] = (),
        command: Sequence[str] = COMMAND,
        silence: float = SILENCE,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.silence = silence
        self._tell = tell
        self._places = Places()
        self._inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers = [
            _Worker(command, spec, slot, logs / f"worker-{number}.log", self._inbox)
            for number, slot in enumerate(slots)
        ]
        self._waiting: collections.deque[_Run] = collections.deque()
        self._running: dict[_Worker, _Run] = {}
        self._begun: list[_Run] = []  # of these BEGUN isn't told yet
        self._tickets = 0
        facts = (facts_of(run) for run in earlier)
        self._earlier = collections.deque((fact for fact in facts if fact is not None), EARLIER)

    @property
    def slots(self) -> Mapping[str, int]:
        """One kind, with a slot per worker that isn't left out."""
        return {"": len(self._usable)}

    @property
    def pids(self) -> list[int]:
        """Ids of the workers that live."""
        return [worker.pid for worker in self._workers if worker.pid]

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Queue a run; it begins at once where a worker is free."""
        self._tickets += 1
        self._waiting.append(_Run(self._tickets, request))
        self._dispatch()
        return self._tickets

    def collect(self, timeout: float | None = None) -> list[Done]:
        """The runs that have ended. Raises WorkerProblem for what no other device does better."""
        deadline = None if timeout is None else time.monotonic() + timeout
        found: list[Done] = []
        while self._running or self._waiting:
            self._dispatch()
            self._tell_begun()
            now = time.monotonic()
            left = math.inf if deadline is None else max(0.0, deadline - now)
            try:
                wait = 0.0 if found else min(left, LOOK_SECONDS)
                worker, message = self._inbox.get(timeout=wait)
            except queue.Empty:
                self._end_silent()  # all that was said has been heard
                if found or time.monotonic() >= now + left:
                    break
                continue
            found += self._take(worker, message)
        self._dispatch()
        return found

    def cancel(self, ticket: int) -> None:
        """End a run with its worker, which is started anew when it is needed again."""
        self._waiting = collections.deque(run for run in self._waiting if run.ticket != ticket)
        for worker, run in list(self._running.items()):
            if run.ticket == ticket:
                del self._running[worker]
                worker.kill()
        self._dispatch()

    def close(self) -> None:
        """End all workers and what they started."""
        self._waiting.clear()
        self._running.clear()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what workers are told and tell ----------------------------------------------------------

    def _dispatch(self) -> None:
        """Give what waits to workers that are free; what was lost waits for another device."""
        usable = self._usable
        free = {worker for worker in usable if worker not in self._running and not worker.ending}
        for run in tuple(self._waiting):
            if not free:
                return
            others = run.lost.elsewhere(usable, lambda worker: worker.device)
            worker = next((worker for worker in others if worker in free), None)
            if worker is not None:
                free.remove(worker)
                self._waiting.remove(run)
                self._give(run, worker)

    @property
    def _usable(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.device not in self._places.out]

    def _give(self, run: _Run, worker: _Worker) -> None:
        self._running[worker] = run
        run.heard, run.hung = time.monotonic(), False
        self._begun.append(run)
        clear(run.request.run_dir)  # of a run that is made again
        if worker.start():
            self._introduce()
        worker.say({"ticket": run.ticket, "job": job_of(run.request, self._earlier)})

    def _introduce(self) -> None:
        """Tell all who works beside them: it is no stranger that disturbs."""
        for worker in self._workers:
            if worker.pid:
                worker.say({"company": self.pids})

    def _tell_begun(self) -> None:
        begun, self._begun = self._begun, []
        for run in begun:
            run.request.on_event(BEGUN, {})

    def _take(self, worker: _Worker, message: dict[str, Any] | None) -> list[Done]:
        """One message of a worker; None says that it has ended."""
        if message is None:
            return self._ended(worker)
        run = self._running.get(worker)
        if run is None or message.get("ticket") != run.ticket:
            return []  # of a run that was cancelled
        run.heard = time.monotonic()
        if "event" in message:
            run.request.on_event(str(message["event"]), message["data"])
            return []
        del self._running[worker]
        if "problem" in message:
            return self._problem(run, worker, message["problem"])
        self._places.praise(worker.device)
        if worker.device in self._places.out:
            worker.kill()
        replicate = Replicate.from_dict(message["replicate"])
        fact = facts_of(replicate)
        if fact is not None:
            self._earlier.append(fact)
        return [Done(run.ticket, replicate)]

    def _end_silent(self) -> None:
        """End the workers that hang; their runs are made again like those of workers that died."""
        for worker, run in self._running.items():
            if time.monotonic() - run.heard >= self.silence and not worker.ending:
                run.hung = True
                worker.kill()

    def _ended(self, worker: _Worker) -> list[Done]:
        how = worker.bury()
        run = self._running.pop(worker, None)
        if run is None:
            return []
        if run.hung:
            how = f"ended, as it said nothing for {self.silence:.0f} s"
        return self._lost(run, worker, f"its worker died ({how})")

    def _lost(self, run: _Run, worker: _Worker, why: str) -> list[Done]:
        """Make it again, before those that came later; what came of it where that is no use."""
        if run.lost.add(worker.device):
            words = f"a run on {worker.name} was lost and is made again: {why}"
            run.request.on_event("warning", {"message": words})
            self._waiting.appendleft(run)
            return []
        message = f"no worker brought it to its end in {run.lost.times} attempts: {why}"
        failure = Failure("worker", LOST, message, log_tail(worker.log))
        details = {"run_dir": str(run.request.run_dir)}
        return [
            Done(run.ticket, Replicate(run.request.seed, None, failure=failure, details=details))
        ]

    def _problem(self, run: _Run, worker: _Worker, problem: Mapping[str, Any]) -> list[Done]:
        """A device that can't make a run: another may. Raises WorkerProblem where several can't, or
        none is left."""
        worker.kill()  # a process that begins anew may find the device again
        message, hint = str(problem["message"]), str(problem["hint"])
        if not run.lost.too_often:
            bad = self._places.blame(worker.device)
            new = bad and self._places.leave_out(worker.device, message)
            if self._usable:
                made_again = self._lost(run, worker, message)
                if new:
                    self._leave(worker.device, message)
                return made_again
        raise WorkerProblem(f"on {worker.name}: {message}", hint, int(problem["exit_code"]))

    def _leave(self, device: str, reason: str) -> None:
        """Say that a device is left out, and free it; what it still makes isn't thrown away."""
        self._tell(f"the device {device} is left out: {reason}")
        for worker in self._workers:
            if worker.device == device and worker not in self._running:
                worker.kill()


class _Worker:
    """One slot's process, while there is one."""

    def __init__(
        self,
        command: Sequence[str],
        spec: Mapping[str, Any],
        slot: Slot,
        log: Path,
        inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]],
    ) -> None:
        self.log, self.name, self.device = log, slot.name, slot.device
        self.ending = False  # killed, and what it started isn't gone yet
        self._command, self._spec, self._slot, self._inbox = command, spec, slot, inbox
        self._popen: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 where there is no process."""
        return 0 if self._popen is None else self._popen.pid

    def start(self) -> bool:
        """Start the process if there is none; whether that was so."""
        if self._popen is not None:
            return False
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self._open_log() as log:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_packages(),  # a folder that stays, and holds no module of a candidate's
                env=_environment(self._slot),
                # Neither Ctrl-C nor a closed terminal ends it: whoever holds its pipes does.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        if self._slot.cores:
            # Before it starts anything, which inherits them.
            with contextlib.suppress(psutil.Error, OSError):
                psutil.Process(self._popen.pid).cpu_affinity(list(self._slot.cores))
        self._thread = threading.Thread(target=self._read, args=(self._popen,), daemon=True)
        self._thread.start()
        self.say({"spec": self._spec})
        return True

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a line; that it died is told by its answers' end."""
        if self._popen is not None and self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.write(json.dumps(message).encode() + b"\n")
                self._popen.stdin.flush()

    def kill(self) -> None:
        """End it, and have what it started ended; `bury` follows when that is done."""
        if self._popen is None or self.ending:
            return
        self.ending = True
        with contextlib.suppress(psutil.Error):
            self._family = psutil.Process(self._popen.pid).children(recursive=True)
        self._popen.kill()

    def bury(self) -> str:
        """Its process is gone: how it ended, in words."""
        popen, self._popen, self.ending = self._popen, None, False
        if popen is None:
            return "it had ended"
        code = popen.wait()
        for stream in (popen.stdin, popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return describe_exit(code)

    def join(self) -> None:
        """Wait until it is gone with what it started."""
        if self._thread is not None:
            self._thread.join()
        self.bury()

    def _read(self, popen: subprocess.Popen[bytes]) -> None:
        """Hand its answers over, and that it has ended, once what it started is gone, too."""
        assert popen.stdout is not None
        for line in popen.stdout:
            with contextlib.suppress(ValueError):  # the last line of one that was killed
                self._inbox.put((self, json.loads(line)))
        popen.wait()
        # Its guards end its candidates; they are among these, and end themselves.
        _, left = psutil.wait_procs(self._family, timeout=ENDING_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._family = []
        self._inbox.put((self, None))

    def _open_log(self) -> IO[bytes]:
        small = self.log.is_file() and self.log.stat().st_size < LOG_BYTES
        return open(self.log, "ab" if small else "wb")


def _packages() -> str:
    return str(Path(__file__).resolve().parents[1])


def _environment(slot: Slot) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    path = _packages() + (os.pathsep + inherited if inherited else "")
    cache = str(cache_root().absolute())
    return {**os.environ, "PYTHONPATH": path, CACHE_VARIABLE: cache, **slot.environment}

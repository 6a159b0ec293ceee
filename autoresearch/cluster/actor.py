"""What works on a node: an actor that makes one run at a time and answers in messages.

Ray starts these by their import path (`executor` asks for it), so nothing but bytes, text and
Ray's own references comes in, and nothing but bytes goes out. A run is made in a thread, so that
the actor can say meanwhile how it goes: `begin` starts one, and each answer, its own and those of
`look`, has what happened since the last, until one has the replicate.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from autoresearch.cluster import wire
from autoresearch.cluster.tokens import Tokens, receive
from prepare.runfiles import clear, fresh_folder

BATCH_SECONDS = 1.0  # events are told at most this often
DEVICE_SECONDS = 300.0  # to load a framework from a slow disk and find the device
SILENT_SECONDS = 10.0  # an answer without news after this long says that the node is alive
_REPEATED = ("progress", "scoring", "preparing")  # of these the last one tells it all
_FOLDER = "autoresearch-worker-"
# What Ray sets by its own bookkeeping, where nobody asked for it: one thread, for a slot that has
# a device to itself.
_RAY_SETS = ("OMP_NUM_THREADS",)


class AutoresearchDriver:
    """Does nothing: that it lives says that its study's process does; see `nodes.share`."""


class AutoresearchWorker:
    """One slot."""

    def __init__(self, kinds: str, environment: str) -> None:
        """kinds: import path of what measures, such as `autoresearch.worker:KINDS`.
        environment: variables of the driver's that runs shall see, as JSON."""
        given = json.loads(environment)
        for name in _RAY_SETS:
            os.environ.pop(name, None)
        os.environ.update(given)
        module, _, name = kinds.partition(":")
        self._kinds = getattr(importlib.import_module(module), name)
        self._folder = _own_folder()
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._files: dict[str, int] = {}

    def hello(self, tokens: str, backend: str | None) -> bytes:
        """What is here: versions, which of the files of `tokens` are missing, and the device.

        backend: what to look for; None for no device at all, which then isn't told.
        """
        header = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": versions(),
            "hardware": {} if backend is None else _hardware(backend),
            "missing": Tokens.loads(tokens).missing() if tokens else [],
        }
        return wire.pack(header, {})

    def receive(self, tokens: str, chunks: Mapping[str, list[Any]]) -> bytes:
        """Take missing files of text, given as references to their pieces in Ray's store."""
        import ray

        received = receive(Tokens.loads(tokens), chunks, ray.get)
        return wire.pack({"received": received}, {})

    def begin(self, order: bytes) -> bytes:
        """Begin a run; answers like `look`."""
        header, files = wire.unpack(order)
        self._news, self._files = queue.Queue(), {}
        thread = threading.Thread(target=self._make, args=(header, files, self._news), daemon=True)
        thread.start()
        return self.look()

    def look(self) -> bytes:
        """What happened since the last answer: waits for news, and gathers them a moment."""
        events: list[tuple[str, Any]] = []
        until = time.monotonic() + SILENT_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                name, data = self._news.get(timeout=left)
            except queue.Empty:
                break
            if name == "end":
                return self._end(events, data)
            if not events:
                until = min(until, time.monotonic() + BATCH_SECONDS)
            if events and events[-1][0] == name and name in _REPEATED:
                events.pop()
            events.append((name, data))
        return wire.pack({"events": events}, {})

    def take(self, path: str, offset: int) -> bytes:
        """A piece of a large file that the last run left; b"" after its end."""
        return wire.piece(self._folder / "run", path, offset)

    # -- inside ----------------------------------------------------------------------------------

    def _make(
        self, header: dict[str, Any], files: Mapping[str, bytes], news: queue.Queue[Any]
    ) -> None:
        """The run, in a thread of its own. Whatever goes wrong is said: silence is a dead node."""
        try:
            news.put(("end", self._measured(header, files, news)))
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            said = {"type": type(error).__name__, "message": f"{error.strerror}{place}"}
            news.put(("end", {"problem": {**said, "hint": "", "exit_code": 4}}))
        except BaseException as error:  # a thread that ends in silence would look like a slow run
            said = {"type": type(error).__name__, "message": _last_words(error)}
            news.put(("end", {"problem": {**said, "hint": "", "exit_code": 1}}))
            raise

    def _measured(
        self, header: dict[str, Any], files: Mapping[str, bytes], news: queue.Queue[Any]
    ) -> dict[str, Any]:
        from autoresearch.engine.errors import EngineError
        from autoresearch.worker import measure_job
        from backends.errors import BackendError
        from prepare.errors import PrepareError

        run = fresh_folder(self._folder / "run")
        clear(run)  # whoever measures makes it
        program = fresh_folder(self._folder / "program")
        warm = fresh_folder(self._folder / "champion")
        wire.write_files(program, {p[2:]: data for p, data in files.items() if p[:2] == "p/"})
        wire.write_files(warm, {p[2:]: data for p, data in files.items() if p[:2] == "c/"})
        spec = dict(header["spec"])
        if spec.get("warm_from") is not None:
            spec["warm_from"] = str(warm / spec["warm_from"])
        job = {**header["job"], "folder": str(program), "run_dir": str(run)}
        try:
            made = measure_job(
                spec,
                job,
                lambda name, data: news.put((name, json.loads(json.dumps(data, default=str)))),
                _company,
                self._kinds,
            )
        except (PrepareError, EngineError, BackendError) as error:
            said = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
            return {"problem": {**said, "exit_code": error.exit_code}}
        return {"replicate": made}

    def _end(self, events: list[tuple[str, Any]], data: dict[str, Any]) -> bytes:
        """The last answer: what the run left goes with it, but for large files, which are named."""
        run = self._folder / "run"
        self._files = dict(wire.plain_files(run)) if run.is_dir() else {}
        small = wire.read_files(run, wire.SMALL) if run.is_dir() else {}
        large = [path for path in self._files if path not in small]
        return wire.pack({"events": events, "large": large, "run": str(run), **data}, small)


def versions() -> dict[str, str]:
    """What a run's result may depend on beside our own code; "" for what isn't installed."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in ("torch", "mlx", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _hardware(backend: str) -> dict[str, Any]:
    """The device that runs in here get, or under `problem` why there is none. It is asked in
    another process: a framework that is loaded here keeps some of the device's memory for good."""
    ask = (
        "import json, sys; from backends.hardware import detect; "
        "print(json.dumps(detect(sys.argv[1])[0].to_dict()))"
    )
    packages = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    wanted = backend or os.environ.get("AUTORESEARCH_BACKEND", "").strip() or "auto"
    said = subprocess.run(
        [sys.executable, "-c", ask, wanted],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=DEVICE_SECONDS,
    )
    if said.returncode:
        lines = said.stderr.strip().splitlines() or [f"status {said.returncode}"]
        return {"problem": lines[-1]}
    return dict(json.loads(said.stdout.splitlines()[-1]))


def _own_folder() -> Path:
    """This worker's folder for runs; what dead workers left is removed."""
    for pid, folder in _folders():
        if not psutil.pid_exists(pid):
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.gettempdir(), f"{_FOLDER}{os.getpid()}")
    clear(folder)
    folder.mkdir(mode=0o700)
    return folder.resolve()


def _folders() -> Iterator[tuple[int, Path]]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with contextlib.suppress(ValueError):
            yield int(folder.name.removeprefix(_FOLDER)), folder


def _company() -> list[int]:
    """The other workers of this node, of any study: each has a device of its own."""
    return [pid for pid, _ in _folders()]


def _last_words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()

"""Speed figures for what no datasheet says, measured here once and remembered.

    figures = measure(hardware, questions)       # seconds the first time, then a file is read
    choose_policy(hardware, figures)
    measured_figures()                           # what doctor shows

The probes run in a process of their own (`probe_process`), so that a kernel that brings its process
down costs one variant and leaves nothing allocated on the device. The key of the cache is hardware,
versions, threads, shape and type. A cache that can't be read or written costs a warning.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import importlib.metadata
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from backends.cache import cache_root, write_json
from backends.hardware import Hardware
from backends.policy import Figure, Overrides, Question, launch_environment, probe_shape
from backends.probe_process import RESTART, Request

FORMAT = 2  # of the probes and their files: raise it when a probe changes
LAUNCH_SECONDS = 180.0  # longest silence of a probe process: a cold compilation on a slow machine
LOCK_SECONDS = 120.0
NO_ANSWER = "no answer in time: it hangs, or the machine is busy"

Run = Callable[[Request], Iterable[Figure]]

_TELL: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar("tell")


@contextlib.contextmanager
def announced(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` when probes begin to run inside; where the figures are remembered, it isn't."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


def measure(
    hardware: Hardware,
    questions: tuple[Question, ...],
    overrides: Overrides | None = None,
    run: Run | None = None,
) -> tuple[Figure, ...]:
    """A figure per variant of each question, from the cache or by running what is missing."""
    if not questions:
        return ()
    run = run or run_in_process
    key = cache_key(hardware, overrides or Overrides())
    path = folder() / f"{_digest(key)}.json"
    with _alone(path):
        known = read(path)
        missing = tuple(q for q in questions if not _answered(q, known))
        if missing:
            _TELL.get(lambda: None)()
            items = {question.item for question in missing}
            kept = [figure for figure in known if figure.item not in items]
            request = Request(
                hardware, missing, key["shape"], key["dtype"] or None, list(kept), key["compile"]
            )
            known = (*kept, *run(request))
            _store(path, key, known)
    asked = {question.item for question in questions}
    return tuple(figure for figure in known if figure.item in asked)


def forget() -> None:
    """Throw all remembered figures away, so that the next start measures again."""
    for path in folder().glob("*.json"):
        path.unlink(missing_ok=True)


def measured_figures() -> dict[str, dict[str, Any]]:
    """All remembered figures: "cpu dtype" -> variant -> milliseconds, or why it failed."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder().glob("*.json")):
        for figure in read(path):
            row = found.setdefault(f"{_backend_of(path)} {figure.item}", {})
            failed = f"failed: {figure.failure}"
            row[figure.variant] = failed if figure.seconds is None else f"{_ms(figure)} ms"
    return found


def _ms(figure: Figure) -> str:
    return f"{1000 * (figure.seconds or 0.0):.3g}"


def folder() -> Path:
    """Where figures are kept."""
    return cache_root() / "probes"


def cache_key(hardware: Hardware, overrides: Overrides) -> dict[str, Any]:
    """Everything that a figure may depend on."""
    return {
        "format": FORMAT,
        "hardware": hardware.to_dict(),
        "python": platform.python_version(),
        "packages": _versions("torch", "mlx", "triton", "flash-attn", "flash-attn-3", "kernels"),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "shape": probe_shape(hardware),
        "dtype": overrides.dtype or "",
        "compile": overrides.compiles,
    }


def _versions(*distributions: str) -> dict[str, str]:
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _answered(question: Question, known: Iterable[Figure]) -> bool:
    return set(question.variants) <= {f.variant for f in known if f.item == question.item}


def read(path: Path) -> tuple[Figure, ...]:
    """Figures of a file; none if it is missing, and none with a warning if it is broken."""
    try:
        return tuple(Figure(**figure) for figure in json.loads(path.read_bytes())["figures"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        warnings.warn(f"speed figures in {path} can't be read ({error}): measuring", stacklevel=2)
        return ()


def _backend_of(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["key"]["hardware"]["backend"])
    except (OSError, ValueError, TypeError, KeyError):
        return "unknown"


def _store(path: Path, key: Mapping[str, Any], figures: Iterable[Figure]) -> None:
    # A machine too busy to answer today may answer tomorrow: silence is not remembered.
    kept = [asdict(figure) for figure in figures if figure.failure != NO_ANSWER]
    value = {"key": key, "figures": kept}
    try:
        write_json(path, value)
    except OSError as error:
        warnings.warn(
            f"speed figures can't be kept in {path.parent} ({error}), so every start measures "
            "again: set AUTORESEARCH_CACHE to a writable folder",
            stacklevel=3,
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep two processes from measuring at once. Without a lock it is merely less exact."""
    import filelock

    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS)
    with contextlib.suppress(OSError, filelock.Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run_in_process(
    request: Request, command: tuple[str, ...] = (sys.executable, "-m", "backends.probe_process")
) -> Iterator[Figure]:
    """Figures from a probe process. One that dies is started again without what killed it."""
    for _ in range(1 + sum(len(question.variants) for question in request.questions)):
        with _Probe(request, command) as probe:
            yield from probe.figures()
            reason = probe.reason()
        left = tuple(q for q in request.questions if not _answered(q, request.known))
        if not left:
            return
        request.questions = left
        if probe.blamed is None and probe.status != RESTART:
            for question in left:
                yield from _give_up(request, question, reason)
            return


def _give_up(request: Request, question: Question, reason: str) -> Iterator[Figure]:
    """A failure for every variant without a figure."""
    done = {f.variant for f in request.known if f.item == question.item}
    for variant in question.variants:
        if variant not in done:
            yield _remember(request, Figure(question.item, variant, None, reason))


def _remember(request: Request, figure: Figure) -> Figure:
    request.known.append(figure)
    return figure


class _Probe:
    """One probe process, from its start to its end."""

    def __init__(self, request: Request, command: tuple[str, ...]) -> None:
        self.request = request
        self.command = command
        self.launching: tuple[str, str] | None = None
        self.blamed: Figure | None = None  # what the process died of
        self.status = 0
        self.silent = False

    def __enter__(self) -> _Probe:
        here = str(Path(__file__).resolve().parents[1])
        paths = [here, os.environ.get("PYTHONPATH", "")]
        environment = {
            **launch_environment(self.request.hardware)[0],
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers starts slower than it helps
            **settled(self.request.hardware.backend),
        }
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()

    def figures(self) -> Iterator[Figure]:
        """What the process reports, then what it died of, if it died."""
        for message in self._messages():
            if "start" in message:
                self.launching = (message["start"][0], message["start"][1])
            else:
                self.launching = None
                yield _remember(self.request, Figure(**message["figure"]))
        if self.launching is not None and (self.status != 0 or self.silent):
            self.blamed = Figure(*self.launching, None, self.reason())
            yield _remember(self.request, self.blamed)

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Lines of the process as they come, until it ends or is silent for too long."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_pump, args=(self.process.stdout, lines), daemon=True).start()
        with contextlib.suppress(OSError):  # it died before it read: its status says more
            self.process.stdin.write(self.request.dumps().encode())
            self.process.stdin.close()
        while True:
            try:
                line = lines.get(timeout=LAUNCH_SECONDS)
            except queue.Empty:
                self.silent = True
                return
            if not line:
                self.status = self.process.wait()
                return
            yield json.loads(line)

    def reason(self) -> str:
        """Why the process ended: its status and the last thing it wrote."""
        if self.silent:
            return NO_ANSWER
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join((f"its process ended with status {self.status}", *said))


def settled(backend: str) -> dict[str, str]:
    """Variables that leave a process nothing to measure.

    torch's compiler pickles, pickling asks every loaded module for every name, and so `backends`
    is asked for its lazy ones: without these it would start probes from within a probe.
    """
    return {
        "AUTORESEARCH_BACKEND": backend,
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_ATTENTION": "sdpa",
        "AUTORESEARCH_LOSS": "chunked",
        "AUTORESEARCH_GRAM": "matmul",
    }


def _pump(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Hand over a stream's lines, and at its end an empty one."""
    for line in stream:
        lines.put(line)
    lines.put(b"")

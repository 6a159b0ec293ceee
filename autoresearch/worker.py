"""Makes runs for a loop in another process: told in plain data what to measure, answers the same.

    measure_job(spec, job, on_event)       # the replicate as JSON values
    python -m autoresearch.worker          # a process that does so for whoever holds its pipes

`spec` says how to measure, and is the same for a whole study; its `kind` is a key of KINDS:

    {"kind": "pretraining", "settings": {...}, "backend": None, "attention": None,
     "sandbox": "bubblewrap", "warm_from": "/.../champion.py" or None, "shared_by": 1}

`job` is one run: folder, seed, run_dir, champion_curves, and under `earlier` what earlier runs tell
of what is usual (`facts_of`). Nothing of a job is remembered: any worker can make any run.

The process takes lines of JSON (first the spec, then a job at a time) and answers in lines:

    {"spec": {...}}  {"job": {...}, "ticket": 7}  {"company": [4711, 4712]}
    {"ready": true}  {"ticket": 7, "event": "progress", "data": {...}}
    {"ticket": 7, "replicate": {...}}  or  {"ticket": 7, "problem": {"type", "message", "hint"}}

It ends when its input does. What anything else in it prints goes to its standard error.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from autoresearch.engine.errors import EngineError
from autoresearch.engine.task import Event, MeasureRequest
from autoresearch.engine.trial import Replicate
from backends.errors import BackendError
from prepare.errors import PrepareError

Spec = Mapping[str, Any]
Company = Callable[[], Iterable[int]]
# What earlier runs tell of what is usual: these details of them.
USUAL = ("canary", "hardware_id", "conditions")


class Measuring(Protocol):
    """What a kind builds from a spec: it measures, and can be told of earlier runs."""

    def measure(self, request: MeasureRequest) -> Replicate:
        """Make one run."""
        ...

    def remember(self, runs: Iterable[Replicate]) -> Any:
        """Take from earlier runs what is usual."""
        ...


Kinds = Mapping[str, Callable[[Spec, Company], Measuring]]


def alone() -> Iterable[int]:
    """The company of whoever works on its own."""
    return ()


def _pretraining(spec: Spec, company: Company) -> Measuring:
    import backends
    from autoresearch.engine.sandbox import choose
    from autoresearch.pretraining import Pretraining
    from prepare.settings import Settings

    backend, warm_from = spec.get("backend"), spec.get("warm_from")
    # Measured once here, or each process of a candidate would do it again.
    chosen = backends.make_ready(backend)
    return Pretraining(
        Settings.model_validate(spec["settings"]),
        backend=backend,
        attention=spec.get("attention"),
        sandbox=choose(spec.get("sandbox") or "auto"),
        warm_from=None if warm_from is None else Path(warm_from),
        hardware=lambda: chosen.hardware,
        shared_by=int(spec.get("shared_by", 1)),
        company=company,
    )


KINDS: Kinds = {"pretraining": _pretraining}


def measure_job(
    spec: Spec,
    job: Mapping[str, Any],
    on_event: Event = lambda name, data: None,
    company: Company = alone,
    kinds: Kinds = KINDS,
) -> dict[str, Any]:
    """Make one run; its replicate as JSON values (`Replicate.from_dict` is the inverse).

    company: ids of processes whose use of the machine is no disturbance. Raises PrepareError,
    EngineError or BackendError where the request or this machine is at fault.
    """
    measuring = kinds[str(spec["kind"])](spec, company)
    measuring.remember(Replicate.from_dict(item) for item in job.get("earlier", ()))
    request = MeasureRequest(
        folder=Path(job["folder"]),
        seed=int(job["seed"]),
        run_dir=Path(job["run_dir"]),
        on_event=on_event,
        champion_curves=tuple(
            [(float(spent), float(loss)) for spent, loss in curve]
            for curve in job.get("champion_curves", ())
        ),
    )
    return measuring.measure(request).to_dict()


def job_of(request: MeasureRequest, earlier: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A request as a job, with what `facts_of` says of earlier runs, the oldest first."""
    return {
        "folder": str(request.folder.resolve()),
        "seed": request.seed,
        "run_dir": str(request.run_dir.resolve()),
        "champion_curves": [[list(point) for point in curve] for curve in request.champion_curves],
        "earlier": list(earlier),
    }


def facts_of(run: Replicate) -> dict[str, Any] | None:
    """What a run tells later ones of what is usual; None for nothing."""
    if run.details.get("canary") is None:
        return None
    details = {name: run.details[name] for name in USUAL if name in run.details}
    return Replicate(run.seed, None, score_id=run.score_id, details=details).to_dict()


# -- the process -----------------------------------------------------------------------------------


class Worker:
    """Serves jobs from one stream of lines to another, until the first ends."""

    def __init__(self, lines: IO[bytes], answers: IO[bytes], kinds: Kinds) -> None:
        self._lines, self._answers, self._kinds = lines, answers, kinds
        self._jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._company: tuple[int, ...] = ()
        self._spec: Spec = {}

    def serve(self) -> None:
        """Make runs until there are no more lines, which ends the process at once."""
        threading.Thread(target=self._read, daemon=True).start()
        self._say({"ready": True})
        while True:
            message = self._jobs.get()
            self._make(int(message["ticket"]), message["job"])

    def _read(self) -> None:
        for line in self._lines:
            message = json.loads(line)
            if "spec" in message:
                self._spec = message["spec"]
            elif "company" in message:
                self._company = tuple(message["company"])
            else:
                self._jobs.put(message)
        # Whoever asked is gone. What a run under way has started is ended by its own guards.
        os._exit(0)

    def _make(self, ticket: int, job: Mapping[str, Any]) -> None:
        def on_event(name: str, data: Mapping[str, Any]) -> None:
            self._say({"ticket": ticket, "event": name, "data": data})

        try:
            made = measure_job(self._spec, job, on_event, lambda: self._company, self._kinds)
            self._say({"ticket": ticket, "replicate": made})
        except (PrepareError, EngineError, BackendError) as error:
            kind = type(error).__name__
            problem = {"type": kind, "message": error.message, "hint": error.hint}
            self._say({"ticket": ticket, "problem": {**problem, "exit_code": error.exit_code}})
        except OSError as error:  # of our own files: what a candidate does to its own is caught
            place = f": {error.filename}" if error.filename else ""
            problem = {"type": type(error).__name__, "message": f"{error.strerror}{place}"}
            self._say({"ticket": ticket, "problem": {**problem, "hint": "", "exit_code": 4}})

    def _say(self, message: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(message, default=str).encode() + b"\n")
        self._answers.flush()


def serve(kinds: Kinds = KINDS) -> None:
    """Serve this process's own pipes. What else is printed in it goes to standard error."""
    lines, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    Worker(lines, answers, kinds).serve()


if __name__ == "__main__":
    serve()

"""A worker process for tests of the pool: it does what the program in a run's folder says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.worker import Company, Spec, serve
from prepare.errors import DiskFull

SIGNALS = {"die": signal.SIGKILL, "hang": signal.SIGSTOP} if os.name == "posix" else {}


class Scripted:
    """Scores what the words in `program.txt` say, one act each."""

    def __init__(self, spec: Spec, company: Company) -> None:
        self._spec, self._company = spec, company
        self._known = 0

    def remember(self, runs: Iterable[Replicate]) -> None:
        """Count them."""
        self._known = len(list(runs))

    def measure(self, request: MeasureRequest) -> Replicate:
        """Do it, and say where it was done."""
        request.run_dir.mkdir(parents=True)
        for word in (request.folder / "program.txt").read_text().split():
            act, _, value = word.partition("=")
            if act == "say":
                request.on_event(value, {"nan": float("nan"), "number": 1.5})
            elif act == "print":
                print(value)
                os.write(1, value.encode())
                subprocess.run([sys.executable, "-c", f"print({value!r})"], check=True)
            elif act == "sleep":
                time.sleep(float(value))
            elif act == "child":
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            elif act == "problem":
                raise DiskFull("the disk is full", "free some")
            elif act in SIGNALS:
                marks = request.folder / "deaths"
                died = int(marks.read_text()) if marks.is_file() else 0
                if died < int(value):
                    marks.write_text(str(died + 1))
                    os.kill(os.getpid(), SIGNALS[act])
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        details = {
            "pid": os.getpid(),
            "company": list(self._company()),
            "known": self._known,
            "spec": self._spec["word"],
            "canary": 1e9 + request.seed,
            "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
            "curves": [list(curve) for curve in request.champion_curves],
            **{name: os.environ.get(name, "") for name in names},
        }
        return Replicate(request.seed, float(request.seed), details=details)


if __name__ == "__main__":
    serve({"scripted": Scripted})

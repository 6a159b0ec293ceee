"""`bench startup`: from starting a run to its first timed step, when all is warm.

A whole experiment with a preset's train.py, again and again: the first run, which compiles, is not
counted. Beside it, what loading the framework takes, of which no start can take less.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.bench.mfu import EVAL_BYTES, policy_line
from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, interleave, silent
from autoresearch.console import OnEvent
from prepare.errors import CandidateError
from prepare.process import child_environment

if TYPE_CHECKING:
    from autoresearch.preset import Preset
    from backends import Selection
    from prepare.outcome import Result

SECONDS = 2.0  # of training: only what comes before it counts
CORPUS = {"corpus": "embedded", "corpus_bytes": 4_000_000}  # on no network
LOAD = "from backends import runtime; runtime.name"


def measure(
    selection: Selection,
    preset: Preset,
    repeats: int,
    on_event: OnEvent = silent,
    **changes: Any,
) -> Report:
    """Seconds of a warm start by phase. Raises CandidateError if train.py fails."""
    from autoresearch.preset import write_experiment
    from prepare.experiment import run_experiment
    from prepare.outcome import Failure

    backend = selection.hardware.backend
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as name:
        settings = write_experiment(
            preset,
            Path(name),
            selection.hardware,
            **{**CORPUS, "time_budget": SECONDS, "eval_bytes": EVAL_BYTES, **changes},
        )

        def start() -> float:
            outcome = run_experiment(Path(name) / "train.py", settings, backend=backend)
            if isinstance(outcome, Failure):
                raise CandidateError(f"{outcome.phase}: {outcome.kind}: {outcome.message}")
            results.append(outcome)
            return outcome.startup_seconds + outcome.warmup_seconds

        on_event("phase", {"phase": "startup: the first run compiles"})
        start()
        variants = {"warm start": start, "load": lambda: load_seconds(selection)}
        taken = interleave(variants, repeats, on_event, "startup")
    warm = results[1:]
    figures = (
        Figure("warm start", taken["warm start"], "s"),
        Figure("of it: processes, loading, building", tuple(r.startup_seconds for r in warm), "s"),
        Figure("of it: warm-up", tuple(r.warmup_seconds for r in warm), "s"),
        Figure("loading the framework alone", taken["load"], "s"),
    )
    ratio = Ratio.of("warm start / loading alone", taken["warm start"], taken["load"], LOWER)
    about = {"backend": backend, "preset": preset.name}
    return Report("startup", about, figures, (ratio,), (policy_line(warm[0]),))


def load_seconds(selection: Selection) -> float:
    """What a process takes that loads the framework and ends."""
    command = [sys.executable, "-c", LOAD]
    start = time.perf_counter()
    subprocess.run(command, env=child_environment(selection.environment()), check=True)
    return time.perf_counter() - start

"""`bench loop`: where the wall-clock time of a warm trial goes, start-up and the harness included.

A real `autoresearch run` on whose trials a learning rate changes. The baseline is not counted, nor
the first trial, which meets the baseline's kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from autoresearch.bench.samples import LOWER, Figure, Ratio, Report, silent
from autoresearch.bench.startup import CORPUS
from autoresearch.console import OnEvent
from autoresearch.workspace import new_workspace
from prepare.errors import CandidateError

PROGRAM = [sys.executable, "-c", "from autoresearch.cli import main; main()"]
PROPOSER = Path(__file__).with_name("propose_rate.py")
PHASES = ("startup", "warmup", "training", "scoring")
BUDGET = 300.0  # seconds: what a trial's own time is given as a share of


def measure(
    backend: str,
    preset: str,
    seconds: float,
    repeats: int,
    on_event: OnEvent = silent,
    **settings: Any,
) -> Report:
    """Seconds of `repeats` trials by phase, each run `seconds` long. Raises CandidateError."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        place = Path(folder) / "night"
        given = {**CORPUS, "time_budget": seconds, **settings}
        new_workspace(place, preset, backend=backend, force=True, settings=given)
        times = decided_at(place, repeats + 1, backend, on_event)
        rows = [
            row(trial, times[trial["id"]] - times[trial["id"] - 1])
            for trial in trials(place)[2:]
            if len(trial["replicates"]) == 1 and not trial["champion_replicates"]
        ]
    if not rows:
        raise CandidateError(
            "no trial was decided by one run", "is the machine busy? see `autoresearch doctor`"
        )
    figures = tuple(
        Figure(name, tuple(row[name] for row in rows), "s") for name in ("wall", *PHASES, "harness")
    )
    beside = [row["wall"] - row["training"] for row in rows]
    whole = tuple((BUDGET + more) / BUDGET for more in beside)
    ratios = (Ratio(f"wall clock of a {BUDGET:.0f} s trial / {BUDGET:.0f} s", whole, LOWER),)
    about = {"backend": backend, "preset": preset, "seconds": seconds, **settings}
    note = "harness: proposing, git, the ledger; a trial's wall clock without its four phases"
    return Report("loop", about, figures, ratios, (note,))


def decided_at(folder: Path, count: int, backend: str, on_event: OnEvent) -> dict[int, float]:
    """Run `count` trials; when each was decided, in seconds of the monotonic clock."""
    options = [*command_proposer(PROPOSER), "--trials", str(count), "--no-prune", "--json"]
    times: dict[int, float] = {}
    on_event("phase", {"phase": "loop: the baseline"})
    with subprocess.Popen(
        [*PROGRAM, "run", *options, "--backend", backend],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        error = ""
        for line in process.stdout or ():
            event = json.loads(line)
            error = event.get("error", {}).get("message", error)
            if event.get("event") == "phase":
                on_event("phase", {"phase": f"loop: trial {len(times)}: {event['phase']}"})
            if event.get("event") == "decided":
                times[event["trial"]["id"]] = time.monotonic()
                done = {"task": "loop: trials", "done": len(times), "total": count + 1}
                on_event("progress", done)
    if process.returncode != 0:
        what = error or f"it ended with status {process.returncode}"
        raise CandidateError(f"`autoresearch run` failed: {what}", "is the machine idle?")
    return times


def row(trial: dict[str, Any], wall: float) -> dict[str, float]:
    """Seconds of one trial by phase, and what is left for the harness."""
    phases = {name: float(trial["seconds"][name]) for name in PHASES}
    return {"wall": wall, **phases, "harness": wall - sum(phases.values())}


def environment() -> dict[str, str]:
    """This process's, in which our packages are found from any folder."""
    packages = str(Path(__file__).resolve().parents[2])
    paths = [packages, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def command_proposer(script: Path, *arguments: str) -> list[str]:
    """Options of `run` by which `python SCRIPT ARGUMENTS` proposes."""
    command = " ".join([sys.executable, str(script.resolve()), *arguments])
    return ["--agent", "command", "--agent-option", f"command={command}"]


def trials(folder: Path) -> list[dict[str, Any]]:
    """The trials in a workspace's ledger, the baseline first."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "trial"]

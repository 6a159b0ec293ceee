"""Where the wall-clock time of a warm trial goes, start-up and the harness included.

    python benchmarks/trial_seconds.py [--seconds 60] [--trials 5] [--preset cpu-tinystories]
        [--corpus FOLDER] [--eval-bytes N] [--output benchmarks/results/trial_seconds.json]

A real `autoresearch run` whose proposals change a learning rate: another program for the loop, the
same kernels for the compiler. Trials of one run are counted; the first is not, since it is the one
that meets the baseline's kernels. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workspaces import ENVIRONMENT, PROGRAM, ROOT, command_proposer, make_workspace, trials

DEFAULT_OUTPUT = ROOT / "benchmarks" / "results" / "trial_seconds.json"
# What the trial is for. All else (start-up, proposing, git, the ledger) is the harness's doing.
NOT_OVERHEAD = ("warmup", "training", "scoring")


def propose() -> None:
    """As the loop's `command` proposer: a worse rate, so that one run decides."""
    request = json.load(sys.stdin)
    script = Path("train.py")
    rate = 1e-5 * (1 + request["seed"] % 1000)
    text = script.read_text(encoding="utf-8")
    script.write_text(
        re.sub(r"(?m)^MATRIX_LR = .*$", f"MATRIX_LR = {rate:.5f}", text), encoding="utf-8"
    )
    print(json.dumps({"description": f"MATRIX_LR: {rate:.5f}"}))


def decided_at(folder: Path, count: int) -> dict[int, float]:
    """Run `count` trials; when each was decided, in seconds of the monotonic clock."""
    options = [*command_proposer(__file__), "--trials", str(count), "--no-prune", "--json"]
    times = {}
    with subprocess.Popen(
        [*PROGRAM, "run", *options], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event.get("event") == "decided":
                times[event["trial"]["id"]] = time.monotonic()
    if process.returncode != 0:
        raise SystemExit(f"`autoresearch run` ended with {process.returncode}")
    return times


def row(trial: dict[str, Any], wall: float) -> dict[str, Any]:
    """Seconds of one trial by phase, and what is left for the harness."""
    phases = {name: trial["seconds"][name] for name in ("startup", *NOT_OVERHEAD)}
    overhead = wall - sum(phases[name] for name in NOT_OVERHEAD)
    return {"id": trial["id"], "wall": wall, **phases, "overhead": overhead}


def main() -> None:
    """Run the study, print the medians and write everything to the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of a run")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--preset", default="cpu-tinystories")
    parser.add_argument("--corpus", help="a folder of text, instead of the preset's")
    parser.add_argument("--eval-bytes", type=int, help="of validation text, not the preset's")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--propose", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.propose:
        propose()
        return
    settings: dict[str, object] = {"time_budget": options.seconds}
    if options.eval_bytes:
        settings["eval_bytes"] = options.eval_bytes
    if options.corpus:
        settings["corpus"] = str(Path(options.corpus).resolve())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "night"
        make_workspace(place, options.preset, settings)
        times = decided_at(place, options.trials + 1)
        rows = [
            row(trial, times[trial["id"]] - times[trial["id"] - 1])
            for trial in trials(place)[2:]
            if len(trial["replicates"]) == 1 and not trial["champion_replicates"]
        ]
        tier = trials(place)[0]["tier"]
    if not rows:
        raise SystemExit("no trial was decided by one run: is the machine busy?")
    medians = {name: statistics.median(r[name] for r in rows) for name in rows[0] if name != "id"}
    for name, value in medians.items():
        spread = f"{min(r[name] for r in rows):.2f} to {max(r[name] for r in rows):.2f}"
        print(f"{name:9s} {value:7.2f} s   ({spread})")
    if options.corpus:
        settings["corpus"] = Path(options.corpus).name
    about = {"preset": options.preset, "settings": settings, "cpus": os.cpu_count()}
    data = {**about, "tier": tier, "medians": medians, "trials": rows}
    options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How often edits that change nothing are kept, by `confirm` and by `greedy`, in real runs.

    python benchmarks/no_ops.py [--seconds 5] [--edits 20] [--output benchmarks/results/no_ops.json]

Each policy gets a workspace of the demo preset and the same edits: a local name changed, or a
comment added. The loop would refuse them before they cost a run, so `refuse_known` is off. The
budget is wall-clock time, so that equal programs differ as they do in a real night: by how many
steps fitted in, besides the seed. Run it on an idle machine.
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
from collections import Counter
from pathlib import Path
from typing import Any

from autoresearch.bench.loop import PROGRAM, command_proposer, environment, trials
from autoresearch.workspace import new_workspace
from prepare.settings import FILE_NAME

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUTPUT = ROOT / "benchmarks" / "results" / "no_ops.json"
POLICIES = ("confirm", "greedy")

RENAMES = {
    "inverse": "inverse_wavelength",
    "gram": "gram_NRR",
    "agrees": "same_sign_NRS",
    "across": "neuron_axis",
    "kv_channels": "kv_width",
    "numbers": "step_numbers",
    "half": "half_channels",
    "e_BTKD": "embedded_BTKD",
    "gate_BTK": "gates_BTK",
    "y_BTHD": "mixed_BTHD",
}
COMMENTED = (
    "configure",
    "norm",
    "rotary_tables",
    "rotate",
    "build_model",
    "orthogonalize",
    "scalars",
    "make_optimizer",
    "train",
    "muon_step",
)


def edits(source: str) -> list[tuple[str, str]]:
    """(description, changed source) of every edit without effect that fits this train module."""
    found = []
    for old, new in RENAMES.items():
        there, other = (new, old) if re.search(rf"\b{new}\b", source) else (old, new)
        changed, count = re.subn(rf"\b{there}\b", other, source)
        if count > 1:
            found.append((f"rename {there} to {other}", changed))
    for name in COMMENTED:
        pattern = rf"(?m)^((?:@[^\n]*\n)?def {name}\()"
        changed, count = re.subn(pattern, r"# Looked at again: nothing to change here.\n\1", source)
        if count == 1:
            found.append((f"a comment above {name}()", changed))
    # Renames and comments in turn, so that any number of them holds both.
    return sorted(found, key=lambda edit: [e for e in found if e[0][0] == edit[0][0]].index(edit))


def propose() -> None:
    """As the loop's `command` proposer: make the edit whose number stdin names."""
    request = json.load(sys.stdin)
    script = Path("train.py")
    source = script.read_text(encoding="utf-8")
    choices = edits(source)
    description, changed = choices[request["seed"] % len(choices)]
    script.write_text(changed, encoding="utf-8")
    print(json.dumps({"description": description, "predicted": 0.0, "cost": {"dollars": 0.0}}))


def study(folder: Path, policy: str, seconds: float, count: int) -> dict[str, Any]:
    """One workspace, one policy, `count` edits: what the ledger says afterwards."""

    new_workspace(folder, "demo", settings={"time_budget": seconds})
    with open(folder / FILE_NAME, "a", encoding="utf-8") as file:
        file.write("\n[task.mutation]\nrefuse_known = false\n")
    subprocess.run(["git", "commit", "-qam", "Settings to measure"], cwd=folder, check=True)
    options = [
        *command_proposer(Path(__file__), "--propose"),
        "--trials",
        str(count),
        "--policy",
        policy,
    ]
    subprocess.run(
        [*PROGRAM, "run", *options, "--no-prune"], cwd=folder, env=environment(), check=True
    )
    return {"policy": policy, "trials": trials(folder)}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The counts of one study, and its scores."""
    baseline, *trials = found["trials"]
    scores = [run["score"] for run in baseline["replicates"]]
    runs = [len(t["replicates"]) + len(t["champion_replicates"]) for t in trials]
    return {
        "policy": found["policy"],
        "edits": len(trials),
        "statuses": dict(Counter(trial["status"] for trial in trials)),
        "runs": sum(runs),
        "baseline_scores": scores,
        "baseline_sd": statistics.stdev(scores),
        "trials": [
            {
                "description": t["description"],
                "status": t["status"],
                "delta": t["delta"],
                "confidence": t["confidence"],
                "scores": {run["seed"]: run["score"] for run in t["replicates"]},
                "reason": t["reason"],
            }
            for t in trials
        ],
    }


def main() -> None:
    """Run both studies, print the counts and write everything to the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="training time of a run")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--propose", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.propose:
        propose()
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [
            summary(study(Path(folder) / policy, policy, options.seconds, options.edits))
            for policy in POLICIES
        ]
    for one in found:
        kept = one["statuses"].get("keep", 0)
        counts = f"{kept} of {one['edits']} edits without effect kept, {one['runs']} runs"
        print(f"{one['policy']}: {counts}")
    data = {"seconds": options.seconds, "preset": "demo", "cpus": os.cpu_count(), "studies": found}
    options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Replays the policies that keep or discard, on drawn and on recorded noise.

    python benchmarks/decisions.py [--studies 600] [--output benchmarks/results/decisions.json]

Everything is in units of sigma, the standard deviation of one ordinary run; positive effects are
improvements. The policies are the engine's own. Four tables:
- single decisions against a fresh 3-seed baseline: how often an edit is kept, by its true effect,
  and the runs spent, the champion's included;
- studies of no-op edits only: how often one is kept while champions and noise estimates age;
- simpler edits: how often fewer lines are kept, by what they truly cost;
- whole studies at equal compute: the final champion's true quality.
Recorded noise and curves come from benchmarks/record_noise.py when its file is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from decision_simulator import (  # noqa: E402
    BASELINE_SEEDS,
    Draw,
    Proposals,
    final_quality,
    gaussian,
    heavy_tails,
    noop_studies,
    outliers,
    recorded_noise,
    simpler_edits,
    single_decisions,
)
from pruning_simulator import pruning_drawn, pruning_recorded  # noqa: E402

from autoresearch.engine.policy import Confirm, Greedy, Policy  # noqa: E402

RESULTS = HERE / "results"

SENSITIVITY = {
    "harm 1.5 sigma": Proposals(harm=1.5),
    "harm 3 sigma": Proposals(harm=3.0),
    "harm 5 sigma": Proposals(harm=5.0),
    "10% do nothing": Proposals(nothing=0.1),
    "40% do nothing": Proposals(nothing=0.4),
    "60% do nothing": Proposals(nothing=0.6),
    "mostly small gains": Proposals(sizes="small"),
    "mostly small gains, 40% do nothing": Proposals(sizes="small", nothing=0.4),
    "all harm by 1.5 sigma, 5% do nothing": Proposals(harm=1.5, nothing=0.05, harms="alike"),
}


def run_all(studies: int, decisions: int, seed: int) -> dict[str, Any]:
    """Every table, as plain JSON values."""
    confirm, greedy = Confirm(), Greedy()
    both: dict[str, Policy] = {"confirm": confirm, "greedy": greedy}
    noises: dict[str, Draw] = {
        "gaussian": gaussian,
        "2% outliers of 15 sigma": outliers,
        "heavy tails (t3)": heavy_tails,
    }
    recorded = recorded_noise()
    if recorded is not None:
        noises["recorded seeds"] = recorded
    report: dict[str, Any] = {"seed": seed, "baseline_seeds": BASELINE_SEEDS, "noise": {}}
    for name, noise_of in noises.items():
        few = max(decisions // 5, 1)
        report["noise"][name] = {
            "decisions": {
                policy_name: [
                    single_decisions(policy, noise_of, e, decisions if e == 0 else few, seed)
                    for e in (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
                ]
                for policy_name, policy in both.items()
            },
            "noop_studies": noop_studies(confirm, noise_of, max(studies // 8, 1), 100, seed),
            "simpler": [
                simpler_edits(confirm, noise_of, e, few, seed) for e in (-2.0, -1.0, -0.5, 0.0)
            ],
            "final": final_quality(both, noise_of, Proposals(), studies, 100, seed),
        }
    report["longer"] = final_quality(both, gaussian, Proposals(), max(studies // 7, 1), 700, seed)
    report["sensitivity"] = {
        name: final_quality(both, gaussian, proposals, studies, 100, seed)
        for name, proposals in SENSITIVITY.items()
    }
    report["correlated"] = {
        "noop_studies": noop_studies(confirm, gaussian, max(studies // 8, 1), 100, seed, 0.5),
        "final": final_quality(both, gaussian, Proposals(), studies, 100, seed, 0.5),
    }
    report["pruning_drawn"] = pruning_drawn(max(studies, 1), seed)
    report["pruning_recorded"] = pruning_recorded()
    return report


def markdown(report: dict[str, Any]) -> str:
    """The tables for benchmarks/README.md."""
    lines = [
        "| noise | policy | -2 | -1 | no-op | +1 | +2 | +4 | runs, no-op | runs, +2 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, part in report["noise"].items():
        for policy, rows in part["decisions"].items():
            kept = " | ".join(f"{row['kept']['share']:.1%}" for row in rows)
            lines.append(f"| {name} | {policy} | {kept} | {rows[2]['runs']} | {rows[4]['runs']} |")
    lines += [
        "",
        "| study | confirm | greedy | difference | keeps | trials | no-ops kept |",
        "|---|---|---|---|---|---|---|",
    ]
    finals = {f"{name} noise": part["final"] for name, part in report["noise"].items()}
    finals["gaussian noise, 700 runs"] = report["longer"]
    finals["gaussian noise, half of it shared by seed"] = report["correlated"]["final"]
    finals.update({f"gaussian, {name}": part for name, part in report["sensitivity"].items()})
    for name, part in finals.items():
        c, g = part["confirm"], part["greedy"]
        lines.append(
            f"| {name} | {c['quality']:.2f} | {g['quality']:.2f} | "
            f"{part['confirm_minus_greedy']:+.2f} ± {part['se']:.2f} | "
            f"{c['keeps']:.1f} / {g['keeps']:.1f} | {c['trials']:.0f} / {g['trials']:.0f} | "
            f"{c['no_ops_kept']:.1%} / {g['no_ops_kept']:.0%} |"
        )
    lines += ["", "| noise | -2 | -1 | -0.5 | 0 |", "|---|---|---|---|---|"]
    for name, part in report["noise"].items():
        kept = " | ".join(f"{row['kept']['share']:.1%}" for row in part["simpler"])
        lines.append(f"| {name} | {kept} |")
    return "\n".join(lines)


def main() -> None:
    """Run every table, print it and write the JSON."""
    parser = argparse.ArgumentParser(description="Replay the policies on drawn and recorded noise.")
    parser.add_argument("--studies", type=int, default=1000, help="whole studies per table row")
    parser.add_argument("--decisions", type=int, default=6_000, help="no-op decisions per row")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "decisions.json")
    options = parser.parse_args()
    started = time.perf_counter()
    report = run_all(options.studies, options.decisions, options.seed)
    print(markdown(report))
    print(json.dumps({k: report[k] for k in ("pruning_drawn", "pruning_recorded")}, indent=1))
    print(f"{time.perf_counter() - started:.0f} s")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

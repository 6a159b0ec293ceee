"""How the engine holds up from one device to thousands: rates, the driver's load, time to a goal.

    python benchmarks/scale.py [--devices 1,8,64] [--output benchmarks/results/scale.json]
    python benchmarks/scale.py --goal 10 --seeds 3      # hours until a study is 10 sigma better

Runs are virtual, the loop, the ledger and git are real: see benchmarks/scale_simulator.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from scale_simulator import Setting, simulate  # noqa: E402

TRIALS = {1: 100, 8: 200, 64: 400, 512: 1_200, 2_000: 8_000, 10_000: 15_000}
MOST_TRIALS = 20_000  # of a study that has a goal


def main() -> None:
    """Simulate studies for each number of devices and print a line for each number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,8,64,512", help="numbers with commas between")
    parser.add_argument("--goal", type=float, help="end each study when it is so many sigma better")
    parser.add_argument("--seeds", type=int, default=1, help="studies for each number, with --goal")
    parser.add_argument("--output", type=Path, help="JSON; what else it holds is left")
    options = parser.parse_args()
    rows = []
    # Removed at the end: ext4 gives no inode again in the minutes after it was freed, and looks at
    # each of them for every new file, so that removing one study would slow the next.
    with tempfile.TemporaryDirectory() as root:
        for devices in map(int, options.devices.split(",")):
            if options.goal is None:
                rows.append(study(devices, Path(root)))
            else:
                rows.append(to_goal(devices, options.goal, options.seeds, Path(root)))
            if options.output:
                name = "rows" if options.goal is None else "to_goal"
                path, about = options.output, {"cpu_count": os.cpu_count(), "load": os.getloadavg()}
                found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
                found |= {"conditions": {**about, "os": platform.system()}, name: rows}
                path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def study(devices: int, root: Path) -> dict[str, Any]:
    """Some waves of trials: the rates."""
    setting = Setting(devices, TRIALS.get(devices, 20 + 3 * devices // 2))
    row = simulate(root / f"{devices}", setting)
    print(
        f"{devices:>6} devices: {row['trials_per_hour'] or 0:8.0f} trials/h, driver "
        f"{row['driver_cpu_ms_per_trial']:.1f} ms of processor a trial "
        f"({row['driver_ms_per_trial']:.1f} ms in all; {row['finished_trials_per_second']:.0f} "
        f"finished ones taken in a second), {row['rebased']} put on a newer champion, "
        f"+{row['improvement']:.1f} sigma in {row['virtual_hours']:.1f} h",
        flush=True,
    )
    return row


def to_goal(devices: int, goal: float, seeds: int, root: Path) -> dict[str, Any]:
    """Studies by as many proposers until each is so much better; when they were."""
    hours, trials = [], []
    for seed in range(1, seeds + 1):
        setting = Setting(devices, MOST_TRIALS, seed=seed, goal=goal)
        row = simulate(root / f"{devices}-{seed}", setting)
        when = (at for at, worth in row["reached"] if worth >= goal)
        hours.append(next((at / 3600 for at in when), None))
        trials.append(row["trials"])
    told = ", ".join("never" if at is None else f"{at:.2f}" for at in hours)
    print(f"{devices:>6} devices: +{goal:g} sigma after {told} h", flush=True)
    return {"devices": devices, "goal": goal, "hours": hours, "trials": trials}


if __name__ == "__main__":
    main()

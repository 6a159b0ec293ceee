"""How the engine holds up from one device to thousands: rates, the driver's load, time to a goal.

    python benchmarks/scale.py [--devices 1,8,64] [--output benchmarks/results/scale.json]

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

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from scale_simulator import Setting, simulate  # noqa: E402

TRIALS = {1: 20, 8: 100, 64: 400, 512: 1_200, 2_000: 8_000, 10_000: 30_000}


def main() -> None:
    """Simulate a study for each number of devices and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,8,64,512", help="numbers with commas between")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for devices in map(int, options.devices.split(",")):
        setting = Setting(devices, TRIALS.get(devices, 20 + 3 * devices // 2))
        with tempfile.TemporaryDirectory() as folder:
            rows.append(simulate(Path(folder), setting))
        row = rows[-1]
        print(
            f"{devices:>6} devices: {row['trials_per_hour'] or 0:8.0f} trials/h, driver "
            f"{row['driver_cpu_ms_per_trial']:.1f} ms of processor a trial "
            f"({row['driver_ms_per_trial']:.1f} ms in all; {row['finished_trials_per_second']:.0f} "
            f"finished ones taken in a second), {row['rebased']} put on a newer champion, "
            f"+{row['improvement']:.1f} sigma in {row['virtual_hours']:.1f} h",
            flush=True,
        )
        if options.output:
            about = {"cpu_count": os.cpu_count(), "load": os.getloadavg(), "os": platform.system()}
            text = json.dumps({"conditions": about, "rows": rows}, indent=1)
            options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A study's process that asks a cluster for four long runs: `cluster_driver.py ADDRESS FOLDER`."""

import json
import sys
from pathlib import Path

from autoresearch.cluster.executor import RayExecutor
from autoresearch.cluster.workers import Patience
from autoresearch.engine.task import MeasureRequest


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir()
    (folder / "do.json").write_text(json.dumps({"note": str(folder / "pids"), "sleep": 60}))
    spec = {"kind": "asked", "settings": {"corpus": "none"}}
    options = {"measures": "cluster_kinds:KINDS", "patience": Patience(look=0.3, turn=1e9)}
    with RayExecutor(spec, address=address, tag="other", **options) as executor:
        for seed in range(4):
            executor.submit(MeasureRequest(folder, seed, folder / f"run-{seed}"))
        executor.collect()


main()

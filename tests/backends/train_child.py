"""Runs train modules on one backend, away from pytest: a process has one backend for life.

    results = run_child(tmp_path, "mlx", jobs)      # in pytest: one process for all jobs
    python train_child.py JOBS.json                 # what that process runs

A job is a dict: `kind` names a function of train_jobs.py, `module` is the path of a train module,
`constants` the upper-case names to overwrite in it as a preset would; the rest is up to the kind.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEED_MODULE = ROOT / "train.py"
TINY = {
    "DEPTH": 2,
    "ASPECT_RATIO": 32,
    "HEAD_DIM": 16,
    "WINDOW_PATTERN": "SL",
    "TOTAL_BATCH_SIZE": 512,
    "DEVICE_BATCH_SIZE": 4,
}
# The first choice on processors, and the only one of MLX: speeds aren't probed.
ATTENTION = {"cpu": "dense", "mlx": "block_local"}


def run_child(
    folder: Path,
    backend: str,
    jobs: list[dict[str, Any]],
    *,
    dtype: str = "float32",
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """The result of each job; an AssertionError shows the child's output if it fails."""
    path, out = folder / f"{backend}-jobs.json", folder / f"{backend}-results.json"
    path.write_text(json.dumps({"out": str(out), "jobs": jobs}), encoding="utf-8")
    environment = {
        **os.environ,
        "AUTORESEARCH_BACKEND": backend,
        "AUTORESEARCH_DTYPE": dtype,
        "AUTORESEARCH_ATTENTION": ATTENTION[backend],
        "AUTORESEARCH_COMPILE": "1" if compiled else "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{backend}: {done.stdout[-2000:]}{done.stderr[-6000:]}"
    return json.loads(out.read_text(encoding="utf-8"))


def main(path: str) -> None:
    import train_jobs

    work = json.loads(Path(path).read_text(encoding="utf-8"))
    results = [getattr(train_jobs, job["kind"])(job) for job in work["jobs"]]
    Path(work["out"]).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

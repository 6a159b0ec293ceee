"""A function that is timed reaches for the process that times it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from autoresearch.engine.jail import environment, run_jailed
from autoresearch.engine.sandbox import best_tier
from autoresearch.taskfile.model import load
from autoresearch.taskfile.score import Scored, read_score

SPEED = Path(__file__).resolve().parents[2] / "tasks" / "speed"
# The clock's process is the parent. A second score, or its memory, would be all it takes.
REACH = """
import os
for name, more in (("fd/1", '{"time_ratio": 0.001}'), ("mem", "")):
    try:
        with open(f"/proc/{os.getppid()}/{name}", "r+b", buffering=0) as file:
            open("reached", "a").write(name)
            file.write(more.encode())
    except OSError:
        pass
"""


def test_the_clock_is_out_of_its_reach(tmp_path):
    tier, _ = best_tier()
    if not tier.strict or sys.platform != "linux":
        pytest.skip("no strict sandbox of Linux here")
    program, folder = tmp_path / "program", tmp_path / "scorer"
    shutil.copytree(SPEED, folder, ignore=shutil.ignore_patterns("work"))
    program.mkdir()
    (program / "fast.py").write_text(REACH + (SPEED / "fast.py").read_text())
    done = run_jailed(
        ["python", "stopwatch.py", str(program), "0"],
        tier=tier,
        cwd=folder,
        env=environment(),
        private=tmp_path / "private",
        readable=[program],
        writable=[folder],
        seconds=120,
    )
    found = read_score(load(SPEED / "task.yaml").scorer, done)
    assert isinstance(found, Scored), (found, done.stderr)
    assert found.metrics["wrong_answers"] == 0 and found.score > 0.2
    assert not (folder / "reached").exists()

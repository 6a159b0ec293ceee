"""Kernels without a GPU: files named `interpreted_*.py` run in Triton's interpreter.

Triton decides when it is imported, for the whole process, and torch.compile imports it too. So such
a file is no test file here; a test runs it in a process of its own:

    def test_in_the_interpreter(interpreter):
        interpreter("interpreted_attention.py")

To see each of its tests: TRITON_INTERPRET=1 pytest tests/backends/kernels/interpreted_attention.py
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SECONDS = 300.0  # on a busy machine

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted_*.py"]


@pytest.fixture
def interpreter() -> Callable[[str], None]:
    """Runs a file of tests in the interpreter; fails with its report, skips without Triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton): kernels are not tested")

    def run(name: str) -> None:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
        done = subprocess.run(
            [*command, str(HERE / name)],
            cwd=HERE.parents[2],
            env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"

    return run

"""A killed harness or loop leaves nothing behind: no busy candidate, no proposer, no child."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.engine.proposers.process import MARK
from prepare.orphans import MARK_VARIABLE, Guard

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills a harness with SIGKILL")

# The harness, cut down to what matters here: it starts a candidate and speaks to it no more.
HARNESS = """
import sys, time
from pathlib import Path
from prepare.process import CandidateProcess

process = CandidateProcess(Path(sys.argv[1]), "train", {"AUTORESEARCH_BACKEND": "cpu"})
process.configure(script=sys.argv[2], spec={"vocab_size": 256, "max_seq_len": 16}, seed=0)
print("started", process._mark, flush=True)
time.sleep(600)
"""

# It holds Python's lock in native code (`pow` of huge numbers never lets go), after it started a
# process in a session of its own.
CANDIDATE = """
import subprocess, sys
from pathlib import Path

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Path({flag!r}).write_text("busy")
pow(3, 10**9)
"""


# A loop that waits for a proposer, which has started something of its own.
LOOP = """
import os, sys
from pathlib import Path
from autoresearch.engine.proposers.process import run_program

code = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
run_program([sys.executable, "-c", code], cwd=Path(sys.argv[1]), env=dict(os.environ), seconds=600)
"""


def carriers(mark: str, variable: str = MARK_VARIABLE) -> list[psutil.Process]:
    """Living processes whose mark begins like this."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(variable, "").startswith(mark):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def test_a_busy_candidate_and_its_children_die_with_a_killed_harness(tmp_path):
    flag = tmp_path / "flag"
    script = tmp_path / "train.py"
    script.write_text(CANDIDATE.format(flag=str(flag)))
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(tmp_path / "run"), str(script)],
        cwd=ROOT,
        env={**os.environ, "AUTORESEARCH_COMPILE": "0", "AUTORESEARCH_DTYPE": "float32"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout is not None
    with harness:
        mark = harness.stdout.readline().split()[1]
        wait_until(flag.exists)
        assert len(carriers(mark)) == 2
        os.kill(harness.pid, signal.SIGKILL)
        harness.wait()
        wait_until(lambda: not carriers(mark))


def test_a_proposer_and_its_children_die_with_a_killed_loop(tmp_path):
    loop = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], cwd=ROOT)
    with loop:
        wait_until(lambda: len(carriers(f"{loop.pid}-", MARK)) == 2)
        os.kill(loop.pid, signal.SIGKILL)
        # Not reaped yet: a zombie is dead as well.
        wait_until(lambda: not carriers(f"{loop.pid}-", MARK))


def test_an_orderly_end_leaves_no_guard(tmp_path):
    with Guard() as guard:
        watcher = psutil.Process(guard._popen.pid)
        assert watcher.is_running()
    assert not watcher.is_running()


INTERRUPTED = HARNESS.replace(
    'print("started", process._mark, flush=True)\ntime.sleep(600)',
    'with process:\n    print("started", process._mark, flush=True)\n    process.receive(600)\n'
    "    process.receive(600)\n    process.receive(600)",
)


def test_ctrl_c_takes_a_busy_candidate_along(tmp_path):
    flag = tmp_path / "flag"
    script = tmp_path / "train.py"
    script.write_text(CANDIDATE.format(flag=str(flag)))
    harness = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run"), str(script)],
        cwd=ROOT,
        env={**os.environ, "AUTORESEARCH_COMPILE": "0", "AUTORESEARCH_DTYPE": "float32"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout is not None and harness.stderr is not None
    with harness:
        mark = harness.stdout.readline().split()[1]
        wait_until(flag.exists)
        harness.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in harness.stderr.read()
        harness.wait()
        assert not carriers(mark)

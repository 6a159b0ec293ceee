"""A program run to an end: nothing it prints, waits for or leaves behind holds the loop."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.engine.proposers import process
from autoresearch.engine.proposers.base import ProposalRequest
from autoresearch.engine.proposers.command import CommandProposer
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.process import (
    MARK,
    end_orphans,
    needed_environment,
    run_program,
)

SLEEPER = "import time; time.sleep(1000)"


def python(code, tmp_path, seconds=20.0, **more):
    return run_program(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=needed_environment(),
        seconds=seconds,
        **more,
    )


def test_output_and_status(tmp_path):
    code = "import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)"
    done = python(code, tmp_path, stdin=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello\n", "no\n")
    assert done.stopped == "" and done.tail == "hello\nno"


def test_a_long_output_keeps_both_ends(tmp_path):
    done = python("print('a' * 50_000 + 'b' * 50_000 + 'end')", tmp_path, kept_bytes=2_000)
    assert done.stdout.startswith("a" * 1000) and done.stdout.endswith("b" * 900 + "end\n")
    assert "bytes left out" in done.stdout and len(done.stdout) < 2_100


def test_a_short_output_is_whole(tmp_path):
    done = python("print('x' * 1500, end='')", tmp_path, kept_bytes=2_000)
    assert done.stdout == "x" * 1500


def test_cancelled(tmp_path):
    begin = time.monotonic()
    done = python(SLEEPER, tmp_path, cancelled=lambda: time.monotonic() - begin > 0.3)
    assert done.stopped == "cancelled" and time.monotonic() - begin < 15


def test_what_left_the_group_is_ended(tmp_path):
    code = f"""
import subprocess, sys
p = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
print(p.pid, flush=True)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0 and done.left_over >= 1
    pid = int(done.stdout)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_orphans_of_a_killed_loop(tmp_path):
    """The mark of a process that is gone: what bears it is ended; ours is not."""
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    owner = f"{gone.pid}-12345-abc"
    gone.wait()
    ours = f"{os.getpid()}-{process._started(os.getpid())}-abc"
    started = [
        subprocess.Popen([sys.executable, "-c", SLEEPER], env={**os.environ, MARK: mark})
        for mark in (owner, ours, "nonsense")
    ]
    try:
        deadline = time.monotonic() + 10
        while len(process._marked()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        end_orphans()  # another loop's guard on this machine may have been faster
        started[0].wait(timeout=10)
        assert started[1].poll() is None and started[2].poll() is None
    finally:
        for item in started:
            item.kill()
            item.wait()


def test_only_named_variables_are_passed(tmp_path):
    environ = {"PATH": "/bin", "HOME": "/h", "A_KEY": "1", "B_KEY": "2", "LD_PRELOAD": "x"}
    assert needed_environment(("A_KEY",), environ) == {"PATH": "/bin", "HOME": "/h", "A_KEY": "1"}


def test_a_missing_program(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such"):
        run_program(["no-such"], cwd=tmp_path, env=needed_environment(), seconds=1)


def test_git_in_the_folder_sees_no_repository_above_it(tmp_path: Path) -> None:
    def top(folder: Path, inside: str = ".") -> tuple[int, str]:
        command = ["git", "-C", inside, "rev-parse", "--show-toplevel"]
        done = run_program(command, cwd=folder, env=needed_environment(), seconds=20)
        return done.returncode, done.stdout.strip()

    above = tmp_path / "above"
    above.mkdir()
    who = ["-c", "user.name=u", "-c", "user.email=u@example.org"]
    for arguments in (
        ["init", "-q"],
        [*who, "commit", "-q", "--allow-empty", "-m", "first"],
        ["worktree", "add", "-q", "--detach", "work/scratch"],
    ):
        subprocess.run(["git", *arguments], cwd=above, check=True)
    scratch = above / "work" / "scratch"
    (scratch / "deeper").mkdir()
    assert top(scratch) == (0, str(scratch.resolve()))
    assert top(scratch, "deeper") == (0, str(scratch.resolve()))
    (scratch / ".git").unlink()
    assert top(scratch)[0] != 0


def test_a_removed_artifact_is_described(tmp_path):
    (tmp_path / "train.py").write_text("x = 1\n")
    request = ProposalRequest(tmp_path, ("train.py",), "", Digest(), 20.0)
    proposal = CommandProposer([sys.executable, "-c", "import os; os.remove('train.py')"]).propose(
        request
    )
    assert not proposal.problem and proposal.description == "edit of train.py, not described"

"""Clocks that jump, Ctrl-C, a second writer, a disk that turns read-only: the study stays whole."""

import datetime
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoresearch.engine import loop as loop_module
from autoresearch.engine.errors import EngineError, LedgerBusy, LedgerUnwritable
from autoresearch.engine.proposers.base import CANCELLED, NO_COST, Proposal
from autoresearch.engine.task import Budget
from tests.smoke import kill_driver
from tests.smoke.test_kills import make_study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="shares the kill driver's study")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", follows=False)


def whole(root: Path) -> None:
    """Nothing is lost or left over once the study is opened again."""
    with kill_driver.make_loop(root) as loop:
        assert not list(kill_driver.problems(root, loop))


def test_a_jumping_clock_changes_neither_order_nor_budget(root, monkeypatch):
    draw, real = random.Random(1), time.time
    jump = lambda: real() + draw.choice([-1, 1]) * draw.random() * 10**9  # noqa: E731
    now = lambda zone: datetime.datetime.fromtimestamp(jump(), zone)  # noqa: E731
    clock = SimpleNamespace(datetime=SimpleNamespace(now=now), timezone=datetime.timezone)
    monkeypatch.setattr(loop_module, "datetime", clock)
    monkeypatch.setattr(time, "time", jump)
    with kill_driver.make_loop(root) as loop:
        reason = loop.run(kill_driver.Script(loop), Budget(trials=5, hours=1.0))
    assert reason == "5 trials done"
    lock = root / ".git" / f"refs/heads/autoresearch/{kill_driver.TAG}.lock"
    lock.write_text("")
    whole(root)
    assert not lock.exists()


def test_asked_to_stop_it_finishes_the_trial(root, monkeypatch):
    with kill_driver.make_loop(root) as loop:
        loop.baseline()

        def measure(request):
            loop.stop_asked = True
            return kill_driver.measure(request)

        loop.measure = measure
        assert loop.run(kill_driver.Script(loop), Budget()) == "asked to stop"
        assert [trial.id for trial in loop.ledger.trials()] == [0, 1]
        assert loop.ledger.trials()[1].commit == loop.workspace.champion_commit
    whole(root)


def test_asked_to_stop_while_proposing_it_does_not_wait(root):
    class Cancelled(kill_driver.Script):
        def propose(self, request):
            self.loop.stop_asked = True
            assert request.cancelled()
            return Proposal("", cost=NO_COST, problem="stopped", problem_kind=CANCELLED)

    slept: list[float] = []
    with kill_driver.make_loop(root) as loop:
        loop.sleep = slept.append
        assert loop.run(Cancelled(loop), Budget()) == "asked to stop"
    assert not slept
    whole(root)


def test_interrupted_it_stops_now_and_drops_the_trial(root):
    def interrupted(request):
        raise KeyboardInterrupt

    with kill_driver.make_loop(root) as loop:
        loop.baseline()
        loop.measure = interrupted
        with pytest.raises(KeyboardInterrupt):
            loop.run(kill_driver.Script(loop), Budget())
        assert [trial.id for trial in loop.ledger.trials()] == [0]
    assert not [p for p in (root / ".autoresearch" / "work").iterdir() if kill_driver.any_file(p)]
    whole(root)


SIGINT_LOOP = """
import sys
from pathlib import Path
from autoresearch.engine.task import Budget
from tests.smoke import kill_driver

with kill_driver.make_loop(Path(sys.argv[1])) as loop:
    def stop(number, frame):
        loop.stop_asked = True
    import signal
    signal.signal(signal.SIGINT, stop)
    print("ready", flush=True)
    print(loop.run(kill_driver.Script(loop), Budget(trials=50)))
"""


def test_ctrl_c_of_the_terminal_does_not_reach_git(root):
    """The terminal signals the whole group; many of its processes are git's."""
    loop = subprocess.Popen(
        [sys.executable, "-c", SIGINT_LOOP, str(root)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with loop:
        assert loop.stdout is not None and loop.stderr is not None
        assert loop.stdout.readline() == "ready\n"
        ended = threading.Event()

        def press() -> None:
            while not ended.wait(0.002):
                os.killpg(loop.pid, signal.SIGINT)

        time.sleep(1.0)
        pressing = threading.Thread(target=press)
        pressing.start()
        try:
            assert loop.stdout.readline() == "asked to stop\n", loop.stderr.read()
        finally:
            ended.set()
            pressing.join()
        loop.wait(timeout=60)
    whole(root)


def test_a_second_loop_is_refused_and_disturbs_nothing(root):
    with kill_driver.make_loop(root) as first:
        first.baseline()
        refused: list[LedgerBusy] = []

        def measure(request):
            if not refused:
                with pytest.raises(LedgerBusy) as error, kill_driver.make_loop(root):
                    pass
                refused.append(error.value)
            return kill_driver.measure(request)

        first.measure = measure
        first.run(kill_driver.Script(first), Budget(trials=1))
        assert f"process {os.getpid()} " in refused[0].message
        assert "Ctrl-C" in refused[0].hint
        assert len(first.ledger.trials()) == 2
    whole(root)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    # A file open for writing refuses it, as a failing disk would not: then try a moment later.
    command = ["mount", "-o", f"remount,{how}", str(place)]
    for _ in range(50):
        if not subprocess.run(command, capture_output=True).returncode:
            return
        time.sleep(0.05)
    pytest.skip("this disk can't be remounted")


def test_a_read_only_disk_is_said_and_loses_nothing(disk):
    root = make_study(disk / "study", follows=False)
    with kill_driver.make_loop(root) as loop:
        loop.run(kill_driver.Script(loop), Budget(trials=1))
    remount(disk, "ro")
    with pytest.raises(LedgerUnwritable) as error, kill_driver.make_loop(root):
        pass
    assert str(root) in error.value.message
    assert error.value.exit_code == 4
    assert len(kill_driver.Ledger(root / "results.jsonl").trials()) == 2
    remount(disk, "rw")
    whole(root)


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_ledger_that_fails_amid_a_keep_leaves_no_half_kept_champion(root, monkeypatch, call):
    with kill_driver.make_loop(root) as loop:
        loop.baseline()
        before = loop.workspace.champion_commit

        def failing(*arguments):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        with monkeypatch.context() as patch:
            patch.setattr(f"autoresearch.engine.ledger.os.{call}", failing)
            with pytest.raises(EngineError):
                loop.run(kill_driver.Script(loop), Budget(trials=1))
        assert loop.workspace.champion_commit == before
    whole(root)
    with kill_driver.make_loop(root) as loop:
        loop.run(kill_driver.Script(loop), Budget(trials=1))
        assert [trial.id for trial in loop.ledger.trials()] == [0, 1]

"""The loop is killed at every step and at random instants; a restart loses and doubles nothing.

AUTORESEARCH_KILLS says how often (the default fits a CI run; the full count is 400).
"""

import contextlib
import errno
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autoresearch.engine.errors import EngineError
from autoresearch.engine.task import Budget
from prepare.orphans import MARK_VARIABLE
from tests.smoke import kill_driver

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="its sessions are forks")
ROOT = Path(__file__).resolve().parents[2]
# An order may find the session over before its instant or its step's turn has come, the more often
# the faster the machine. Half of them must hit.
HIT_SHARE = 0.5
KILLS = int(os.environ.get("AUTORESEARCH_KILLS", "60"))
TRIALS = 4  # of a session that is to be killed; those that come through are no kill
SEED = 20260729


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=u", "-c", "user.email=u@example.org")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def make_study(root: Path, follows: bool) -> Path:
    """A repository with work of the user's in it; `follows`: the study's branch is checked out."""
    root.mkdir()
    (root / "value.py").write_text("VALUE = 1000.0\n")
    (root / "notes.md").write_text("first\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    git(root, "branch", "mine")
    kill_driver.make_loop(root)
    if follows:
        git(root, "switch", "-q", f"autoresearch/{kill_driver.TAG}")
    (root / "notes.md").write_text("not committed\n")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    (root / "untracked.txt").write_text("untracked\n")
    (root.parent / kill_driver.ACKNOWLEDGED).write_text("")
    (root.parent / kill_driver.STATE).write_text(json.dumps(kill_driver.user_state(root)))
    return root


class Driver:
    """The driver of one study, and what it said."""

    def __init__(self, root: Path) -> None:
        self.root, self.kills = root, 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.smoke.kill_driver", str(root)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def order(self, point: str | None = None, occurrence: int = 1, **more: object) -> dict:
        """One session; fails if it found anything wrong."""
        order = {"point": point, "occurrence": occurrence, "trials": TRIALS, **more}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        answer = json.loads(self.process.stdout.readline())
        assert answer["code"] == 0, f"after {self.kills} kills, at {order}: see standard error"
        self.kills += answer["killed"]
        return answer

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def alive(marks: set[str]) -> list[psutil.Process]:
    """Living processes that a killed session left."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK_VARIABLE) in marks:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def none_survive(marks: set[str], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while left := alive(marks):
        assert time.monotonic() < deadline, f"orphans: {left}"
        time.sleep(0.1)


def at_steps(points: dict[str, int], count: int, draw: random.Random, **more: object) -> list[dict]:
    """Orders that act at named steps; every step comes up before any does again."""
    chosen: list[dict] = []
    while len(chosen) < count:
        for name in draw.sample(sorted(points), len(points)):
            occurrence = draw.randint(1, min(points[name], 30))
            chosen.append({"point": name, "occurrence": occurrence, **more})
    return chosen[:count]


def orders(points: dict[str, int], count: int, draw: random.Random) -> list[dict]:
    """Two thirds at named steps, the others at random instants and while git is at work."""
    few = count // 6
    at_work = {name: n for name, n in points.items() if name.startswith(kill_driver.WRITES)}
    chosen = at_steps(points, count - 2 * few, draw)
    chosen += [{"delay": draw.uniform(0.0, 1.5)} for _ in range(few)]
    chosen += at_steps(at_work, few, draw, act="soon")
    return draw.sample(chosen, count)


@pytest.mark.parametrize("follows", [False, True], ids=["elsewhere", "checked-out"])
def test_killed_anywhere_it_goes_on_and_nothing_is_lost(tmp_path, follows):
    root = make_study(tmp_path / "study", follows)
    draw = random.Random(SEED + follows)
    marks = set()
    with Driver(root) as driver:
        points = steps_of(driver)
        points["ledger half"] = points.pop("ledger line:torn")
        for order in orders(points, KILLS // 2, draw):
            marks.add(driver.order(**order)["mark"])
        driver.order(trials=5)
        none_survive(marks)
        print(f"{driver.kills} kills at {len(points)} points")
        assert driver.kills >= HIT_SHARE * (KILLS // 2)
    with kill_driver.make_loop(root) as loop:
        assert not list(kill_driver.problems(root, loop))


def steps_of(driver: Driver) -> dict[str, int]:
    """The steps of a session, and how often it comes by each."""
    return driver.order()["points"]


def test_killed_while_an_earlier_champion_comes_back(tmp_path):
    root = make_study(tmp_path / "study", follows=True)
    draw = random.Random(SEED)
    with Driver(root) as driver:
        driver.order()
        before = driver.order(trials=0)["points"]
        during = driver.order(trials=0, restore=1)["points"]
        steps = {name: n for name, n in during.items() if n > before.get(name, 0)}
        for turn, order in enumerate(at_steps(steps, KILLS // 6, draw)):
            order["occurrence"] = draw.randint(
                before.get(order["point"], 0) + 1, steps[order["point"]]
            )
            driver.order(**order, trials=0, restore=turn)
        driver.order(trials=2)
        assert driver.kills >= HIT_SHARE * (KILLS // 6)
    with kill_driver.make_loop(root) as loop:
        assert not list(kill_driver.problems(root, loop))


@pytest.mark.parametrize("act", ["interrupt", "full"])
def test_interrupted_or_out_of_disk_anywhere_it_unwinds_and_goes_on(tmp_path, act):
    root = make_study(tmp_path / "study", follows=act == "interrupt")
    with Driver(root) as driver:
        steps = steps_of(driver)
        if act == "full":
            steps = {name: n for name, n in steps.items() if name.startswith(kill_driver.WRITES)}
        ended = [
            driver.order(**order)["ended"]
            for order in at_steps(steps, max(4, KILLS // 3), random.Random(SEED), act=act)
        ]
        driver.order(trials=2)
    assert sum(map(bool, ended)) >= HIT_SHARE * len(ended), ended
    assert not (act == "interrupt" and set(ended) - {"KeyboardInterrupt", ""})
    with kill_driver.make_loop(root) as loop:
        assert not list(kill_driver.problems(root, loop))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def ended_for_want_of_space(root: Path) -> bool:
    """Make three trials; whether that failed, as it may on a full disk."""
    try:
        with kill_driver.make_loop(root) as loop:
            loop.run(kill_driver.Script(loop), Budget(trials=3))
    except EngineError:
        return True
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return True
        raise
    return False


def test_a_disk_that_is_really_full_loses_nothing(small_disk):
    root = make_study(small_disk / "study", follows=False)
    filler, failed = small_disk / "filler", 0
    draw = random.Random(SEED)
    for room in [0, 1, 2, 4, 8, *(draw.randrange(1, 200) for _ in range(max(3, KILLS // 12)))]:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        os.truncate(filler, max(0, filler.stat().st_size - room * 4096))
        failed += ended_for_want_of_space(root)
        filler.unlink()
        with kill_driver.make_loop(root) as loop:
            assert not list(kill_driver.problems(root, loop))
    assert failed >= 3
    with kill_driver.make_loop(root) as loop:
        loop.run(kill_driver.Script(loop), Budget(trials=2))
        assert not list(kill_driver.problems(root, loop))

"""The loop is killed at every step and at random instants; a restart loses and doubles nothing.

AUTORESEARCH_KILLS says how often (the default fits a CI run; the full count is 400).
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from prepare.orphans import MARK_VARIABLE
from tests.smoke import kill_driver

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="its sessions are forks")
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("AUTORESEARCH_KILLS", "72"))
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


def orders(points: dict[str, int], count: int, draw: random.Random) -> list[dict]:
    """As many at named steps as at random instants; every step comes up before any does again."""
    named, names = [], sorted(points)
    while len(named) < count - count // 4:
        draw.shuffle(names)
        named += [(name, draw.randint(1, min(points[name], 30))) for name in names]
    chosen = [{"point": p, "occurrence": n} for p, n in named[: count - count // 4]]
    chosen += [{"delay": draw.uniform(0.0, 1.5)} for _ in range(count // 4)]
    draw.shuffle(chosen)
    return chosen


@pytest.mark.parametrize("follows", [False, True], ids=["elsewhere", "checked-out"])
def test_killed_anywhere_it_goes_on_and_nothing_is_lost(tmp_path, follows):
    root = make_study(tmp_path / "study", follows)
    draw = random.Random(SEED + follows)
    marks = set()
    with Driver(root) as driver:
        points = driver.order()["points"]
        points["ledger half"] = points.pop("ledger line:torn")
        for order in orders(points, KILLS // 2, draw):
            marks.add(driver.order(**order)["mark"])
        driver.order(trials=5)
        none_survive(marks)
        print(f"{driver.kills} kills at {len(points)} points")
        assert driver.kills >= 0.8 * (KILLS // 2)
    with kill_driver.make_loop(root) as loop:
        assert not list(kill_driver.problems(root, loop))

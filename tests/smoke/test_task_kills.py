"""A task's study is killed at every step and at random instants: the user's files are those of one
champion, all of them, at once and without a restart; a restart loses and doubles nothing.

AUTORESEARCH_KILLS says how often (the default fits a CI run; the full count is 400).

Run as a program (`python -m tests.smoke.test_task_kills FOLDER`) it makes the sessions that are
killed: forks, so that a session costs no start of Python. Measuring and proposing are fakes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoresearch.engine.proposers.base import NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import Budget, MeasureRequest
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from autoresearch.study import Options
from autoresearch.taskfile import study as study_module
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.study import TaskStudy

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="its sessions are forks")
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("AUTORESEARCH_KILLS", "60"))
SEED = 20261120
TRIALS = 2  # of one session, one of them a keep
TASK = """\
id: number
artifacts: {include: ["*.txt", "sub/*"]}
mutation: {allow_new_files: true, allow_delete: true}
mutator: {type: command, command: unused}
scorer: {command: [python, score.py, "{program}"]}
objective: {direction: maximize}
"""
MINE = {"score.py": "", "notes.md": "mine\n", "tool.sh": "#!/bin/sh\n", "deep/data.bin": "\0\1"}


def artifacts(number: int) -> dict[str, str]:
    """Three files, of which one is another one each time."""
    text = f"{number}\n"
    return {"a.txt": text, "b.txt": text * 3, f"sub/c{number}": text}


# -- a session -----------------------------------------------------------------------------------


class Fake(CommandMeasure):
    """Runs nothing: the score is the number, if all artifacts agree on it."""

    def __call__(self, request: MeasureRequest) -> Replicate:
        number = int((request.folder / "a.txt").read_text())
        found = {path: read(request.folder / path) for path in artifacts(number)}
        assert found == artifacts(number) and len(os.listdir(request.folder / "sub")) == 1
        good = number if number % 2 == 0 else -1
        return Replicate(request.seed, float(good), score_id="same")


class Script:
    """Proposes the next number; odd ones are no better."""

    name = "script"

    def __init__(self, study: TaskStudy) -> None:
        self.study = study

    def propose(self, request: ProposalRequest) -> Proposal:
        number = self.study.loop.state.next_id
        (next((request.folder / "sub").iterdir())).unlink()
        for path, text in artifacts(number).items():
            (request.folder / path).write_text(text)
        return Proposal(f"number {number}", cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        return


class Killer:
    """Counts the steps of a session, and kills it before or after one."""

    def __init__(self, step: int | None) -> None:
        self.left, self.steps = step, list[str]()

    def pass_by(self, name: str) -> None:
        self.steps.append(name)
        if self.left is not None:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1

    def around(self, owner: Any, name: str, label: Callable[..., str] = lambda *_: "") -> None:
        """Count the calls of one function."""
        real = getattr(owner, name)

        def called(*args: Any, **more: Any) -> Any:
            shown = f"{name} {label(*args)}".strip()
            self.pass_by(f"{shown}: before")
            result = real(*args, **more)
            self.pass_by(f"{shown}: after")
            return result

        setattr(owner, name, called)

    def install(self) -> None:
        """Whatever makes a lasting change, and every call of git."""
        from autoresearch.engine.git import Git
        from autoresearch.taskfile.tree import MainTree

        for name in ("fsync", "rename", "mkdir"):
            self.around(os, name)
        self.around(os, "replace", lambda _, place: Path(place).name.rstrip("0123456789"))
        self.around(Git, "_finished", lambda git, words, *_: words[0])
        self.around(subprocess, "Popen", lambda words, *_: Path(words[-1]).name)
        for name in ("_note", "_laid_out", "_exchange", "follow"):
            self.around(MainTree, name)


def session(folder: Path, order: dict[str, Any]) -> list[str]:
    """Open the study and make trials; the steps that it came by."""
    study_module.CommandMeasure = Fake  # type: ignore[assignment, misc]
    killer = Killer(order.get("step"))
    killer.install()
    with TaskStudy.write(folder / "task.yaml", Options(sandbox="process")) as study:
        wrong = list(problems(folder, study))
        if wrong:
            raise AssertionError(wrong)
        if order.get("trials", TRIALS):
            study.loop.run(Script(study), Budget(trials=TRIALS))  # type: ignore[call-arg]
    return killer.steps


def problems(folder: Path, study: TaskStudy) -> Iterator[str]:
    """What is wrong with a study that was just opened."""
    yield from study.ledger.verify()
    trials = study.ledger.trials()
    if [trial.id for trial in trials] != list(range(len(trials))):
        yield f"ids are {[trial.id for trial in trials]}"
    kept = [trial.id for trial in trials if trial.status is TrialStatus.KEEP]
    if kept and shown(folder) != artifacts(kept[-1]):
        yield f"the files are {shown(folder)}, the champion is trial {kept[-1]}"
    if kept and study.workspace.champion_commit != trials[kept[-1]].commit:
        yield "git's champion is another than the ledger's"


def drive(folder: Path) -> None:
    """Make a session for each order on standard input, a JSON line; answer with one."""
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            code = 3
            try:
                steps = session(folder, order)
                with os.fdopen(writer, "w") as pipe:
                    json.dump(steps, pipe)
                code = 0
            except BaseException:  # noqa: BLE001 - said, and told by the exit code
                traceback.print_exc()
            os._exit(code)
        os.close(writer)
        timer = threading.Timer(order.get("delay", 1e6), os.kill, (pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        with os.fdopen(reader) as pipe:
            steps = pipe.read()
        _, status = os.waitpid(pid, 0)
        timer.cancel()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        failed = not killed and status != 0
        print(json.dumps([killed, failed, json.loads(steps or "[]")]), flush=True)


# -- what must hold ------------------------------------------------------------------------------


def read(place: Path) -> str:
    return place.read_text() if place.is_file() else ""


def shown(folder: Path) -> dict[str, str]:
    """The artifacts as they lie there."""
    places = [*folder.glob("*.txt"), *folder.glob("sub/*")]
    return {place.relative_to(folder).as_posix(): place.read_text() for place in places}


def own(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All else of the user's: mode, time and bytes."""
    ours = {folder / "work", *folder.glob("*.txt"), *folder.glob("sub*")}
    found = {}
    for place in [
        path for top in folder.iterdir() if top not in ours for path in (top, *walk(top))
    ]:
        status = place.stat()
        data = place.read_bytes() if place.is_file() else b""
        found[str(place)] = (status.st_mode, status.st_mtime_ns, data)
    return found


def walk(top: Path) -> list[Path]:
    return sorted(top.rglob("*")) if top.is_dir() else []


class Driver:
    """The process that makes the sessions, and what is held of each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kills, self.between = folder, 0, 0
        self.own = own(folder)
        command = [sys.executable, "-m", "tests.smoke.test_task_kills", str(folder)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def order(self, **order: Any) -> list[str]:
        """One session; fails if anything of the user's is between two states afterwards."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        killed, failed, steps = json.loads(self.process.stdout.readline())
        assert not failed, f"after {self.kills} kills, at {order}: see standard error"
        self.kills += killed
        deadline = time.monotonic() + 10
        while not self.whole():  # exchange.py may be at work still; on a crowded machine for long
            self.between += 1
            assert time.monotonic() < deadline, f"between two champions: {shown(self.folder)}"
            time.sleep(0.02)
        assert own(self.folder) == self.own
        return steps

    def whole(self) -> bool:
        """Are the artifacts those of one program?"""
        found = shown(self.folder)
        number = int(found.get("a.txt") or -1)
        return found == artifacts(number)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def test_killed_anywhere_the_users_files_are_those_of_one_champion(tmp_path):
    folder = tmp_path / "task"
    for name, text in {"task.yaml": TASK, **MINE, **artifacts(0)}.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (folder / "tool.sh").chmod(0o755)
    draw = random.Random(SEED)
    with Driver(folder) as driver:
        for step in (3, 17, 40, 70):  # while the study is begun
            driver.order(step=step)
        driver.order()
        at: dict[str, list[int]] = {}
        for index, name in enumerate(driver.order()):
            at.setdefault(name, []).append(index)
        orders: list[dict[str, Any]] = [{"delay": draw.uniform(0, 1)} for _ in range(KILLS // 6)]
        moves = [name for name in at if any(word in name for word in ("exchange", "replace"))]
        while len(orders) < KILLS - 4:
            for name in draw.sample([*at, *moves], len(at) + len(moves)):
                orders.append({"step": draw.choice(at[name])})
        for order in draw.sample(orders[: KILLS - 4], KILLS - 4):
            driver.order(**order)
        driver.order(trials=0)
        assert driver.kills >= 0.7 * KILLS, Counter(at)
        print(f"{driver.kills} kills at {len(at)} points, {driver.between} looks found a move")
        assert shown(folder) != artifacts(0)


if __name__ == "__main__":
    drive(Path(sys.argv[1]))

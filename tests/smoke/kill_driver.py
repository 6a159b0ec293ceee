"""Runs sessions of a study that kill themselves: `python kill_driver.py ROOT`, orders on stdin.

An order is a JSON line, {"point": "advance:after", "occurrence": 1, "act": "kill", "trials": 3}.
Each session is a fork that opens the study in ROOT, checks that nothing of an earlier one is lost
or left over, and makes trials until it comes by that point. There it kills itself, at once or
"soon", or is interrupted ("interrupt", Ctrl-C), or its disk is full from then on ("full"); with a
"delay" it is killed after so many seconds. The answer is a JSON line:
{"killed": true, "code": 0, "mark": ..., "points": {...}, "ended": "KeyboardInterrupt"}.
"""

from __future__ import annotations

import contextlib
import errno
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

from autoresearch.engine import follow, git_objects, git_servers, scratches, workspace
from autoresearch.engine import git as git_module
from autoresearch.engine.errors import EngineError, GitFailed
from autoresearch.engine.holder import Claim
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.loop import Loop
from autoresearch.engine.policy import Confirm
from autoresearch.engine.proposers.base import NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import Budget, MeasureRequest, Task
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace
from prepare.orphans import MARK_VARIABLE, Guard

TAG = "test"
TASK = Task.parse(
    {
        "id": "number",
        "artifacts": {"include": ["value.py"]},
        "objective": {"metric": "score", "direction": "minimize"},
    }
)
ACKNOWLEDGED = "acknowledged.jsonl"
STATE = "user-state.json"
WRITE = os.write


# The study ------------------------------------------------------------------------------------


def measure(request: MeasureRequest) -> Replicate:
    """The number in the file and a little noise; a process of its own sleeps meanwhile."""
    sleeper = subprocess.Popen(["sleep", "600"], env=dict(os.environ))
    try:
        request.run_dir.mkdir(parents=True, exist_ok=True)
        (request.run_dir / "run.log").write_text("running\n")
        space: dict[str, Any] = {}
        exec((request.folder / "value.py").read_text(), space)
        time.sleep(0.005)
        if "crash" in space:
            failure = Failure("training", "exception", "it broke", "Traceback ...")
            return Replicate(request.seed, None, failure=failure)
        noise = random.Random(f"{request.seed} {space['VALUE']}").gauss(0, 0.001)
        details = {"tier": "none", "curve": [[0.0, 2.0], [1.0, space["VALUE"]]]}
        # An extra line helps by half the noise: seldom shown, mostly by the estimate.
        score = space["VALUE"] + noise - 5e-4 * sum(name.startswith("EXTRA") for name in space)
        return Replicate(request.seed, score, score_id="same", details=details)
    finally:
        sleeper.kill()
        sleeper.wait()


class Script:
    """Proposes, by the trial's number: better, two nearly better, better, broken, no Python, worse.

    What is nearly better comes before or behind the champion's line: two of them go together, in
    the fourth turn. Of what is broken every other one is nothing.
    """

    name = "script"

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.asked = 0

    def propose(self, request: ProposalRequest) -> Proposal:
        number, file = self.loop.state.next_id, request.folder / "value.py"
        self.asked += 1
        turn = number % 7
        if turn == 5 and self.asked % 2:
            return Proposal("", cost=NO_COST, problem="no edit", problem_kind="no_edit")
        value = 1000.0 - number if turn in (1, 4) else 2000.0 + number
        text = f"VALUE = {value!r}\n"
        if turn in (2, 3):
            there = self.loop.workspace.read(self.loop.workspace.champion_commit, "value.py")
            extra, text = f"EXTRA_{number} = 1\n", there.decode()
            text = extra + text if turn == 2 else text + extra
        if turn == 5:
            text = f"VALUE = {value!r}\ncrash = {request.attempt}\n"
        if turn == 6:
            text = "VALUE = (\n"
        file.write_text(text)
        (request.folder / "beside.txt").write_text("no artifact")
        return Proposal(f"turn {turn}", cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        return


def make_loop(root: Path, **options: Any) -> Loop:
    """The study in `root`, opened anew."""
    return Loop(
        TASK,
        Workspace.open(root, TAG, create=True),
        Ledger(root / "results.jsonl"),
        measure,
        Confirm(),
        runs=root / ".autoresearch" / "runs",
        sleep=lambda seconds: None,
        frontier=3,
        combine=True,
        **options,
    )


# What must hold -------------------------------------------------------------------------------


def git(root: Path, *arguments: str) -> str:
    """What git says, read only."""
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def user_state(root: Path) -> dict[str, Any]:
    """What is the user's own: files, index, HEAD, other branches, stash."""
    refs = git(root, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    own = f"refs/heads/autoresearch/{TAG}", f"refs/autoresearch/{TAG}"
    followed = git(root, "symbolic-ref", "HEAD").strip() == own[0]
    names = [path for path in root.iterdir() if path.is_file()]
    ours = "results.jsonl"
    files = {p.name: p.read_text() for p in names if not p.name.startswith(ours)}
    if followed:
        files.pop("value.py")
    return {
        "files": files,
        "status": [x for x in git(root, "status", "--porcelain").splitlines() if ours not in x],
        "head": git(root, "symbolic-ref", "HEAD"),
        "refs": [line for line in refs if not line.startswith(own)],
        "staged": git(root, "diff", "--cached", "--name-only"),
    }


def problems(root: Path, loop: Loop) -> Iterator[str]:
    """Everything that is wrong with a study that was just opened and recovered."""
    ledger = loop.ledger
    yield from (f"ledger: {problem}" for problem in ledger.verify())
    trials = ledger.trials()
    ids = [trial.id for trial in trials]
    if ids != list(range(len(ids))):
        yield f"ids are {ids}"
    known = {trial.id: trial for trial in trials}
    for line in (root.parent / ACKNOWLEDGED).read_text().splitlines():
        told = json.loads(line)
        there = known.get(told["id"])
        if there is None or (there.commit, str(there.status)) != (told["commit"], told["status"]):
            yield f"trial {told['id']} was acknowledged and is lost"
    kept = [trial for trial in trials if trial.status is TrialStatus.KEEP]
    head = git(root, "rev-parse", f"autoresearch/{TAG}").strip()
    champion = known[loop.state.champion] if loop.state.champion is not None else None
    if champion and champion.commit != head:
        same = git(root, "show", f"{champion.commit}:value.py") == git(
            root, "show", f"{head}:value.py"
        )
        if not same or not ledger.records("champion"):  # one that was brought back is a new commit
            yield f"the branch is at {head}, the ledger's champion at {champion.commit}"
    history = [item.trial_id for item in loop.workspace.history()]
    if history != [trial.id for trial in kept if trial.id]:
        yield f"the branch has trials {history}"
    refs = git(root, "for-each-ref", "--format=%(refname:lstrip=3)", f"refs/autoresearch/{TAG}")
    extra = {name for name in refs.split() if name.isdigit() and int(name) not in known}
    if extra:
        yield f"refs of trials that were never recorded: {extra}"
    yield from left_over(root)
    now, before = user_state(root), json.loads((root.parent / STATE).read_text())
    yield from (f"the user's {key}: {now[key]}" for key in before if now[key] != before[key])
    followed = git(root, "symbolic-ref", "HEAD").strip().endswith(f"/{TAG}")
    if followed and (root / "value.py").read_text() != git(root, "show", f"{head}:value.py"):
        yield "the checkout did not follow its branch"


def left_over(root: Path) -> Iterator[str]:
    """Scratch folders, locks and markers that a kill left and recovery did not clear."""
    work = root / ".autoresearch" / "work"
    yield from (f"left: {path}" for path in sorted(work.iterdir()) if any_file(path))
    trees = git(root, "worktree", "list", "--porcelain").count("worktree ")
    if trees != 1:
        yield f"{trees} worktrees"
    common = root / ".git"
    locks = [path for path in common.rglob("*.lock") if path.name != "autoresearch.lock"]
    yield from (f"left: {path}" for path in [*locks, *common.glob("autoresearch-*.move*")])
    fsck = subprocess.run(["git", "fsck", "--no-dangling"], cwd=root, capture_output=True)
    if fsck.returncode:
        yield f"git fsck: {fsck.stderr.decode()}"


def any_file(path: Path) -> bool:
    """Whether a folder holds anything; the empty one for temporary indexes may stay."""
    return not path.is_dir() or any(path.iterdir())


# Killing --------------------------------------------------------------------------------------


# Points at which a full disk is felt.
WRITES = ("ledger line", "fsync", "marker", "write", "git pack-objects", "object", "ref")
WRITES += ("git read-tree", "git update-index", "git update-ref")


class Killer:
    """Acts the n-th time this process comes by a point; counts all points on the way."""

    def __init__(self, point: str | None, occurrence: int, act: str) -> None:
        self.point, self.occurrence, self.act = point, occurrence, act
        self.full = False
        self.seen: Counter[str] = Counter()

    def at(self, point: str) -> None:
        """The process is at this point now."""
        self.seen[point] += 1
        if point == self.point and self.seen[point] == self.occurrence:
            if self.act == "soon":
                # Amid what comes now: a git that was started lives on and meets the next session.
                pid, delay = os.getpid(), random.uniform(0.0, 0.02)
                threading.Timer(delay, os.kill, (pid, signal.SIGKILL)).start()
            elif self.act == "interrupt":
                raise KeyboardInterrupt
            elif self.act == "full":
                self.full = True
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        if self.full and point.startswith(WRITES) and point.endswith((":before", ":torn")):
            if point.startswith("git"):
                raise GitFailed("No space left on device")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def around(self, owner: Any, name: str, label: Callable[..., str] | str) -> None:
        """Points before and after each call of `owner.name`."""
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            said = label if isinstance(label, str) else label(*arguments)
            self.at(f"{said}:before")
            result = original(*arguments, **more)
            self.at(f"{said}:after")
            return result

        setattr(owner, name, wrapped)

    def install(self) -> None:
        """Points at every step of the loop, at every call of git, and amid a ledger's line."""
        self.around(git_module.Git, "_finished", lambda git, words, *more: f"git {words[0]}")
        self.around(git_objects.Objects, "_put", "object")
        self.around(git_servers.Servers, "move", "ref")
        for name in ("commit", "advance", "scratch", "drop", "program", "recover", "collect"):
            self.around(Workspace, name, name)
        self.around(Workspace, "place", "place")
        self.around(Ledger, "_append", lambda ledger, record, *more: f"ledger {record['kind']}")
        for name in ("open", "_mend", "close"):
            self.around(Ledger, name, f"ledger {name.strip('_')}")
        self.around(scratches, "remove", "remove")
        self.around(scratches, "make", "make")
        self.around(scratches, "fill", "fill")
        self.around(follow, "carry_out", "follow")
        self.around(follow.Move, "save", "marker")
        self.around(Claim, "acquire", "claim")
        self.around(Claim, "release", "release")
        self.around(sys.modules[__name__], "measure", "measure")
        self.around(Script, "propose", "propose")
        self.around(Path, "write_text", "write")
        self.around(Path, "write_bytes", "write")
        self.around(workspace.Gatherer, "from_folder", "gather")
        fsync, write = os.fsync, os.write

        def torn(fd: int, data: Any) -> int:
            if len(data) > 200:  # a ledger's line: half of it gets out
                self.at("ledger line:torn")
                if self.point == "ledger half" and self.occurrence == self.seen["ledger line:torn"]:
                    write(fd, bytes(data)[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return write(fd, data)

        def unsynced(fd: int) -> None:
            self.at("fsync:before")
            fsync(fd)
            self.at("fsync:after")

        os.write, os.fsync = torn, unsynced  # type: ignore[assignment]


# One session ----------------------------------------------------------------------------------


def session(root: Path, order: dict[str, Any]) -> int:
    """Open, check, make trials. 0 if it came to its end, 3 if something was wrong."""
    killer = Killer(order["point"], order["occurrence"], order.get("act", "kill"))
    killer.install()
    try:
        return trials(root, order)
    except (KeyboardInterrupt, EngineError, OSError) as error:
        expected = killer.act in ("interrupt", "full")
        if not expected or (isinstance(error, OSError) and error.errno != errno.ENOSPC):
            raise
        order["ended"] = type(error).__name__
        # What unwinds takes its scratch along.
        left = [path for path in (root / ".autoresearch" / "work").iterdir() if any_file(path)]
        if left:
            print(f"{order}: left {left}", file=sys.stderr)
            return 3
        return 0
    finally:
        order["points"] = dict(killer.seen)


def trials(root: Path, order: dict[str, Any]) -> int:
    """Open, check, make trials."""
    loop = make_loop(root)
    with loop:
        found = list(problems(root, loop)) if order.get("check", True) else []
        if found:
            print(*found, sep="\n", file=sys.stderr)
            return 3
        acknowledge(root, loop, loop.baseline())
        if "restore" in order:
            kept = [t.id for t in loop.state.trials.values() if t.status is TrialStatus.KEEP]
            loop.restore(kept[order["restore"] % len(kept)], "undo")
        proposer = Script(loop)
        for _ in range(order["trials"]):
            loop.run(proposer, Budget(trials=1))
            acknowledge(root, loop, list(loop.state.trials.values())[-1])
    return 0


def acknowledge(root: Path, loop: Loop, trial: Trial) -> None:
    """Tell the outside, for good, that this trial is finished."""
    told = {"id": trial.id, "commit": trial.commit, "status": str(trial.status)}
    with (root.parent / ACKNOWLEDGED).open("a") as file:
        file.write(json.dumps(told) + "\n")
        file.flush()
        os.fsync(file.fileno())


def serve(root: Path) -> None:
    """Carry out orders until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        mark = f"kill-{os.getpid()}-{random.getrandbits(64):x}"
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            code = 4
            try:
                os.environ[MARK_VARIABLE] = mark
                with guarded(order, mark):
                    code = session(root, order)
                WRITE(writer, json.dumps(order).encode())
            except BaseException:  # noqa: BLE001 - said, and told by the exit code
                traceback.print_exc()
            os._exit(code)
        os.close(writer)
        timer = threading.Timer(order.get("delay") or 1e6, os.kill, (pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        with os.fdopen(reader, "rb") as pipe:
            said = json.loads(pipe.read() or b"{}")
        _, status = os.waitpid(pid, 0)
        timer.cancel()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        answer = {
            "killed": killed,
            "code": 0 if killed else os.waitstatus_to_exitcode(status),
            "mark": mark,
            "points": said.get("points", {}),
            "ended": said.get("ended", ""),
        }
        print(json.dumps(answer), flush=True)


@contextlib.contextmanager
def guarded(order: dict[str, Any], mark: str) -> Iterator[None]:
    """A guard over what the measure starts, where the order asks for it."""
    if not order.get("guard", True):
        yield
        return
    # The guard itself must not carry the mark that it looks for.
    del os.environ[MARK_VARIABLE]
    guard = Guard(mark)
    os.environ[MARK_VARIABLE] = mark
    try:
        yield
    finally:
        guard.stop()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

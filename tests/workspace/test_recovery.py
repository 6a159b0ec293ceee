"""After a kill: what is half done is finished or dropped, and what git forgot is named again."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from autoresearch.engine import follow
from autoresearch.engine.errors import ChampionMoved
from autoresearch.engine.git import Git
from autoresearch.engine.workspace import Recovery, Workspace
from tests.workspace.repositories import edited, git

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and signals of POSIX")
ROOT = Path(__file__).resolve().parents[2]


def test_recover_after_an_orderly_end_does_nothing(workspace):
    assert workspace.recover({}) == Recovery()
    kept = workspace.keep(edited(workspace, 1), "m", 1)
    workspace.recover({1: kept})
    assert workspace.recover({1: kept, 2: ""}, kept, workspace.start_commit) == Recovery()


def test_recover_finishes_what_the_ledger_has_and_drops_the_rest(workspace, root, monkeypatch):
    monkeypatch.setattr(follow, "LOCK_AGE", 0.1)
    half = workspace.scratch(2)
    kept = workspace.commit(edited(workspace, 1), "m", 1)
    workspace.commit(edited(workspace, 3, new="0.4"), "m", 3)
    (root / ".git/refs/heads/autoresearch/mar5.lock").write_text("")
    half_made = root / ".autoresearch/work/mar5@5-candidate/.git/objects"
    half_made.mkdir(parents=True)
    again = Workspace.open(root, "mar5")
    result = again.recover({1: kept}, champion=kept)
    assert again.champion_commit == kept and result.advance.moved
    assert result.forgotten == ("refs/autoresearch/mar5/3",)
    assert not half.exists() and list((root / ".autoresearch/work").iterdir()) == []
    assert not (root / ".git/refs/heads/autoresearch/mar5.lock").exists()
    assert again.recover({1: kept}, champion=kept).advance is None
    assert again.scratch(2).exists()


def test_recover_leaves_other_studies_and_worktrees_alone(workspace, root, tmp_path):
    other = Workspace.open(root, "mar5-b", create=True).scratch(1)
    mine = tmp_path / "mine"
    git(root, "worktree", "add", "--quiet", "--detach", str(mine))
    workspace.recover()
    assert other.exists() and mine.exists()


def test_refs_that_somebody_deleted_are_made_again(workspace, root):
    start = workspace.champion_commit
    kept = workspace.keep(edited(workspace, 1), "m", 1)
    dropped = workspace.commit(edited(workspace, 2, "0.2", "0.3"), "m", 2)
    refs = git(root, "for-each-ref")
    for name in ("start", "1", "2"):
        git(root, "update-ref", "-d", f"refs/autoresearch/mar5/{name}")
    again = Workspace.open(root, "mar5", create=True)  # begins where it is, for want of better
    assert again.history() == []
    found = again.recover({1: kept, 2: dropped}, kept, start)
    assert sorted(found.remade) == [
        f"refs/autoresearch/mar5/{name}" for name in ("1", "2", "start")
    ]
    assert found.lost == () and git(root, "for-each-ref") == refs
    assert [item.trial_id for item in again.history()] == [1]


def test_a_commit_that_git_lost_is_told(workspace, root):
    start = workspace.champion_commit
    dropped = workspace.commit(edited(workspace, 1), "m", 1)
    git(root, "update-ref", "-d", "refs/autoresearch/mar5/1")
    git(root, "-c", "gc.pruneExpire=now", "gc", "--quiet", "--prune=now")
    assert workspace.recover({1: dropped}, start, start).lost == (1,)
    with pytest.raises(ChampionMoved, match="gone from the repository"):
        workspace.recover({1: dropped}, dropped, start)


def test_a_checkout_that_was_half_way_follows_after_a_restart(on_branch, root, monkeypatch):
    commit = on_branch.commit(edited(on_branch, 1), "m", 1)
    old = on_branch.champion_commit
    monkeypatch.setattr(follow, "LOCK_AGE", 0.1)
    # As a kill between the branch's move and the files leaves it, with git's own lock behind.
    follow.Move(str(root), old, commit).save(root / ".git/autoresearch-mar5.move")
    git(root, "update-ref", "refs/heads/autoresearch/mar5", commit)
    (root / ".git/index.lock").write_text("")
    again = Workspace.open(root, "mar5")
    assert again.recover().left_alone == ""
    assert b"0.2" in (root / "train.py").read_bytes()
    assert git(root, "status", "--porcelain") == ""


def killed_at(step: int, root: Path, work) -> bool:
    """Do `work` in a child that is killed at git's call number `step`; True if it came so far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(step))
        real = Git._finished

        def run(self, *arguments, **more):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *arguments, **more)

        try:
            workspace = Workspace.open(root, "mar5")
            Git._finished = run
            work(workspace)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@posix
def test_a_kill_at_every_step_of_a_keep_and_then_of_the_recovery(on_branch, root):
    start, change = on_branch.champion_commit, edited(on_branch, 1)
    step, killed = 0, True
    while killed:
        killed = killed_at(step, root, lambda workspace: workspace.keep(change, "m", 1))
        known = Workspace.open(root, "mar5").trial_commit(1)
        ledger = {1: known or ""}
        recover = functools.partial(Workspace.recover, known=ledger, champion=known)
        killed_at(step % 15, root, recover)
        again = Workspace.open(root, "mar5")
        again.recover(ledger, champion=known)
        commit = again.keep(change, "m", 1)
        assert [(k.trial_id, k.commit) for k in again.history()] == [(1, commit)]
        assert b"0.2" in (root / "train.py").read_bytes(), f"step {step}"
        assert git(root, "status", "--porcelain") == "", f"step {step}"
        # Back to the beginning, as the user would.
        git(root, "reset", "--quiet", "--hard", start)
        git(root, "update-ref", "-d", "refs/autoresearch/mar5/1")
        step += 3  # each step takes half a second; every one of them was tried
    assert step > 15


KEEP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from autoresearch.engine.task import Task
from autoresearch.engine.workspace import Workspace
task = Task.parse({"id": "t", "artifacts": {"include": ["train.py"]}, "objective": {"metric": "m"}})
workspace = Workspace.open(Path(sys.argv[1]), "mar5")
workspace.recover()
print("ready", flush=True)
trial = max([k.trial_id for k in workspace.history()], default=0)
while True:
    trial += 1
    scratch = workspace.scratch(trial)
    (scratch / "train.py").write_text(f"LR = {trial}\\n")
    change = workspace.collect(scratch, task)
    workspace.keep(change, "m", trial)
    print(trial, flush=True)
    workspace.drop(scratch)
"""


@posix
def test_random_kills_leave_no_half_kept_champion(on_branch, root, monkeypatch):
    chance = random.Random(11)
    told = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KEEP, str(root), str(ROOT)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        told = max([told, *map(int, out.split())])
    again = Workspace.open(root, "mar5")
    again.recover()
    trials = [kept.trial_id for kept in again.history()]
    assert trials == list(range(1, len(trials) + 1)) and len(trials) >= told
    assert (root / "train.py").read_text() == f"LR = {len(trials)}\n" or not trials
    assert git(root, "status", "--porcelain") == ""
    assert list((root / ".autoresearch/work").iterdir()) == []
    assert git(root, "worktree", "list").count("\n") == 0
    assert list((root / ".git").rglob("*.lock")) in ([], [root / ".git/autoresearch.lock"])
    assert "missing" not in git(root, "fsck", "--full")

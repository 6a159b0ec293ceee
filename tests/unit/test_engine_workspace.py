"""Trials in git: champions on their branch, scratch folders that leave nothing, users untouched."""

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from autoresearch.engine import follow
from autoresearch.engine.change import champion_message, check, diff_hash, with_trailer
from autoresearch.engine.errors import (
    ChampionMoved,
    NoRepository,
    Rejected,
    UncommittedChanges,
    WorkspaceError,
)
from autoresearch.engine.git import Git
from autoresearch.engine.task import Task
from autoresearch.engine.workspace import Workspace

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and signals of POSIX")
ROOT = Path(__file__).resolve().parents[2]
SEED = "# seed\nLR = 0.1\n\n\ndef train(model):\n    step = 0\n    return step + LR\n"


@pytest.fixture(autouse=True)
def bare_git(tmp_path, monkeypatch):
    """A user with no identity, who signs everything and whose hooks always fail."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        hook = hooks / name
        hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/hook-ran'\nexit 1\n")
        hook.chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        "[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /no/such/gpg\n[user]\n"
        f"\tuseConfigOnly = true\n[core]\n\thooksPath = {hooks.as_posix()}\n"
        "\tautocrlf = true\n[init]\n\tdefaultBranch = main\n[submodule]\n\trecurse = true\n"
        '[protocol "file"]\n\tallow = always\n'
    )
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    yield
    assert not (tmp_path / "hook-ran").exists(), "a hook of the user's ran"


def git(root: Path, *arguments: str) -> str:
    settings = ["core.hooksPath=/nowhere", "user.name=U", "user.email=u@x", "commit.gpgsign=false"]
    flags = [part for item in settings for part in ("-c", item)]
    done = subprocess.run(
        ["git", *flags, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with spaces and an umlaut in its path."""
    folder = tmp_path / "mein Ordner ü"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "train.py").write_bytes(SEED.encode())
    (folder / "program.md").write_bytes(b"be bold\n")
    (folder / ".gitignore").write_bytes(b"__pycache__/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "begin")
    return folder


def make_task(**more) -> Task:
    base = {
        "id": "t",
        "artifacts": {"include": ["train.py", "lib/**"]},
        "objective": {"metric": "val_bpb"},
    }
    return Task.parse({**base, **more})


TASK = make_task()
OPEN = make_task(mutation={"allow_new_files": True, "allow_delete": True})


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace.open(root, "mar5", create=True)


def edit(folder: Path, old: str = "0.1", new: str = "0.2") -> None:
    file = folder / "train.py"
    file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))


def edited(workspace: Workspace, trial_id: int, old: str = "0.1", new: str = "0.2"):
    scratch = workspace.scratch(trial_id)
    edit(scratch, old, new)
    change = workspace.collect(scratch, TASK)
    workspace.drop(scratch)
    return change


def snapshot(root: Path) -> dict[str, object]:
    """All that is the user's: files, index, HEAD, branches, settings."""
    files = {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.relative_to(root).parts[0] not in (".git", ".autoresearch")
    }
    branches = git(root, "for-each-ref", "refs/heads/main", "refs/heads/other", "refs/tags")
    return {
        "files": files,
        "index": (root / ".git/index").read_bytes(),
        "head": (root / ".git/HEAD").read_bytes(),
        "branches": branches,
        "config": (root / ".git/config").read_bytes(),
    }


# -- a trial, from scratch to champion --------------------------------------------------------


def test_a_kept_trial_moves_the_branch_and_nothing_of_the_users(workspace, root):
    before = snapshot(root)
    scratch = workspace.scratch(1)
    assert (scratch / "train.py").read_bytes() == SEED.encode()  # LF, whatever autocrlf says
    edit(scratch)
    change = workspace.collect(scratch, TASK)
    check(change, TASK)
    assert [f.path for f in change.files] == ["train.py"] and change.outside == ()
    assert (change.stat.files, change.stat.added, change.stat.removed) == (1, 1, 1)
    assert "-LR = 0.1\n+LR = 0.2" in change.diff and change.bytes == len(SEED)
    message = champion_message("val_bpb", 1.1, 1.05, "double it", {"Confidence": 0.97})
    commit = workspace.keep(change, message, 1)
    workspace.drop(scratch)
    assert workspace.champion_commit == commit and not scratch.exists()
    assert workspace.read(commit, "train.py") == SEED.replace("0.1", "0.2").encode()
    assert workspace.read(commit, "program.md") == b"be bold\n"
    body = git(root, "log", "-1", "--format=%B", commit)
    assert body == "val_bpb 1.1 -> 1.05: double it\n\nTrial: 1\nConfidence: 0.97"
    assert [(k.trial_id, k.commit) for k in workspace.history()] == [(1, commit)]
    assert snapshot(root) == before
    assert git(root, "worktree", "list").count("\n") == 0
    assert git(root, "status", "--porcelain") == ""
    assert list((root / ".autoresearch/work").glob("mar5@1*")) == []


def test_keep_is_idempotent(workspace):
    change = edited(workspace, 1)
    first = workspace.keep(change, "m", 1)
    assert workspace.keep(change, "m", 1) == first
    assert workspace.keep(change, "another message", 1) == first
    assert len(workspace.history()) == 1


def test_commit_then_advance_twice(workspace):
    start = workspace.champion_commit
    change = edited(workspace, 4)
    commit = workspace.commit(change, "m", 4)
    assert workspace.champion_commit == start
    assert workspace.commit(change, "m", 4) == commit == workspace.trial_commit(4)
    assert workspace.advance(commit).moved and not workspace.advance(commit).moved
    assert workspace.kept(4) == commit and workspace.kept(5) is None


def test_a_second_champion_from_a_stale_base_is_refused(workspace):
    one, two = edited(workspace, 1), edited(workspace, 2, new="0.3")
    workspace.keep(one, "m", 1)
    with pytest.raises(ChampionMoved):
        workspace.keep(two, "m", 2)
    assert workspace.kept(2) is None


def test_a_commit_of_the_users_beside_the_artifacts_is_no_hindrance(workspace, root):
    change = edited(workspace, 1)
    git(root, "checkout", "--quiet", "autoresearch/mar5")
    (root / "program.md").write_bytes(b"be careful\n")
    git(root, "commit", "--quiet", "-am", "notes")
    git(root, "checkout", "--quiet", "main")
    commit = workspace.keep(change, "m", 1)
    assert workspace.read(commit, "program.md") == b"be careful\n"
    assert b"0.2" in workspace.read(commit, "train.py")


def test_a_branch_that_was_rewound_is_noticed(workspace, root):
    workspace.keep(edited(workspace, 1), "m", 1)
    scratch = workspace.scratch(2)
    git(root, "update-ref", "refs/heads/autoresearch/mar5", "main")
    with pytest.raises(ChampionMoved, match="autoresearch/mar5"):
        workspace.collect(scratch, TASK)
    git(root, "update-ref", "-d", "refs/heads/autoresearch/mar5")
    with pytest.raises(ChampionMoved, match="gone"):
        workspace.scratch(3)


def test_program_holds_the_change_and_none_of_the_rest(workspace):
    scratch = workspace.scratch(1)
    edit(scratch)
    (scratch / "lib/deep").mkdir(parents=True)
    (scratch / "lib/deep/new.txt").write_text("x")
    (scratch / "__pycache__").mkdir()
    (scratch / "__pycache__/train.cpython-311.pyc").write_bytes(b"poison")
    (scratch / "sitecustomize.py").write_text("raise SystemExit")
    change = workspace.collect(scratch, OPEN)
    program = workspace.program(change, 1)
    assert program != scratch
    found = {p.relative_to(program).as_posix() for p in program.rglob("*") if p.is_file()}
    assert found == {".git", ".gitignore", "program.md", "train.py", "lib/deep/new.txt"}
    assert b"0.2" in (program / "train.py").read_bytes()
    with pytest.raises(Rejected, match=r"sitecustomize\.py") as caught:
        check(change, OPEN)
    assert caught.value.rule == "not-an-artifact"


def test_restore_brings_an_earlier_champion_back(workspace):
    start = workspace.champion_commit
    first = workspace.keep(edited(workspace, 1), "m", 1)
    second = workspace.keep(edited(workspace, 2, "0.2", "0.3"), "m", 2)
    back = workspace.restore(first, TASK, "undo trial 2")
    assert workspace.read(back, "train.py") == workspace.read(first, "train.py")
    assert workspace.restore(first, TASK, "undo trial 2") == back == workspace.champion_commit
    assert workspace.champion_hash(TASK) == diff_hash(edited(workspace, 3, "0.2", "0.2"))
    assert [k.trial_id for k in workspace.history()] == [1, 2]
    assert workspace.start_commit == start and "0.3" in workspace.diff(first, second)


def test_many_scratch_folders_at_once(root):
    workspaces = [Workspace.open(root, "mar5", create=True) for _ in range(2)]
    made, wrong = [], []

    def work(n: int) -> None:
        try:
            made.append(workspaces[n % 2].scratch(n))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(set(made)) == 8
    assert all((folder / "train.py").exists() for folder in made)
    assert len(workspaces[0].recover().removed) == 8


# -- repositories of all kinds ----------------------------------------------------------------


def test_refuses_what_is_no_workspace(tmp_path, root):
    with pytest.raises(NoRepository):
        Workspace.open(tmp_path, "mar5", create=True)
    (root / "sub").mkdir()
    with pytest.raises(NoRepository, match="lies inside"):
        Workspace.open(root / "sub", "mar5", create=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    with pytest.raises(NoRepository, match="no commit"):
        Workspace.open(empty, "mar5", create=True)
    with pytest.raises(WorkspaceError, match="no study 'apr1'"):
        Workspace.open(root, "apr1")
    for tag in ("", "../x", "a b", "a@1", "x.lock", "a..b", "-x"):
        with pytest.raises(WorkspaceError, match="can't name"):
            Workspace.open(root, tag, create=True)


def test_detached_head_and_a_linked_worktree(root, tmp_path):
    git(root, "checkout", "--quiet", "--detach")
    before = snapshot(root)
    one = Workspace.open(root, "mar5", create=True)
    one.keep(edited(one, 1), "m", 1)
    assert snapshot(root) == before
    other = tmp_path / "other place"
    git(root, "worktree", "add", "--quiet", str(other), "-b", "other")
    two = Workspace.open(other, "apr1", create=True)
    commit = two.keep(edited(two, 1), "m", 1)
    assert git(root, "rev-parse", "autoresearch/apr1") == commit
    two.recover()
    assert str(other) in git(root, "worktree", "list").replace("\\", "/") and other.exists()


def test_submodules_stay_as_they_are(root, tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet")
    (library / "a.txt").write_text("a")
    git(library, "add", "-A")
    git(library, "commit", "--quiet", "-m", "a")
    git(
        root, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(library), "lib"
    )
    git(root, "commit", "--quiet", "-m", "with a submodule")
    before = snapshot(root)
    workspace = Workspace.open(root, "mar5", create=True)
    change = edited(workspace, 1)
    check(change, TASK)
    assert change.outside == () and [f.path for f in change.files] == ["train.py"]
    commit = workspace.keep(change, "m", 1)
    assert git(root, "ls-tree", commit, "lib").startswith("160000")
    assert snapshot(root) == before


def test_line_ends_and_filters_of_the_repository(root):
    (root / ".gitattributes").write_bytes(b"*.md text eol=crlf\nshout.txt filter=shout\n")
    git(root, "config", "filter.shout.smudge", "tr a-z A-Z")
    git(root, "config", "filter.shout.clean", "tr A-Z a-z")
    (root / "shout.txt").write_bytes(b"loud\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "attributes")
    workspace = Workspace.open(root, "mar5", create=True)
    scratch = workspace.scratch(1)
    assert (scratch / "shout.txt").read_bytes() == b"LOUD\n"
    assert (scratch / "program.md").read_bytes() == b"be bold\r\n"
    assert workspace.collect(scratch, TASK).outside == ()
    file = scratch / "train.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert workspace.collect(scratch, TASK).empty  # an editor of another system
    edit(scratch)
    change = workspace.collect(scratch, TASK)
    assert change.stat.added == 1 and b"\r" not in change.files[0].new


def test_uncommitted_artifacts_are_refused_and_not_lost(workspace, root):
    workspace.refuse_uncommitted(TASK)
    (root / "program.md").write_text("human notes")  # no artifact: not our business
    workspace.refuse_uncommitted(TASK)
    edit(root)
    (root / "lib").mkdir()
    (root / "lib/new.py").write_text("")
    before = snapshot(root)
    with pytest.raises(UncommittedChanges, match=r"lib/new\.py, train\.py") as caught:
        workspace.refuse_uncommitted(TASK)
    assert "stash" in caught.value.hint
    assert snapshot(root) == before


# -- the study's branch checked out -----------------------------------------------------------


@pytest.fixture
def on_branch(workspace, root):
    git(root, "checkout", "--quiet", "autoresearch/mar5")
    return workspace


def test_a_clean_checkout_follows(on_branch, root):
    (root / "program.md").write_bytes(b"half a thought")  # unrelated, not committed
    result = on_branch.advance(on_branch.commit(edited(on_branch, 1), "m", 1))
    assert result.moved and result.followed and result.left_alone == ""
    assert b"0.2" in (root / "train.py").read_bytes()
    assert git(root, "status", "--porcelain") == "M program.md"
    assert (root / "program.md").read_bytes() == b"half a thought"


@pytest.mark.parametrize("staged", [False, True])
def test_a_dirty_checkout_is_left_alone(on_branch, root, staged):
    commit = on_branch.commit(edited(on_branch, 1), "m", 1)
    edit(root, "0.1", "0.7")
    if staged:
        git(root, "add", "train.py")
    result = on_branch.advance(commit)
    assert result.moved and not result.followed and "train.py" in result.left_alone
    assert b"0.7" in (root / "train.py").read_bytes()


def test_a_merge_under_way_is_left_alone(on_branch, root):
    (root / ".git/MERGE_HEAD").write_text(git(root, "rev-parse", "main") + "\n")
    result = on_branch.advance(on_branch.commit(edited(on_branch, 1), "m", 1))
    assert "MERGE_HEAD" in result.left_alone and b"0.1" in (root / "train.py").read_bytes()


def test_new_and_removed_artifacts_follow_too(on_branch, root):
    scratch = on_branch.scratch(1)
    (scratch / "lib").mkdir()
    (scratch / "lib/a.txt").write_bytes(b"a\n")
    on_branch.keep(on_branch.collect(scratch, OPEN), "m", 1)
    assert (root / "lib/a.txt").exists() and git(root, "status", "--porcelain") == ""
    scratch = on_branch.scratch(2)
    (scratch / "lib/a.txt").unlink()
    change = on_branch.collect(scratch, OPEN)
    with pytest.raises(Rejected, match="may not be removed"):
        check(change, make_task(mutation={"allow_new_files": True}))
    on_branch.keep(change, "m", 2)
    assert not (root / "lib/a.txt").exists() and git(root, "status", "--porcelain") == ""


def test_an_untracked_file_in_the_way_is_not_overwritten(on_branch, root):
    scratch = on_branch.scratch(1)
    (scratch / "lib").mkdir()
    (scratch / "lib/a.txt").write_bytes(b"a\n")
    commit = on_branch.commit(on_branch.collect(scratch, OPEN), "m", 1)
    (root / "lib").mkdir()
    (root / "lib/a.txt").write_bytes(b"mine\n")
    assert "lib/a.txt" in on_branch.advance(commit).left_alone
    assert (root / "lib/a.txt").read_bytes() == b"mine\n"


def test_the_checkouts_own_edit_as_a_proposal(on_branch, root):
    edit(root)
    change = on_branch.collect_checkout(TASK)
    check(change, TASK)
    assert change.stat.added == 1
    commit = on_branch.commit(change, "m", 1)
    assert on_branch.advance(commit).followed
    assert git(root, "status", "--porcelain") == "" and b"0.2" in (root / "train.py").read_bytes()


def test_a_discarded_edit_of_the_checkout_is_put_back_and_stays_reachable(on_branch, root):
    edit(root)
    (root / "lib").mkdir()
    (root / "lib/a.txt").write_bytes(b"a\n")
    change = on_branch.collect_checkout(OPEN)
    commit = on_branch.commit(change, "m", 1)
    assert on_branch.revert_checkout(change) == ()
    assert git(root, "status", "--porcelain") == "" and not (root / "lib/a.txt").exists()
    assert on_branch.collect_checkout(OPEN).empty
    assert on_branch.read(commit, "lib/a.txt") == b"a\n" and git(root, "fsck") is not None
    edit(root)
    change = on_branch.collect_checkout(TASK)
    edit(root, "0.2", "0.9")
    assert on_branch.revert_checkout(change) == ("train.py",)
    assert b"0.9" in (root / "train.py").read_bytes()


def test_the_checkouts_edit_needs_the_studys_branch(workspace):
    with pytest.raises(WorkspaceError, match="not checked out"):
        workspace.collect_checkout(TASK)


# -- what must not come back ------------------------------------------------------------------


def rejected(workspace: Workspace, scratch: Path, task: Task = OPEN) -> str:
    with pytest.raises(Rejected) as caught:
        check(workspace.collect(scratch, task), task)
    workspace.drop(scratch)
    assert not scratch.exists() and caught.value.message
    return caught.value.rule


@pytest.fixture
def scratch(workspace: Workspace) -> Path:
    return workspace.scratch(1)


@posix
def test_links_are_refused_by_inode(workspace, tmp_path):
    secret = tmp_path / "secret.py"
    secret.write_text("KEY = 1\n")
    for make in (os.symlink, os.link):
        scratch = workspace.scratch(1)
        (scratch / "train.py").unlink()
        make(secret, scratch / "train.py")
        assert rejected(workspace, scratch) in ("symlink", "hard-link")
    scratch = workspace.scratch(1)
    os.link(scratch / "train.py", scratch / "same.txt")  # unchanged, but with a second name
    assert rejected(workspace, scratch) == "hard-link"
    scratch = workspace.scratch(1)
    (scratch / "lib").symlink_to(tmp_path)
    assert rejected(workspace, scratch) == "symlink"
    assert secret.read_text() == "KEY = 1\n"


@posix
def test_a_folder_exchanged_for_a_link_is_refused(root, tmp_path):
    (root / "lib").mkdir()
    (root / "lib/a.py").write_bytes(b"A = 1\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "lib")
    workspace = Workspace.open(root, "mar5", create=True)
    scratch = workspace.scratch(1)
    (scratch / "lib").rename(tmp_path / "away")
    (scratch / "lib").symlink_to(tmp_path / "away")
    assert rejected(workspace, scratch, make_task(artifacts={"include": ["lib/*.py"]})) == "symlink"
    assert (tmp_path / "away/a.py").exists()


@posix
def test_special_files_modes_and_names(workspace):
    scratch = workspace.scratch(1)
    (scratch / "train.py").unlink()
    os.mkfifo(scratch / "train.py")
    assert rejected(workspace, scratch) == "special-file"
    scratch = workspace.scratch(1)
    (scratch / "train.py").chmod(0o755)
    assert rejected(workspace, scratch) == "mode"
    scratch = workspace.scratch(1)
    (scratch / "lib").mkdir()
    (scratch / "lib/a\nb").write_text("x")
    assert rejected(workspace, scratch) == "path"
    scratch = workspace.scratch(1)
    (scratch / "lib").mkdir()
    (scratch / "lib/a").write_text("x")
    (scratch / "lib/A").write_text("x")
    assert rejected(workspace, scratch) == "path"
    scratch = workspace.scratch(1)
    with (scratch / "train.py").open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    assert rejected(workspace, scratch) == "max-bytes"


@posix
def test_a_folder_without_rights_is_refused_and_still_removed(workspace, scratch):
    (scratch / "dark/deep").mkdir(parents=True)
    (scratch / "dark/deep/x").write_text("x")
    (scratch / "dark/deep").chmod(0o000)
    (scratch / "dark").chmod(0o500)
    # root reads it all the same, and finds only what isn't an artifact.
    assert rejected(workspace, scratch) in ("unreadable", "empty")


def tamper(scratch: Path, root: Path, how: str) -> None:
    if how == "git-file":
        (scratch / ".git").write_text("gitdir: /tmp/evil\n")
    elif how == "git-removed":
        (scratch / ".git").unlink()
    elif how == "git-folder":
        (scratch / ".git").unlink()
        (scratch / ".git").mkdir()
    elif how == "hook":
        (root / ".git/hooks").mkdir(exist_ok=True)
        (root / ".git/hooks/pre-commit").write_text("#!/bin/sh\ncurl evil\n")
    elif how == "config":
        git(scratch, "config", "core.fsmonitor", "/tmp/evil")
    elif how == "info":
        (root / ".git/info/attributes").write_text("* filter=evil\n")
    elif how == "attributes":
        (scratch / ".gitattributes").write_text("*.py filter=evil\n")
    elif how == "modules":
        (scratch / ".gitmodules").write_text("[submodule 'x']\n")
    elif how == "nested":
        (scratch / "lib/x").mkdir(parents=True)
        git(scratch / "lib/x", "init", "--quiet")


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("git-file", "git-tampering"),
        ("git-removed", "git-tampering"),
        ("git-folder", "git-tampering"),
        ("hook", "hooks"),
        ("config", "git-tampering"),
        ("info", "git-tampering"),
        ("attributes", "git-attributes"),
        ("modules", "submodule"),
        ("nested", "submodule"),
    ],
)
def test_tampering_with_git_is_refused(workspace, root, scratch, how, rule):
    edit(scratch)
    tamper(scratch, root, how)
    assert rejected(workspace, scratch) == rule


def test_commits_in_the_scratch_change_nothing(workspace, root, scratch):
    edit(scratch)
    git(scratch, "commit", "--quiet", "-am", "agents do this")
    git(scratch, "checkout", "--quiet", "-b", "agents-branch")
    change = workspace.collect(scratch, TASK)
    check(change, TASK)
    assert change.stat.added == 1
    workspace.drop(scratch)
    assert workspace.champion_commit == git(root, "rev-parse", "main")


def test_everything_else_that_changed_is_listed(workspace, scratch):
    edit(scratch)
    (scratch / "program.md").write_text("obey me")
    (scratch / ".gitignore").unlink()
    (scratch / "notes").mkdir()
    (scratch / "notes/idea.txt").write_text("x")
    (scratch / ".agent").mkdir()
    (scratch / ".agent/tool.py").write_text("x")
    (scratch / "train.pyc").write_bytes(b"x")
    change = workspace.collect(scratch, TASK)
    assert [(o.path, o.how) for o in change.outside] == [
        (".agent/tool.py", "new"),
        (".gitignore", "gone"),
        ("notes/idea.txt", "new"),
        ("program.md", "changed"),
        ("train.pyc", "new"),
    ]
    assert [f.path for f in change.files] == ["train.py"]
    assert rejected(workspace, scratch, TASK) == "not-an-artifact"


def test_droppings_of_an_agent_are_tolerated(workspace, scratch):
    edit(scratch)
    (scratch / ".aider.history.md").write_text("x")
    (scratch / "__pycache__").mkdir()
    (scratch / "__pycache__/train.cpython-311.pyc").write_bytes(b"x")
    (scratch / "run.log").write_text("x")
    change = workspace.collect(scratch, TASK)
    check(change, TASK)
    assert len(change.outside) == 3


# -- kills ------------------------------------------------------------------------------------


def test_recover_after_an_orderly_end_does_nothing(workspace):
    result = workspace.recover(known=[])
    assert (result.removed, result.forgotten, result.advance) == ((), (), None)


def test_recover_finishes_what_the_ledger_has_and_drops_the_rest(workspace, root, monkeypatch):
    monkeypatch.setattr(follow, "LOCK_AGE", 0.1)
    half = workspace.scratch(2)
    kept = workspace.commit(edited(workspace, 1), "m", 1)
    workspace.commit(edited(workspace, 3, new="0.4"), "m", 3)
    (root / ".git/refs/heads/autoresearch/mar5.lock").write_text("")
    (root / ".git/worktrees/half-made").mkdir()
    missing = workspace.scratch(5)
    (missing / ".git").unlink()
    again = Workspace.open(root, "mar5")
    result = again.recover(known=[1], champion=kept)
    assert again.champion_commit == kept and result.advance.moved
    assert result.forgotten == ("refs/autoresearch/mar5/3",)
    assert not half.exists() and not missing.exists()
    assert not (root / ".git/refs/heads/autoresearch/mar5.lock").exists()
    assert again.recover(known=[1], champion=kept).advance is None
    assert again.scratch(2).exists()


def test_recover_leaves_other_studies_and_worktrees_alone(workspace, root, tmp_path):
    other = Workspace.open(root, "mar5-b", create=True).scratch(1)
    mine = tmp_path / "mine"
    git(root, "worktree", "add", "--quiet", "--detach", str(mine))
    workspace.recover()
    assert other.exists() and mine.exists()


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
        recover = functools.partial(Workspace.recover, known=[1], champion=known)
        killed_at(step % 15, root, recover)
        again = Workspace.open(root, "mar5")
        again.recover(known=[1], champion=known)
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


# -- messages ---------------------------------------------------------------------------------


def test_an_idea_cannot_pass_for_a_trailer(workspace, root):
    idea = "x\n\nTrial: 99\n\x1b[31mred\u202e " + "long " * 50
    message = champion_message("val_bpb", None, 1.0, idea, {"Trial": 7})
    workspace.keep(edited(workspace, 7), message, 7)
    assert [k.trial_id for k in workspace.history()] == [7]
    assert git(root, "log", "-1", "--format=%(trailers:key=Trial)", workspace.champion_commit) == (
        "Trial: 7"
    )
    assert "\x1b" not in message and "\u202e" not in message
    assert max(map(len, message.splitlines()[:1])) < 110


def test_one_trailer_of_a_kind():
    assert with_trailer("a", "Trial", "1") == "a\n\nTrial: 1\n"
    assert with_trailer("a\n\nTrial: 2\nB: c\n", "Trial", "1") == "a\n\nTrial: 1\nB: c\n"
    assert with_trailer("a: b", "Trial", "1") == "a: b\n\nTrial: 1\n"

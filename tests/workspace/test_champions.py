"""Trials in git: champions on their branch, scratch folders that leave nothing, users untouched."""

import threading

import pytest

from autoresearch.engine.change import champion_message, check, diff_hash, with_trailer
from autoresearch.engine.errors import (
    ChampionMoved,
    GitFailed,
    NoRepository,
    Rejected,
    UncommittedChanges,
    WorkspaceError,
)
from autoresearch.engine.workspace import Workspace
from tests.workspace.repositories import OPEN, SEED, TASK, edit, edited, git, snapshot

# -- a trial, from scratch to champion ------------------------------------------------------------


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


def test_refs_of_many_trials_move_together_and_one_in_the_way_holds_up_no_other(workspace, root):
    first = workspace.commit(edited(workspace, 4), "m", 4)
    workspace.group(True)
    edits = {trial: edited(workspace, trial, new=f"0.{trial}3") for trial in (4, 1, 2)}
    commits = {trial: workspace.commit(change, "m", trial) for trial, change in edits.items()}
    assert workspace.trial_commit(4) == commits[4] != first
    listed = git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/mar5")
    assert first in listed and not any(commit in listed for commit in commits.values())
    git(root, "update-ref", "refs/autoresearch/mar5/4", commits[2])  # by somebody's own git
    with pytest.raises(GitFailed):
        workspace.sync()
    workspace.sync()
    assert workspace.trial_commits() == {**commits, 4: commits[2]}


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
    assert found == {".gitignore", "program.md", "train.py", "lib/deep/new.txt"}
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


# -- repositories of all kinds --------------------------------------------------------------------


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


# -- messages -------------------------------------------------------------------------------------


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

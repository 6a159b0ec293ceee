"""The study's branch is checked out: its files follow where that is safe, edits are never lost."""

import pytest

from autoresearch.engine.change import check
from autoresearch.engine.errors import Rejected, WorkspaceError
from tests.workspace.repositories import OPEN, TASK, edit, edited, git, make_task


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

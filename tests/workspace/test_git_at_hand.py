"""Objects that we write ourselves are git's own, and a git that stays answers like a new one."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from autoresearch.engine import git_objects
from autoresearch.engine.errors import GitFailed
from autoresearch.engine.git import Entry, Git

NAMES = ("train.py", "a.b", "a/x.py", "a/b/ü ö.txt", "a0", "a-b/c", "run.sh", "link")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    root.mkdir()
    run(root, "init", "-q", "-b", "main")
    run(root, "config", "user.name", "Ü Ser")
    run(root, "config", "user.email", "u@example.org")
    for number, name in enumerate(NAMES[:-1]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n", encoding="utf-8")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("train.py")
    run(root, "add", ".")
    run(root, "commit", "-qm", "first")
    return root


def run(root: Path, *words: str, data: str = "", **more: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **more}
    done = subprocess.run(
        ["git", *words],
        cwd=root,
        check=True,
        capture_output=True,
        input=data.encode(),
        env=environment,
    )
    return done.stdout.decode().strip()


def test_trees_and_commits_have_the_ids_that_git_gives_them(root: Path) -> None:
    git, head = Git(root), run(root, "rev-parse", "HEAD")
    assert git.write_tree(head, {}) == run(root, "rev-parse", "HEAD^{tree}")
    data = "new\n"
    oid = git.write_blob(data.encode())
    assert oid == run(root, "hash-object", "--stdin", data=data)
    tree = git.write_tree(head, {"a/b/new.py": Entry("100644", oid), "a0": None, "a.b": None})
    (root / "a/b/new.py").write_text(data)
    run(root, "rm", "-q", "a0", "a.b")
    run(root, "add", "a/b/new.py")
    assert tree == run(root, "write-tree")
    dates = {"GIT_AUTHOR_DATE": "1700000000 +0130", "GIT_COMMITTER_DATE": "1700000000 +0130"}
    message = "val_bpb 1.2 -> 1.1: grün\n\nTrial: 7\n"
    made = git.write_commit(tree, head, message, "1700000000 +0130")
    assert made == run(root, "commit-tree", tree, "-p", head, data=message, **dates)
    run(root, "update-ref", "refs/x/1", made)
    run(root, "fsck", "--strict", "--no-dangling")
    assert git.described(made) == (tree, head, message)


def test_what_was_written_is_synced_once_and_at_once_or_together(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        git_objects, "_sync_file", lambda path: synced.append(path.parent.name + path.name)
    )
    git, head = Git(root), run(root, "rev-parse", "HEAD")

    def commit(data: bytes) -> list[str]:
        oid = git.write_blob(data)
        tree = git.write_tree(head, {"train.py": Entry("100644", oid)})
        return [oid, tree, git.write_commit(tree, head, "m", "1700000000 +0000")]

    first = commit(b"1")
    assert set(first) <= set(synced)
    git.grouped = True
    more = [*commit(b"2"), *commit(b"3")]
    assert not set(more) & set(synced)
    git.sync()
    assert set(more) <= set(synced)
    count = len(synced)
    git.sync()
    assert len(synced) == count


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_git_that_stays_answers_like_a_new_one(root: Path) -> None:
    git, head = Git(root), run(root, "rev-parse", "HEAD")
    assert git.commit_of("HEAD") == git.commit_of("refs/heads/main") == head
    assert git.commit_of("refs/heads/none") is None and git.commit_of("HEAD:train.py") is None
    run(root, "commit", "-q", "--allow-empty", "-m", "second")
    assert git.commit_of("HEAD") != head  # moved by somebody else
    run(root, "gc", "-q")
    blob = run(root, "rev-parse", "HEAD:train.py")
    assert git.blob(blob) == b"file 0\n"
    for process in list(git._servers._running.values()):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert git.commit_of("HEAD~1") == head
    assert git.move_quickly({"refs/x/1": (head, None)}) and git.commit_of("refs/x/1") == head
    two = {"refs/x/2": (head, None), "refs/x/1": (head, "1" * 40)}
    assert not git.move_quickly(two) and git.commit_of("refs/x/2") is None  # all, or none
    with pytest.raises(GitFailed):
        git.blob("1" * 40)


def test_a_diff_is_the_one_that_git_prints(root: Path) -> None:
    git, head = Git(root), run(root, "rev-parse", "HEAD")
    options = ["-r", "--text", "--numstat", "-p"]
    trees = []
    for text in ("file 0\nmore\n", "end of\n"):
        oid = git.write_blob(text.encode())
        trees.append(git.write_tree(head, {"train.py": Entry("100644", oid)}))
    for tree in (*trees, git.write_tree(head, {})):
        expected = run(root, "diff-tree", *options, head, tree)
        assert git.diff(head, tree, options).decode().strip() == expected

"""What must not come back from a scratch folder: links, odd files, what steers git."""

import os
from pathlib import Path

import pytest

from autoresearch.engine.change import check
from autoresearch.engine.errors import Rejected
from autoresearch.engine.task import Task
from autoresearch.engine.workspace import Workspace
from tests.workspace.repositories import OPEN, TASK, edit, git, make_task

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and signals of POSIX")


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
    if how == "hook":
        (root / ".git/hooks").mkdir(exist_ok=True)
        (root / ".git/hooks/pre-commit").write_text("#!/bin/sh\ncurl evil\n")
    elif how == "config":
        git(root, "config", "core.fsmonitor", "/tmp/evil")
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

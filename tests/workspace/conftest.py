"""A repository, and the study `mar5` in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.engine.workspace import Workspace
from tests.workspace.repositories import SEED, git


@pytest.fixture(autouse=True)
def bare_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace.open(root, "mar5", create=True)


@pytest.fixture
def on_branch(workspace: Workspace, root: Path) -> Workspace:
    """The study, with its branch checked out."""
    git(root, "checkout", "--quiet", "autoresearch/mar5")
    return workspace

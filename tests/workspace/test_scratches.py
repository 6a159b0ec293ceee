"""A scratch folder's repository is its proposer's own: nothing done with git there gets out."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.engine.change import check
from autoresearch.engine.workspace import Workspace
from tests.workspace.repositories import TASK, edit, edited, git

posix = pytest.mark.skipif(os.name == "nt", reason="links and scripts of POSIX")


@pytest.fixture
def champions(workspace: Workspace) -> Workspace:
    """Two kept trials, and one that wasn't."""
    workspace.keep(edited(workspace, 1), "val_bpb 1.2 -> 1.1: more", 1)
    workspace.keep(edited(workspace, 2, "0.2", "0.3"), "val_bpb 1.1 -> 1.0: still more", 2)
    workspace.commit(edited(workspace, 3, "0.3", "0.9"), "too much", 3)
    return workspace


def own_folder(root: Path) -> dict[str, bytes | str]:
    """All of the user's `.git`, byte for byte."""
    places = sorted((root / ".git").rglob("*"))
    return {
        str(place): os.readlink(place) if place.is_symlink() else place.read_bytes()
        for place in places
        if place.is_symlink() or place.is_file()
    }


def test_git_there_shows_the_champions_and_the_edit(champions, root):
    git(root, "commit", "--quiet", "--allow-empty", "-m", "private work on main")
    scratch = champions.scratch(4)
    assert git(scratch, "status", "--porcelain") == ""
    assert git(scratch, "rev-parse", "HEAD") == champions.champion_commit
    assert git(scratch, "log", "--format=%s").splitlines() == [
        "val_bpb 1.1 -> 1.0: still more",
        "val_bpb 1.2 -> 1.1: more",
        "begin",
    ]
    assert git(scratch, "branch", "--show-current") == "autoresearch/mar5"
    edit(scratch, "0.3", "0.4")
    assert "-LR = 0.3\n+LR = 0.4" in git(scratch, "diff")
    assert "+LR = 0.2" in git(scratch, "show", "HEAD^") and git(scratch, "fsck") is not None
    # A commit there needs no identity of the user's.
    subprocess.run(
        ["git", "-c", "core.hooksPath=", "-c", "commit.gpgsign=false", "commit", "-qam", "mine"],
        cwd=scratch,
        check=True,
    )
    assert git(scratch, "status", "--porcelain") == ""


def test_nothing_of_the_users_is_shared_with_it(champions, root):
    private = git(root, "rev-parse", "refs/autoresearch/mar5/3")
    own = champions.scratch(4) / ".git"
    assert git(own.parent, "remote") == "" and not (own / "objects/info/alternates").exists()
    texts = [place.read_bytes() for place in own.rglob("*") if place.is_file()]
    assert not any(os.fsencode(root) in text for text in texts)
    inodes = {place.stat().st_ino for place in (root / ".git").rglob("*") if place.is_file()}
    assert not inodes & {place.stat().st_ino for place in own.rglob("*") if place.is_file()}
    known = subprocess.run(["git", "cat-file", "-e", private], cwd=own.parent, capture_output=True)
    assert known.returncode  # neither other branches nor trials that weren't kept


def script(place: Path, root: Path, text: str) -> Path:
    """A program that leaves a trace when it is run."""
    place.write_text(f"#!/bin/sh\ntouch '{root.parent}/ran'\n{text}\n")
    place.chmod(0o755)
    return place


def branches(scratch: Path, root: Path) -> None:
    git(scratch, "commit", "--quiet", "-am", "mine")
    for name in ("main", "autoresearch/other"):
        git(scratch, "branch", "-f", name, "HEAD")
    git(scratch, "update-ref", "refs/heads/autoresearch/mar5", "HEAD~1")
    git(scratch, "update-ref", "-d", "refs/autoresearch/mar5/start")
    git(scratch, "update-ref", "-d", "refs/autoresearch/mar5/1")
    git(scratch, "tag", "v1")
    git(scratch, "worktree", "add", "--quiet", str(scratch / ".git/other"), "HEAD")


def stash_and_clean(scratch: Path, root: Path) -> None:
    git(scratch, "stash")
    git(scratch, "stash", "pop")
    git(scratch, "reflog", "expire", "--expire=now", "--all")
    git(scratch, "gc", "--quiet", "--prune=now")
    git(scratch, "repack", "-a", "-d", "-f", "--quiet")


def hooks(scratch: Path, root: Path) -> None:
    folder = scratch / ".git/hooks"
    folder.mkdir()
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        script(folder / name, root, "exit 1")


def settings(scratch: Path, root: Path) -> None:
    tool = script(scratch / ".git/tool", root, "cat")
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "diff.external"):
        git(scratch, "config", name, str(tool))
    for name in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process"):
        git(scratch, "config", name, str(tool))
    git(scratch, "config", "core.hooksPath", str(tool.parent))
    git(scratch, "config", "core.worktree", str(root))
    (scratch / ".git/info").mkdir(exist_ok=True)
    (scratch / ".git/info/attributes").write_text("* filter=evil diff=evil\n")


def removed(scratch: Path, root: Path) -> None:
    subprocess.run(["rm", "-rf", ".git"], cwd=scratch, check=True)


def other_folder(scratch: Path, root: Path) -> None:
    removed(scratch, root)
    (scratch / ".git").mkdir()


def link(scratch: Path, root: Path) -> None:
    removed(scratch, root)
    (scratch / ".git").symlink_to(root / ".git")


def file(scratch: Path, root: Path) -> None:
    removed(scratch, root)
    (scratch / ".git").write_text(f"gitdir: {root}/.git\n")


def borrowed(scratch: Path, root: Path) -> None:
    """Objects from the user's, then a thorough clean-up."""
    info = scratch / ".git/objects/info"
    info.mkdir(exist_ok=True)
    (info / "alternates").write_text(f"{root}/.git/objects\n")
    git(scratch, "gc", "--quiet", "--prune=now")


@posix
@pytest.mark.parametrize(
    "act",
    [
        branches,
        stash_and_clean,
        hooks,
        settings,
        removed,
        other_folder,
        link,
        file,
        borrowed,
    ],
    ids=lambda act: act.__name__,
)
def test_what_a_proposer_does_with_git_stays_there(
    workspace: Workspace,
    root: Path,
    tmp_path: Path,
    act: Callable[[Path, Path], None],
):
    git(root, "tag", "mine")
    git(root, "config", "remote.origin.url", "nowhere")
    before = own_folder(root)
    scratch, ran = workspace.scratch(4), tmp_path / "ran"
    edit(scratch)
    act(scratch, root)
    ran.unlink(missing_ok=True)  # its own git may have run it; ours mustn't
    assert own_folder(root) == before
    change = workspace.collect(scratch, TASK)
    check(change, TASK)
    assert [item.path for item in change.files] == ["train.py"] and change.stat.added == 1
    program = workspace.program(change, 4)
    assert b"0.2" in (program / "train.py").read_bytes() and not (program / ".git").exists()
    workspace.drop(program)
    workspace.drop(scratch)
    assert not os.path.lexists(scratch)
    # Taking back stores what came back, as objects that nothing names; all else is as before.
    after = own_folder(root)
    new = {name for name in after if name not in before}
    assert all("/.git/objects/" in name.replace("\\", "/") for name in new)
    assert {name: after[name] for name in before} == before
    commit = workspace.keep(change, "m", 4)
    assert git(root, "rev-parse", "autoresearch/mar5") == commit
    assert not ran.exists()


def subjects(scratch: Path) -> list[str]:
    assert git(scratch, "status", "--porcelain") == "" and git(scratch, "fsck") is not None
    return git(scratch, "log", "--format=%s").splitlines()


def test_the_history_begins_with_the_study(root, tmp_path):
    edit(root, "0.1", "0.15")
    git(root, "commit", "--quiet", "-am", "second")
    study = Workspace.open(root, "mar5", create=True)
    study.keep(edited(study, 1, "0.15", "0.2"), "better", 1)
    assert subjects(study.scratch(2)) == ["better", "second"]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", root.as_uri(), str(clone))
    assert subjects(Workspace.open(clone, "mar5", create=True).scratch(1)) == ["second"]
    # Whatever somebody makes of the beginning, a scratch folder is to be had.
    tree = git(root, "rev-parse", "HEAD^{tree}")
    git(
        root,
        "update-ref",
        "refs/autoresearch/mar5/start",
        git(root, "commit-tree", tree, "-m", "elsewhere"),
    )
    assert subjects(study.scratch(3))[:2] == ["better", "second"]


def test_every_file_is_there_though_the_checkout_is_sparse(root):
    (root / "lib").mkdir()
    (root / "lib/a.txt").write_bytes(b"a\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "lib")
    git(root, "sparse-checkout", "set", "--no-cone", "/train.py")
    assert not (root / "lib").exists()
    study = Workspace.open(root, "mar5", create=True)
    scratch = study.scratch(1)
    edit(scratch)
    assert (scratch / "lib/a.txt").read_bytes() == b"a\n"
    change = study.collect(scratch, TASK)
    assert change.outside == () and [item.path for item in change.files] == ["train.py"]
    assert (study.program(change, 1) / "lib/a.txt").exists()


def test_ids_of_either_length(tmp_path):
    root = tmp_path / "long"
    root.mkdir()
    git(root, "init", "--quiet", "--object-format=sha256")
    (root / "train.py").write_text("LR = 0.1\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "begin")
    study = Workspace.open(root, "mar5", create=True)
    commit = study.keep(edited(study, 1), "better", 1)
    assert len(commit) == 64 and subjects(study.scratch(2)) == ["better", "begin"]

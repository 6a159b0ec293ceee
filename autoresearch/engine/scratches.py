"""Scratch worktrees on disk: sealed when made, checked when taken back, removed for good.

A worktree's `.git` is a file that names a folder inside the user's repository, so whoever edits in
a scratch folder can reach that repository. A Seal remembers what steers it (settings, hooks,
attributes) and refuses an edit that came with a change of these.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.errors import Rejected, WorkspaceError

_STEERING = ("config", "config.worktree", "info/attributes", "info/exclude", "commondir", "gitdir")
_REMOVE_TRIES = 5


@dataclass(frozen=True)
class Seal:
    """What must not change while a scratch folder is out."""

    folder: Path
    base: str
    dot_git: bytes
    inode: tuple[int, int]
    steering: dict[str, str]

    @classmethod
    def of(cls, folder: Path, common: Path, base: str) -> Seal:
        """Seal a worktree that was just made at the commit `base`."""
        file = folder / ".git"
        status = file.lstat()
        steering = _steering(common, _admin_folder(folder, common))
        return cls(folder, base, file.read_bytes(), (status.st_dev, status.st_ino), steering)

    def refuse_tampering(self, common: Path) -> None:
        """Raises Rejected if `.git`, hooks or what steers the repository changed."""
        file = self.folder / ".git"
        try:
            status = file.lstat()
            plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            same = plain and file.read_bytes() == self.dot_git
        except OSError:
            same = False
        if not same:
            raise Rejected("git-tampering", "the scratch folder's .git was changed")
        if (status.st_dev, status.st_ino) != self.inode:
            raise Rejected("git-tampering", "the scratch folder's .git was exchanged")
        now = _steering(common, _admin_folder(self.folder, common))
        for name in sorted({*now, *self.steering}):
            if now.get(name) != self.steering.get(name):
                hook = name.startswith("hooks/")
                raise Rejected(
                    "hooks" if hook else "git-tampering",
                    f"the repository's {name} changed while the proposer worked",
                    f"look at {common / name}; if it was you, try again",
                )


def _steering(common: Path, admin: Path | None) -> dict[str, str]:
    """Digest of each file that tells git what to do, by name."""
    found = {}
    for place in filter(None, (common, admin)):
        hooks = place / "hooks"
        names = [f"hooks/{f.name}" for f in hooks.iterdir()] if hooks.is_dir() else []
        for name in (*_STEERING, *names):
            file = place / name
            if file.is_symlink():
                found[name] = "link " + os.readlink(file)
            elif file.is_file():
                label = name if place == common else f"worktree {name}"
                mode = file.stat().st_mode & 0o111
                found[label] = f"{mode:o} " + hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _admin_folder(folder: Path, common: Path) -> Path | None:
    """git's own folder for a worktree, found from git's side: the worktree's word isn't trusted."""
    for admin, place in _worktrees(common):
        if place == folder:
            return admin
    return None


def _worktrees(common: Path) -> list[tuple[Path, Path]]:
    """(git's folder, the worktree) of every linked worktree; half-made ones too."""
    found = []
    root = common / "worktrees"
    for admin in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            text = os.fsdecode((admin / "gitdir").read_bytes()).rstrip("\n")
        except OSError:
            continue
        place = Path(os.path.normpath(admin / text)).parent
        found.append((admin, place))
    return found


def remove(folder: Path, common: Path) -> bool:
    """Remove a scratch folder and git's record of it. True if there was something to remove."""
    admins = [admin for admin, place in _worktrees(common) if place == folder]
    there = os.path.lexists(folder)
    _remove_tree(folder)
    for admin in admins:
        _remove_tree(admin)
    worktrees = common / "worktrees"
    if admins and not any(worktrees.iterdir()):
        worktrees.rmdir()
    return there or bool(admins)


def remove_left_over(work: Path, prefix: str, common: Path) -> list[str]:
    """Remove every scratch folder of one study, with what a kill left half made; what it was."""
    places = {place for _, place in _worktrees(common) if place.parent == work}
    if work.is_dir():
        places |= set(work.iterdir())
    removed = []
    for place in sorted(places):
        if place.name.startswith(prefix) and remove(place, common):
            removed.append(str(place))
    return removed


def _remove_tree(folder: Path) -> None:
    """Remove a folder without following links, read-only parts too. Raises WorkspaceError."""
    for attempt in range(_REMOVE_TRIES):
        if not os.path.lexists(folder):
            return
        try:
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink()
            elif sys.version_info >= (3, 12):
                shutil.rmtree(folder, onexc=_make_writable)
            else:
                shutil.rmtree(folder, onerror=_make_writable)
            return
        except OSError as error:
            # On Windows a scanner holds files for moments; anywhere a dying process still writes.
            if attempt == _REMOVE_TRIES - 1:
                raise WorkspaceError(
                    f"can't remove {folder}: {error.strerror or error}",
                    "see which program uses it, then remove it by hand",
                ) from error
            time.sleep(0.1 * 2**attempt)


def _make_writable(call: Callable[..., Any], path: str, _: object) -> None:
    """Give ourselves the rights that a candidate took away, and try once more."""
    for place in (os.path.dirname(path), path):
        if not os.path.islink(place):
            os.chmod(place, stat.S_IRWXU)
    if call in (os.unlink, os.rmdir, os.remove):
        call(path)
    else:
        shutil.rmtree(path)

"""Scratch folders on disk: plain files of a commit, with a small repository of their own.

    make(git, folder, Lineage(start, commit, branch), file_system(git))
    seal = Seal.of(common, commit)
    ...a proposer edits, and does with git there what it likes...
    seal.refuse_tampering()
    remove(folder)

The repository holds copies of the champions' commits since the study began, so that `git log`,
`git diff` and `git status` in it say something. It shares no object, ref or setting with the user's
and names it nowhere; nothing of ours ever runs git in it. Whoever reaches for the user's repository
by its path all the same leaves a trace in what steers it (settings, hooks, attributes): a Seal
remembers these, and an edit that came with a change of them is refused.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.errors import Rejected, WorkspaceError
from autoresearch.engine.git import AS_STORED, Git

_STEERING = ("config", "config.worktree", "info/attributes", "info/exclude")
_REMOVE_TRIES = 5
_FILE, _PROGRAM = "100644", "100755"
_PLAIN_FILES, _PLAIN_BYTES = 64, 1 << 22  # of a tree that is written without git
# Every file of the commit, whatever the user's own checkout is spared; an index that is one file.
# Nothing in a scratch folder is worth waiting for the disk.
_WHOLE = (
    *AS_STORED,
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.untrackedCache=false",
    "index.sparse=false",
    "core.fsync=none",
)
# What git found out about the file system when the user's repository was made.
_FILE_SYSTEM = r"^core\.(filemode|symlinks|ignorecase|precomposeunicode)$"
_CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tbare = false
\tlogallrefupdates = true
\tautocrlf = false
\teol = lf
[user]
\tname = proposer
\temail = proposer@localhost
"""


@dataclass(frozen=True)
class Seal:
    """What must not change while a scratch folder made from the commit `base` is out."""

    common: Path
    base: str
    steering: dict[str, str]

    @classmethod
    def of(cls, common: Path, base: str) -> Seal:
        """Seal the repository whose own folder is `common`."""
        return cls(common, base, _steering(common))

    def refuse_tampering(self) -> None:
        """Raises Rejected if hooks or what else steers the repository changed."""
        now = _steering(self.common)
        for name in sorted({*now, *self.steering}):
            if now.get(name) != self.steering.get(name):
                raise Rejected(
                    "hooks" if name.startswith("hooks/") else "git-tampering",
                    f"the repository's {name} changed while the proposer worked",
                    f"look at {self.common / name}; if it was you, try again",
                )


def _steering(common: Path) -> dict[str, str]:
    """Digest of each file that tells git what to do, by name."""
    found = {}
    hooks = common / "hooks"
    names = [f"hooks/{name}" for name in os.listdir(hooks)] if hooks.is_dir() else []
    for name in (*_STEERING, *names):
        file = os.path.join(common, name)
        try:
            status = os.lstat(file)
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(status.st_mode):
            found[name] = "link " + os.readlink(file)
        elif stat.S_ISREG(status.st_mode):
            times = status.st_mtime_ns, status.st_ctime_ns
            digest = _digest(file, status.st_dev, status.st_ino, status.st_size, *times)
            found[name] = f"{status.st_mode & 0o111:o} {digest}"
    return found


@functools.lru_cache(maxsize=1_000)
def _digest(file: str, *unchanged: int) -> str:
    """Of a file's content, read once while what the system says of the file is `unchanged`."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


# -- making ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lineage:
    """The champions up to `commit`, from the study's beginning `start` on, and their `branch`."""

    start: str
    commit: str
    branch: str


def make(git: Git, folder: Path, lineage: Lineage, settings: str) -> None:
    """Files of the lineage's last commit, and a repository that has the lineage.

    Objects are copied, none are shared: what happens to one repository is nothing to the other.
    """
    own = folder / ".git"
    packs, ref = own / "objects" / "pack", own / "refs" / "heads" / lineage.branch
    packs.mkdir(parents=True)
    ref.parent.mkdir(parents=True)
    wanted = f"--shallow {lineage.start}\n{lineage.commit}\n".encode()
    options = ["--quiet", "--revs", "--shallow", "--delta-base-offset", "--window=0"]
    git("pack-objects", *options, str(packs / "pack"), data=wanted, config=_WHOLE)
    (own / "shallow").write_bytes(f"{lineage.start}\n".encode())
    sha256 = len(lineage.commit) == 64
    text = _CONFIG.format(version=int(sha256)) + settings
    text += "[extensions]\n\tobjectformat = sha256\n" if sha256 else ""
    (own / "config").write_bytes(text.encode())
    ref.write_bytes(f"{lineage.commit}\n".encode())
    (own / "HEAD").write_bytes(f"ref: refs/heads/{lineage.branch}\n".encode())
    fill(git, folder, lineage.commit, own / "index")


def fill_plainly(git: Git, folder: Path, tree: str) -> bool:
    """Put the files of a tree or commit into `folder` without git; False where that takes one.

    It does where a file's attributes may ask for another form (line ends, large files elsewhere),
    where files aren't plain ones, and where they are too many to be held.
    """
    entries = git.tree(tree)
    if len(entries) > _PLAIN_FILES or sum(each.size for each in entries.values()) > _PLAIN_BYTES:
        return False
    if any(each.mode not in (_FILE, _PROGRAM) for each in entries.values()):
        return False
    if any(path.rpartition("/")[2].casefold() == ".gitattributes" for path in entries):
        return False
    if git.has_attributes:
        return False
    for path, entry in entries.items():
        place = folder / path
        if "/" in path:
            place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(git.blob(entry.oid))
        if entry.mode == _PROGRAM:
            mode = place.stat().st_mode
            place.chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it
    return True


def fill(git: Git, folder: Path, tree: str, index: Path) -> None:
    """Put the files of a tree or commit into `folder`, and git's notes of them into `index`."""
    environment = {
        "GIT_DIR": str(git.common_folder()),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(index),
    }
    # Run in the folder: a git that outlives us can't make it again once it is removed.
    command = ("read-tree", "--reset", "-u", tree)
    git(*command, config=_WHOLE, folder=folder, environment=environment)


def file_system(git: Git) -> str:
    """Lines for a scratch folder's `config`: what git knows of the file system it lies on."""
    found = (git.maybe("config", "--get-regexp", _FILE_SYSTEM) or "").splitlines()
    pairs = (line.partition(" ") for line in found)
    lines = [f"\t{name.removeprefix('core.')} = {value}\n" for name, _, value in pairs]
    return "[core]\n" + "".join(lines) if lines else ""


def write(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write files below a folder; None removes one."""
    for path, data in files.items():
        place = folder / path
        if data is None:
            place.unlink(missing_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


# -- removing --------------------------------------------------------------------------------------


def remove_left_over(work: Path, prefix: str) -> list[str]:
    """Remove every scratch folder of one study, with what a kill left half made; what it was."""
    removed = []
    for place in sorted(work.iterdir()) if work.is_dir() else ():
        if place.name.startswith(prefix):
            remove(place)
            removed.append(str(place))
    return removed


def remove(folder: Path) -> None:
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

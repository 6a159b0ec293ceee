"""Taking back what was edited, file by file, from a folder that a stranger could write.

Nothing in the folder is trusted to be what its name says. Files are opened without following
links and judged by inode: a symbolic link, a hard link, a mount, a device, a folder that is a link,
another repository inside or a changed mode is refused as `Rejected`, naming the rule.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoresearch.engine.errors import Rejected

_STEERING = {
    ".gitattributes": "git-attributes",
    ".gitmodules": "submodule",
    ".gitconfig": "git-tampering",
}
_CHUNK = 1 << 20
_LINK_TAGS = (0xA000000C, 0xA0000003)  # Windows: symbolic link, junction


@dataclass(frozen=True)
class Found:
    """One thing in a folder: its path below it (POSIX), and lstat's answer."""

    path: str
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        """A regular file?"""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        """A symbolic link (on Windows also a junction)?"""
        tag = getattr(self.status, "st_reparse_tag", 0)
        return stat.S_ISLNK(self.status.st_mode) or tag in _LINK_TAGS


def walk(folder: Path) -> Iterator[Found]:
    """Everything below `folder` that isn't a plain folder; links are not followed.

    `.git` at the top is left out, and what a folder that can't be read holds is `Rejected`.
    """
    device = folder.lstat().st_dev
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise Rejected("unreadable", f"{prefix}: {error.strerror}") from error
        for entry in inside:
            path = prefix + entry.name
            if path == ".git":
                continue
            found = Found(path, os.lstat(folder / path))
            if stat.S_ISDIR(found.status.st_mode) and not found.is_link:
                if found.status.st_dev != device:
                    raise Rejected("mount", f"{path} lies on another file system")
                waiting.append(path + "/")
            else:
                yield found


def refuse_steering(path: str, unchanged: bool) -> None:
    """Files that tell git what to do stay as they were, no repository inside. Raises Rejected."""
    parts = [part.casefold() for part in path.split("/")]
    if ".git" in parts:
        raise Rejected("submodule", f"{path}: a repository inside the workspace")
    rule = _STEERING.get(parts[-1])
    if rule and not unchanged:
        raise Rejected(rule, f"{path} may not be changed")


def refuse_kind(found: Found, executable: bool | None) -> None:
    """An artifact is a regular file with one name and the mode it had. Raises Rejected.

    `executable` is how it was, None for a new file or where modes mean nothing.
    """
    path, status = found.path, found.status
    if found.is_link:
        raise Rejected("symlink", f"{path} is a link; an artifact is a plain file")
    if not found.is_file:
        raise Rejected("special-file", f"{path} is not a plain file")
    if status.st_nlink > 1:
        raise Rejected("hard-link", f"{path} has {status.st_nlink} names; it may have one")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Rejected("mode", f"{path} is set-user-id or set-group-id")
    if executable is not None and os.name != "nt":
        now = bool(status.st_mode & stat.S_IXUSR)
        if now != executable:
            raise Rejected("mode", f"{path}: its mode was changed")


def refuse_name(path: str, known: dict[str, str]) -> None:
    """A new file's name must be usable everywhere. `known`: folded path to path. Rejected."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Rejected("path", f"{path!a} is not UTF-8") from error
    if any(ord(c) < 32 or ord(c) == 127 or c in '<>:"|?*\\' for c in path):
        raise Rejected("path", f"{path!a} holds characters that some systems forbid")
    other = known.get(path.casefold())
    if other not in (None, path):
        raise Rejected("path", f"{path} and {other} differ by upper and lower case alone")


def read_artifact(folder: Path, found: Found, limit: int) -> bytes:
    """A file's bytes, if it is still what `found` says, and not more than `limit`.

    Raises Rejected for a file exchanged meanwhile, one behind a link, and one that is too large.
    """
    _refuse_linked_folders(folder, found.path)
    try:
        fd = os.open(folder / found.path, _open_flags())
    except OSError as error:
        rule = "symlink" if error.errno == errno.ELOOP else "unreadable"
        raise Rejected(rule, f"{found.path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        opened = os.fstat(file.fileno())
        if (opened.st_dev, opened.st_ino) != (found.status.st_dev, found.status.st_ino):
            raise Rejected("exchanged", f"{found.path} was exchanged while it was read")
        refuse_kind(Found(found.path, opened), None)
        if opened.st_dev != folder.lstat().st_dev:
            raise Rejected("mount", f"{found.path} lies on another file system")
        if opened.st_size > limit:
            raise Rejected(
                "max-bytes", f"{found.path} has {opened.st_size:,} bytes, {limit:,} are allowed"
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Rejected("max-bytes", f"{found.path} grew past {limit:,} bytes while it was read")
    return data


def _open_flags() -> int:
    """Read only, neither through a link nor waiting for the other end of a pipe."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    return flags


def _refuse_linked_folders(folder: Path, path: str) -> None:
    place = folder
    for part in path.split("/")[:-1]:
        place = place / part
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise Rejected("symlink", f"{path} lies behind a link")


def file_id(folder: Path, found: Found, algorithm: str) -> str:
    """git's id of a file's bytes as they are, computed here: no filter runs. "" if unreadable."""
    try:
        with os.fdopen(os.open(folder / found.path, _open_flags()), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.new(algorithm, b"blob %d\0" % size, usedforsecurity=False)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()

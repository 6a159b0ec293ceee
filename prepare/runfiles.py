"""Files of a run that the candidate may have tampered with: links, pipes, folders in their place.

A candidate that can write beside them could point our log at somebody's file, put a named pipe
where we write the result (opening it waits for ever), or change the weights after the clock
stopped. Nothing here follows a link or opens what it didn't make.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class Tampered(Exception):
    """What should be the candidate's weights is something else, or changed later."""


def clear(path: Path) -> None:
    """Remove whatever is at `path`, a link itself and not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def create(path: Path) -> BinaryIO:
    """A new file, open for writing, in place of anything that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
    return open(path, "x+b", buffering=0)


def fresh_folder(path: Path) -> Path:
    """An empty folder in place of anything that was there."""
    clear(path)
    path.mkdir(parents=True)
    return path


def read_end(path: Path, size: int) -> bytes:
    """The last `size` bytes of a plain file; nothing of a link, a pipe or a missing file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError:
        return b""
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        return b""
    with open(descriptor, "rb") as file:
        file.seek(max(0, about.st_size - size))
        return file.read(size)


@dataclass(frozen=True)
class Seal:
    """A file as it was when we took it; `check` tells whether anybody touched it since."""

    path: Path
    state: tuple[int, ...]

    @classmethod
    def adopt(cls, source: Path, path: Path) -> Seal:
        """Move the plain file at `source` to `path`. Raises Tampered if it is anything else."""
        try:
            about = os.lstat(source)
        except OSError as error:
            raise Tampered("the weights never arrived") from error
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            raise Tampered("the weights must be a plain file with one name, no link")
        clear(path)
        os.replace(source, path)
        return cls(path, _state(path))

    def check(self) -> None:
        """Raises Tampered if the file was written, replaced or removed."""
        try:
            same = _state(self.path) == self.state
        except OSError:
            same = False
        if not same:
            raise Tampered("the weights changed after training had ended")


def _state(path: Path) -> tuple[int, ...]:
    # The change time can't be set back, unlike the modification time.
    about = os.lstat(path)
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)

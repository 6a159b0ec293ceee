"""git's objects, written without starting git: blobs, trees and commits as loose files.

    store = Objects(common_folder / "objects", "sha1")
    oid = store.write("blob", b"...")
    tree = store.write_tree({"train.py": ("100644", oid)})
    store.sync()                    # what was written since the last time survives a power cut

The format is git's oldest and simplest: `kind size NUL data`, deflated, in a file that is named by
the hash of it (gitrepository-layout(5), "loose objects"). A process of git per object would cost
milliseconds each, and a wait for the disk; several files are synced at the same time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_TREE = "40000"
_SUBMODULE = "160000"
_SYNCED_AT_ONCE = 16  # the disk's journal takes many waiting files in one go


class Objects:
    """The loose objects of one repository. Raises OSError as files do."""

    def __init__(self, folder: Path, algorithm: str) -> None:
        self.folder, self.algorithm = folder, algorithm
        self._unsynced: list[Path] = []
        self._lock = threading.Lock()

    def name(self, kind: str, data: bytes) -> str:
        """The id of an object; nothing is stored."""
        return self._hash(b"%s %d\0" % (kind.encode(), len(data)) + data)

    def write(self, kind: str, data: bytes) -> str:
        """Store an object, unless a loose one is there; its id. `sync` makes it last."""
        whole = b"%s %d\0" % (kind.encode(), len(data)) + data
        oid = self._hash(whole)
        place = self.folder / oid[:2] / oid[2:]
        if not _whole(place):
            self._put(place, zlib.compress(whole, 1))
        return oid

    def write_tree(self, entries: Mapping[str, tuple[str, str]]) -> str:
        """Store the tree of these paths (mode and id of each), and the trees in it; its id."""
        here: list[tuple[bytes, str, str]] = []
        below: dict[str, dict[str, tuple[str, str]]] = {}
        for path, (mode, oid) in entries.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = (mode, oid)
            else:
                here.append((os.fsencode(name), mode, oid))
        for name, inside in below.items():
            here.append((os.fsencode(name), _TREE, self.write_tree(inside)))
        # git sorts a tree's name as if it ended with a slash.
        here.sort(key=lambda item: item[0] + (b"/" if item[1] == _TREE else b""))
        lines = (
            b"%s %s\0" % (mode.encode(), name) + bytes.fromhex(oid) for name, mode, oid in here
        )
        return self.write("tree", b"".join(lines))

    def note(self, path: Path) -> None:
        """Another file that `sync` is to see to, such as a ref."""
        with self._lock:
            self._unsynced.append(path)

    def sync(self) -> None:
        """Return when all that was written is on disk."""
        with self._lock:
            paths, self._unsynced = self._unsynced, []
        if not paths:
            return
        try:
            sync_files(paths)
        except BaseException:
            with self._lock:
                self._unsynced[:0] = paths
            raise

    def _hash(self, whole: bytes) -> str:
        return hashlib.new(self.algorithm, whole, usedforsecurity=False).hexdigest()

    def _put(self, place: Path, data: bytes) -> None:
        """A file of git's kind: written aside, read-only, named in one step."""
        try:
            handle, aside = tempfile.mkstemp(prefix="tmp_obj_", dir=place.parent)
        except FileNotFoundError:
            place.parent.mkdir(exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix="tmp_obj_", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(aside, 0o444)
            os.replace(aside, place)
        except BaseException:
            if os.path.exists(aside):
                os.unlink(aside)
            raise
        self.note(place)


def _whole(place: Path) -> bool:
    """Is there a file with something in it? A power cut can leave one that is empty."""
    try:
        return os.lstat(place).st_size > 0
    except OSError:
        return False


def sync_files(paths: Iterable[Path]) -> None:
    """fsync files, many at the same time; those that are gone by now are no matter."""
    waiting = list(paths)
    if len(waiting) <= 1:
        return _sync(waiting)
    shares = [waiting[first::_SYNCED_AT_ONCE] for first in range(_SYNCED_AT_ONCE)]
    for _ in _threads(os.getpid()).map(_sync, filter(None, shares)):
        pass


@functools.lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Those that wait for the disk, kept; a fork has none of its parent's."""
    return ThreadPoolExecutor(_SYNCED_AT_ONCE, "sync")


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        _sync_file(path)


def _sync_file(path: Path) -> None:
    try:
        # NTFS flushes what was opened for writing alone.
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

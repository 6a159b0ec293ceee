"""The cache folder: where it is, and how files get into it whole or not at all.

    folder = writable_folder(cache_root() / "tokens")
    with atomic_path(folder / "shard.bin") as temporary:
        temporary.write_bytes(data)          # appears under its name only when complete

An operating system that says "no space" or "not permitted" becomes DiskFull or UnwritableCache,
with what to do next. `AUTORESEARCH_CACHE` moves the whole cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from prepare.errors import CorruptFile, DiskFull, UnwritableCache

Event = Callable[[str, dict[str, Any]], None]

CACHE_VARIABLE = "AUTORESEARCH_CACHE"
ELSEWHERE = f"set {CACHE_VARIABLE} to a folder on another disk"

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, *_NO_FOLDER}
A_FILE_THERE = "a file lies where a folder should be"


def cache_root() -> Path:
    """The folder that holds everything downloaded or prepared; not created here."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else Path(platformdirs.user_cache_dir("autoresearch"))


@contextlib.contextmanager
def explained(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn an OSError about `path` into DiskFull or UnwritableCache; others pass.

    elsewhere: what to do where the place can't be mended.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(
                f"no space left on the disk of {path}", f"free some space, or {elsewhere}"
            ) from error
        if error.errno in _NOT_WRITABLE:
            what = A_FILE_THERE if error.errno in _NO_FOLDER else error.strerror
            raise UnwritableCache(
                f"can't write {path}: {what}", f"make it writable, or {elsewhere}"
            ) from error
        raise


def writable_folder(path: Path, elsewhere: str = ELSEWHERE) -> Path:
    """Create `path` and return it. Raises UnwritableCache or DiskFull."""
    with explained(path, elsewhere):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise UnwritableCache(f"can't write {path}", f"make it writable, or {elsewhere}")
    return path


def require_space(folder: Path, n_bytes: int, elsewhere: str = ELSEWHERE) -> None:
    """Raise DiskFull unless `n_bytes` (and 5% beside) are free where `folder` is or will be."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes * 1.05:
        raise DiskFull(
            f"{folder} needs {_size(n_bytes)} and {_size(free)} are free",
            f"free some space, or {elsewhere}",
        )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is synced and renamed to `path` on success."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with explained(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Flush a file's content to disk, so that a rename never exposes an empty file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote. Raises CorruptFile, or FileNotFoundError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptFile(f"{path} is not JSON: {error}", "delete it and prepare again") from error
    if not isinstance(value, dict):
        raise CorruptFile(f"{path} holds no object", "delete it and prepare again")
    return value


def digest(*parts: object) -> str:
    """16 hex digits that name these parts; each part is set off, so ("ab", "c") != ("a", "bc")."""
    text = json.dumps([str(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock between processes; `on_wait` is called once if another holds it.

    The operating system drops the lock when its holder dies, so a killed run blocks nobody.
    """
    writable_folder(path.parent)
    held = filelock.FileLock(str(path))
    with explained(path):
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait is not None:
                on_wait()
            held.acquire()
    try:
        yield
    finally:
        held.release()


def ignore_event(name: str, data: dict[str, Any]) -> None:
    """The listener of those who don't listen."""

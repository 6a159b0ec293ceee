"""How things travel: one line of JSON and the bytes of files after it; nothing is unpickled.

message = pack({"seed": 1}, read_files(folder))
header, files = unpack(message)
write_files(folder, files)
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from prepare.runfiles import clear, create

CHUNK = 32 << 20  # bytes of a large file that travel at once
SMALL = 1 << 20  # a file up to here travels with the message that names it
_SKIPPED = (".git", "__pycache__")
Files = Mapping[str, bytes]  # POSIX paths, relative to a folder


class BadMessage(ValueError):
    """What came isn't what we send: cut short, or a path that leads out of its folder."""


def pack(header: Mapping[str, Any], files: Files) -> bytes:
    """One message."""
    sizes = [[path, len(data)] for path, data in files.items()]
    line = json.dumps({"header": header, "files": sizes})
    return b"\n".join((line.encode(), b"".join(files.values())))


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The inverse of `pack`. Raises BadMessage."""
    line, _, rest = message.partition(b"\n")
    try:
        said = json.loads(line)
        header, sizes = dict(said["header"]), [(str(p), int(size)) for p, size in said["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadMessage(f"no message of ours: {error}") from error
    if sum(size for _, size in sizes) != len(rest):
        raise BadMessage("a message was cut short")
    files, at = {}, 0
    for path, size in sizes:
        files[path] = rest[at : at + size]
        at += size
    return header, files


def plain_files(folder: Path) -> Iterator[tuple[str, int]]:
    """(POSIX path, bytes) of each plain file below a folder, in order; no link is followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            path = Path(place, name)
            about = path.lstat()
            if name not in _SKIPPED and stat.S_ISREG(about.st_mode):
                yield path.relative_to(folder).as_posix(), about.st_size


def read_files(folder: Path, most: int | None = None) -> dict[str, bytes]:
    """Content by path of the plain files below a folder; most: leave out the larger ones."""
    wanted = [path for path, size in plain_files(folder) if most is None or size <= most]
    return {path: (folder / path).read_bytes() for path in wanted}


def write_files(folder: Path, files: Files) -> None:
    """Put files below a folder, each in place of what was there. Raises BadMessage, OSError."""
    for path, data in files.items():
        with create(inside(folder, path)) as file:
            file.write(data)


def append(folder: Path, path: str, offset: int, data: bytes) -> None:
    """Write a piece of a large file; the first one replaces what was there."""
    place = inside(folder, path)
    if offset == 0:
        place.parent.mkdir(parents=True, exist_ok=True)
        clear(place)
    with open(place, "xb" if offset == 0 else "ab") as file:
        file.write(data)


def piece(folder: Path, path: str, offset: int) -> bytes:
    """The next bytes of a large file; b"" at its end."""
    with open(inside(folder, path), "rb") as file:
        file.seek(offset)
        return file.read(CHUNK)


def inside(folder: Path, path: str) -> Path:
    """The place of a relative path. Raises BadMessage where it leads out of the folder."""
    parts = PurePosixPath(path).parts
    bad = not parts or PurePosixPath(path).is_absolute() or ".." in parts
    if bad or "\\" in path or ":" in path:
        raise BadMessage(f"{path!r} is no path inside a folder")
    return folder.joinpath(*parts)

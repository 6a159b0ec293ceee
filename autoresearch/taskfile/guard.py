"""The files that judge: held in memory, laid out afresh for every scoring, watched for tampering.

guard = Guard.of(place, task)
guard.lay_out("scorer", folder)     # this is what runs; what lies on disk is not
with guard.changes.watched():       # which of them change on disk meanwhile
guard.leads_out(output)             # what a runner left for the scorer to follow, or ""
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.engine.errors import TaskError
from autoresearch.taskfile.changes import Changes
from autoresearch.taskfile.files import Place, digest, fingerprint, read_files, write_files
from autoresearch.taskfile.model import TaskFile
from autoresearch.taskfile.watch import Watch

MAX_BYTES = 200_000_000
MOST_LINKS = 40  # on one way, as Linux has it


@dataclass
class Guard:
    """The scorer's files by role ("scorer", "holdout"), as they were when the study was opened.

    Scoring goes on with these, whatever `changes` there are on disk.
    """

    place: Place
    files: dict[str, dict[str, bytes]]
    modes: dict[str, int]
    inputs: Watch
    digests: dict[str, str] = field(default_factory=dict)  # of each role's files, by content
    changes: Changes = field(init=False)  # on disk, of these and the task file
    _prints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changes = Changes(self._look)

    @classmethod
    def of(cls, place: Place, task: TaskFile) -> Guard:
        """Read them. Raises TaskError."""
        judging = place.judging(task)
        files = {role: read_files(place.folder, paths) for role, paths in judging.items()}
        total = sum(len(data) for held in files.values() for data in held.values())
        if total > MAX_BYTES:
            raise TaskError(
                f"the scorer's files have {total / 1e6:,.0f} MB; {MAX_BYTES / 1e6:,.0f} MB are the "
                "most, as they are held in memory",
                "let it read a smaller sample",
            )
        modes = {
            path: 0o555 if (place.folder / path).stat().st_mode & stat.S_IXUSR else 0o444
            for held in files.values()
            for path in held
        }
        guard = cls(place, files, modes, Watch(place.inputs(task)))
        guard._prints = guard._now()
        for role, held in files.items():
            guard.digests[role] = digest({path: guard._prints[path] for path in held})
        return guard

    def lay_out(self, role: str, folder: Path) -> dict[str, str]:
        """Put a role's files into a new folder; their fingerprint, for `intact`."""
        folder.mkdir(parents=True)
        write_files(folder, self.files[role], self.modes)
        return fingerprint(folder, self.files[role])

    def intact(self, prints: dict[str, str], folder: Path) -> bool:
        """Is what was laid out still as it was?"""
        return fingerprint(folder, prints) == prints

    def leads_out(self, output: Path) -> str:
        """What in a runner's folder would lead whoever reads it elsewhere, in words; "" if nothing.

        A link to the scorer's own files, such as `../scorer-0/answers.json` or what lies behind
        /proc/self/cwd, would make the right answers the candidate's. A pipe would never end. Links
        to what no scorer has of its own, such as the system's Python, are as good as files.
        """
        root, task = Path(os.path.realpath(output)), Path(os.path.realpath(self.place.folder))
        for parent, folders, files in os.walk(root):
            for name in (*folders, *files):
                place = Path(parent, name)
                mode = place.lstat().st_mode
                shown = place.relative_to(root)
                if stat.S_ISLNK(mode):
                    if _is_away(list(_way(place)), root, task):
                        return f"{shown} is a link to {os.readlink(place)}"
                elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    return f"{shown} is neither a file nor a folder"
        return ""

    def _look(self) -> list[str]:
        before, self._prints = self._prints, self._now()
        return [path for path, content in self._prints.items() if content != before[path]]

    def _now(self) -> dict[str, str]:
        paths = {path for held in self.files.values() for path in held} | {self.place.file.name}
        return fingerprint(self.place.folder, sorted(paths))


def _is_away(way: list[Path], root: Path, task: Path) -> bool:
    """Does it come by what every process sees as its own, or end in the task, outside of `root`?"""
    if any(_within(at, Path(own)) for at in way for own in ("/proc", "/dev")):
        return True
    return _within(way[-1], task) and not _within(way[-1], root)


def _way(link: Path) -> Iterator[Path]:
    """Every place that following a link comes by, its end last; other links on it are followed."""
    at, left = Path(link.anchor), [*reversed(link.parts[1:])]
    followed = 0
    while left:
        part = left.pop()
        at = at.parent if part == ".." else at / part
        if at.is_symlink() and followed < MOST_LINKS:
            followed += 1
            target = Path(os.readlink(at))
            at = Path(target.anchor) if target.is_absolute() else at.parent
            left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        yield at


def _within(place: Path, folder: Path) -> bool:
    return place == folder or folder in place.parents

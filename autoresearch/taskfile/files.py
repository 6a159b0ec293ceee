"""The task's folder: which files a candidate consists of, and which ones judge it.

    place = Place.of(Path("tasks/speed/task.yaml"))
    place.judging(task)      # the scorer's and the held-out scorer's files: nobody else's
    place.programs(task)     # everything else that git wouldn't ignore: what a mutator sees
    place.inputs(task)       # what stays where it is, ignored by git or not

The task file, program.md, `work/`, environments and what else git ignores belong to neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autoresearch.engine import globs
from autoresearch.engine.errors import Rejected, TaskError
from autoresearch.engine.git import Git
from autoresearch.engine.intake import Found, read_artifact, walk
from autoresearch.study import LEDGER_NAME
from autoresearch.taskfile.inputs import WORK, Inputs
from autoresearch.taskfile.model import Scorer, TaskFile

PROGRAM_NAME = "program.md"
MAX_FILES = 20_000
MAX_BYTES = 500_000_000  # of all files of a task: each trial copies them
# Never copied, ignored by git or not: installed anew from what names their packages.
INSTALLED = (".venv", "node_modules")
_TOO_MUCH = "name it under `inputs`, or let .gitignore name it if no trial needs it"


@dataclass(frozen=True)
class Place:
    """Where a task file lies."""

    file: Path

    @classmethod
    def of(cls, file: Path) -> Place:
        """The place of a task file; links in the way to it are followed."""
        return cls(file.resolve())

    @property
    def folder(self) -> Path:
        """All paths of the task are relative to it."""
        return self.file.parent

    @cached_property
    def work(self) -> Path:
        """Everything of ours: ledger, repository, runs. A folder's second task file has its own."""
        first = self.folder / WORK
        own = first / "tasks" / self.file.name
        other = _task_of(first / LEDGER_NAME)
        taken = other not in ("", self.file.name) and (self.folder / other).is_file()
        return own if taken or own.is_dir() else first

    def inputs(self, task: TaskFile) -> Inputs:
        """What runner and scorer read where it lies. Raises TaskError."""
        try:
            return Inputs.of(self.folder, task)
        except TaskError as error:
            raise TaskError(f"{self.file.name}: {error.message}", error.hint) from error

    def listing(self, task: TaskFile) -> list[str]:
        """Files (POSIX, relative) that git would not ignore, without inputs. Raises TaskError."""
        inputs = self.inputs(task)
        found = []
        for path in sorted(path for path in self._visible() if not self._own(path)):
            held = inputs.holds(path)
            if held and task.artifacts.match(path):
                raise TaskError(
                    f"{self.file.name}: {path} is an artifact, and in the input {held}",
                    f"artifacts: exclude: [{held if held == path else held + '/'}]",
                )
            if not held:
                found.append(path)
        if len(found) > MAX_FILES:
            raise TaskError(
                f"{len(found):,} files in {self.folder}; {MAX_FILES:,} are the most",
                f"put the task into a smaller folder, or of a large one {_TOO_MUCH}",
            )
        for path in found:
            self._refuse_link_out(path)
        return found

    def judging(self, task: TaskFile) -> dict[str, tuple[str, ...]]:
        """The files of `scorer` and of `holdout`. Raises TaskError if one is an artifact too."""
        listing = self.listing(task)
        found = {"scorer": self._files_of(task.scorer, listing)}
        if task.holdout is not None:
            found["holdout"] = self._files_of(task.holdout, listing)
        for role, paths in found.items():
            for path in paths:
                if task.artifacts.match(path):
                    raise TaskError(
                        f"{self.file.name}: {path} is an artifact and the {role}'s: what is judged "
                        "can't judge",
                        f"artifacts: exclude: [{path}]",
                    )
        return found

    def programs(self, task: TaskFile) -> tuple[str, ...]:
        """The files of a candidate: artifacts, and what stands beside them. Raises TaskError."""
        hidden = {path for paths in self.judging(task).values() for path in paths}
        found = tuple(path for path in self.listing(task) if path not in hidden)
        if not any(task.artifacts.match(path) for path in found):
            named = ", ".join(task.artifacts.include)
            if not task.mutation.allow_new_files:
                raise TaskError(
                    f"{self.file.name}: artifacts: no file here is {named}",
                    "globs are relative to the task file; git must not ignore the files",
                )
        total = sum((self.folder / path).lstat().st_size for path in found)
        if total > MAX_BYTES:
            raise TaskError(
                f"the files in {self.folder} have {total / 1e6:,.0f} MB; "
                f"{MAX_BYTES / 1e6:,.0f} MB are the most, as each trial copies them; the largest "
                f"is {max(found, key=lambda path: (self.folder / path).lstat().st_size)}",
                _TOO_MUCH,
            )
        return found

    def _visible(self) -> list[str]:
        git = Git(self.folder)
        if git.maybe("rev-parse", "--is-inside-work-tree") == "true":
            options = ["-z", "--cached", "--others", "--exclude-standard"]
            listed = set(git("ls-files", *options).split("\0")) - {""}
            # Also listed: what is removed but still in the index, and repositories inside.
            return [p for p in listed if _is_file_or_link(self.folder / p)]
        try:
            return [found.path for found in walk(self.folder)]
        except Rejected as error:
            raise TaskError(f"{self.folder}: {error.message}", "mend or remove it") from error

    def _own(self, path: str) -> bool:
        parts = path.split("/")
        reserved = any(part.casefold() in globs.RESERVED_NAMES for part in parts)
        reserved |= any(part in INSTALLED for part in parts)
        compiled = any(part in globs.LEFTOVERS for part in parts) or path.endswith((".pyc", ".pyo"))
        ours = parts[0] == WORK or path in (self.file.name, PROGRAM_NAME)
        return reserved or compiled or ours

    def _refuse_link_out(self, path: str) -> None:
        place = self.folder / path
        if not place.is_symlink():
            return
        target = os.readlink(place)
        inside = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if os.path.isabs(target) or inside.split(os.sep)[0] == "..":
            raise TaskError(
                f"{path} is a link out of the task's folder, to {target}",
                "put the file itself there, or let .gitignore name the link",
            )

    def _files_of(self, scorer: Scorer, listing: Iterable[str]) -> tuple[str, ...]:
        """What its globs match, and what its command names."""
        listing = list(listing)
        named = {re.sub(r"^(\./)+", "", word.partition("=")[2] or word) for word in scorer.command}
        for pattern in scorer.files:
            if not any(globs.matches(path, (pattern,), ()) for path in listing):
                raise TaskError(
                    f"{self.file.name}: files: nothing here is {pattern}",
                    "globs are relative to the task file; `rubric/` means all in that folder",
                )
        found = [path for path in listing if path in named or globs.matches(path, scorer.files, ())]
        for path in found:
            if (self.folder / path).is_symlink():
                raise TaskError(f"{path} is a link; a scorer's file is a plain file", "copy it")
        return tuple(found)


def _task_of(ledger: Path) -> str:
    """The name of the task file whose records these are; "" where nothing was recorded yet."""
    if not ledger.is_file():
        return ""
    with ledger.open("rb") as lines:
        headers = [line for line in lines if b'"kind":"study"' in line]
    try:
        return Path(str(json.loads(headers[-1])["file"])).name
    except (IndexError, KeyError, TypeError, ValueError):
        return ""  # whoever reads it as a ledger says what is wrong with it


def _is_file_or_link(place: Path) -> bool:
    return place.is_symlink() or place.is_file()


def read_files(folder: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """The bytes of plain files by path. Raises TaskError."""
    try:
        return {
            path: read_artifact(folder, Found(path, (folder / path).lstat()), MAX_BYTES)
            for path in paths
        }
    except Rejected as error:
        raise TaskError(f"{folder}: {error.message}", "it must be a plain file") from error
    except OSError as error:
        raise TaskError(f"{error.filename}: {error.strerror}", "it must be a file") from error


def write_files(folder: Path, files: Mapping[str, bytes], modes: Mapping[str, int]) -> None:
    """Write files below a folder, making folders as needed."""
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(modes.get(path, 0o644))


def fingerprint(folder: Path, paths: Iterable[str] | None = None) -> dict[str, str]:
    """What lies at each path (all below `folder` unless given, git's own left out), by content."""
    if paths is None:
        paths = sorted(found.path for found in walk(folder))
    return {path: _content(folder / path) for path in paths}


def digest(prints: Mapping[str, str]) -> str:
    """One SHA-256 for a fingerprint."""
    text = "\n".join(f"{path}\0{content}" for path, content in sorted(prints.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _content(place: Path) -> str:
    try:
        status = place.lstat()
        if stat.S_ISLNK(status.st_mode):
            return "link " + os.readlink(place)
        if not stat.S_ISREG(status.st_mode):
            return "special"
        hashed = hashlib.sha256(place.read_bytes()).hexdigest()
    except OSError as error:
        return f"missing {error.errno}"
    return f"{status.st_mode & stat.S_IXUSR:o} {hashed}"

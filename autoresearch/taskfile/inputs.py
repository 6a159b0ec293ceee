"""Inputs: data sets, checkpoints, an environment; read where they lie, copied by nobody.

    inputs = Inputs.of(folder, task)          # raises TaskError
    granted = inputs.link("runner", run)      # links at the same places below a run's folder
    inputs.unlink(run)

A program sees them through links, and its jail lets it read what these lead to. No mutator sees
them. What a scorer calls its own, in an input of all too, is seen by no other program: the folder
around it is then made anew of links to what else is in it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.engine import globs
from autoresearch.engine.errors import EngineError, TaskError
from autoresearch.taskfile.environments import base_python, editable
from autoresearch.taskfile.model import Program, Scorer, TaskFile

RUNNER = "runner"  # a role; the others are "scorer" and "holdout"
WORK = "work"
MOST_LINKS = 20_000


class InTheWay(EngineError):
    """A candidate has something at the place of an input."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of one task; paths are POSIX and relative, none lies in another of its group."""

    folder: Path
    shared: tuple[str, ...] = ()  # every program's
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by role: its alone

    @classmethod
    def of(cls, folder: Path, task: TaskFile) -> Inputs:
        """Find what the task names. Raises TaskError: nothing there, a link, not theirs to name."""
        shared = _find(folder, task.inputs, "inputs")
        scorers = {"scorer": task.scorer, "holdout": task.holdout}
        ran = _words(task.runner)
        own = {
            role: _outermost(
                {
                    *_find(folder, scorer.inputs, f"{role}: inputs"),
                    *(_words(scorer, folder, shared) - ran),
                }
            )
            for role, scorer in scorers.items()
            if scorer is not None
        }
        found = cls(folder, shared, {role: paths for role, paths in own.items() if paths})
        found._refuse_editable(task)
        return found

    @property
    def roots(self) -> tuple[str, ...]:
        """All of them, the outermost."""
        return _outermost({*self.shared, *(p for paths in self.own.values() for p in paths)})

    def holds(self, path: str) -> str:
        """The input that a path is, or lies in; "" if none."""
        return next((root for root in self.roots if _within(path, root)), "")

    def view(self, role: str) -> tuple[str, ...]:
        """What a program sees: inputs, split around what is another's alone."""
        mine = self.own.get(role, ())
        others = {p for name, paths in self.own.items() if name != role for p in paths}
        hidden = others - set(mine)
        return _outermost({*(p for s in self.shared for p in self._split(s, hidden)), *mine})

    def link(self, role: str, run: Path) -> list[Path]:
        """Lay a program's inputs into its folder; what the jail must let it read.

        Raises InTheWay if something is there already, OSError where links can't be made.
        """
        view = self.view(role)
        for path in self._links(view):
            place, original = run / path, self.folder / path
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(original, target_is_directory=original.is_dir())
            except (FileExistsError, NotADirectoryError) as error:
                raise InTheWay(f"something lies at {path}, where an input does") from error
        originals = [self.folder / path for path in view]
        return [place for each in originals for place in (each, *base_python(each))]

    def unlink(self, run: Path) -> None:
        """Take the links away that are still there, as far as what ran in there lets us."""
        for path in self.roots:
            with contextlib.suppress(OSError):
                _unlink(run / path, self.folder / path)

    def refused(self, said: str) -> str:
        """The input that a failed program tried to write, by what Python printed; "" if none."""
        for found in re.findall(r"\[Errno (?:13|30)\] [^:\n]+: '([^'\n]+)'", said):
            for path in self.roots:
                if f"/{path}/" in f"/{found}/":
                    return path
        return ""

    # -- inside ----------------------------------------------------------------------------------

    def _split(self, path: str, hidden: set[str]) -> Iterator[str]:
        if path in hidden:
            return
        if any(_within(inner, path) for inner in hidden):
            for name in sorted(os.listdir(self.folder / path)):
                yield from self._split(f"{path}/{name}", hidden)
        else:
            yield path

    def _links(self, view: Iterable[str]) -> Iterator[str]:
        """An input is one link. Of one that was split each file is, up to MOST_LINKS: few programs
        that walk through folders go through links below the first."""
        split = [path for path in view if path not in (*self.shared, *self.roots)]
        for path in view:
            if path not in split or not (self.folder / path).is_dir():
                yield path
                continue
            files = list(itertools.islice(_files(self.folder, path), MOST_LINKS + 1))
            yield from files if len(files) <= MOST_LINKS else [path]

    def _refuse_editable(self, task: TaskFile) -> None:
        """An environment that imports the user's own files would never run a candidate's."""
        if task.runner is None or "PYTHONPATH" in task.runner.env:
            return
        for path in self.view(RUNNER):
            package = editable(self.folder / path, self.folder)
            if package:
                raise TaskError(
                    f"{path} has {package} of this folder installed as editable: a run would "
                    "import your own files in place of the candidate's",
                    f"runner: env: {{PYTHONPATH: {package}}}",
                )


def _find(folder: Path, patterns: Iterable[str], key: str) -> tuple[str, ...]:
    """The outermost files and folders that globs match. Raises TaskError."""
    found: set[str] = set()
    for pattern in patterns:
        paths = list(_expand(folder, pattern.removesuffix("/**")))
        if not paths:
            raise TaskError(
                f"{key}: nothing here is {pattern.removesuffix('**')}",
                "globs are relative to the task file; `data/` means all in that folder",
            )
        for path in paths:
            _refuse(folder, path, key)
        found.update(paths)
    return _outermost(found)


def _expand(folder: Path, pattern: str) -> Iterator[str]:
    if not re.search(r"[*?\[]", pattern):
        if os.path.lexists(folder / pattern):
            yield pattern
        return
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for name in sorted(os.listdir(folder / prefix)):
            path = prefix + name
            if path == WORK:
                continue
            if globs.matches(path, (pattern,), ()):
                yield path
            elif _is_folder(folder / path) and globs.may_hold(path, (pattern,)):
                waiting.append(f"{path}/")


def _refuse(folder: Path, path: str, key: str) -> None:
    if _within(path, WORK):
        raise TaskError(f"{key}: {path} holds the records of the task", "name another folder")
    place = folder
    for part in path.split("/"):
        place = place / part
        if place.is_symlink():
            target = Path(os.path.realpath(place))
            link = place.relative_to(folder).as_posix()
            if _within(str(target), str(folder)):
                raise TaskError(f"{key}: {link} is a link", f"name what it leads to: {target}")
            raise TaskError(
                f"{key}: {link} is a link out of the task's folder, to {os.readlink(place)}",
                "put the data itself there, or mount it there (Linux: mount --bind)",
            )
    if not place.is_dir() and not place.is_file():
        raise TaskError(f"{key}: {path} is neither a file nor a folder", "leave it out")


def _words(
    program: Program | Scorer | None, folder: Path | None = None, shared: Iterable[str] = ()
) -> set[str]:
    """Paths that a command names behind its program; with `shared`, those that lie in one."""
    words = () if program is None else program.command[1:]
    named = {re.sub(r"^(\./)+", "", w.partition("=")[2] or w).rstrip("/") for w in words}
    if folder is None:
        return named
    return {
        path
        for path in named
        if any(path != root and _within(path, root) for root in shared)
        and os.path.exists(folder / path)
    }


def _files(folder: Path, path: str) -> Iterator[str]:
    """The files and links below a folder; of an empty folder itself."""
    names = sorted(os.listdir(folder / path))
    for name in names:
        inner = f"{path}/{name}"
        if _is_folder(folder / inner):
            yield from _files(folder, inner)
        else:
            yield inner
    if not names:
        yield path


def _unlink(place: Path, original: Path) -> None:
    """Remove links to the original, also those in folders that stand for its folders."""
    if place.is_symlink():
        if os.readlink(place) == str(original):
            place.unlink()
    elif place.is_dir():
        for name in os.listdir(place):
            _unlink(place / name, original / name)


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Sorted, without those that lie in another."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda p: (p.count("/"), p)):
        if not any(_within(path, other) for other in kept):
            kept.append(path)
    return tuple(sorted(kept))

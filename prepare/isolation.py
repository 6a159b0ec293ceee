"""What a candidate process may reach, and the sandbox that sees to it.

The tiers themselves come from outside (`autoresearch.engine.sandbox`): here is what the harness
asks of one, and what is left without any.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prepare.cache import cache_root
from prepare.settings import Settings

PACKAGES = ("backends", "prepare")
# In a candidate's folder, and none of its business: other trials, their weights and scores.
HIDDEN_NAMES = ("runs", "results.jsonl", "results.tsv")
# Whatever the tier.
NEVER_STOPPED = (
    "training on, from tokens kept in the weights, before the first answer: for as long as its own "
    "build and warm-up took (90 s at least where models are compiled) and 20 s (a twentieth of the "
    "training, if that is more)",
    "answers that depend on the future too rarely for the probes to meet: what that can earn was "
    "measured, 0.01 bits per byte at one hard token in 64",
)


class Command(Protocol):
    """A command line and its environment."""

    @property
    def argv(self) -> list[str]: ...

    @property
    def env(self) -> dict[str, str]: ...


class Sandbox(Protocol):
    """One isolation tier. `strict` ones hold native code too."""

    @property
    def name(self) -> str: ...

    @property
    def strict(self) -> bool: ...

    def wrap(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        readable: Sequence[Path],
        writable: Sequence[Path],
        listable: Sequence[Path],
        loopback: bool = False,
    ) -> Command:
        """The command that runs `argv` with these paths, what the system needs, and no network.

        loopback: its processes may speak to each other over one that nobody else is on.
        """

    def loopback_problem(self) -> str:
        """Why `loopback` can't be had; "" if it can."""

    def started(self, pid: int) -> None:
        """Called when the process runs and has not been spoken to yet."""

    def exit_status(self, code: int) -> int:
        """The candidate's exit status, negative for a signal, from that of the command."""

    def does_not_stop(self) -> tuple[str, ...]:
        """What a candidate in it can still do, in words."""


@dataclass(frozen=True)
class PlainCommand:
    """A command as it was asked for."""

    argv: list[str]
    env: dict[str, str]


class Unconfined:
    """No sandbox: the tier `process` without its limits."""

    name = "process"
    strict = False

    def wrap(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        readable: Sequence[Path],
        writable: Sequence[Path],
        listable: Sequence[Path],
        loopback: bool = False,
    ) -> PlainCommand:
        return PlainCommand(list(argv), dict(env))

    def loopback_problem(self) -> str:
        return ""

    def started(self, pid: int) -> None:
        return

    def exit_status(self, code: int) -> int:
        return code

    def does_not_stop(self) -> tuple[str, ...]:
        return (
            "native code (ctypes, a compiled extension, a program it starts) that reads any file "
            "this user can read, the validation text and earlier weights among them",
            "native code that opens a socket, or inspects, stops or kills processes of this user",
            "native code that leaves the second scoring process a note of what the first was asked",
            "what raises no event in Python: named semaphores, stat() on files",
            "Python code that takes the audit hook's own state apart before it acts",
            "while it trains: writing outside the run folder, and reading what an earlier trial "
            "left there; both are reported",
            "processes that leave their group and outlive the trial",
        )


@dataclass(frozen=True)
class Access:
    """What one candidate's processes may reach beside the system and Python.

    warm_from: train modules whose compiled kernels may be begun with, see `prepare.compiled`.
    readable: files and folders with all that is in them. listable: folders whose names may be
    seen. hidden: what an honest candidate has no reason to open; where paths of both lie in each
    other, the inner one counts.
    """

    sandbox: Sandbox
    readable: tuple[Path, ...] = ()
    listable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    warm_from: tuple[Path, ...] = ()


def text_folders(settings: Settings) -> tuple[Path, ...]:
    """Where the text lies outside the cache: a corpus that was named by its path."""
    path = Path(settings.corpus).expanduser()
    return (path.resolve(),) if len(path.parts) > 1 and path.exists() else ()


def access_for(
    script: Path,
    sandbox: Sandbox | None,
    data: Sequence[Path] = (),
    warm_from: Path | None = None,
) -> Access:
    """What the candidate in `script` (absolute) needs.

    Args:
        data: the text's own places outside the cache, to be hidden. warm_from: a train module
            that the caller vouches for.
    """
    packages = Path(__file__).resolve().parents[1]
    folder = script.parent
    hidden = [cache_root().resolve(), *(path.resolve() for path in data)]
    readable = [packages / name for name in PACKAGES]
    readable += [cache_root() / "probes", *_inherited_paths(packages, hidden)]
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in HIDDEN_NAMES:
            hidden.append(entry)
        elif not _holds_any(entry, hidden) and not _lies_in_any(entry, hidden[1:]):
            readable.append(entry)
    hidden += [packages / ".git", *_repositories(folder)]
    return Access(
        sandbox or Unconfined(),
        tuple(readable),
        (packages, folder),
        tuple(dict.fromkeys(hidden)),
        (script,) if warm_from is None else (script, warm_from),
    )


def _repositories(folder: Path) -> list[Path]:
    """git's folders above `folder`, a worktree's too, and the records beside them."""
    found: list[Path] = []
    for place in (folder, *folder.parents):
        git = place / ".git"
        if not git.exists():
            continue
        found += [git, *(place / name for name in (*HIDDEN_NAMES, ".autoresearch"))]
        if git.is_file():
            named = git.read_text(encoding="utf-8", errors="replace").partition("gitdir:")[2]
            own = (place / named.strip()).resolve()
            # <repository>/.git/worktrees/<name>
            found += [own, *(own.parents[1:2] if own.parent.name == "worktrees" else ())]
    return found


def _inherited_paths(packages: Path, hidden: Sequence[Path]) -> list[Path]:
    """Folders of PYTHONPATH: the candidate may import from them too."""
    named = [Path(name) for name in os.environ.get("PYTHONPATH", "").split(os.pathsep) if name]
    wide = (packages, *packages.parents, Path.home())
    return [p for p in named if p.is_absolute() and p not in wide and not _holds_any(p, hidden)]


def _holds_any(folder: Path, paths: Sequence[Path]) -> bool:
    resolved = folder.resolve()
    return any(path == resolved or resolved in path.parents for path in paths)


def _lies_in_any(path: Path, folders: Sequence[Path]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)

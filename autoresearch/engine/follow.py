"""When the study's branch moves while somebody has it checked out: their files follow, if safe.

Only files that the move changes are looked at. If each of them, in the index and on disk, is as
before the move (or already as after it), the move is carried out there, as `git merge --ff-only`
would; otherwise nothing is touched and the reason is returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from autoresearch.engine.errors import GitFailed
from autoresearch.engine.git import Entry, Git
from autoresearch.engine.git_servers import locks_nothing

_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
LOCK_AGE = 2.0  # seconds; git holds its locks for milliseconds


@dataclass(frozen=True)
class Move:
    """One move of the branch, written down before it is made: checkout, old and new commit."""

    place: str
    old: str
    new: str

    def save(self, path: Path) -> None:
        """Write down, whole or not at all."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> Move | None:
        """The move that was begun, or None."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def obstacle(git: Git, place: Path, old: str, new: str) -> str:
    """Why the checkout at `place` can't follow from `old` to `new`; "" if it can."""
    if not place.is_dir():
        return f"{place} is not there"
    own = Path(git("rev-parse", "--absolute-git-dir", folder=place).rstrip("\n"))
    busy = [name for name in _UNDER_WAY if (own / name).exists()]
    if busy:
        return f"{place}: {busy[0]} says that a merge or rebase is under way"
    before, after = git.tree(old), git.tree(new)
    paths = _differing(before, after)
    staged = _staged(git, place, paths)
    for path in paths:
        oids = {_oid(before.get(path)), _oid(after.get(path))}
        if staged.get(path) not in oids:
            return f"{path} has staged changes"
        if on_disk(git, place, path, oids) not in oids:
            return f"{path} has uncommitted changes"
    return ""


def follow(git: Git, place: Path, old: str, new: str) -> str:
    """Let the checkout at `place` follow from `old` to `new`; "" or why it was left alone."""
    return obstacle(git, place, old, new) or carry_out(git, place, old, new)


def carry_out(git: Git, place: Path, old: str, new: str) -> str:
    """The same where no obstacle was found a moment ago; git itself overwrites no edit either."""
    before, after = git.tree(old), git.tree(new)
    done = []
    for path in _differing(before, after):
        entry = after.get(path)
        if on_disk(git, place, path, {_oid(before.get(path)), _oid(entry)}) == _oid(entry):
            zero = "0" * len(new)
            done.append(f"{entry.mode} {entry.oid}\t{path}" if entry else f"0 {zero}\t{path}")
    try:
        if done:
            data = b"".join(os.fsencode(line) + b"\0" for line in done)
            git("update-index", "-z", "--index-info", data=data, folder=place)
        # Exit code 1 only says that some file differs from the index; read-tree looks itself.
        with contextlib.suppress(GitFailed):
            git("update-index", "-q", "--refresh", folder=place)
        git("read-tree", "-m", "-u", old, new, folder=place)
    except GitFailed as error:
        return error.message
    return ""


def wait_or_clear(lock: Path) -> bool:
    """Wait until a lock is gone, or remove it once no living git could hold it. True: removed.

    Called only for locks of ours, when no other process of ours can be at work.
    """
    deadline = time.monotonic() + 2 * LOCK_AGE
    while True:
        try:
            born = lock.lstat().st_mtime
        except FileNotFoundError:
            return False
        # A clock set back makes the age negative: then only our own waiting counts.
        if time.time() - born > LOCK_AGE or time.monotonic() > deadline:
            lock.unlink(missing_ok=True)
            return True
        time.sleep(0.05)


def git_at_work(place: Path) -> bool:
    """Does some git process run in this checkout? Processes that can't be seen don't count."""
    for process in psutil.process_iter(["name"]):
        if "git" not in (process.info["name"] or ""):
            continue
        try:
            inside = Path(process.cwd()).is_relative_to(place)
            if inside and not locks_nothing(process.cmdline()):
                return True
        except (psutil.Error, OSError):
            continue
    return False


def _differing(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    return [p for p in sorted({*before, *after}) if _entry(before.get(p)) != _entry(after.get(p))]


def _entry(entry: Entry | None) -> tuple[str, str] | None:
    return None if entry is None else (entry.mode, entry.oid)


def _oid(entry: Entry | None) -> str | None:
    return None if entry is None else entry.oid


def _staged(git: Git, place: Path, paths: Sequence[str]) -> dict[str, str]:
    """Ids of paths in the index, by path; "unmerged" for those in conflict."""
    found: dict[str, str] = {}
    # Nothing to name would mean every path.
    lines = git("ls-files", "-s", "-z", "--", *paths, folder=place).split("\0") if paths else []
    for line in filter(None, lines):
        head, _, path = line.partition("\t")
        found[path] = "unmerged" if path in found else head.split()[1]
    return found


def on_disk(git: Git, place: Path, path: str, known: Collection[str | None] = ()) -> str | None:
    """Id that a file would be stored under; "other" for what is no file, None for nothing.

    Where its bytes as they are have an id among the `known`, that is taken for it.
    """
    file = place / path
    if not os.path.lexists(file):
        return None
    if file.is_symlink() or not file.is_file():
        return "other"
    data = file.read_bytes()
    plain = git.blob_id(data)
    if plain in known:
        return plain
    return git("hash-object", "--stdin", f"--path={path}", data=data, folder=place).strip()

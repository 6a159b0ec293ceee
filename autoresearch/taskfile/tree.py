"""The user's own files follow the champion: on a keep, artifacts alone, never over their edits.

    tree = MainTree(place, task, git)
    tree.recover()              # after a kill: finish what was begun
    tree.refuse_edits()         # before a study goes on
    tree.follow(commit)         # "" or why it was left alone

`work/tree.json` says which commit the files are those of, and during a move which they are to be.
The new files are laid out in `work/` first; exchange.py, a process that outlives us, then renames
them into place one right after the other. So a kill leaves all old or all new. What takes every
process down at once, such as a power cut, can leave some old and some new: whoever opens the study
next finishes that, from the note and the repository alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from autoresearch.engine.errors import TaskError, UncommittedChanges, WorkspaceError
from autoresearch.engine.gather import EXECUTABLE, PLAIN
from autoresearch.engine.git import Entry, Git
from autoresearch.engine.ledger import sync_folder
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.model import TaskFile
from autoresearch.taskfile.repository import blob_id

NOTE_NAME = "tree.json"
FRESH_NAME = "tree.new"  # folder of files that are about to be put in place
EXCHANGE = Path(__file__).with_name("exchange.py")
_NOTHING, _OTHER = "nothing", "other"


@dataclass(frozen=True)
class MainTree:
    """The artifacts in the task's own folder."""

    place: Place
    task: TaskFile
    git: Git

    def begin(self, commit: str) -> None:
        """The files are those of `commit`: it was just made of them."""
        if not self._note_file.exists():
            self._note(commit)

    def refuse_edits(self) -> None:
        """Raises UncommittedChanges if artifacts here differ from the champion's."""
        commit, _ = self._noted()
        known = self._artifacts(commit)
        here = {path for path in self.place.listing(self.task) if self.task.artifacts.match(path)}
        edited = [p for p in sorted({*known, *here}) if self._on_disk(p) != _oid(known.get(p))]
        if edited:
            raise UncommittedChanges(
                f"edited since the champion was put here: {', '.join(edited)}",
                f"to begin anew from your edit: mv {self.place.work} {self.place.work}.old; to "
                "drop it: put the champion's files back (`autoresearch export` writes them)",
            )

    def follow(self, commit: str) -> str:
        """Exchange the artifacts that differ; "" or why they were left as they are.

        All or none: one file that the user edited meanwhile keeps the others where they are too.
        """
        now, _ = self._noted()
        if now == commit:
            return ""
        old, new = self._artifacts(now), self._artifacts(commit)
        paths = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
        for path in paths:
            if self._on_disk(path) not in (_oid(old.get(path)), _oid(new.get(path))):
                return f"{path} was edited meanwhile"
        left = [path for path in paths if self._on_disk(path) != _oid(new.get(path))]
        shutil.rmtree(self.place.work / FRESH_NAME, ignore_errors=True)
        self._note(now, to=commit)
        self._exchange([(self._laid_out(path, new.get(path)), path) for path in left])
        self._note(commit)
        return ""

    def recover(self) -> str:
        """Finish a move that a kill interrupted; "" or why it can't be."""
        _, to = self._noted()
        return self.follow(to) if to else ""

    # -- inside ----------------------------------------------------------------------------------

    def _laid_out(self, path: str, entry: Entry | None) -> Path | None:
        """A new file's bytes and mode, ready to be moved; None for one that goes."""
        if entry is None:
            return None
        place = self.place.folder / path
        mode = place.stat().st_mode if place.exists() else None
        # Beside the records, not beside the file: a kill must leave nothing in the user's folder.
        fresh = self.place.work / FRESH_NAME / path
        fresh.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(self.git.blob(entry.oid))
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            fresh.chmod(mode & 0o7777)
        elif entry.mode == EXECUTABLE:
            fresh.chmod(0o755)
        return fresh

    def _exchange(self, moves: list[tuple[Path | None, str]]) -> None:
        """Put files in place, all of them even if we are killed. Raises WorkspaceError."""
        orders = [[fresh and str(fresh), str(self.place.folder / path)] for fresh, path in moves]
        process = subprocess.Popen(  # not `run`, which kills it at Ctrl-C
            [sys.executable, "-I", "-S", str(EXCHANGE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",  # what is sent to our group isn't meant for it
        )
        _, errors = process.communicate(json.dumps(orders).encode())
        if process.returncode:
            said = errors.decode(errors="replace").strip() or f"status {process.returncode}"
            raise WorkspaceError(
                f"can't put the champion's files into {self.place.folder}: {said}",
                "make them writable, close what holds them open, and start again: it goes on there",
            )
        for folder in {(self.place.folder / path).parent for _, path in moves}:
            sync_folder(folder)
        shutil.rmtree(self.place.work / FRESH_NAME, ignore_errors=True)

    def _artifacts(self, commit: str) -> dict[str, Entry]:
        """What a commit has of them."""
        return {
            path: entry
            for path, entry in self.git.tree(commit).items()
            if self.task.artifacts.match(path) and entry.mode in (PLAIN, EXECUTABLE)
        }

    def _on_disk(self, path: str) -> str:
        """git's id of what lies there."""
        place = self.place.folder / path
        if not os.path.lexists(place):
            return _NOTHING
        if place.is_symlink() or not place.is_file():
            return _OTHER
        return blob_id(place.read_bytes())

    @property
    def _note_file(self) -> Path:
        return self.place.work / NOTE_NAME

    def _noted(self) -> tuple[str, str]:
        """(the commit that the files are of, the one they are to be of or "")."""
        try:
            found = json.loads(self._note_file.read_text(encoding="utf-8"))
            return str(found["commit"]), str(found.get("to", ""))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f"can't read {self._note_file}: {error}",
                f"to begin anew from the files as they are: mv {self.place.work} "
                f"{self.place.work}.old",
            ) from error

    def _note(self, commit: str, to: str = "") -> None:
        text = json.dumps({"commit": commit, **({"to": to} if to else {})})
        fresh = self._note_file.with_name(f"{NOTE_NAME}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._note_file)
        sync_folder(self._note_file.parent)


def _oid(entry: Entry | None) -> str:
    return _NOTHING if entry is None else entry.oid

"""The private repository beside the task: the candidate's files, without those that judge.

    repository = Repository(place)
    repository.begin(paths)             # made if it is missing
    repository.bring_support(task, paths, tag)

It lies in `work/repository` and has no files checked out. The user's own repository, if there is
one, is neither used nor touched. Bytes are kept as they are, whatever git settings say.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from autoresearch.engine.errors import TaskError, WorkspaceError
from autoresearch.engine.gather import EXECUTABLE, LINK, PLAIN
from autoresearch.engine.git import Entry, Git, open_repository
from autoresearch.engine.workspace import Workspace
from autoresearch.taskfile.files import Place, read_files
from autoresearch.taskfile.model import TaskFile

FOLDER_NAME = "repository"
BRANCH = "begin"


class Repository:
    """`work/repository` of one task."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.root = place.work / FOLDER_NAME

    @property
    def exists(self) -> bool:
        """Was it made before?"""
        return self.root.is_dir()

    def begin(self, paths: Iterable[str]) -> None:
        """Make it with these files as its first commit, whole or not at all."""
        if self.exists:
            return
        make_work_folder(self._place.work)
        fresh = self.root.with_name(f"{FOLDER_NAME}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        git = Git(fresh)
        git("init", "--quiet", "--object-format=sha1", f"--initial-branch={BRANCH}")
        nothing = git("mktree", data=b"").strip()
        root = git("commit-tree", nothing, "-m", "Nothing", environment=git.identity()).strip()
        tree = git.write_tree(root, self._entries(git, paths))
        first = git.write_commit(tree, root, f"{self._place.file.name} as it was found\n")
        git("update-ref", f"refs/heads/{BRANCH}", first, environment=git.identity())
        os.replace(fresh, self.root)

    def bring_support(self, task: TaskFile, paths: Iterable[str], workspace: Workspace) -> bool:
        """Put files that stand beside the artifacts on the branch, where they changed since.

        Artifacts are left as the champion has them. True if anything was new.
        """
        git = open_repository(self.root)
        head = workspace.champion_commit
        old = {path: e for path, e in git.tree(head).items() if not task.artifacts.match(path)}
        support = [path for path in paths if not task.artifacts.match(path)]
        new = self._entries(git, support, old)
        entries: dict[str, Entry | None] = {
            path: entry for path, entry in new.items() if not _same(old.get(path), entry)
        }
        entries |= {path: None for path in old if path not in new}
        if not entries:
            return False
        tree = git.write_tree(head, entries)
        workspace.advance(git.write_commit(tree, head, "Files beside the artifacts changed\n"))
        return True

    def support_digest(self, task: TaskFile, commit: str) -> str:
        """Names all that a candidate consists of beside its artifacts."""
        tree = open_repository(self.root).tree(commit)
        rows = [f"{e.mode} {e.oid} {p}" for p, e in tree.items() if not task.artifacts.match(p)]
        return hashlib.sha256(os.fsencode("\n".join(sorted(rows)))).hexdigest()

    def _entries(
        self, git: Git, paths: Iterable[str], known: Mapping[str, Entry] | None = None
    ) -> dict[str, Entry]:
        """What a tree says of files; those that `known` hasn't already are stored."""
        entries: dict[str, Entry] = {}
        stored = {entry.oid for entry in (known or {}).values()}
        folder = self._place.folder
        for path in paths:
            place = folder / path
            if place.is_symlink():
                mode, data = LINK, os.fsencode(os.readlink(place))
            else:
                data = read_files(folder, [path])[path]
                executable = place.stat().st_mode & stat.S_IXUSR and os.name != "nt"
                mode = EXECUTABLE if executable else PLAIN
            oid = blob_id(data)
            there = oid if oid in stored else git.write_blob(data)
            entries[path] = Entry(mode, there, len(data))
        return entries


def make_work_folder(work: Path) -> None:
    """`work/`, which git overlooks. Raises TaskError, WorkspaceError."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        ignore = work / ".gitignore"
        if not ignore.exists():
            if any(work.iterdir()):
                raise TaskError(
                    f"{work} holds files that aren't ours",
                    "move them: that folder takes the records of a task",
                )
            ignore.write_text("*\n", encoding="utf-8")
    except FileExistsError as error:
        raise TaskError(f"{work} is a file", "move it: that folder takes the records") from error
    except OSError as error:
        raise WorkspaceError(
            f"can't write in {work}: {error.strerror or error}",
            "free some disk, and make the folder writable",
        ) from error


def blob_id(data: bytes) -> str:
    """git's id of bytes, in a repository made here."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _same(old: Entry | None, new: Entry) -> bool:
    return old is not None and (old.mode, old.oid) == (new.mode, new.oid)

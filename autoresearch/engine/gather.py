"""From a folder that was edited to a Change: what differs from a commit, judged file by file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.engine import intake
from autoresearch.engine.change import Change, FileChange, Outside
from autoresearch.engine.errors import GitFailed, Rejected
from autoresearch.engine.git import AS_STORED, Entry, Git
from autoresearch.engine.normalise import digest
from autoresearch.engine.task import Task
from autoresearch.engine.trial import DiffStat

LINK, SUBMODULE, EXECUTABLE, PLAIN = "120000", "160000", "100755", "100644"
_MAX_OUTSIDE = 1_000  # entries listed; an agent may unpack an archive


@dataclass
class _Taken:
    """What was found so far."""

    contents: dict[str, bytes] = field(default_factory=dict)  # every artifact, after the edit
    outside: list[Outside] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


class Gatherer:
    """Takes edits back into one repository. Raises Rejected; see `intake` for the rules."""

    def __init__(self, git: Git, scratch: Path) -> None:
        self._git = git
        self._scratch = scratch
        self._digests: dict[tuple[str, str], str] = {}
        self._shown: dict[tuple[str, str], bytes | None] = {}  # of the latest base alone
        self._modes = git.maybe("config", "--type=bool", "core.fileMode") != "false"

    def from_folder(self, folder: Path, base: str, task: Task) -> Change:
        """Everything in `folder` against the commit `base`."""
        tree = self._git.tree(base)
        folded = {path.casefold(): path for path in tree}
        taken = _Taken()
        for found in intake.walk(folder):
            self._take(folder, found, tree, folded, base, task, taken)
        for path, entry in tree.items():
            if path not in taken.seen:
                self._missing(path, entry, task, taken)
        return self._change(base, tree, task, taken)

    def from_checkout(self, root: Path, base: str, task: Task) -> Change:
        """The user's own checkout of `base`; what git ignores there is not looked at."""
        tree = self._git.tree(base)
        folded = {path.casefold(): path for path in tree}
        taken = _Taken()
        status = ["--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all"]
        out = self._git("status", *status, "--no-renames", folder=root)
        differing = {line[3:]: line[:2] for line in out.split("\0") if line}
        for path in sorted({*tree, *differing}):
            place = root / path
            if task.artifacts.match(path):
                if os.path.lexists(place) and not place.is_dir():
                    found = intake.Found(path, place.lstat())
                    self._take(root, found, tree, folded, base, task, taken, own=True)
                elif path in tree:
                    self._missing(path, tree[path], task, taken)
            elif path in differing:
                how = "new" if path not in tree else "changed" if place.exists() else "gone"
                taken.outside.append(Outside(path, how))
        return self._change(base, tree, task, taken)

    def seen_from(self, change: Change, base: str, task: Task) -> Change:
        """The same program as an edit of another commit: what its artifacts changed since then."""
        taken = _Taken(outside=list(change.outside))
        for path, entry in self._git.tree(change.tree).items():
            if task.artifacts.match(path) and entry.mode in (PLAIN, EXECUTABLE):
                taken.contents[path] = self._git.blob(entry.oid)
        return self._change(base, self._git.tree(base), task, taken)

    def from_artifacts(self, files: Mapping[str, bytes], base: str, task: Task) -> Change:
        """The edit of a commit after which its artifacts are these."""
        return self._change(base, self._git.tree(base), task, _Taken(contents=dict(files)))

    def artifacts(self, commit: str, task: Task) -> dict[str, bytes]:
        """The artifacts of a commit, as stored, by path."""
        return {
            path: self._git.blob(entry.oid)
            for path, entry in self._git.tree(commit).items()
            if task.artifacts.match(path) and entry.mode in (PLAIN, EXECUTABLE)
        }

    def meaning(self, commit: str, task: Task) -> dict[str, str]:
        """Digest of each artifact of a commit, by path."""
        return {
            path: self._digest(path, entry.oid)
            for path, entry in self._git.tree(commit).items()
            if task.artifacts.match(path) and entry.mode in (PLAIN, EXECUTABLE)
        }

    # -- one path --------------------------------------------------------------------------------

    def _take(
        self,
        folder: Path,
        found: intake.Found,
        tree: Mapping[str, Entry],
        folded: dict[str, str],
        base: str,
        task: Task,
        taken: _Taken,
        own: bool = False,
    ) -> None:
        """Look at one thing that is there. `own`: it lies in the user's checkout."""
        path = found.path
        entry = tree.get(path)
        taken.seen.add(path)
        if found.is_link:
            taken.links.append(path)
        if not task.artifacts.match(path):
            same = entry is not None and self._same(folder, found, entry, base)
            intake.refuse_steering(path, same)
            if found.is_link and not same and task.artifacts.may_hold(path):
                raise Rejected("symlink", f"{path} is a link where artifacts belong")
            if not same:
                taken.outside.append(Outside(path, "changed" if entry else "new"))
            return
        if entry is not None and entry.mode == LINK and self._same(folder, found, entry, base):
            return
        executable = entry.mode == EXECUTABLE if entry and self._modes else None
        intake.refuse_kind(found, executable)
        if entry is None:
            intake.refuse_name(path, folded)
            folded[path.casefold()] = path
        limit = max(task.mutation.max_bytes, entry.size if entry else 0)
        data = intake.read_artifact(folder, found, limit)
        taken.contents[path] = self._as_stored(folder, found, entry, base, data, own)

    def _missing(self, path: str, entry: Entry, task: Task, taken: _Taken) -> None:
        """A path of the commit that isn't there."""
        behind = [link for link in taken.links if path.startswith(link + "/")]
        if task.artifacts.match(path) and behind:
            raise Rejected("symlink", f"{path} lies behind {behind[0]}, which is now a link")
        if task.artifacts.match(path) or entry.mode == SUBMODULE:
            return
        intake.refuse_steering(path, False)
        taken.outside.append(Outside(path, "gone"))

    def _same(self, folder: Path, found: intake.Found, entry: Entry, base: str) -> bool:
        """Is this what a checkout of the commit puts there?"""
        if entry.mode == LINK:
            if not found.is_link:
                return False
            target = os.fsencode(os.readlink(folder / found.path))
            return target == self._git.blob(entry.oid)
        if entry.mode == SUBMODULE or not found.is_file or found.is_link:
            return False
        same_size = found.status.st_size == entry.size
        if same_size and intake.file_id(folder, found, self._git.algorithm) == entry.oid:
            return True
        shown = self._filtered(base, found.path)
        if shown is None or len(shown) != found.status.st_size:
            return False
        return shown == intake.read_artifact(folder, found, len(shown))

    def _as_stored(
        self,
        folder: Path,
        found: intake.Found,
        entry: Entry | None,
        base: str,
        data: bytes,
        own: bool,
    ) -> bytes:
        """Bytes as git keeps them: the commit's own if nothing but a filter stands between."""
        path = found.path
        if own:
            # The user's settings made this file; they turn it back.
            oid = self._git("hash-object", "-w", "--stdin", f"--path={path}", data=data).strip()
            data = self._git.blob(oid)
        if own or entry is None or self._git.blob_id(data) == entry.oid:
            return data
        old = self._git.blob(entry.oid)
        if data == self._filtered(base, path):
            return old
        # An editor of another system may have ended every line its own way.
        return data if b"\r" in old else data.replace(b"\r\n", b"\n")

    def _filtered(self, base: str, path: str) -> bytes | None:
        """What a checkout shows of a file; None if a filter fails."""
        key = (base, path)
        if key not in self._shown:
            self._shown = {old: data for old, data in self._shown.items() if old[0] == base}
            try:
                shown = self._git.run("cat-file", "--filters", f"{base}:{path}", config=AS_STORED)
            except GitFailed:
                shown = None
            self._shown[key] = shown
        return self._shown[key]

    # -- all together ----------------------------------------------------------------------------

    def _change(self, base: str, tree: Mapping[str, Entry], task: Task, taken: _Taken) -> Change:
        files: list[FileChange] = []
        entries: dict[str, Entry | None] = {}
        meaning, base_meaning = {}, {}
        for path, entry in tree.items():
            if not task.artifacts.match(path) or entry.mode not in (PLAIN, EXECUTABLE):
                continue
            base_meaning[path] = self._digest(path, entry.oid)
            if path not in taken.contents:
                files.append(FileChange(path, self._git.blob(entry.oid), None))
                entries[path] = None
        for path, data in taken.contents.items():
            before = tree.get(path)
            oid = self._git.blob_id(data)
            meaning[path] = self._digest(path, oid, data)
            if before is not None and before.oid == oid:
                continue
            self._git.write_blob(data)
            files.append(FileChange(path, self._git.blob(before.oid) if before else None, data))
            entries[path] = Entry(before.mode if before else PLAIN, oid, len(data))
        files.sort(key=lambda file: file.path)
        if entries:
            new_tree = self._git.write_tree(base, entries)
            diff, stat = self._diff(base, new_tree)
        else:
            new_tree = self._git("rev-parse", f"{base}^{{tree}}").strip()
            diff, stat = "", DiffStat()
        taken.outside.sort(key=lambda item: item.path)
        return Change(
            base=base,
            tree=new_tree,
            files=tuple(files),
            outside=tuple(taken.outside[:_MAX_OUTSIDE]),
            diff=diff,
            stat=stat,
            bytes=sum(len(file.new or b"") for file in files),
            meaning=meaning,
            base_meaning=base_meaning,
        )

    def _digest(self, path: str, oid: str, data: bytes | None = None) -> str:
        key = (path, oid)
        if key not in self._digests:
            self._digests[key] = digest(path, self._git.blob(oid) if data is None else data)
        return self._digests[key]

    def _diff(self, base: str, tree: str) -> tuple[str, DiffStat]:
        plain = ["-r", "--text", "--no-renames", "--no-ext-diff", "--no-textconv"]
        out = self._git.diff(base, tree, ["--numstat", "-p", *plain])
        # One line per file (odd names are quoted), an empty line, the patch.
        numbers, _, text = out.partition(b"\n\n")
        added = removed = files = 0
        for line in filter(None, numbers.split(b"\n")):
            plus, minus, _ = line.split(b"\t", 2)
            files += 1
            added += int(plus) if plus.isdigit() else 0
            removed += int(minus) if minus.isdigit() else 0
        return text.decode("utf-8", "replace"), DiffStat(files, added, removed)

"""Did an input change? Told from size, time and inode of each file; small ones by content as well.

watch = Watch(inputs)
with watch.changes.watched():   # which of them change meanwhile
watch.digest("scorer")          # names all that the runner and this role see
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autoresearch.engine.globs import LEFTOVERS
from autoresearch.taskfile.changes import Changes
from autoresearch.taskfile.inputs import RUNNER, Inputs

SMALL = 1_000_000  # bytes: up to here a file's content counts, above its time and inode
Facts = tuple[int, int, int, int]  # mode, size, time, inode


@dataclass
class Watch:
    """What the inputs were when last looked at."""

    inputs: Inputs
    changes: Changes = field(init=False)
    _facts: dict[str, Facts] = field(init=False)
    _contents: dict[str, str] = field(init=False, default_factory=dict)
    _digests: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.changes = Changes(self._changed)
        self._facts = dict(self._look())
        self._contents = {path: self._content(path) for path in self._facts}

    def digest(self, role: str) -> str:
        """SHA-256 of what runner and `role` see; "" where they have no inputs."""
        roots = {*self.inputs.view(RUNNER), *self.inputs.view(role)}
        if not roots:
            return ""
        with self.changes.lock:
            if role not in self._digests:
                self._digests[role] = self._sum(roots)
            return self._digests[role]

    def summary(self) -> dict[str, Any]:
        """For the records: each input with its files, bytes and digest."""
        found = {}
        for root in self.inputs.roots:
            sizes = [f[1] for p, f in self._facts.items() if p == root or p.startswith(f"{root}/")]
            found[root] = {"files": len(sizes), "bytes": sum(sizes), "digest": self._sum({root})}
        return found

    # -- inside ----------------------------------------------------------------------------------

    def _changed(self) -> list[str]:
        """Which files changed, came or went since the last look."""
        now = dict(self._look())
        differ = [p for p in {*now, *self._facts} if now.get(p) != self._facts.get(p)]
        self._facts = now
        changed = []
        for path in sorted(differ):
            content = self._content(path) if path in now else ""
            if content != self._contents.pop(path, ""):
                changed.append(path)
            if content:
                self._contents[path] = content
        if changed:
            self._digests.clear()
        return changed

    def _sum(self, roots: set[str]) -> str:
        prefixes = tuple(f"{root}/" for root in roots)
        total = hashlib.sha256()
        for path in sorted(self._contents):
            if path in roots or path.startswith(prefixes):
                row = f"{path}\0{self._contents[path]}\n"
                total.update(row.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def _content(self, path: str) -> str:
        """What stands for a file in digests."""
        mode, size, time, inode = self._facts[path]
        place = self.inputs.folder / path
        try:
            if stat.S_ISLNK(mode):
                return "link " + os.readlink(place)
            if stat.S_ISREG(mode) and size <= SMALL:
                return hashlib.sha256(place.read_bytes()).hexdigest()
        except OSError as error:
            return f"unreadable {error.errno}"
        return f"{mode:o} {size} {time} {inode}"

    def _look(self) -> Iterator[tuple[str, Facts]]:
        """Every file by path. What Python compiled says nothing."""
        waiting = list(self.inputs.roots)
        while waiting:
            path = waiting.pop()
            place = self.inputs.folder / path
            try:
                facts = place.lstat()
                if stat.S_ISDIR(facts.st_mode):
                    names = [name for name in os.listdir(place) if name not in LEFTOVERS]
                    waiting += [f"{path}/{name}" for name in names]
                    continue
            except OSError:
                continue  # gone, or not to be read: neither can a program
            if not path.endswith((".pyc", ".pyo")):
                yield path, (facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ino)

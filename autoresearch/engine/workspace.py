"""The workspace's git: a branch of champions, a scratch folder per trial, nothing else touched.

    workspace = Workspace.open(root, "mar5", create=True)
    folder = workspace.scratch(7)                   # the champion, for the proposer to edit
    change = workspace.collect(folder, task)        # only artifacts come back; raises Rejected
    program = workspace.program(change, 7)          # a clean folder with that change: run this one
    commit = workspace.commit(change, message, 7)   # stored, no branch moved
    ...the ledger's line is written...
    workspace.advance(commit)                       # the branch moves; again is harmless
    workspace.drop(folder)

Champions are on `refs/heads/autoresearch/TAG`. Every commit made for a trial, kept or not, stays
reachable as `refs/autoresearch/TAG/ID`. The user's index, files, HEAD and other branches are left
alone, but for one thing: a clean checkout of the study's own branch follows it. A scratch folder
has a small repository of its own: what is done with git in it ends there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import filelock

from autoresearch.engine import follow, scratches
from autoresearch.engine.change import Change, state_hash, with_trailer
from autoresearch.engine.errors import ChampionMoved, UncommittedChanges, WorkspaceError
from autoresearch.engine.gather import Gatherer
from autoresearch.engine.git import Entry, Git, open_repository, temporary_index
from autoresearch.engine.study import Advance, Kept, Recovery, Study
from autoresearch.engine.task import Task

__all__ = ["Advance", "Kept", "Recovery", "Workspace"]

OWN_FOLDER = ".autoresearch"
# Ours, and nothing to commit: git is told to overlook them.
IGNORED = (f"/{OWN_FOLDER}/", "/results.jsonl*", "/results.tsv*")
_LOCK_TIMEOUT = 120.0  # seconds; a commit is kept in far less
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


class Workspace(Study):
    """One study in one repository. Open it with `Workspace.open`."""

    def __init__(self, root: Path, tag: str, git: Git) -> None:
        super().__init__(git, tag)
        self.root = root
        self._work = root / OWN_FOLDER / "work"
        self._temporary = self._work / f"{tag}@tmp"
        self._marker = self._common / f"autoresearch-{tag}.move"
        # In the shared folder: two worktrees of one repository have the branch in common.
        self._lock = filelock.FileLock(
            str(self._common / "autoresearch.lock"), timeout=_LOCK_TIMEOUT, thread_local=False
        )
        self._mutex = threading.RLock()  # the file lock is one for all threads of a process
        self._out: set[Path] = set()  # folders that were made and not dropped
        self._seals: dict[Path, scratches.Seal] = {}
        self._gatherer = Gatherer(git, self._temporary)

    @classmethod
    def open(cls, root: Path, tag: str, create: bool = False) -> Workspace:
        """The study `tag` in the repository whose top is `root`.

        With `create` a missing branch begins at the commit that is checked out. Raises
        NoRepository, MissingGit, WorkspaceError for a bad tag or a missing branch.
        """
        if not _TAG.fullmatch(tag) or tag.endswith(".lock"):
            raise WorkspaceError(
                f"{tag!r} can't name a study", "use letters, digits, - and _, for example mar5"
            )
        root = root.resolve()
        self = cls(root, tag, open_repository(root))
        self._prepare_folder()
        if self._git.commit_of(self._ref) is None:
            if not create:
                raise WorkspaceError(
                    f"there is no study {tag!r} here (no branch {self.branch})",
                    f"begin it with `autoresearch run --tag {tag}`",
                )
            self._create()
        elif create and self._git.commit_of(f"{self._own_refs}/start") is None:
            # Someone made the branch by hand, or fetched it alone: begin where it is, unless the
            # ledger tells `recover` where that was.
            self._update_ref(f"{self._own_refs}/start", self.champion_commit, None)
        return self

    # -- the user's checkout ---------------------------------------------------------------------

    def meaning(self, commit: str, task: Task) -> dict[str, str]:
        """What each artifact of a commit says; `change.state_hash` of it is a trial's diff hash."""
        return self._gatherer.meaning(commit, task)

    def artifacts(self, commit: str, task: Task) -> dict[str, bytes]:
        """A commit's artifacts as stored, by path."""
        return self._gatherer.artifacts(commit, task)

    def seen_from(self, change: Change, base: str, task: Task) -> Change:
        """The same program as an edit of the commit `base`, which is where it was begun."""
        return self._gatherer.seen_from(change, base, task)

    def edit(self, files: Mapping[str, bytes], base: str, task: Task) -> Change:
        """The edit of the commit `base` that makes these its artifacts."""
        return self._gatherer.from_artifacts(files, base, task)

    def merge(self, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        """`ours` with the edit that led from `base` to `theirs`; None where the two conflict."""
        return self._git.merge(base, ours, theirs, self._temporary)

    def champion_hash(self, task: Task) -> str:
        """What `diff_hash` would say of an edit that leads to the champion."""
        return state_hash(self.meaning(self.champion_commit, task))

    def refuse_uncommitted(self, task: Task) -> None:
        """Raises UncommittedChanges if artifacts in the user's checkout aren't committed."""
        options = ["--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all"]
        lines = self._git("status", *options, "--no-renames").split("\0")
        dirty = sorted({line[3:] for line in lines if line and task.artifacts.match(line[3:])})
        if dirty:
            raise UncommittedChanges(
                f"not committed in {self.root}: {', '.join(dirty)}",
                "the trials start from commits and would not see this work: "
                "`git commit` it, or put it aside with `git stash -u`",
            )

    # -- scratch folders -------------------------------------------------------------------------

    def scratch(
        self, trial_id: int, name: str = "", commit: str = "", repository: bool = True
    ) -> Path:
        """The champion's files under `.autoresearch/work`, with a repository of their own.

        That one knows the champions so far, and nothing of the user's; without `repository` there
        is none, for an editor that doesn't look. `name` tells several of one trial apart; one of
        the same name is replaced. commit: an earlier champion's, for its files.
        """
        if not repository:
            base = commit or self.champion_commit
            folder = self.program(base, trial_id, name)
            self._seals[folder] = scratches.Seal.of(self._common, base)
            return folder
        lineage = self._lineage()
        if commit:
            lineage = replace(lineage, commit=commit)
        with self._folder(trial_id, name) as folder:
            scratches.make(self._git, folder, lineage, self._file_system)
            self._seals[folder] = scratches.Seal.of(self._common, lineage.commit)
        return folder

    def program(self, source: Change | str, trial_id: int, name: str = "program") -> Path:
        """A commit's files, or those of a change's commit with its artifacts, and nothing else.

        What a proposer left beside the artifacts (a `sitecustomize.py`, a poisoned `__pycache__`)
        isn't in it, nor any git: run this one, not the scratch.
        """
        tree = source if isinstance(source, str) else source.tree
        with self._folder(trial_id, name) as folder:
            if not scratches.fill_plainly(self._git, folder, tree):
                with temporary_index(self._temporary) as index:
                    scratches.fill(self._git, folder, tree, Path(index["GIT_INDEX_FILE"]))
        return folder

    def place(self, scratch: Path, files: Mapping[str, bytes], task: Task) -> None:
        """Make these the artifacts of a scratch folder that was just made; others are removed."""
        gone = dict.fromkeys(self.artifacts(self._seals[scratch].base, task))
        scratches.write(scratch, {**gone, **files})

    def collect(self, scratch: Path, task: Task) -> Change:
        """Take the artifacts back; everything else that differs is listed. Raises Rejected."""
        seal = self._seals.get(scratch)
        if seal is None:
            raise WorkspaceError(f"{scratch} is not a scratch folder that was made here")
        seal.refuse_tampering()
        head = self.champion_commit
        if seal.base != head and not self._git.is_ancestor(seal.base, head):
            raise self._moved(seal.base)
        return self._gatherer.from_folder(scratch, seal.base, task)

    def collect_checkout(self, task: Task) -> Change:
        """The edit in the user's own working tree, which must be on the study's branch."""
        if self._git.maybe("symbolic-ref", "--quiet", "HEAD") != self._ref:
            raise WorkspaceError(
                f"{self.branch} is not checked out", f"`git switch {self.branch}` first"
            )
        return self._gatherer.from_checkout(self.root, self.champion_commit, task)

    def revert_checkout(self, change: Change) -> tuple[str, ...]:
        """Put a change's files in the user's working tree back; returns paths left as they are.

        A file that was edited on since is left alone. Commit the change first: then it isn't lost.
        """
        left = []
        for file in change.files:
            tree = self._git.tree(change.tree)
            edited = tree[file.path].oid if file.path in tree else None
            if follow.on_disk(self._git, self.root, file.path) != edited:
                left.append(file.path)
            elif file.old is None:
                (self.root / file.path).unlink(missing_ok=True)
                self._git("rm", "--cached", "--quiet", "--ignore-unmatch", "--", file.path)
            else:
                self._git("checkout", "--quiet", change.base, "--", file.path)
        return tuple(left)

    def drop(self, scratch: Path) -> None:
        """Remove a scratch folder, whatever is in it. Harmless if it is gone."""
        scratches.remove(scratch)
        self._out.discard(scratch)
        self._seals.pop(scratch, None)

    def drop_all(self) -> None:
        """Remove the scratch folders that are still out, as after an interrupt."""
        for scratch in list(self._out):
            self.drop(scratch)

    # -- lasting ---------------------------------------------------------------------------------

    def group(self, grouped: bool) -> None:
        """Whether commits last from the next `sync` on, which waits for the disk once for many."""
        self._git.grouped = grouped
        if not grouped:
            self.sync()

    def sync(self) -> None:
        """Return when the commits that were stored would survive a power cut."""
        with self._mutex:
            self._move_refs()
        self._git.sync()

    # -- champions -------------------------------------------------------------------------------

    def commit(self, change: Change, message: str, trial_id: int, when: str | None = None) -> str:
        """Store a change as a commit on top of the champion; the branch stays where it is.

        The same change, message and trial again give the same commit. Raises ChampionMoved if
        artifacts changed on the branch since the change was begun.
        """
        message = with_trailer(message, "Trial", str(trial_id))
        ref = f"{self._own_refs}/{trial_id}"
        with self._locked():
            head, stored = self.champion_commit, self.trial_commit(trial_id)
            tree = change.tree if head == change.base else self._onto(change, head)
            if stored and self._describes(stored) == (f"{tree} {head}", message.strip()):
                return stored
            made = self._git.write_commit(tree, head, message, when)
            self._update_ref(ref, made, stored)
            return made

    def store(self, change: Change, message: str, trial_id: int) -> str:
        """Store a change as a commit on what it was made on, which need not be the champion.

        It is the trial's commit from then on, in place of what was stored for it before.
        """
        message = with_trailer(message, "Trial", str(trial_id))
        ref = f"{self._own_refs}/{trial_id}"
        with self._locked():
            made = self._git.write_commit(change.tree, change.base, message)
            self._update_ref(ref, made, None, force=True)
            return made

    def advance(self, commit: str) -> Advance:
        """Make a commit the champion. Again is harmless. Raises ChampionMoved if it doesn't fit."""
        with self._locked():
            head = self.champion_commit
            self.sync()
            if self._git.commit_of(f"{commit}^") != head:
                if self._git.is_ancestor(commit, head):
                    return Advance(commit, False, False, self._finish_move())
                raise self._moved(commit)
            place, reason = self._checkout_of_branch(head, commit)
            if place is not None and not reason:
                follow.Move(str(place), head, commit).save(self._marker)
            self._update_ref(self._ref, commit, head)
            if place is not None and not reason:
                reason = follow.carry_out(self._git, place, head, commit)
                self._marker.unlink(missing_ok=True)
            return Advance(commit, True, place is not None and not reason, reason)

    def keep(self, change: Change, message: str, trial_id: int, when: str | None = None) -> str:
        """`commit` and `advance` in one; a trial that is kept already gives its commit."""
        with self._locked():
            there = self.kept(trial_id)
            if there is None:
                there = self.commit(change, message, trial_id, when)
            self.advance(there)
            return there

    def restore(self, commit: str, task: Task, message: str) -> str:
        """Bring the artifacts of an earlier commit back, as a new commit on the branch (undo)."""
        with self._locked():
            head = self.champion_commit
            old, new = self._git.tree(head), self._git.tree(commit)
            paths = {path for path in (*old, *new) if task.artifacts.match(path)}
            entries = {path: new.get(path) for path in paths if old.get(path) != new.get(path)}
            if not entries:
                return head
            tree = self._git.write_tree(head, entries)
            made = self._git.write_commit(tree, head, with_trailer(message, "Restores", commit))
            self.advance(made)
            return made

    def recover(
        self,
        known: Mapping[int, str] | None = None,
        champion: str | None = None,
        start: str | None = None,
    ) -> Recovery:
        """After a kill: finish or drop what was half done. Only while no other process works here.

        `known` are the ledger's trials and their commits ("" for none): commits of other trials are
        forgotten, refs that somebody deleted are made again. `champion` is the commit of its last
        kept trial: if git wasn't told any more, it is now. `start` is the commit that was measured
        first. Raises ChampionMoved if the champion doesn't fit, or is gone.
        """
        with self._locked():
            removed = scratches.remove_left_over(self._work, f"{self.tag}@")
            removed += [str(lock) for lock in self._lock_files() if follow.wait_or_clear(lock)]
            self._out.clear()
            self._seals.clear()
            left_alone = self._finish_move(after_kill=True)
            forgotten = self._forget_unknown(known) if known is not None else []
            remade, lost = self._remake({t: c for t, c in (known or {}).items() if c}, start)
            advance = None
            if champion and not self._git.is_ancestor(champion, self.champion_commit):
                if not self._git.existing([champion]):
                    raise ChampionMoved(
                        f"the champion's commit {champion[:10]} is gone from the repository",
                        "fetch it from another clone or a backup, or begin another study: "
                        "--tag NAME",
                    )
                advance = self.advance(champion)
            return Recovery(
                tuple(removed), tuple(forgotten), tuple(remade), tuple(lost), advance, left_alone
            )

    # -- inside ----------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time among all processes on this repository; reentrant."""
        try:
            with self._mutex, self._lock:
                yield
        except filelock.Timeout as error:
            raise WorkspaceError(
                f"another process has worked in {self._common} for {_LOCK_TIMEOUT:.0f} s",
                "see which autoresearch processes are running, and stop the one that hangs",
            ) from error

    def _prepare_folder(self) -> None:
        """`.autoresearch/work`, and git told to overlook what is ours."""
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            exclude = self._common / "info" / "exclude"
            text = exclude.read_text(encoding="utf-8") if exclude.exists() else ""
            missing = [line for line in IGNORED if line not in text.splitlines()]
            if missing:
                exclude.parent.mkdir(exist_ok=True)
                glue = "" if not text or text.endswith("\n") else "\n"
                lines = "\n".join(missing)
                # Appended: a kill or a full disk amid rewriting it would lose the user's own lines.
                with exclude.open("a", encoding="utf-8") as file:
                    file.write(f"{glue}{lines}\n")
        except OSError as error:
            raise WorkspaceError(
                f"can't write in {self.root}: {error.strerror or error}",
                "free some disk, and make the folder writable",
            ) from error

    def _create(self) -> None:
        head = self._git("rev-parse", "HEAD").strip()
        with self._locked():
            if self._git.commit_of(self._ref) is None:
                self._update_ref(f"{self._own_refs}/start", head, None, force=True)
                self._update_ref(self._ref, head, None)

    @contextmanager
    def _folder(self, trial_id: int, name: str) -> Iterator[Path]:
        """An empty folder under `.autoresearch/work`, gone again if it can't be filled."""
        if not re.fullmatch(r"[A-Za-z0-9_-]*", name):
            raise WorkspaceError(f"{name!r} can't name a scratch folder")
        folder = self._work / "-".join(filter(None, (f"{self.tag}@{trial_id}", name)))
        self.drop(folder)
        self._out.add(folder)
        try:
            folder.mkdir()
            yield folder
        except BaseException:  # a full disk, Ctrl-C
            self.drop(folder)
            raise

    @cached_property
    def _file_system(self) -> str:
        return scratches.file_system(self._git)

    def _onto(self, change: Change, head: str) -> str:
        """The change's files on a later commit, if no artifact differs there."""
        if not self._git.is_ancestor(change.base, head):
            raise self._moved(change.base)
        out = self._git("diff-tree", "-r", "-z", "--name-only", "--no-renames", change.base, head)
        ours = {*change.meaning, *change.base_meaning}
        if ours & set(out.split("\0")):
            raise self._moved(change.base)
        tree = self._git.tree(change.tree)
        entries: dict[str, Entry | None] = {f.path: tree.get(f.path) for f in change.files}
        return self._git.write_tree(head, entries)

    def _describes(self, commit: str) -> tuple[str, str]:
        """("tree parents", message) of a commit."""
        tree, parents, message = self._git.described(commit)
        return f"{tree} {parents}", message.strip()

    def _checkout_of_branch(self, old: str, new: str) -> tuple[Path | None, str]:
        """Where the branch is checked out, and why that checkout can't follow, or ""."""
        for place, ref in self._git.checkouts().items():
            if ref == self._ref:
                return place, follow.obstacle(self._git, place, old, new)
        return None, ""

    def _finish_move(self, after_kill: bool = False) -> str:
        """Let the checkout follow a move that was begun; why it was left alone, or ""."""
        move = follow.Move.load(self._marker)
        if move is None:
            self._marker.unlink(missing_ok=True)
            return ""
        place = Path(move.place)
        reason = ""
        if self._git.checkouts().get(place) == self._ref and self.champion_commit == move.new:
            if after_kill and not follow.git_at_work(place):
                own = self._git("rev-parse", "--absolute-git-dir", folder=place).rstrip("\n")
                follow.wait_or_clear(Path(own) / "index.lock")
            reason = follow.follow(self._git, place, move.old, move.new)
        self._marker.unlink(missing_ok=True)
        return reason

"""The refs of one study: where its champions are, and moving them safely.

Champions are on `refs/heads/autoresearch/TAG`, first parents in order, each with a trailer
`Trial: ID`. Commits of all trials are `refs/autoresearch/TAG/ID`, the study's beginning is
`refs/autoresearch/TAG/start`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch.engine import follow
from autoresearch.engine.errors import ChampionMoved, GitFailed
from autoresearch.engine.git import ZERO, Git
from autoresearch.engine.scratches import Lineage

_UPDATE_TRIES = 3


@dataclass(frozen=True)
class Kept:
    """One champion: the trial that made it, its commit, and the first line of its message."""

    trial_id: int
    commit: str
    subject: str


@dataclass(frozen=True)
class Advance:
    """What moving the branch did. `left_alone`: why a checkout of it didn't follow, if so."""

    commit: str
    moved: bool
    followed: bool = False
    left_alone: str = ""


@dataclass(frozen=True)
class Recovery:
    """What a restart found half done and did about it; all empty after an orderly end."""

    removed: tuple[str, ...] = ()  # left-over scratch folders, lock files, temporary indexes
    forgotten: tuple[str, ...] = ()  # refs of trials that the ledger doesn't know
    remade: tuple[str, ...] = ()  # refs that the ledger's commits lacked
    lost: tuple[int, ...] = ()  # trials whose commits the repository hasn't any more
    advance: Advance | None = None  # the champion that the ledger had and git hadn't
    left_alone: str = ""


class Study:
    """The refs of study `tag`."""

    def __init__(self, git: Git, tag: str) -> None:
        self.tag = tag
        self.branch = f"autoresearch/{tag}"
        self._ref = f"refs/heads/{self.branch}"
        self._own_refs = f"refs/autoresearch/{tag}"
        self._git = git
        self._common = git.common_folder()
        self._moves: dict[str, tuple[str, str | None]] = {}  # of trials' refs: to what, from what

    @property
    def champion_commit(self) -> str:
        """Where the branch is. Raises ChampionMoved if it is gone."""
        found = self._git.commit_of(self._ref)
        if found is None:
            raise ChampionMoved(
                f"the branch {self.branch} is gone",
                f"make it again with `git branch {self.branch} COMMIT`; the ledger has the commit",
            )
        return found

    def _lineage(self) -> Lineage:
        """From the study's beginning to the champion. Raises ChampionMoved."""
        return Lineage(self.start_commit, self.champion_commit, self.branch)

    @property
    def start_commit(self) -> str:
        """The commit that the study began at."""
        return self._git.commit_of(f"{self._own_refs}/start") or self.champion_commit

    def history(self, start: str = "") -> list[Kept]:
        """The champions since the study began (at the commit `start`, if given), oldest first."""
        form = "%H%x00%s%x00%(trailers:key=Trial,valueonly,separator=%x2C)"
        span = [f"--format={form}", "--first-parent", "--reverse"]
        out = self._git("log", *span, f"{start or self.start_commit}..{self.champion_commit}")
        kept = []
        for line in filter(None, out.split("\n")):
            commit, subject, trial = line.split("\0")
            if trial.strip().isdigit():
                kept.append(Kept(int(trial), commit, subject))
        return kept

    def kept(self, trial_id: int) -> str | None:
        """The commit on the branch that trial `trial_id` made, or None."""
        return next((k.commit for k in self.history() if k.trial_id == trial_id), None)

    def trial_commit(self, trial_id: int) -> str | None:
        """The commit that was made for a trial, kept or not, or None."""
        ref = f"{self._own_refs}/{trial_id}"
        return self._moves[ref][0] if ref in self._moves else self._git.commit_of(ref)

    def lost(self, commits: Mapping[int, str]) -> list[int]:
        """Those of these trials whose commits the repository hasn't any more."""
        there = self._git.existing(commits.values())
        return sorted(trial_id for trial_id, commit in commits.items() if commit not in there)

    def trial_commits(self) -> dict[int, str]:
        """The commits that were made for trials, kept or not, by the trials' ids."""
        self._move_refs()
        form = "--format=%(refname) %(objectname)"
        lines = self._git("for-each-ref", form, self._own_refs + "/").splitlines()
        named = [(ref.rsplit("/", 1)[1], commit) for ref, commit in map(str.split, lines)]
        return {int(name): commit for name, commit in named if name.isdigit()}

    def diff(self, older: str, newer: str) -> str:
        """Unified diff between two commits."""
        options = ["-r", "-p", "--text", "--no-ext-diff", "--no-textconv", "--no-renames"]
        return self._git.run("diff-tree", *options, older, newer).decode("utf-8", "replace")

    def read(self, commit: str, path: str) -> bytes:
        """A file as a commit has it. Raises GitFailed if it has none."""
        return self._git.run("cat-file", "blob", f"{commit}:{path}")

    def parent(self, commit: str) -> str:
        """The commit that a trial's commit was made on. Raises GitFailed if it has none."""
        return self._git("rev-parse", "--verify", f"{commit}^").strip()

    def _update_ref(self, ref: str, new: str, old: str | None, force: bool = False) -> None:
        """Move a ref from `old` (None: it doesn't exist). A lock in the way is waited for.

        Where git's work is grouped, those of trials move together, by `_move_refs`.
        """
        expected = None if force else old or "0" * len(new)
        if not ref.startswith(f"{self._own_refs}/"):  # the branch moves by a git of its own
            return self._move_ref(ref, new, expected)
        if ref in self._moves:
            expected = self._moves[ref][1]
        self._moves[ref] = new, expected
        if not self._git.grouped:
            self._move_refs()
            self._git.sync()

    def _move_refs(self) -> None:
        """Move the refs that are to move."""
        if self._moves and self._git.move_quickly(self._moves):
            self._moves.clear()
        for ref, (new, expected) in list(self._moves.items()):
            self._moves.pop(ref)
            self._move_ref(ref, new, expected)

    def _move_ref(self, ref: str, new: str, expected: str | None) -> None:
        """Move one ref, in a process that says why if it can't. Raises GitFailed."""
        reason = ["-m", "autoresearch"]
        for attempt in range(_UPDATE_TRIES):
            try:
                identity = self._git.identity()  # for the reflog
                steps = [ref, new, *filter(None, [expected])]
                self._git("update-ref", *reason, *steps, environment=identity)
                return
            except GitFailed:
                lock = self._common / f"{ref}.lock"
                if attempt == _UPDATE_TRIES - 1 or not lock.exists():
                    raise
                follow.wait_or_clear(lock)

    def _lock_files(self) -> list[Path]:
        """Locks that a killed git may have left on our own refs."""
        found = [self._common / f"{self._ref}.lock"]
        found += sorted((self._common / self._own_refs).glob("*.lock"))
        return [lock for lock in found if os.path.lexists(lock)]

    def _forget_unknown(self, known: Collection[int]) -> list[str]:
        """Drop the refs of trials that were never recorded: their ids will be given again."""
        unknown = sorted(set(self.trial_commits()) - set(known))
        gone = [f"{self._own_refs}/{trial_id}" for trial_id in unknown]
        for ref in gone:
            self._git("update-ref", "-d", ref)
        return gone

    def _remake(self, known: Mapping[int, str], start: str | None) -> tuple[list[str], list[int]]:
        """Name again what the ledger knows and nobody's ref leads to; (refs, trials lost).

        A study that began at `start` began there or before: no other beginning is believed.
        """
        there = self.trial_commits()
        unnamed = {trial: commit for trial, commit in known.items() if there.get(trial) != commit}
        lost = self.lost(unnamed)
        refs = {f"{self._own_refs}/{t}": unnamed[t] for t in sorted(set(unnamed) - set(lost))}
        if start and not self._begins_before(start) and self._git.existing([start]):
            refs[f"{self._own_refs}/start"] = start
        for ref, commit in refs.items():
            self._update_ref(ref, commit, None, force=True)
        return list(refs), lost

    def _begins_before(self, commit: str) -> bool:
        """Does the study, as git says, begin at this commit or before?"""
        begins = self._git.commit_of(f"{self._own_refs}/start")
        return begins is not None and self._git.is_ancestor(begins, commit)

    def _moved(self, commit: str) -> ChampionMoved:
        return ChampionMoved(
            f"{self.branch} was moved by someone else: {commit[:10]} doesn't fit on "
            f"{(self._git.commit_of(self._ref) or ZERO)[:10]}",
            f"see `git log --graph --all`; `git switch {self.branch} && git reset --keep "
            f"{commit[:10]}` brings back what the ledger says",
        )

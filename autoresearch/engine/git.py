"""git, as plumbing: run quietly, without hooks, prompts, signatures or the user's index.

    git = Git(root)
    git("rev-parse", "HEAD").strip()

Every call switches off what a repository or a user's configuration could run beside it, and
`GIT_OPTIONAL_LOCKS=0` keeps even `status` from writing the user's index.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from autoresearch.engine.errors import GitFailed, MissingGit, NoRepository
from autoresearch.engine.git_objects import Objects
from autoresearch.engine.git_servers import Died, Servers

ZERO = "0" * 40
# Files in a scratch folder end their lines as stored, whatever the user's settings ask for.
AS_STORED = ("core.autocrlf=false", "core.eol=lf")
_TIMEOUT = 600.0  # seconds; a hung file system must not hang the night without a word
_SIGINT_TRIES = 30  # a busy machine leaves it in our group for longer
_FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What is remembered of objects: so many, and none that is larger.
_TREES, _MOST_ENTRIES = 32, 10_000
_BLOBS, _MOST_BYTES = 256, 1 << 20
_PAIRS = 256
# For an index of our own, which is gone in a moment: no wait for the disk, one file.
_PASSING = ("core.fsync=none", "core.splitIndex=false")
_QUIET = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.warnAmbiguousRefs=false",  # an id is an id: no looking for refs that are named like it
    "core.fsync=all",  # a kept commit survives a power cut as the ledger's line does
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "submodule.recurse=false",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
    "color.ui=false",
)
# Of the variables that steer git only those that say who the user is and where settings lie pass.
_KEPT = (
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CEILING_DIRECTORIES",
    "GIT_EXEC_PATH",
)


@dataclass(frozen=True)
class Entry:
    """One path of a tree: mode as git writes it ("100644", "120000" link, "160000" submodule)."""

    mode: str
    oid: str
    size: int = 0  # bytes of a file or link


class Git:
    """Runs git in one folder. Raises GitFailed with what git said, MissingGit without one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._identity: dict[str, str] | None = None
        self._common: Path | None = None
        # What an id names never changes: asked for once, kept while it is recent.
        self._trees: dict[str, dict[str, Entry]] = {}
        self._blobs: dict[str, bytes] = {}
        self._ancestors: dict[str, bool] = {}
        self._servers = Servers(self._server)
        self.grouped = False  # commits last from the next `sync` on, not at once

    def __call__(self, *arguments: str, **more: object) -> str:
        """Standard output as text. Keywords as of `run`."""
        return os.fsdecode(self.run(*arguments, **more))  # type: ignore[arg-type]

    def run(
        self,
        *arguments: str,
        data: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        config: Iterable[str] = (),
        folder: Path | None = None,
    ) -> bytes:
        """Standard output. `data` goes to standard input, `config` are further `-c` settings."""
        done = self._finished(arguments, data, environment or {}, config, folder or self.folder)
        if done.returncode:
            said = os.fsdecode(done.stderr).strip() or f"exit code {done.returncode}"
            raise GitFailed(f"git {arguments[0]}: {said}", _hint(said))
        return done.stdout

    def _server(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """A git that stays and is talked to; what it complains of nobody reads."""
        return subprocess.Popen(
            [*self._command(_PASSING), *arguments],
            cwd=self.folder,
            env={**_environment(), **self.identity()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    @staticmethod
    def _command(config: Iterable[str]) -> list[str]:
        program = shutil.which("git")
        if program is None:
            raise MissingGit("git is not installed", "install git, 2.25 or newer")
        return [program, *(part for item in (*_QUIET, *config) for part in ("-c", item))]

    def _finished(
        self,
        arguments: Sequence[str],
        data: bytes | None,
        environment: Mapping[str, str],
        config: Iterable[str],
        folder: Path,
    ) -> subprocess.CompletedProcess[bytes]:
        """git, run to an end of its own. Raises GitFailed if it had none."""
        command = [*self._command(config), *arguments]
        for _ in range(_SIGINT_TRIES):
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env={**_environment(), **environment},
                    input=data if data is not None else b"",
                    capture_output=True,
                    timeout=_TIMEOUT,
                    check=False,
                    # Ctrl-C in the terminal is for us: git must not die of it amid a step.
                    start_new_session=os.name == "posix",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            except subprocess.TimeoutExpired as error:
                raise GitFailed(f"git {arguments[0]} hung for {_TIMEOUT:.0f} s") from error
            except OSError as error:
                raise GitFailed(f"git {arguments[0]}: {error.strerror or error}") from error
            if done.returncode != -signal.SIGINT:
                break  # else Ctrl-C hit before it had left our group: it has not begun
        if done.returncode < 0:
            raise GitFailed(f"git {arguments[0]} was killed by signal {-done.returncode}")
        return done

    def maybe(self, *arguments: str) -> str | None:
        """Standard output stripped, or None if git says no (a missing ref, an unset setting).

        Raises GitFailed if git was killed or hung: that is no answer.
        """
        done = self._finished(arguments, None, {}, (), self.folder)
        return None if done.returncode else os.fsdecode(done.stdout).strip()

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Is `older` reachable from `newer` (or the same)?"""
        pair = f"{older} {newer}"
        if pair not in self._ancestors:
            found = self.maybe("merge-base", "--is-ancestor", older, newer) is not None
            if not (_FULL_ID.fullmatch(older) and _FULL_ID.fullmatch(newer)):
                return found
            _remember(self._ancestors, pair, found, _PAIRS)
        return self._ancestors[pair]

    # -- objects ---------------------------------------------------------------------------------

    def commit_of(self, name: str) -> str | None:
        """The commit that a ref or a name stands for, or None."""
        wanted = f"{name}^{{commit}}"
        try:
            found = self._servers.look(wanted)
        except Died:  # no repository, say
            return self.maybe("rev-parse", "--verify", "--quiet", wanted) or None
        return None if found is None else found[0]

    def existing(self, oids: Iterable[str]) -> set[str]:
        """Those of these objects that the repository has."""
        asked = "".join(f"{oid}\n" for oid in oids)
        said = self("cat-file", "--batch-check", data=asked.encode()).splitlines() if asked else []
        return {line.split()[0] for line in said if not line.endswith(" missing")}

    def tree(self, commit: str) -> Mapping[str, Entry]:
        """Every path of a commit or a tree."""
        if commit in self._trees:
            return self._trees[commit]
        out = self("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        entries = {}
        for line in filter(None, out.split("\0")):
            head, path = line.split("\t", 1)
            mode, _, oid, size = head.split()
            entries[path] = Entry(mode, oid, int(size) if size.isdigit() else 0)
        if _FULL_ID.fullmatch(commit) and len(entries) <= _MOST_ENTRIES:
            _remember(self._trees, commit, entries, _TREES)
        return entries

    def blob(self, oid: str) -> bytes:
        """A blob's bytes."""
        data = self._blobs.get(oid)
        if data is None:
            data = self._content(oid)
            if len(data) <= _MOST_BYTES:
                _remember(self._blobs, oid, data, _BLOBS)
        return data

    def described(self, commit: str) -> tuple[str, str, str]:
        """Tree, parents (ids with spaces between) and message of a commit."""
        head, _, message = self._content(commit).decode("utf-8", "replace").partition("\n\n")
        lines = [line.split(" ", 1) for line in head.split("\n")]
        named = [(line[0], line[-1]) for line in lines]
        (tree,) = (value for name, value in named if name == "tree")
        return tree, " ".join(value for name, value in named if name == "parent"), message

    def diff(self, commit: str, tree: str, options: Sequence[str]) -> bytes:
        """What `diff-tree` says of a tree beside a commit's."""
        try:
            return self._servers.diff(options, self._tree_of(commit), tree)
        except Died:
            return self.run("diff-tree", *options, commit, tree)

    def _tree_of(self, commit: str) -> str:
        """The id of a commit's tree."""
        found = self._servers.look(f"{commit}^{{tree}}")
        if found is None:
            raise Died
        return found[0]

    def _content(self, oid: str) -> bytes:
        try:
            data = self._servers.content(oid)
        except Died:
            data = None
        return self.run("cat-file", "-p", oid) if data is None else data

    def merge(self, base: bytes, ours: bytes, theirs: bytes, scratch: Path) -> bytes | None:
        """`ours` with the edit that led from `base` to `theirs`; None where the two conflict."""
        with _temporary(scratch, "merge-") as folder:
            places = [folder / name for name in ("ours", "base", "theirs")]
            for place, data in zip(places, (ours, base, theirs), strict=True):
                place.write_bytes(data)
            done = self._finished(("merge-file", "-p", *map(str, places)), b"", {}, (), self.folder)
        # The exit code counts conflicts; a binary file or an error is one too.
        return None if done.returncode else done.stdout

    @cached_property
    def algorithm(self) -> str:
        """What ids are made with: sha1 or sha256."""
        return self.maybe("config", "extensions.objectFormat") or "sha1"

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.common_folder() / "objects", self.algorithm)

    def blob_id(self, data: bytes) -> str:
        """The id of these bytes as a blob; nothing is stored."""
        return self._objects.name("blob", data)

    def write_blob(self, data: bytes) -> str:
        """Store bytes exactly as they are; its id."""
        oid = self._stored(lambda: self._objects.write("blob", data))
        if len(data) <= _MOST_BYTES:
            _remember(self._blobs, oid, data, _BLOBS)
        return oid

    def write_tree(self, base: str, entries: Mapping[str, Entry | None]) -> str:
        """The tree of `base` (an id) with some paths set, sizes included, or removed (None)."""
        wanted = {**self.tree(base), **entries}
        there = {path: entry for path, entry in wanted.items() if entry}
        paths = {path: (entry.mode, entry.oid) for path, entry in there.items()}
        oid = self._stored(lambda: self._objects.write_tree(paths))
        if len(there) <= _MOST_ENTRIES:
            _remember(self._trees, oid, there, _TREES)
        return oid

    def write_commit(self, tree: str, parent: str, message: str, when: str | None = None) -> str:
        """Store a commit; no ref is moved. `when` (seconds since 1970, and a zone) makes its id
        repeatable. It lasts from then on, or, where `grouped`, from the next `sync` on."""
        author, committer = self._signatures
        date = when or f"{int(time.time())} {time.strftime('%z')}"
        head = f"tree {tree}\nparent {parent}\nauthor {author} {date}\ncommitter {committer} {date}"
        data = f"{head}\n\n{message}".encode()
        oid = self._stored(lambda: self._objects.write("commit", data))
        if not self.grouped:
            self.sync()
        return oid

    def sync(self) -> None:
        """Return when the objects and refs that were written so far would survive a power cut."""
        self._stored(self._objects.sync)

    def _stored(self, write: Callable[[], _Kept]) -> _Kept:
        try:
            return write()
        except OSError as error:
            said = error.strerror or str(error)
            raise GitFailed(f"git can't store objects: {said}", _hint(said)) from error

    @cached_property
    def _signatures(self) -> tuple[str, str]:
        """Who author and committer are, as commits say it."""
        found = (
            self("var", f"GIT_{role}_IDENT", environment=self.identity())
            for role in ("AUTHOR", "COMMITTER")
        )
        author, committer = (ident.rsplit(">", 1)[0] + ">" for ident in found)
        return author, committer

    def move_quickly(self, moves: Mapping[str, tuple[str, str | None]]) -> bool:
        """Have refs stand for a commit each, if they stood for another where that is given: all, or
        none. They last from the next `sync` on.

        False where git wouldn't, which says why only when it is asked otherwise.
        """
        try:
            self._servers.move(moves)
        except Died:
            return False
        for ref in moves:
            self._objects.note(self.common_folder() / ref)
        return True

    def identity(self) -> dict[str, str]:
        """The user's identity; where there is none, a neutral one, for this call alone."""
        if self._identity is None:
            found: dict[str, str] = {}
            name = self.maybe("config", "user.name")
            email = self.maybe("config", "user.email")
            for role in ("AUTHOR", "COMMITTER"):
                if not name and f"GIT_{role}_NAME" not in os.environ:
                    found[f"GIT_{role}_NAME"] = "autoresearch"
                if not email and f"GIT_{role}_EMAIL" not in os.environ:
                    found[f"GIT_{role}_EMAIL"] = "autoresearch@localhost"
            self._identity = found
        return self._identity

    # -- places ----------------------------------------------------------------------------------

    def common_folder(self) -> Path:
        """The repository's own folder, which all its worktrees share."""
        if self._common is None:
            found = Path(self("rev-parse", "--git-common-dir").rstrip("\n"))
            self._common = (self.folder / found).resolve()
        return self._common

    @cached_property
    def has_attributes(self) -> bool:
        """Are there attributes of files that no tree holds: the repository's own, the user's?"""
        places = [self.common_folder() / "info" / "attributes"]
        named = self.maybe("config", "--type=path", "core.attributesFile")
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        places.append(Path(named) if named else Path(home) / "git" / "attributes")
        places.append(Path("/etc/gitattributes"))
        return any(place.exists() for place in places)

    def checkouts(self) -> dict[Path, str]:
        """Worktrees that have a branch checked out, and which ("refs/heads/...")."""
        found, place = {}, None
        for line in self("worktree", "list", "--porcelain").split("\n"):
            key, _, value = line.partition(" ")
            if key == "worktree":
                place = Path(value)
            elif key == "branch" and place is not None:
                found[place] = value
        return found


_Kept = TypeVar("_Kept")


def _remember(kept: dict[str, _Kept], key: str, value: _Kept, most: int) -> None:
    """Keep the latest `most`."""
    while len(kept) >= most:
        kept.pop(next(iter(kept)), None)
    kept[key] = value


def open_repository(root: Path) -> Git:
    """git at `root`. Raises NoRepository unless `root` is a worktree's top and has a commit."""
    git = Git(root)
    if not root.is_dir():
        raise NoRepository(f"no folder {root}", "run `autoresearch init` to make a workspace")
    top = git.maybe("rev-parse", "--show-toplevel")
    if top is None:
        # Its own words tell a missing repository from one of another owner.
        try:
            git("rev-parse", "--show-toplevel")
        except GitFailed as error:
            raise NoRepository(
                f"{root}: {error.message}", error.hint or "run `git init`"
            ) from error
    if not top or not os.path.samefile(top, root):
        raise NoRepository(
            f"{root} lies inside the repository {top}",
            "a workspace is its repository's top folder: run `git init` in it, or move it out",
        )
    if git.commit_of("HEAD") is None:
        raise NoRepository(
            f"{root} has no commit yet", "run `git add -A && git commit -m 'Begin'` there"
        )
    return git


@contextmanager
def temporary_index(folder: Path) -> Iterator[dict[str, str]]:
    """An index of our own; the user's is not touched."""
    with _temporary(folder, "index-") as place:
        yield {"GIT_INDEX_FILE": str(place / "index")}


@contextmanager
def _temporary(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder in `folder`, gone afterwards; after a kill, with `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as name:
        yield Path(name)


def _environment() -> dict[str, str]:
    """Ours, without what would point git elsewhere or make it ask."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1"}
    return {**kept, **quiet, "LC_ALL": "C", "GIT_PAGER": "cat", "GIT_EDITOR": "true"}


def _hint(said: str) -> str:
    """What to do about the complaints that users meet."""
    hints = {
        "dubious ownership": "the folder belongs to another user: see `git help config`, "
        "safe.directory",
        "No space left on device": "free some disk, then start again",
        "Read-only file system": "work on a file system that can be written",
        ".lock': File exists": "another git is at work, or died: see the path it names",
    }
    return next((hint for words, hint in hints.items() if words in said), "")

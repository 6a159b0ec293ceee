"""An edit, taken back from where it was made: its files, its diff, and whether it keeps the rules.

    change = workspace.collect(scratch, task)      # raises Rejected for links, tampering ...
    check(change, task)                            # raises Rejected for limits, syntax ...
    if diff_hash(change) in seen: ...

Nothing here runs the edit or looks at a repository.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
import unicodedata
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from autoresearch.engine.errors import Rejected
from autoresearch.engine.statements import compiles, cut
from autoresearch.engine.task import Task
from autoresearch.engine.trial import DiffStat

# New files of these kinds can take part in a run without being named by it.
_IMPORTABLE = (".py", ".pyc", ".pyd", ".so", ".dylib", ".dll", ".pth", ".egg-link")
_LISTED = 5
# What makes a statement right or wrong by what stands elsewhere in the file.
_WHOLE = re.compile(rb"__future__|^global\b", re.M)


@dataclass(frozen=True)
class FileChange:
    """One artifact that differs. `old` is None for a new file, `new` for a removed one."""

    path: str
    old: bytes | None
    new: bytes | None


@dataclass(frozen=True)
class Outside:
    """Something that changed and is no artifact: it stays behind. `how`: new, changed, gone."""

    path: str
    how: str

    def __str__(self) -> str:
        return f"{self.path} ({self.how})"


@dataclass(frozen=True)
class Change:
    """An edit of artifacts, stored in the repository as `tree`, made on the commit `base`."""

    base: str
    tree: str
    files: tuple[FileChange, ...]
    outside: tuple[Outside, ...]
    diff: str  # unified
    stat: DiffStat
    bytes: int  # of the changed files, as they are after the edit
    # Digest of what each artifact says after and before the edit, by path; see normalise.digest.
    meaning: Mapping[str, str] = field(default_factory=dict)
    base_meaning: Mapping[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """No artifact differs by a byte."""
        return not self.files

    @property
    def means_nothing(self) -> bool:
        """Only comments, layout or names of local variables differ, if anything."""
        return self.meaning == self.base_meaning


def diff_hash(change: Change) -> str:
    """Names the program that the edit leads to: SHA-256 over what all its artifacts say.

    Two edits have the same hash if their results differ in no more than comments, layout and the
    names of local variables, whatever they started from. An edit back to an earlier champion has
    that champion's hash.
    """
    return state_hash(change.meaning)


def edited(change: Change, before: Mapping[str, bytes]) -> dict[str, bytes]:
    """All artifacts after an edit, given those before it."""
    files: dict[str, bytes | None] = {**before}
    files.update({file.path: file.new for file in change.files})
    return {path: data for path, data in files.items() if data is not None}


def base_hash(change: Change) -> str:
    """The same of the program that was edited."""
    return state_hash(change.base_meaning)


def state_hash(meaning: Mapping[str, str]) -> str:
    """SHA-256 over digests of artifacts by path."""
    text = json.dumps(sorted(meaning.items()), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def check(change: Change, task: Task, allowed: Collection[str] = ()) -> None:
    """Hold an edit against the task's rules, the cheapest first. Raises Rejected.

    `allowed` are paths outside the artifacts that may differ, such as notes a human edits.
    """
    _check_outside(change, allowed)
    if change.empty:
        raise Rejected("empty", "nothing was changed", "edit " + _list(task.artifacts.include))
    limits = task.mutation
    new = [f.path for f in change.files if f.old is None]
    gone = [f.path for f in change.files if f.new is None]
    if new and not limits.allow_new_files:
        raise Rejected("new-file", f"new files are not allowed: {_list(new)}")
    if gone and not limits.allow_delete:
        raise Rejected("deleted-file", f"artifacts may not be removed: {_list(gone)}")
    for name, value, bound in (
        ("files", change.stat.files, limits.max_files),
        ("lines", change.stat.added + change.stat.removed, limits.max_changed_lines),
        ("bytes", change.bytes, limits.max_bytes),
    ):
        if value > bound:
            raise Rejected(
                f"max-{name}", f"the edit changes {value:,} {name}, {bound:,} are allowed"
            )
    for file in change.files:
        if file.new is not None and file.path.endswith((".py", ".pyi")):
            check_python(file.path, file.new)


def check_python(path: str, data: bytes) -> None:
    """Refuse what Python can't compile, naming the line. Nothing is run. Raises Rejected."""
    if _by_statements(data):
        return
    text = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            if encoding not in ("utf-8", "utf-8-sig"):
                raise Rejected("syntax", f"{path}: its encoding is {encoding}; write UTF-8")
            text = data.decode(encoding)
            # Not under its own name: to quote a line Python would open that file here.
            compile(ast.parse(text), "<candidate>", "exec", dont_inherit=True)
    except SyntaxError as error:
        lines = text.split("\n")
        at = error.lineno or 0
        line = one_line(lines[at - 1], 120) if 0 < at <= len(lines) else ""
        where = f"{path}, line {at}" if at else path
        raise Rejected("syntax", f"{where}: {error.msg}" + (f": {line}" if line else "")) from error
    except ValueError as error:  # NUL bytes, bytes that aren't UTF-8
        raise Rejected("syntax", f"{path}: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise Rejected("syntax", f"{path}: nested too deeply to compile") from error


def _by_statements(data: bytes) -> bool:
    """Can Python compile every statement by itself, and is that all there is to it?"""
    if _WHOLE.search(data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    pieces = cut(data)
    return pieces is not None and all(map(compiles, pieces))


def _check_outside(change: Change, allowed: Collection[str]) -> None:
    """What isn't an artifact must stay as it is. Droppings of an agent are only listed."""
    for item in change.outside:
        if item.path in allowed:
            continue
        folders, name = item.path.split("/")[:-1], item.path.split("/")[-1]
        droppings = any(f == "__pycache__" or f.startswith(".") for f in folders)
        if item.how != "new":
            raise Rejected(
                "not-an-artifact", f"{item} is no artifact and may not be changed", _hint(change)
            )
        if name.lower().endswith(_IMPORTABLE) and not droppings:
            raise Rejected(
                "not-an-artifact", f"{item} is no artifact and could be imported", _hint(change)
            )


def _hint(change: Change) -> str:
    return "outside the artifacts: " + _list([str(item) for item in change.outside])


def _list(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def one_line(text: str, limit: int) -> str:
    """Text for one line of a message: no control or invisible characters, cut at a word."""
    clean = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    clean = " ".join(clean.split())
    if len(clean) <= limit:
        return clean
    return clean[: limit - 1].rsplit(" ", 1)[0][: limit - 1] + "…"


def champion_message(
    metric: str,
    before: float | None,
    after: float | None,
    idea: str,
    trailers: Mapping[str, object] | None = None,
) -> str:
    """`metric before -> after: idea`, the whole idea below if it is long, then trailer lines."""
    numbers = f"{_number(before)} -> {_number(after)}" if before is not None else _number(after)
    subject = f"{metric} {numbers}: {one_line(idea, 80) or 'no description'}"
    parts = [subject]
    whole = one_line(idea, 2_000)
    if len(whole) > 80:
        # Without a colon at a line's start nothing of the idea can pass for a trailer.
        parts.append(f"Idea in full: {whole}")
    lines = [f"{key}: {one_line(str(value), 200)}" for key, value in (trailers or {}).items()]
    if lines:
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def with_trailer(message: str, key: str, value: str) -> str:
    """The message with exactly one trailer `key: value` among its trailers."""
    paragraphs = message.strip().split("\n\n")
    lines = paragraphs[-1].split("\n")
    if len(paragraphs) > 1 and all(re.match(r"[A-Za-z][A-Za-z0-9-]*: ", line) for line in lines):
        lines = [line for line in lines if not line.lower().startswith(key.lower() + ": ")]
        paragraphs.pop()
    else:
        lines = []
    return "\n\n".join([*paragraphs, "\n".join([f"{key}: {value}", *lines])]) + "\n"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"

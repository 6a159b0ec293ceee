"""Task-relative paths: which globs are allowed, and which paths they match.

`*` and `?` stay within one component, `**` crosses components, `[...]` is a set, a trailing `/`
means everything below. Matching is on POSIX spelling and case-sensitive on every system.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Never an artifact, whatever a glob says: git's own steering, ours, and compiled leftovers.
RESERVED_NAMES = (".git", ".gitattributes", ".gitmodules", ".gitignore", ".autoresearch")
LEFTOVERS = ("__pycache__",)


def check_glob(pattern: str) -> str:
    """`pattern` with a trailing `/` spelled out. Raises ValueError if it could leave the task."""
    if not pattern or pattern != pattern.strip():
        raise ValueError(f"{pattern!r} is empty or has spaces around it")
    if any(ord(c) < 32 or ord(c) == 127 for c in pattern):
        raise ValueError(f"{pattern!r} holds a control character")
    if "\\" in pattern:
        raise ValueError(f"{pattern!r}: write / between folders, on Windows too")
    if pattern.startswith(("/", "~")) or re.match(r"[A-Za-z]:", pattern):
        raise ValueError(f"{pattern!r} is absolute; paths are relative to the task's folder")
    if pattern.endswith("/"):
        pattern += "**"
    parts = pattern.split("/")
    if ".." in parts:
        raise ValueError(f"{pattern!r} leaves the task's folder")
    if "." in parts or "" in parts:
        raise ValueError(f"{pattern!r} has an empty component or a '.'")
    reserved = [part for part in parts if part.casefold() in RESERVED_NAMES]
    if reserved:
        raise ValueError(f"{pattern!r}: {reserved[0]} can't be an artifact")
    _expression(pattern)
    return pattern


def matches(path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Is this POSIX path, relative to the task, one of its artifacts?"""
    parts = path.split("/")
    if any(part.casefold() in RESERVED_NAMES or part in LEFTOVERS for part in parts):
        return False
    if parts[-1].endswith((".pyc", ".pyo")):
        return False
    chosen = any(_expression(pattern).fullmatch(path) for pattern in include)
    return chosen and not any(_expression(pattern).fullmatch(path) for pattern in exclude)


def may_hold(folder: str, include: tuple[str, ...]) -> bool:
    """Could something below this POSIX path be an artifact, as far as the globs' folders tell?"""
    return any(_may_hold(folder.split("/"), pattern.split("/")) for pattern in include)


def _may_hold(folders: list[str], pattern: list[str]) -> bool:
    for at, part in enumerate(folders):
        if at < len(pattern) and "**" in pattern[at]:
            return True
        if at >= len(pattern) - 1 or not _expression(pattern[at]).fullmatch(part):
            return False
    return True


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob. `a/**/b` matches `a/b` too. Raises ValueError."""
    out, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "*":
            out.append("[^/]*")
            at += 1
        elif pattern[at] == "?":
            out.append("[^/]")
            at += 1
        elif pattern[at] == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise ValueError(f"{pattern!r}: a [ is never closed")
            body = pattern[at + 1 : end]
            negate = body.startswith(("!", "^"))
            body = re.sub(r"([\\\[\]^&|~])", r"\\\1", body[1:] if negate else body)
            out.append(f"(?!/)[{'^' if negate else ''}{body}]")
            at = end + 1
        else:
            out.append(re.escape(pattern[at]))
            at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a glob: {error}") from error

"""program.md: what the human wants, and their notes, which win over everything else.

    program = Program.read(workspace / "program.md")
    program.text, program.notes           # what stands outside, and under, `## Notes`
    add_note(workspace / "program.md", "leave the optimizer alone", date.today(), own)

The notes are the sections headed `## Notes`, each up to the next heading of its level or above.
The file is the human's and no artifact: it may change at any time, also while a run goes on, and
whoever needs it reads it anew. Bytes that aren't UTF-8 are kept as they are.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from autoresearch.engine.errors import EngineError
from autoresearch.engine.proposers.text import clean

HEADING = "## Notes"
_NOTES = re.compile(r"##[ \t]+notes[ \t]*:?[ \t]*#*[ \t]*$", re.IGNORECASE)
_SECTION = re.compile(r"#{1,2}[ \t]")
_FENCE = re.compile(r"`{3,}|~{3,}")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LOCK_SECONDS = 10.0


class EmptyNote(EngineError):
    """A note without a word."""

    exit_code = 2


class EndsNotes(EngineError):
    """Notes that would end the section they are written to."""

    exit_code = 2


class NotesChanged(EngineError):
    """The notes aren't any more what somebody began to edit."""


@dataclass(frozen=True)
class Program:
    """The human's text without its notes, and the notes. Comments (`<!-- -->`) are no notes."""

    text: str = ""
    notes: str = ""

    @classmethod
    def read(cls, path: Path) -> Program:
        """The program as the file says it now; empty where there is no file."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        return cls.parse(data.decode("utf-8", "replace"))

    @classmethod
    def parse(cls, text: str) -> Program:
        """Split a program's text."""
        lines = text.removeprefix("\ufeff").splitlines()
        is_note = list(_in_notes(lines))
        notes = [ln for ln, i in zip(lines, is_note, strict=True) if i and not _NOTES.match(ln)]
        rest = [line for line, inside in zip(lines, is_note, strict=True) if not inside]
        return cls("\n".join(rest).strip(), _COMMENT.sub("", "\n".join(notes)).strip())


def add_note(path: Path, note: str, day: datetime.date, own: Path) -> str:
    """Put `- DAY: note` at the end of the notes, whole or not at all, and return that bullet.

    The section, and the file, are made if missing; all else stays byte for byte. own: a folder of
    ours, for the lock. Raises EmptyNote, and OSError where the file can't be written.
    """
    words = [line.strip() for line in clean(note).strip().splitlines()]
    if not words:
        raise EmptyNote("the note says nothing", 'write `autoresearch notes add "the note"`')
    # Indented lines belong to the bullet, whatever they begin with.
    bullet = f"- {day.isoformat()}: " + "\n  ".join(words)
    _rewrite(path, lambda text: _with_notes(text, bullet), own)
    return bullet


def notes_section(path: Path) -> str:
    """The first section of notes as it is written, comments included; "" where there is none."""
    if not path.exists():
        return ""
    lines = _lines(path.read_bytes().decode("utf-8", "replace"))[0]
    return _joined(lines[slice(*_first_section(lines))])


def write_notes(path: Path, notes: str, before: str, own: Path) -> None:
    """Put `notes` in the place of the first section of notes, whole or not at all.

    before: what `notes_section` said when the writing began. own: a folder of ours, for the lock.
    Raises NotesChanged where it says something else by now, EndsNotes for text that would not stay
    in the section, and OSError where the file can't be written.
    """
    lines = [line.rstrip() for line in clean(notes).strip().splitlines()]
    if not all(_in_notes([HEADING, *lines])) or any(map(_NOTES.match, lines)):
        raise EndsNotes(
            "a line that begins with # or ## would end the notes", "take ### for a heading in them"
        )

    def change(text: str) -> str:
        with_section, end = _lines(_with_notes(text, None))
        first, last = _first_section(with_section)
        if _joined(with_section[first:last]) != _joined([before]):
            raise NotesChanged(
                "somebody else changed the notes meanwhile", "what is there now stands beside yours"
            )
        new = ["", *lines, ""] if lines else [""]
        result = [*with_section[:first], *new, *with_section[last:]]
        if _first_section(result) != (first, first + len(new)):
            raise EndsNotes(
                "a code fence in the notes isn't closed, and what follows them would be theirs",
                "close it with another line of ```",
            )
        return end.join(result)

    _rewrite(path, change, own)


def _lines(text: str) -> tuple[list[str], str]:
    """The lines of a text, and what ends them."""
    end = "\r\n" if "\r\n" in text else "\n"
    return text.split(end) if text else [], end


def _joined(lines: list[str]) -> str:
    """Lines as a browser sends them back."""
    return "\n".join(lines).replace("\r\n", "\n").replace("\r", "\n").strip()


def _first_section(lines: list[str]) -> tuple[int, int]:
    """Where the text of the first section of notes begins and ends; an empty range without one."""
    inside = list(_in_notes(lines))
    if True not in inside:
        return len(lines), len(lines)
    first = inside.index(True) + 1
    return first, next(
        (i for i in range(first, len(lines)) if not inside[i] or _NOTES.match(lines[i])),
        len(lines),
    )


def begin_notes(path: Path, own: Path) -> None:
    """Make the section if it is missing. Raises OSError where the file can't be written."""
    _rewrite(path, lambda text: _with_notes(text, None), own)


def _rewrite(path: Path, change: Callable[[str], str], own: Path) -> None:
    own.mkdir(exist_ok=True)
    path = path.resolve()  # a link stays a link
    with FileLock(str(own / "notes.lock"), timeout=_LOCK_SECONDS):
        before = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
        after = change(before)
        if after == before:
            return
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(after.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, fresh)
        os.replace(fresh, path)


def _with_notes(text: str, bullet: str | None) -> str:
    """The text with a Notes section, and with this bullet as the last of the first such section."""
    lines, end = _lines(text)
    if not any(_in_notes(lines)):
        while lines and not lines[-1].strip():
            lines.pop()
        lines += ["", HEADING, ""] if lines else [HEADING, ""]
    if bullet is None:
        return end.join(lines)
    inside = list(_in_notes(lines))
    first = inside.index(True)
    last = next((i for i in range(first, len(lines)) if not inside[i]), len(lines))
    while not lines[last - 1].strip():
        last -= 1
    follows = lines[last - 1].startswith(("- ", "  "))
    new = [*([] if follows else [""]), *bullet.split("\n")]
    if last == len(lines):
        new.append("")  # the file ends with a newline
    return end.join([*lines[:last], *new, *lines[last:]])


def _in_notes(lines: list[str]) -> Iterator[bool]:
    """For each line, whether it belongs to the notes. Headings inside code fences are none."""
    inside, closes = False, -1
    for number, line in enumerate(lines):
        if number > closes:
            fence = _FENCE.match(line)
            if fence is not None:
                closes = _closing(lines, number, fence[0])
            elif _SECTION.match(line):
                inside = _NOTES.match(line) is not None
        yield inside


def _closing(lines: list[str], begin: int, fence: str) -> int:
    """The line that closes a fence; `begin` itself where none does, so that it hides nothing."""
    for number in range(begin + 1, len(lines)):
        line = lines[number].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return number
    return begin

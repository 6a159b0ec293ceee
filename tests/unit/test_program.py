"""program.md: what are notes, and that adding one destroys nothing."""

from __future__ import annotations

import datetime
import os
import stat
import threading
from pathlib import Path

import pytest

from autoresearch.engine.program import EmptyNote, Program, add_note, begin_notes
from autoresearch.workspace_files import seed_text

DAY = datetime.date(2026, 11, 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "program.md"


def test_the_notes_are_split_off() -> None:
    program = Program.parse(
        "# Aim\n\ngo low\n\n## NOTES:\n\n- be bold\n\n### more\n\nstill a note\n\n## Ideas\n\nx\n"
    )
    assert program.notes == "- be bold\n\n### more\n\nstill a note"
    assert program.text.split() == ["#", "Aim", "go", "low", "##", "Ideas", "x"]
    assert Program.parse("").notes == Program.parse("just text").notes == ""
    twice = Program.parse("## Notes\na\n# Other\nb\n## notes ##\nc\n")
    assert twice.notes.split() == ["a", "c"] and twice.text.split() == ["#", "Other", "b"]
    assert Program.parse("## Notes on speed\nx\n## Notes\n").notes == "", "another heading"


def test_code_hides_headings_only_where_its_fence_closes() -> None:
    quoted = Program.parse(
        "```\n## Notes\nno note\n```\n## Notes\nnote\n~~~\n## Ideas\n~~~\nmore\n"
    )
    assert quoted.notes == "note\n~~~\n## Ideas\n~~~\nmore"
    assert Program.parse("```\nleft open\n## Notes\nnote\n").notes == "note"


def test_comments_are_no_notes() -> None:
    assert Program.parse("## Notes\n<!-- write\nhere -->\n").notes == ""
    assert Program.parse("## Notes\n<!-- write\n- never closed").notes == ""
    assert Program.parse("## Notes\n- a <!-- b --> c").notes == "- a  c"


def test_the_seed_has_a_place_for_notes_and_none_in_it(path: Path) -> None:
    seed = seed_text("program.md")
    assert "\n## Notes\n" in seed and Program.parse(seed).notes == ""
    path.write_text(seed, encoding="utf-8")
    add_note(path, "be bold", DAY, path.parent / "own")
    program = Program.read(path)
    assert program.notes == "- 2026-11-20: be bold"
    assert program.text == Program.parse(seed).text


def test_a_note_is_added_and_all_else_stays(path: Path) -> None:
    text = "# Aim\r\n\r\n## Notes\r\n\r\nold words\r\n\r\n\r\n## Ideas\r\n\r\nx \xe4"
    path.write_bytes(text.encode("latin-1"))  # not UTF-8, and no newline at the end
    assert (
        add_note(path, "  one\n## two\x1b[2J\n", DAY, path.parent / "own")
        == "- 2026-11-20: one\n  ## two"
    )
    add_note(path, "three", DAY, path.parent / "own")
    new = b"old words\r\n\r\n- 2026-11-20: one\r\n  ## two\r\n- 2026-11-20: three\r\n"
    before = text.encode("latin-1")
    assert path.read_bytes() == before.replace(b"old words\r\n", new)
    assert Program.read(path).notes.splitlines()[-2:] == ["  ## two", "- 2026-11-20: three"]
    assert list(path.parent.glob("*.new")) == []


@pytest.mark.parametrize("text", [None, "", "# Aim", "# Aim\n\n\n", "```\nleft open\n"])
def test_the_section_is_made_where_it_is_missing(path: Path, text: str | None) -> None:
    if text is not None:
        path.write_text(text)
    begin_notes(path, path.parent / "own")
    assert Program.read(path).notes == ""
    begin_notes(path, path.parent / "own")
    assert path.read_text().count("## Notes") == 1
    add_note(path, "be bold", DAY, path.parent / "own")
    add_note(path, "be careful", DAY, path.parent / "own")
    assert Program.read(path).notes == "- 2026-11-20: be bold\n- 2026-11-20: be careful"
    assert path.read_text().startswith((text or "").strip()) and path.read_text().endswith("ful\n")


def test_an_empty_note_is_refused(path: Path) -> None:
    with pytest.raises(EmptyNote):
        add_note(path, " \n\x1b[2J", DAY, path.parent / "own")
    assert not path.exists()


def test_notes_added_at_once_are_all_there(path: Path) -> None:
    path.write_text("# Aim\n")
    threads = [
        threading.Thread(target=add_note, args=(path, f"n{i}", DAY, path.parent)) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Program.read(path).notes.split()[2::3]) == sorted(f"n{i}" for i in range(20))


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_a_link_stays_a_link_and_a_mode_a_mode(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "shared.md"
    real.write_text("# Aim\n")
    real.chmod(0o640)
    path.symlink_to(real)
    add_note(path, "be bold", DAY, path.parent / "own")
    assert path.is_symlink() and "be bold" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640

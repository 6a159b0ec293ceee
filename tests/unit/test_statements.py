"""Reading a program piece by piece gives what reading it whole does, for any edit of it."""

import random
from pathlib import Path

import pytest

from autoresearch.engine import change, normalise
from autoresearch.engine.change import check_python
from autoresearch.engine.errors import Rejected
from autoresearch.engine.statements import compiles, cut

ROOT = Path(__file__).resolve().parents[2]
SEED = (ROOT / "train.py").read_bytes()
LINES = (
    "else:", "x = 1", "    pass", '"""', ")", "(", "\\", "x = 1 \\", "@decorated", "def f(a):",
    "if a:", "# note", "", "  y = 2", "class A:", "'''", "for i in x: pass", "return 1", "global x",
    "from __future__ import annotations", "break",
)  # fmt: skip


def edits(count: int) -> list[bytes]:
    """Edits of the seed program, most of them no Python any more."""
    chance, lines = random.Random(7), SEED.decode().split("\n")
    made = []
    for _ in range(count):
        edited = list(lines)
        for _ in range(chance.randint(1, 3)):
            at, how = chance.randrange(len(edited)), chance.random()
            if how < 0.4:
                edited[at] = chance.choice(LINES)
            elif how < 0.7:
                edited.insert(at, chance.choice(LINES))
            else:
                del edited[at]
        made.append("\n".join(edited).encode())
    return made


def verdict(data: bytes) -> str:
    try:
        check_python("train.py", data)
    except Rejected as rejected:
        return str(rejected)
    return ""


def test_digests_and_complaints_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [SEED, b"", b"# nothing\n", b"x = 1 \\\n\n+ 2\n", *edits(20)]
    by_piece = [(normalise.digest("a.py", data), verdict(data)) for data in programs]
    assert sum(not said for _, said in by_piece) > 3 and sum(bool(said) for _, said in by_piece) > 3
    monkeypatch.setattr(normalise, "cut", lambda data: None)
    monkeypatch.setattr(change, "cut", lambda data: None)
    assert by_piece == [(normalise.digest("a.py", data), verdict(data)) for data in programs]


def test_pieces_are_the_file_and_whole_statements() -> None:
    pieces = cut(SEED)
    assert pieces is not None and b"".join(pieces) == SEED and len(pieces) > 40
    assert all(map(compiles, pieces))
    text = b'"""Doc\n\nx = 1\n"""\nif a:\n    b\nelse:\n    c\n@d\ndef f(\n    a,\n):\n    pass\n'
    assert cut(text) == (
        b'"""Doc\n\nx = 1\n"""\n',
        b"if a:\n    b\nelse:\n    c\n",
        b"@d\ndef f(\n    a,\n):\n    pass\n",
    )
    for odd in (b"x = 1\r\n", b"x = 1 \\\n\n", b"\xef\xbb\xbfx = 1\n", b"# coding: latin-1\nx\n"):
        assert cut(odd) is None
    assert cut(b"if a:\n") is None


def test_functions_are_numbered_as_in_the_whole() -> None:
    text = b"def f():\n    a = 1\n    return a\n\n\ndef g():\n    b = 2\n    return b\n"
    other = text.replace(b"b", b"other")
    assert normalise.digest("a.py", text) == normalise.digest("a.py", other)
    assert normalise.digest("a.py", text) != normalise.digest("a.py", text.replace(b"2", b"3"))

"""A Python file cut into its top-level statements, so that an edit costs what it changed.

    pieces = cut(data)                    # the file again when joined; None: read it as a whole
    all(compiles(piece) for piece in pieces)

Reading a program as a whole takes Python 10 ms and more. Most of its statements were read before,
since edits change few: what is known of a statement is kept by its text.

The cuts are exact. They stand before lines that begin in the first column, and only where what is
before them, since the last cut, is Python by itself: no string or bracket is open then, and lines
that go on with a statement (`else:`, a closing bracket, what follows a backslash) begin no piece.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings

KEPT = 8_192  # pieces; a program has hundreds
_MOST_JOINED = 400  # lines that begin in the first column, in one statement: a long string
_BEGINS = re.compile(rb"^(?![\s#)\]}\\]|(?:else|elif|except|finally)\b)", re.M)
_ODD = re.compile(rb"[\r\0\f]|\\\n|\A\xef\xbb\xbf|\A(?:.*\n)?[^\n]*coding[:=]")


def cut(data: bytes) -> tuple[bytes, ...] | None:
    """The pieces of a file, whole statements each; None for what isn't cut (odd, or no Python)."""
    if _ODD.search(data):
        return None
    starts = [match.start() for match in _BEGINS.finditer(data) if match.start() < len(data)]
    ends = [*starts[1:], len(data)]
    pieces: list[bytes] = []
    start, joined = 0, 0
    for end in ends:
        joined += 1
        if _complete(data[start:end]):
            pieces.append(data[start:end])
            start, joined = end, 0
        elif joined > _MOST_JOINED:
            return None
    return tuple(pieces) if start == len(data) else None


@functools.lru_cache(KEPT)
def _complete(text: bytes) -> bool:
    """Is this Python by itself?"""
    return parsed(text) is not None


@functools.lru_cache(KEPT)
def compiles(piece: bytes) -> bool:
    """Can Python compile it? Nothing is run."""
    tree = parsed(piece)
    if tree is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(tree, "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def parsed(text: bytes) -> ast.Module | None:
    """The tree of a text, or None if it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

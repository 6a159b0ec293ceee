"""A Python module's upper-case constants: read them, and write others in their place.

constants_of(source)                               # {"DEPTH": 8, "WINDOW_PATTERN": "SSSL", ...}
source = apply_constants(source, {"DEPTH": 4})     # comments and layout stay as they are
"""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from typing import Any


class UnknownConstant(ValueError):
    """The source assigns no literal to this name; `hint` says what it has."""

    def __init__(self, name: str, hint: str) -> None:
        super().__init__(f"no constant {name} is assigned")
        self.name = name
        self.hint = hint


def constants_of(source: str) -> dict[str, Any]:
    """Upper-case names that a module assigns a literal at its top level, with their values.

    Raises SyntaxError when the source does not parse.
    """
    return {name: ast.literal_eval(value) for name, value in _literals(source).items()}


def apply_constants(source: str, constants: Mapping[str, Any]) -> str:
    """The source with new literals in the assignments of these constants, all else unchanged.

    Raises UnknownConstant for a name that the source assigns no literal, and SyntaxError.
    """
    literals = _literals(source)
    for name in constants:
        if name not in literals:
            near = difflib.get_close_matches(name, literals, n=1, cutoff=0.5)
            raise UnknownConstant(
                name, f"did you mean {near[0]}?" if near else f"it has {', '.join(literals)}"
            )
    # ast counts columns in UTF-8 bytes, so the cutting is done on bytes; last first, so that the
    # places of those before stay true.
    lines = source.encode().splitlines(keepends=True)
    placed = sorted(((literals[name], value) for name, value in constants.items()), key=_place)
    for node, value in reversed(placed):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before = lines[first][: node.col_offset]
        after = lines[last][node.end_col_offset :]
        lines[first : last + 1] = [before + literal(value).encode() + after]
    return b"".join(lines).decode()


def literal(value: Any) -> str:
    """Python source of a constant: strings in double quotes, sequences as tuples."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(literal(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def _place(item: tuple[ast.expr, Any]) -> tuple[int, int]:
    return item[0].lineno, item[0].col_offset


def _literals(source: str) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name) and target.id.isupper():
            try:
                ast.literal_eval(value)
            except ValueError:
                continue  # computed from others: not a constant to set
            found[target.id] = value
    return found

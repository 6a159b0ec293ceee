"""YAML, strictly: plain values, every key once, no tags, aliases bounded; lines are remembered.

    document = read_yaml(text)       # raises YamlError with the line
    document.value                   # dict, tuple, str, int, float, bool, None
    document.line(("scorer", "parse"))

Plain scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `yes`,
`no` and `on` are words, `1e-3` is a number. Nothing is constructed from tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000  # aliases count each time they are used
MAX_DEPTH = 20
Path = tuple["str | int", ...]
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


class YamlError(Exception):
    """The text isn't YAML, or more than is taken here. `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass
class Document:
    """What a text says, and in which line it says it."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Sequence[str | int]) -> int:
        """The line of this key, or of the nearest one around it."""
        parts = tuple(path)
        while parts and parts not in self.lines:
            parts = parts[:-1]
        return self.lines.get(parts, 1)


def read_yaml(text: str) -> Document:
    """Read one document. Raises YamlError."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"longer than {MAX_BYTES:,} characters", 1)
    try:
        # BaseLoader knows no types: its nodes are text, lists and tables.
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        raise YamlError(said, mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:  # a character that YAML doesn't have
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise YamlError(str(error).splitlines()[0], line) from error
    except RecursionError as error:
        raise YamlError(f"nested deeper than {MAX_DEPTH}", 1) from error
    document = Document()
    if node is not None:
        document.value = _Reader(document).read(node, ())
    return document


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(path, line)
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlError(f"more than {MAX_VALUES:,} values, aliases counted", line)
        if len(path) > MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH}", line)
        if node.tag not in _TAGS:
            raise YamlError(f"tags such as {node.tag} are not taken", line)
        if isinstance(node, yaml.MappingNode):
            return self._table(node, path)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.read(item, (*path, at)) for at, item in enumerate(node.value))
        return _scalar(node)

    def _table(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError("a key must be a word", line)
            name = str(key.value)
            here: Path = (*path, name)
            if name in found:
                first = self._document.lines[here]
                raise YamlError(f"{name!r} stands here a second time, first in line {first}", line)
            self._document.lines[here] = line
            found[name] = self.read(item, here)
        return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block: text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) and len(text) < 100:
        return int(text)
    if _BASED.fullmatch(text) and len(text) < 100:
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text

"""Search/replace blocks: how a model without tools writes an edit.

    train.py
    <<<<<<< SEARCH
    DEPTH = 8
    =======
    DEPTH = 6
    >>>>>>> REPLACE

The text to search must stand in the file exactly once, letter by letter. An empty one fills a new
or empty file. Blocks are applied in their order, all or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SEARCH, DIVIDE, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
MOST_BLOCKS = 50
_FENCE = re.compile(r"^\s*(?:```|~~~).*$")

RULES = f"""Write the edit as blocks of this form, each behind the file's name on a line of its own:

train.py
{SEARCH}
the lines to replace, letter by letter as they stand in the file
{DIVIDE}
the lines to put there
{REPLACE}

The lines to replace must occur exactly once in the file: take enough lines around them. Use a few
small blocks, not the whole file."""


class InvalidBlocks(ValueError):
    """An answer whose blocks can't be applied; the message tells the model what is wrong."""


@dataclass(frozen=True)
class Block:
    """One replacement in one file."""

    path: str
    search: str
    replace: str


def parse_blocks(answer: str, artifacts: Sequence[str]) -> list[Block]:
    """The blocks of an answer. A block without a file's name is for the only artifact.

    Raises InvalidBlocks for a block that is cut off, and when there is none.
    """
    blocks: list[Block] = []
    path = artifacts[0] if len(artifacts) == 1 else ""
    lines = answer.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        named = line.strip("`*#: ")
        if named in artifacts:
            path = named
        if line == SEARCH:
            where = f"block {len(blocks) + 1}"
            divide = _find(lines, at + 1, DIVIDE, f"{where} has no line {DIVIDE}")
            end = _find(lines, divide + 1, REPLACE, f"{where} has no line {REPLACE}")
            if not path:
                raise InvalidBlocks(f"{where} names no file; known are {', '.join(artifacts)}")
            blocks.append(
                Block(path, _joined(lines[at + 1 : divide]), _joined(lines[divide + 1 : end]))
            )
            at = end
        elif not _FENCE.match(line) and _other_file(line, artifacts, lines, at):
            raise InvalidBlocks(
                f"{named} is not a file you may edit; those are {', '.join(artifacts)}"
            )
        at += 1
    if not blocks:
        raise InvalidBlocks(f"the answer has no block: none of its lines is {SEARCH}")
    if len(blocks) > MOST_BLOCKS:
        raise InvalidBlocks(f"{len(blocks)} blocks; at most {MOST_BLOCKS} are allowed")
    return blocks


def apply_blocks(texts: Mapping[str, str], blocks: Sequence[Block]) -> dict[str, str]:
    """New texts of the files that change. Raises InvalidBlocks that names every faulty block."""
    result = dict(texts)
    faults = []
    for number, block in enumerate(blocks, 1):
        text = result.get(block.path, "")
        windows = "\r\n" in text
        search = block.search.replace("\n", "\r\n") if windows else block.search
        replacement = block.replace.replace("\n", "\r\n") if windows else block.replace
        if not search.strip():
            if text.strip():
                faults.append(f"block {number}: nothing to search, and {block.path} is not empty")
            else:
                result[block.path] = replacement
            continue
        if not text.endswith("\n"):
            text += "\r\n" if windows else "\n"
        # Whole lines alone: "x = 1" must not match inside "max = 10".
        places = list(re.finditer(f"^{re.escape(search)}", text, re.MULTILINE))
        count = len(places)
        if count != 1:
            found = "does not occur" if count == 0 else f"occurs {count} times"
            faults.append(
                f"block {number}: the text to search {found} in {block.path}; it must occur "
                f"exactly once. It begins: {block.search.strip().splitlines()[0][:80]!r}"
            )
            continue
        result[block.path] = text[: places[0].start()] + replacement + text[places[0].end() :]
    if faults:
        raise InvalidBlocks("\n".join(faults))
    changed = {path: text for path, text in result.items() if text != texts.get(path)}
    if not changed:
        raise InvalidBlocks("the blocks change nothing: each replaces a text by itself")
    return changed


def _find(lines: Sequence[str], start: int, mark: str, complaint: str) -> int:
    for at in range(start, len(lines)):
        line = lines[at].strip()
        if line == mark:
            return at
        if line == SEARCH:
            break
    raise InvalidBlocks(complaint)


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _other_file(line: str, artifacts: Sequence[str], lines: Sequence[str], at: int) -> bool:
    """Whether this line names a file right above a block, one that may not be edited."""
    name = line.strip("`*#: ")
    if name in artifacts or not re.fullmatch(r"[\w./-]+\.\w{1,8}", name):
        return False
    following = [item.strip() for item in lines[at + 1 : at + 3] if not _FENCE.match(item)]
    return bool(following) and following[0] == SEARCH

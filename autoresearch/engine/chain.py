"""Lines of a ledger: records as canonical JSON, each bound to the one before by its hash.

A line is the record with `seq` (0, 1, 2 ...), `prev` (the hash of the line before, zeros for the
first) and `hash`: SHA-256 over the canonical JSON of everything else in the line, `prev` included.
Canonical is: keys sorted, no spaces, ASCII, no NaN. A line must be byte for byte what its record
encodes to, so nothing in it can be changed, doubled or reordered unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.engine.errors import LedgerError

GENESIS = "0" * 64
RESERVED = ("seq", "prev", "hash")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a ledger. Line 1 is the first; `fatal` problems refuse appending."""

    line: int
    kind: str
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class Chain:
    """A ledger's bytes, read: the good records, what is wrong, and where the good bytes end."""

    records: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]
    end: int  # bytes up to and including the last good line
    tail: bytes  # torn: bytes behind `end` that a kill left there
    unfinished: bool = False  # the last line is good but lacks its newline

    @property
    def head(self) -> str:
        """Hash of the last good record."""
        return self.records[-1]["hash"] if self.records else GENESIS


def canonical(record: Mapping[str, Any]) -> bytes:
    """Canonical JSON. Raises LedgerError if the record isn't made of JSON values."""
    try:
        text = json.dumps(
            record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(
            f"the record can't be written as JSON: {error}",
            'use plain values; numbers that JSON lacks as "nan", "inf", "-inf"',
        ) from error
    return text.encode("ascii")


def seal(record: Mapping[str, Any], seq: int, prev: str) -> dict[str, Any]:
    """The record with `seq`, `prev` and `hash`. Raises LedgerError if it has one already."""
    taken = [key for key in RESERVED if key in record]
    if taken:
        raise LedgerError(f"the record has a field {taken[0]!r}, which the ledger sets itself")
    sealed = {**record, "seq": seq, "prev": prev}
    sealed["hash"] = hashlib.sha256(canonical(sealed)).hexdigest()
    # What is handed back is what a reader will get: tuples as lists, keys as text.
    return json.loads(canonical(sealed))


def read_chain(data: bytes, known: Chain | None = None) -> Chain:
    """Read a ledger's bytes as far as they can be trusted; never raises.

    With `known`, a good beginning of the ledger, `data` is what stands behind its `end`.
    """
    records: list[dict[str, Any]] = list(known.records) if known else []
    lines = data.split(b"\n")
    rest = lines.pop()  # behind the last newline; empty if the file ends well
    begin = known.end if known else 0
    at, prev = begin, known.head if known else GENESIS
    count = len(records) + len(lines)
    for number, line in enumerate(lines, len(records) + 1):
        record, wrong = _open_line(line, number - 1, prev)
        if record is None:
            last = number == count and not rest
            if last and b"\0" in line:
                # A machine that lost power can leave a last page of zeros. JSON has none.
                return Chain(tuple(records), (_torn(number),), at, data[at - begin :])
            return Chain(tuple(records), (Problem(number, "damaged", wrong),), at, b"")
        records.append(record)
        prev = record["hash"]
        at += len(line) + 1
    if not rest:
        return Chain(tuple(records), (), at, b"")
    record, _ = _open_line(rest, len(records), prev)
    if record is not None:
        return Chain((*records, record), (), begin + len(data), b"", unfinished=True)
    return Chain(tuple(records), (_torn(len(records) + 1),), at, rest)


def _torn(line: int) -> Problem:
    message = "incomplete, as a kill leaves it; it will be set aside by the next writer"
    return Problem(line, "torn", message, fatal=False)


def _open_line(line: bytes, seq: int, prev: str) -> tuple[dict[str, Any] | None, str]:
    """The record of a line, or None and what is wrong with it."""
    if line.endswith(b"\r"):
        return None, "its line ending was changed to CR LF"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None, "not JSON"
    if not isinstance(record, dict) or any(key not in record for key in RESERVED):
        return None, "not a record of this ledger"
    try:
        # Keys are sorted: one pass over the values gives both, the line and what was hashed.
        before = canonical({key: value for key, value in record.items() if key < "hash"})[1:-1]
        after = canonical({key: value for key, value in record.items() if key > "hash"})[1:-1]
        own = canonical({"hash": record["hash"]})[1:-1]
    except LedgerError:
        return None, "holds a value that is not JSON"
    unhashed = b"{" + b",".join(filter(None, (before, after))) + b"}"
    good = hashlib.sha256(unhashed).hexdigest() == record["hash"]
    exact = b"{" + b",".join(filter(None, (before, own, after))) + b"}" == line
    if not good or not exact:
        return None, "its content does not fit its hash: it was changed"
    if record["prev"] != prev:
        return None, "does not follow the line before: a line was removed, added or moved"
    if record["seq"] != seq:
        return None, f"says it is record {record['seq']}, but stands in the place of {seq}"
    return record, ""

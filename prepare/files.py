"""Documents in files of your own: parquet, jsonl and txt.

Rules for files of your own (a file, or a folder searched in depth; .parquet, .jsonl, .txt):
- parquet and jsonl hold a document per row in the column or field `text`.
- A txt file with `<|endoftext|>` holds the documents between those marks. One with headings in
  wikitext's manner (a line ` = Title = ` between blank lines) has a document per heading. Any
  other is running text, cut at a paragraph's end (a line's, a word's) into pieces of at most 16
  KiB, or of a 128th of the file.
- Bytes that are no UTF-8, and lone surrogates, become U+FFFD. A byte order mark is dropped. White
  space around a document is dropped, and so are empty documents. Everything else is kept as it is:
  line ends, and the names of special tokens, which are plain text.
- Validation is what lies in files or folders whose name has the word val, valid, validation or dev
  in it (`valid.txt`, `wiki-valid.jsonl`, `val/00.parquet`). Without such, a document is validation
  if its hash says so: one in ten, fewer in corpora beyond 40 MB.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prepare.cache import cache_root, ignore_event, read_json, sha256_file, write_json
from prepare.errors import CorruptFile, NoData, PrepareError

SUFFIXES = (".parquet", ".jsonl", ".txt")
MARK = "<|endoftext|>"
MEND = "delete it, then download or write it again"
VAL_WORDS = frozenset({"val", "valid", "validation", "dev"})

BLOCK = 1 << 20  # characters read at a time
# Running text makes documents of at most this many characters: longer than most contexts. A
# small file has at least about 128 of them, so that a tenth can be set aside.
PIECE, LEAST_PIECE, PIECES = 16_384, 256, 128

# wikitext's first-level heading, alone on its line; deeper levels have two or more = signs.
HEADING = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)


def find_files(path: Path) -> list[Path]:
    """Files of known kinds at `path`, sorted by name, hidden ones left out. Raises NoData."""
    if path.is_file():
        found = [path] if path.suffix.lower() in SUFFIXES else []
    elif path.is_dir():
        found = [
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        found.sort(key=lambda file: file.relative_to(path).as_posix())
    else:
        raise NoData(
            f"there is no corpus at {path}",
            "name embedded, climbmix, tinystories, or a file or folder that exists",
        )
    if not found:
        raise NoData(
            f"{path} holds none of {', '.join(SUFFIXES)}", "add text in one of these forms"
        )
    return found


def file_hashes(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file; one already known with the same size and time is not read again."""
    store = cache_root() / "hashes.json"
    try:
        known = read_json(store)
    except (OSError, CorruptFile):
        known = {}
    keys = []
    for file in files:
        stat = file.stat()
        keys.append(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}")
    missing = {key: file for key, file in zip(keys, files, strict=True) if key not in known}
    if missing:
        known.update({key: sha256_file(file) for key, file in missing.items()})
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            write_json(store, known)
        except (OSError, PrepareError) as error:
            ignore_event("warning", {"message": f"hashes are not remembered: {error}"})
    return [known[key] for key in keys]


def is_validation(file: Path, root: Path) -> bool:
    """Whether the name of a file, or of a folder between it and `root`, has a word like val."""
    parts = file.relative_to(root).with_suffix("").parts
    return any(VAL_WORDS & set(re.split(r"[^a-z]+", part.lower())) for part in parts)


def read_file(file: Path) -> Iterator[str]:
    """Documents of one file, cleaned, none of them empty. Raises CorruptFile."""
    readers = {".parquet": read_parquet, ".jsonl": read_jsonl, ".txt": read_txt}
    for document in readers[file.suffix.lower()](file):
        if text := clean(document):
            yield text


def clean(text: str) -> str:
    """Without white space around it, and without lone surrogates, which no UTF-8 can hold."""
    text = text.strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def read_parquet(file: Path, first: int = 0, last: int | None = None) -> Iterator[str]:
    """Rows `first` to `last` of the column `text`, a row group at a time. Raises CorruptFile."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as source:
            if "text" not in source.schema_arrow.names:
                raise CorruptFile(
                    f"{file} has no column text", f"it has {source.schema_arrow.names}"
                )
            row = 0
            for batch in source.iter_batches(batch_size=4096, columns=["text"]):
                start, stop = max(first - row, 0), batch.num_rows
                stop = stop if last is None else min(stop, last - row)
                row += batch.num_rows
                if stop > start:
                    yield from _strings(batch.column(0).slice(start, stop - start))
                if last is not None and row >= last:
                    return
    except (pyarrow.ArrowException, OSError) as error:
        raise CorruptFile(f"{file} is not whole parquet: {error}", MEND) from error


def parquet_text_bytes(file: Path) -> int:
    """About how many bytes the column `text` holds, from the file's own statistics."""
    import pyarrow
    import pyarrow.parquet

    try:
        about = pyarrow.parquet.read_metadata(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorruptFile(f"{file} is not whole parquet: {error}", MEND) from error
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(part.total_uncompressed_size for part in columns if part.path_in_schema == "text")


def _strings(column: Any) -> list[str]:
    """Python strings of an arrow column, null as "", bytes that are no UTF-8 as U+FFFD."""
    import pyarrow

    try:
        return [text or "" for text in column.to_pylist()]
    except UnicodeDecodeError:
        raw = column.cast(pyarrow.large_binary()).to_pylist()
        return [(data or b"").decode("utf-8", errors="replace") for data in raw]


def read_jsonl(file: Path) -> Iterator[str]:
    """The field `text` of each line. Raises CorruptFile with the line's number."""
    with open(file, encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptFile(
                    f"{file}, line {number}: no JSON object with a field text ({error!r})",
                    "mend or remove that line",
                ) from error
            if not isinstance(text, str):
                raise CorruptFile(f"{file}, line {number}: text is no string", "mend that line")
            yield text


def read_txt(file: Path) -> Iterator[str]:
    """Documents of a text file by the rule at the top of this module."""
    if any(MARK in text for text in _overlapping(file)):
        return _between_marks(file)
    if _headings(file) > 1:
        return _by_heading(file)
    size = file.stat().st_size // PIECES
    return cut_text_stream(_blocks(file), min(max(size, LEAST_PIECE), PIECE))


def _blocks(file: Path) -> Iterator[str]:
    """Decoded text, about a MiB at a time; never splits a character."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    with open(file, "rb") as source:
        while block := source.read(BLOCK):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _overlapping(file: Path) -> Iterator[str]:
    """Blocks, each with the end of the one before, so that a mark across two is seen."""
    tail = ""
    for block in _blocks(file):
        yield tail + block
        tail = block[-len(MARK) :]


def _between_marks(file: Path) -> Iterator[str]:
    rest = ""
    for block in _blocks(file):
        *whole, rest = (rest + block).split(MARK)
        yield from whole
    yield rest


def _lines(file: Path) -> Iterator[str]:
    rest = ""
    for block in _blocks(file):
        *whole, rest = (rest + block).split("\n")
        yield from (line + "\n" for line in whole)
    if rest:
        yield rest


def _headings(file: Path) -> int:
    """First-level headings between blank lines within the first lines of a file; 2 is enough."""
    found, before, candidate = 0, "", False
    for number, line in enumerate(_lines(file)):
        if candidate and not line.strip():
            found += 1
        if found > 1 or number > 100_000:
            break
        candidate = bool(HEADING.match(line.rstrip("\n"))) and not before.strip()
        before = line
    return found


def _by_heading(file: Path) -> Iterator[str]:
    parts: list[str] = []
    for line in _lines(file):
        if HEADING.match(line.rstrip("\n")) and (not parts or not parts[-1].strip()):
            yield "".join(parts)
            parts = []
        parts.append(line)
    yield "".join(parts)


def cut_text(text: str, size: int) -> Iterator[str]:
    """Pieces of at most `size` characters that end at the last paragraph, line or word, if any."""
    start = 0
    while len(text) - start > size:
        stop = start + size
        for mark in ("\n\n", "\n", " "):
            found = text.rfind(mark, start + 1, stop)
            if found > start:
                stop = found + len(mark)
                break
        yield text[start:stop]
        start = stop
    yield text[start:]


def cut_text_stream(blocks: Iterator[str], size: int) -> Iterator[str]:
    """`cut_text` over blocks of one text."""
    rest = ""
    for block in blocks:
        *pieces, rest = cut_text(rest + block, size)
        yield from pieces
    yield rest

"""Tokens on disk: documents end to end in one memory-mapped array, prepared once.

    store = TokenStore.build(folder, texts, tokenizer)      # resumes where a killed build stopped
    store = TokenStore.open(folder, tokenizer)
    store.tokens[store.offsets[i] : store.offsets[i + 1]]   # document i, BOS first

Files: `tokens.bin` (little-endian uint16 or uint32), `offsets.npy` (int64), `store.json` (sizes and
fingerprints; written last, so a folder without it is unfinished). While building, `tokens.bin` and
`lengths.bin` grow a shard at a time and `progress.json` says how far they are whole: a restart cuts
them back to that and skips the documents already done. Memory stays flat: a shard of text at a
time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.cache import (
    Event,
    atomic_path,
    explained,
    ignore_event,
    read_json,
    require_space,
    writable_folder,
    write_json,
)
from prepare.errors import CorruptFile, IncompleteShard, NoData, VocabularyMismatch
from prepare.tokenizer import Tokenizer

VERSION = 1
SHARD_CHARACTERS = 8_000_000  # text tokenized between two checkpoints: a second or so of work

MEND = "run `autoresearch prepare` to build it again"


@dataclass(frozen=True)
class TokenStore:
    """Documents as token ids; `tokens[offsets[i]]` is always BOS."""

    tokens: NDArray[np.unsignedinteger]  # (n_tokens,) memory-mapped
    offsets: NDArray[np.int64]  # (n_documents + 1,)
    text_bytes: int  # UTF-8 bytes of all documents
    bos: int

    @property
    def n_documents(self) -> int:
        """Documents, empty ones included."""
        return len(self.offsets) - 1

    @classmethod
    def open(cls, folder: Path, tokenizer: Tokenizer) -> TokenStore:
        """Map a finished store.

        Raises FileNotFoundError if it was never finished, IncompleteShard if a file is shorter
        than it was, CorruptFile, and VocabularyMismatch if another tokenizer made it.
        """
        about = read_json(folder / "store.json")
        if about.get("tokenizer") != tokenizer.fingerprint:
            raise VocabularyMismatch(
                f"the tokens in {folder} were made by tokenizer {about.get('tokenizer')}, "
                f"not {tokenizer.fingerprint}",
                f"delete {folder} and run `autoresearch prepare` again",
            )
        try:
            n_tokens, n_documents = int(about["n_tokens"]), int(about["n_documents"])
            version, text_bytes = about["version"], int(about["text_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"{folder / 'store.json'} lacks {error}", MEND) from error
        if version != VERSION:
            raise CorruptFile(f"{folder} has version {version}, not {VERSION}", MEND)
        path = folder / "tokens.bin"
        expected = n_tokens * tokenizer.dtype.itemsize
        size = path.stat().st_size if path.exists() else 0
        if size != expected:
            raise IncompleteShard(f"{path} has {size} bytes instead of {expected}", MEND)
        try:
            offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{folder / 'offsets.npy'}: {error}", MEND) from error
        if offsets.shape != (n_documents + 1,) or int(offsets[-1]) != n_tokens:
            raise CorruptFile(f"offsets in {folder} do not fit its tokens", MEND)
        # asarray: indexing a plain array over the mapping is several times as fast as np.memmap's
        # own
        tokens = np.asarray(np.memmap(path, tokenizer.dtype, "r"))
        return cls(tokens, np.asarray(offsets), text_bytes, tokenizer.bos)

    @classmethod
    def build(
        cls,
        folder: Path,
        texts: Iterable[str],
        tokenizer: Tokenizer,
        on_event: Event = ignore_event,
        expected_bytes: int | None = None,
        task: str = "tokens",
    ) -> TokenStore:
        """Tokenize `texts` into `folder`, or finish what an earlier build began.

        `texts` must be the same stream as then; `expected_bytes` of text is used for the disk
        check and the progress. Raises NoData, DiskFull, UnwritableCache.
        """
        writable_folder(folder)
        if expected_bytes:
            # English text at a vocabulary of 8192 has about 3.7 bytes a token; bytes have one.
            per_byte = tokenizer.dtype.itemsize / (1 if tokenizer.vocab_size == 256 else 2.5)
            require_space(folder, int(expected_bytes * per_byte))
        with explained(folder):
            _Builder(folder, tokenizer, on_event, expected_bytes, task).run(texts)
        return cls.open(folder, tokenizer)


class _Builder:
    """Appends shards to the files of one folder and keeps `progress.json` true."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        on_event: Event,
        expected_bytes: int | None,
        task: str,
    ) -> None:
        self.folder, self.tokenizer, self.on_event = folder, tokenizer, on_event
        self.expected_bytes, self.task = expected_bytes, task
        self.done: dict[str, Any] = {"n_tokens": 0, "n_documents": 0, "text_bytes": 0}
        self.identity = {"tokenizer": tokenizer.fingerprint, "version": VERSION}

    def run(self, texts: Iterable[str]) -> None:
        (self.folder / "store.json").unlink(missing_ok=True)
        self._resume()
        remaining = islice(iter(texts), self.done["n_documents"], None)
        with (
            open(self.folder / "tokens.bin", "ab") as tokens,
            open(self.folder / "lengths.bin", "ab") as lengths,
        ):
            for shard in shards(remaining):
                self._append(shard, tokens, lengths)
        if not self.done["n_documents"]:
            raise NoData("the corpus holds no documents", "check what the corpus holds")
        self._finish()

    def _resume(self) -> None:
        """Cut the files back to the last shard known to be whole, or to nothing."""
        try:
            found = read_json(self.folder / "progress.json")
        except (FileNotFoundError, CorruptFile):
            found = {}
        sizes = {"tokens.bin": self.tokenizer.dtype.itemsize, "lengths.bin": 8}
        counts = {"tokens.bin": "n_tokens", "lengths.bin": "n_documents"}
        same = all(found.get(key) == value for key, value in self.identity.items())
        if (
            same
            and self.done.keys() <= found.keys()
            and all(
                (self.folder / name).exists()
                and (self.folder / name).stat().st_size >= found[counts[name]] * width
                for name, width in sizes.items()
            )
        ):
            self.done = {key: found[key] for key in self.done}
        for name, width in sizes.items():
            with open(self.folder / name, "ab") as file:
                file.truncate(self.done[counts[name]] * width)

    def _append(self, shard: list[str], tokens: Any, lengths: Any) -> None:
        encoded = self.tokenizer.encode_batch(shard)
        bos = np.array([self.tokenizer.bos], self.tokenizer.dtype)
        flat = np.concatenate([part for ids in encoded for part in (bos, ids)])
        flat.tofile(tokens)
        np.array([len(ids) + 1 for ids in encoded], "<i8").tofile(lengths)
        for file in (tokens, lengths):
            file.flush()
            os.fsync(file.fileno())
        self.done["n_tokens"] += len(flat)
        self.done["n_documents"] += len(shard)
        self.done["text_bytes"] += sum(len(text.encode("utf-8")) for text in shard)
        write_json(self.folder / "progress.json", {**self.done, **self.identity})
        self.on_event(
            "preparing",
            {
                "task": self.task,
                "done": self.done["text_bytes"],
                "total": self.expected_bytes,
                "unit": "bytes",
            },
        )

    def _finish(self) -> None:
        lengths = np.fromfile(self.folder / "lengths.bin", "<i8")
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        with atomic_path(self.folder / "offsets.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, offsets, allow_pickle=False)
        write_json(self.folder / "store.json", {**self.done, **self.identity})
        for name in ("progress.json", "lengths.bin"):
            (self.folder / name).unlink(missing_ok=True)


def shards(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group documents until they hold SHARD_CHARACTERS; the grouping doesn't change the tokens."""
    shard: list[str] = []
    size = 0
    for text in texts:
        shard.append(text)
        size += len(text)
        if size >= SHARD_CHARACTERS:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard

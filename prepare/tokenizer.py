"""Text to token ids and back: byte pairs learned by rustbpe, or plain bytes.

    tokenizer = Tokenizer.train(texts, vocab_size=8192)
    tokenizer.save(path); tokenizer = Tokenizer.load(path)
    ids = tokenizer.encode_batch(["Once upon a time"])      # list of uint16 arrays, no BOS

`vocab_size` is what the model sees: every id is below it, and the last id is BOS, the only special
token. Text never encodes to BOS, whatever it spells.

- Byte pairs, 512 to 65536: ids 0..255 are the byte values, then the merges, then BOS. A text too
  small for the vocabulary that was asked for leaves ids unused between merges and BOS (`unused`),
  so that the model's shape follows the settings and not the text.
- Bytes, exactly 256: the ids are the byte values, and BOS is 255, a byte that UTF-8 never contains.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prepare.cache import atomic_path, digest
from prepare.errors import CorruptFile, NoData, UsageError

if TYPE_CHECKING:
    import tiktoken

BYTES = 256
SMALLEST, LARGEST = 512, 65536
FORMAT = "autoresearch-tokenizer-1"

# GPT-4's split with numbers of at most two digits, as nanochat has it: a small vocabulary should
# not spend its merges on three-digit numbers. Contractions, words with one leading mark, numbers,
# punctuation with its line ends, white space.
SPLIT_PATTERN = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# Texts a thread takes at a time: handing them over one by one costs a third of the rate.
GROUP = 64

MEND = "delete it and run `autoresearch prepare` again"


def check_vocab_size(vocab_size: int) -> None:
    """Raise UsageError unless it is 256 (bytes) or within 512..65536 (byte pairs)."""
    if vocab_size != BYTES and not SMALLEST <= vocab_size <= LARGEST:
        raise UsageError(
            f"vocab_size {vocab_size} is not possible",
            f"use {BYTES} for bytes, or {SMALLEST} to {LARGEST} for byte pairs",
        )


class Tokenizer:
    """An ordered list of token byte strings; the position is the id."""

    def __init__(self, tokens: Sequence[bytes], vocab_size: int) -> None:
        """`tokens` are in the order of their ranks; `vocab_size` counts BOS and unused ids."""
        check_vocab_size(vocab_size)
        self.vocab_size = vocab_size
        self.bos = vocab_size - 1
        self._tokens = tuple(tokens[: self.bos])
        if len(set(self._tokens)) != len(self._tokens) or b"" in self._tokens:
            raise CorruptFile("the vocabulary holds a token twice, or an empty one", MEND)
        if set(self._tokens[:BYTES]) < {bytes([value]) for value in range(BYTES - 1)}:
            raise CorruptFile("the vocabulary does not begin with the byte values", MEND)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from `texts`; for 256 nothing is learned.

        Raises NoData if there is no text.
        """
        check_vocab_size(vocab_size)
        if vocab_size == BYTES:
            return cls([bytes([value]) for value in range(BYTES)], vocab_size)
        import rustbpe

        seen = _Counted(texts)
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(seen, vocab_size - 1, pattern=SPLIT_PATTERN)
        if not seen.characters:
            raise NoData("there is no text to train a tokenizer on", "check what the corpus holds")
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
        return cls([bytes(token) for token, _ in ranked], vocab_size)

    @property
    def unused(self) -> int:
        """Ids that no text encodes to, because the training text had too few pairs to merge."""
        return self.bos - len(self._tokens)

    @cached_property
    def token_bytes(self) -> NDArray[np.int32]:
        """(vocab_size,) UTF-8 bytes that each id stands for; 0 for BOS and unused ids."""
        lengths = np.zeros(self.vocab_size, np.int32)
        lengths[: len(self._tokens)] = [len(token) for token in self._tokens]
        return lengths

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The narrowest type that holds every id, little-endian on disk."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: the same tokens in the same order have the same fingerprint."""
        return digest(FORMAT, SPLIT_PATTERN, self.vocab_size, _checksum(self._tokens))

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(self._tokens)}
        return tiktoken.Encoding(
            "autoresearch", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        """Ids of one text, without BOS. Raises UnicodeEncodeError on lone surrogates."""
        if self.vocab_size == BYTES:
            return np.frombuffer(text.encode("utf-8"), np.uint8).astype(self.dtype)
        # encode_ordinary, then one conversion: measured 1.5 times as fast as encode_to_numpy, which
        # searches for special tokens even when there are none.
        return np.array(self._encoding.encode_ordinary(text), self.dtype)

    def encode_batch(
        self, texts: Sequence[str], threads: int | None = None
    ) -> list[NDArray[np.unsignedinteger]]:
        """Ids of each text, without BOS, on all cores: tiktoken lets go of the interpreter lock."""
        threads = threads or os.cpu_count() or 1
        if self.vocab_size == BYTES or len(texts) < 2 or threads == 1:
            return [self.encode(text) for text in texts]
        _ = self._encoding  # build it once, before the threads ask for it
        groups = [texts[start : start + GROUP] for start in range(0, len(texts), GROUP)]
        with ThreadPoolExecutor(threads) as pool:
            encoded = pool.map(lambda group: [self.encode(text) for text in group], groups)
            return [ids for group in encoded for ids in group]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes behind the ids; BOS and unused ids stand for none."""
        known = len(self._tokens)
        return b"".join(self._tokens[token] for token in map(int, ids) if 0 <= token < known)

    def decode(self, ids: Iterable[int]) -> str:
        """Text behind the ids; bytes that are no UTF-8 show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Write JSON atomically: base64 of every token in order, and a checksum over them."""
        content = {
            "format": FORMAT,
            "vocab_size": self.vocab_size,
            "pattern": SPLIT_PATTERN,
            "sha256": _checksum(self._tokens),
            "tokens": [base64.b64encode(token).decode("ascii") for token in self._tokens],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote. Raises CorruptFile, or FileNotFoundError."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            tokens = [base64.b64decode(token, validate=True) for token in content["tokens"]]
            vocab_size, stated = int(content["vocab_size"]), content["sha256"]
            known = (content["format"], content["pattern"]) == (FORMAT, SPLIT_PATTERN)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise CorruptFile(f"tokenizer {path} can't be read: {error!r}", MEND) from error
        if not known:
            raise CorruptFile(f"tokenizer {path} is of another format than {FORMAT}", MEND)
        if _checksum(tokens) != stated or len(tokens) >= max(vocab_size, BYTES + 1) + 1:
            raise CorruptFile(f"tokenizer {path} does not match its checksum", MEND)
        return cls(tokens, vocab_size)


class _Counted:
    """An iterator of texts that remembers whether there were any."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.characters = 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.characters += len(text)
        return text


def _checksum(tokens: Sequence[bytes]) -> str:
    """SHA-256 over the tokens, each with its length, in hex."""
    state = hashlib.sha256()
    for token in tokens:
        state.update(len(token).to_bytes(4, "little") + token)
    return state.hexdigest()

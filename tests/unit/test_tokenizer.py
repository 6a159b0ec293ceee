"""Tokenizers: lossless, exact in bytes, and honest about a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.errors import CorruptFile, NoData, UsageError
from prepare.tokenizer import Tokenizer

TEXTS = [
    "Once upon a time there was a little dragon. It's 12345 years old!\n\nThe end.",
    "Жил-был дракон. Ему было 7 лет.\r\n",
    "昔々、あるところに竜がいました。",
    "a <|endoftext|> b <|bos|> c <|reserved_0|>",
    "😀👍🏽 \t\t  trailing   ",
] * 20
BPE = Tokenizer.train(TEXTS, 512)
BYTES = Tokenizer.train([], 256)


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.bos not in ids


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
def test_bos_is_the_last_id_and_has_no_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos == tokenizer.vocab_size - 1
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    assert tokenizer.token_bytes[tokenizer.bos] == 0
    assert tokenizer.decode([tokenizer.bos]) == ""


def test_names_of_special_tokens_are_plain_text() -> None:
    for text in ("<|endoftext|>", "<|bos|>", "<|reserved_0|>"):
        assert BPE.decode(BPE.encode(text)) == text
        assert len(BPE.encode(text)) > 1 or BPE.encode(text)[0] < BPE.bos


def test_partial_utf8_counts_its_raw_bytes() -> None:
    """A decoded part of a character would be U+FFFD: three bytes instead of one."""
    ids = BYTES.encode("竜")
    assert len(ids) == 3
    assert BYTES.token_bytes[ids].tolist() == [1, 1, 1]
    assert BYTES.decode_bytes(ids[:1]) == "竜".encode()[:1]
    assert BYTES.decode(ids[:2]) == "\ufffd"


def test_batches_equal_single_texts() -> None:
    many = TEXTS * 5
    for threads in (1, 3):
        batch = BPE.encode_batch(many, threads)
        assert len(batch) == len(many)
        for ids, text in zip(batch, many, strict=True):
            np.testing.assert_array_equal(ids, BPE.encode(text))


def test_training_is_deterministic() -> None:
    assert Tokenizer.train(TEXTS, 512).fingerprint == BPE.fingerprint
    assert Tokenizer.train(TEXTS[:-1] + ["dragon dragons"] * 50, 512).fingerprint != BPE.fingerprint


def test_tiny_text_leaves_ids_unused() -> None:
    tokenizer = Tokenizer.train(["ab ab ab"], 4096)
    assert tokenizer.vocab_size == 4096
    assert tokenizer.unused > 3800
    assert tokenizer.bos == 4095
    assert tokenizer.token_bytes[-tokenizer.unused - 1 :].sum() == 0
    assert tokenizer.decode([4000, 97]) == "a"


def test_dtype_is_the_narrowest() -> None:
    assert BPE.dtype == np.uint16
    assert Tokenizer.train(TEXTS, 65536).dtype == np.uint16


@pytest.mark.parametrize("size", [0, 255, 257, 511, 65537])
def test_impossible_sizes(size: int) -> None:
    with pytest.raises(UsageError, match=str(size)):
        Tokenizer.train(TEXTS, size)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text(texts: list[str]) -> None:
    with pytest.raises(NoData):
        Tokenizer.train(texts, 512)


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
def test_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "t.json")
    loaded = Tokenizer.load(tmp_path / "t.json")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == tokenizer.vocab_size
    np.testing.assert_array_equal(loaded.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))
    np.testing.assert_array_equal(loaded.token_bytes, tokenizer.token_bytes)


def _swap_tokens(content: dict) -> None:
    tokens = content["tokens"]
    tokens[300], tokens[301] = tokens[301], tokens[300]


DAMAGE = {
    "dropped token": lambda content: content["tokens"].pop(),
    "swapped tokens": _swap_tokens,
    "no base64": lambda content: content["tokens"].__setitem__(5, "!!"),
    "missing field": lambda content: content.pop("sha256"),
    "other format": lambda content: content.__setitem__("format", "x"),
    "other pattern": lambda content: content.__setitem__("pattern", "x"),
    "too small a vocabulary": lambda content: content.__setitem__("vocab_size", 256),
    "no number": lambda content: content.__setitem__("vocab_size", None),
    "impossible size": lambda content: content.__setitem__("vocab_size", 300),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    BPE.save(path)
    content = json.loads(path.read_text())
    DAMAGE[damage](content)
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptFile) as caught:
        Tokenizer.load(path)
    assert str(path) in caught.value.message
    assert "prepare" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'"text"'])
def test_file_of_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(CorruptFile):
        Tokenizer.load(path)

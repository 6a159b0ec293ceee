"""The token store: whole or absent, resumed after a kill, mapped and not read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prepare import tokens as module
from prepare.cache import read_json
from prepare.errors import CorruptFile, DiskFull, IncompleteShard, NoData, VocabularyMismatch
from prepare.tokenizer import Tokenizer
from prepare.tokens import TokenStore

TEXTS = [f"Story {i}: " + "the dragon sang. " * (i % 7) for i in range(500)]
BPE = Tokenizer.train(TEXTS, 512)
BYTES = Tokenizer.train([], 256)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_CHARACTERS", 1000)


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
def test_documents_come_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    store = TokenStore.build(tmp_path, iter(TEXTS), tokenizer)
    assert store.n_documents == len(TEXTS)
    assert store.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert tokenizer.token_bytes[store.tokens].sum() == store.text_bytes
    assert (store.tokens[store.offsets[:-1]] == tokenizer.bos).all()
    for i in (0, 1, 250, 499):
        ids = store.tokens[store.offsets[i] : store.offsets[i + 1]]
        assert tokenizer.decode(ids) == TEXTS[i]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["offsets.npy", "store.json", "tokens.bin"]


def test_interrupted_build_goes_on(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from TEXTS[:300]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenStore.build(tmp_path / "a", broken(), BPE)
    with pytest.raises(FileNotFoundError):
        TokenStore.open(tmp_path / "a", BPE)
    done = read_json(tmp_path / "a" / "progress.json")["n_documents"]
    assert 200 < done <= 300
    with open(tmp_path / "a" / "tokens.bin", "ab") as file:
        file.write(b"half a shard")
    encoded: list[str] = []
    resumed = TokenStore.build(tmp_path / "a", counting(encoded), BPE)
    whole = TokenStore.build(tmp_path / "b", iter(TEXTS), BPE)
    np.testing.assert_array_equal(resumed.tokens, whole.tokens)
    np.testing.assert_array_equal(resumed.offsets, whole.offsets)
    assert resumed.text_bytes == whole.text_bytes


def counting(seen: list[str]) -> Any:
    for text in TEXTS:
        seen.append(text)
        yield text


def test_progress_of_another_tokenizer_is_thrown_away(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from TEXTS[:300]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenStore.build(tmp_path, broken(), BYTES)
    store = TokenStore.build(tmp_path, iter(TEXTS), BPE)
    assert BPE.token_bytes[store.tokens].sum() == store.text_bytes


SLOW_BUILD = """
import sys, time
from pathlib import Path
from prepare import tokens
from prepare.tokenizer import Tokenizer
tokens.SHARD_CHARACTERS = 1000
def slow():
    for i in range(500):
        time.sleep(0.002)
        yield f"Story {i}: " + "the dragon sang. " * (i % 7)
tokens.TokenStore.build(Path(sys.argv[1]), slow(), Tokenizer.train([], 256))
"""


def test_killed_build_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    progress = folder / "progress.json"
    deadline = time.monotonic() + 60
    while not progress.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    assert process.wait(30) != 0
    done = read_json(progress)["n_documents"]
    assert 0 < done < 500
    events: list[dict[str, Any]] = []
    resumed = TokenStore.build(folder, iter(TEXTS), BYTES, lambda name, data: events.append(data))
    whole = TokenStore.build(tmp_path / "whole", iter(TEXTS), BYTES)
    np.testing.assert_array_equal(resumed.tokens, whole.tokens)
    np.testing.assert_array_equal(resumed.offsets, whole.offsets)
    skipped = sum(len(text.encode()) for text in TEXTS[:done])
    assert events[0]["done"] > skipped, "goes on from the last whole shard"


def test_open_never_built(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TokenStore.open(tmp_path, BPE)


@pytest.mark.parametrize(
    ("name", "error"),
    [("tokens.bin", IncompleteShard), ("offsets.npy", CorruptFile), ("store.json", CorruptFile)],
)
def test_truncated_file(tmp_path: Path, name: str, error: type[Exception]) -> None:
    TokenStore.build(tmp_path, iter(TEXTS), BPE)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(error) as caught:
        TokenStore.open(tmp_path, BPE)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    TokenStore.build(tmp_path, iter(TEXTS), BPE)
    (tmp_path / name).unlink()
    with pytest.raises((IncompleteShard, CorruptFile)):
        TokenStore.open(tmp_path, BPE)


def test_other_tokenizer(tmp_path: Path) -> None:
    TokenStore.build(tmp_path, iter(TEXTS), BPE)
    with pytest.raises(VocabularyMismatch) as caught:
        TokenStore.open(tmp_path, BYTES)
    assert "delete" in caught.value.hint


def test_no_documents(tmp_path: Path) -> None:
    with pytest.raises(NoData):
        TokenStore.build(tmp_path, iter([]), BPE)


def test_disk_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull):
            TokenStore.build(tmp_path, iter(TEXTS), BPE)
    store = TokenStore.build(tmp_path, iter(TEXTS), BPE)
    assert store.n_documents == len(TEXTS)


def test_disk_too_small_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        TokenStore.build(tmp_path, iter(TEXTS), BPE, expected_bytes=10**18)

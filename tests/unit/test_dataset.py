"""From settings to rows: every byte once, prepared once, and clear about what is broken."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prepare.cache import lock
from prepare.dataset import Dataset, prepare_dataset
from prepare.errors import CorruptFile, DiskFull, NoData, UnwritableCache, VocabularyMismatch
from prepare.feed import Feed
from prepare.packing import Rows
from prepare.settings import Settings
from prepare.tokenizer import Tokenizer

STORIES = [f"Story {i}. " + "The dragon of Lübeck sang. " * (1 + i % 40) for i in range(300)]


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text("<|endoftext|>".join(STORIES), encoding="utf-8")
    return path


def make(text: Path, **more: Any) -> Settings:
    values = {"vocab_size": 512, "max_seq_len": 64, "eval_bytes": 5000, **more}
    return Settings(corpus=str(text), **values)


def target_bytes(rows: Rows, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of all targets, as a scorer counts them."""
    out = np.empty((len(rows), rows.max_seq_len + 1), tokenizer.dtype)
    rows.read(np.arange(len(rows)), out)
    return int(tokenizer.token_bytes[out[:, 1:]].sum())


def check_bytes(data: Dataset) -> None:
    assert target_bytes(data.val, data.tokenizer) == data.val_bytes
    assert target_bytes(data.train, data.tokenizer) == data.train.store.text_bytes


@pytest.mark.parametrize(("vocab_size", "max_seq_len"), [(256, 100), (512, 16), (2048, 300)])
def test_every_byte_once(text: Path, vocab_size: int, max_seq_len: int) -> None:
    data = prepare_dataset(make(text, vocab_size=vocab_size, max_seq_len=max_seq_len))
    check_bytes(data)
    assert data.val_bytes >= 5000
    decoded = [
        data.tokenizer.decode(data.val.store.tokens[a:b])
        for a, b in zip(data.val.store.offsets, data.val.store.offsets[1:], strict=False)
    ]
    assert set(decoded) <= {story.strip() for story in STORIES}
    assert sum(len(text.encode()) for text in decoded) == data.val_bytes


@pytest.mark.parametrize(
    "name", ["multilingual-ud.txt", "tinystories-valid-head.txt", "wikitext2_valid.txt"]
)
@pytest.mark.parametrize(("vocab_size", "max_seq_len"), [(256, 128), (1024, 63), (4096, 512)])
def test_every_byte_of_real_text_once(
    shared_data: Path, cache: Path, name: str, vocab_size: int, max_seq_len: int
) -> None:
    settings = make(shared_data / name, vocab_size=vocab_size, max_seq_len=max_seq_len)
    data = prepare_dataset(settings.model_copy(update={"eval_bytes": 60_000}))
    check_bytes(data)


def test_validation_text_does_not_depend_on_vocabulary(text: Path) -> None:
    sets = [prepare_dataset(make(text, vocab_size=size)) for size in (256, 512, 1024)]
    assert len({data.val_bytes for data in sets}) == 1
    assert len({data.val.store.n_documents for data in sets}) == 1
    assert len({data.fingerprint for data in sets}) == 3


def test_second_call_reads_what_the_first_wrote(text: Path) -> None:
    first = prepare_dataset(make(text))
    events: list[str] = []
    second = prepare_dataset(make(text), lambda name, data: events.append(name))
    assert events == []
    assert second.fingerprint == first.fingerprint
    one, other = (np.empty((40, 65), np.uint16) for _ in range(2))
    Feed(first.train, 1).fill(one)
    Feed(second.train, 1).fill(other)
    np.testing.assert_array_equal(one, other)


def test_fingerprint_is_the_same_in_another_place(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_dataset(make(text))
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "another"))
    moved = Path(shutil.copy(text, tmp_path / "moved.txt"))
    assert prepare_dataset(make(moved)).fingerprint == first.fingerprint
    longer = prepare_dataset(make(text, max_seq_len=65))
    assert longer.fingerprint != first.fingerprint


def test_embedded_knows_its_floor(cache: Path) -> None:
    settings = Settings(
        corpus="embedded", corpus_bytes=50_000, eval_bytes=20_000, vocab_size=512, max_seq_len=64
    )
    data = prepare_dataset(settings)
    check_bytes(data)
    assert data.floor_bpb is not None
    assert 0.01 < data.floor_bpb < 2


def test_validation_shorter_than_asked_is_said(text: Path) -> None:
    messages: list[str] = []
    prepare_dataset(
        make(text, eval_bytes=10**7), lambda name, data: messages.append(data.get("message", ""))
    )
    assert any("validation text has only" in message for message in messages)


def find(cache: Path, name: str) -> Path:
    (found,) = cache.glob(f"prepared/*/{name}")
    return found


@pytest.mark.parametrize(
    "name", ["train/tokens.bin", "val-5000/tokens.bin", "train/offsets.npy", "train/store.json"]
)
def test_truncated_store_is_built_again(text: Path, cache: Path, name: str) -> None:
    first = prepare_dataset(make(text))
    path = find(cache, name)
    path.write_bytes(path.read_bytes()[:-20])
    messages: list[str] = []
    again = prepare_dataset(make(text), lambda name, data: messages.append(data.get("message", "")))
    assert any("again" in message for message in messages)
    assert again.fingerprint == first.fingerprint
    check_bytes(again)


@pytest.mark.parametrize("name", ["starts.npy", "plan.json"])
def test_truncated_plan_is_made_again(text: Path, cache: Path, name: str) -> None:
    prepare_dataset(make(text))
    path = find(cache, f"train/rows-64/{name}")
    path.write_bytes(path.read_bytes()[:-20])
    check_bytes(prepare_dataset(make(text)))


def test_corrupt_tokenizer(text: Path, cache: Path) -> None:
    prepare_dataset(make(text))
    path = find(cache, "tokenizer.json")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorruptFile) as caught:
        prepare_dataset(make(text))
    assert caught.value.exit_code == 3
    assert "delete" in caught.value.hint


def test_tokenizer_of_another_size(text: Path, cache: Path) -> None:
    prepare_dataset(make(text))
    Tokenizer.train(STORIES, 1024).save(find(cache, "tokenizer.json"))
    with pytest.raises(VocabularyMismatch, match="1024"):
        prepare_dataset(make(text))


def test_tokenizer_of_another_text(text: Path, cache: Path) -> None:
    prepare_dataset(make(text))
    Tokenizer.train(["quite another text " * 50], 512).save(find(cache, "tokenizer.json"))
    with pytest.raises(VocabularyMismatch):
        prepare_dataset(make(text))


def test_no_corpus(cache: Path) -> None:
    with pytest.raises(NoData):
        prepare_dataset(make(cache / "nothing-here"))


def test_full_disk(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(DiskFull) as caught:
        prepare_dataset(make(text))
    assert caught.value.exit_code == 4


def test_unwritable_cache(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UnwritableCache) as caught:
        prepare_dataset(make(text))
    assert "AUTORESEARCH_CACHE" in caught.value.hint


def test_two_at_once_work_once(text: Path) -> None:
    """Both get the same rows; the later one waits instead of writing into the same files."""
    results: list[Dataset] = []
    trained: list[str] = []

    def prepare() -> None:
        results.append(
            prepare_dataset(
                make(text),
                lambda name, data: (
                    trained.append(name) if data.get("phase") == "tokenizer" else None
                ),
            )
        )

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    assert len({data.fingerprint for data in results}) == 1
    assert len(trained) == 1


def test_lock_says_that_it_waits(tmp_path: Path) -> None:
    said: list[str] = []
    entered = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with lock(tmp_path / "a.lock"):
            entered.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(30)

    def waiting() -> None:
        said.append("waiting")
        release.set()

    with lock(tmp_path / "a.lock", waiting):
        pass
    holder.join(30)
    assert said == ["waiting"]

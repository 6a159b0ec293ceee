"""Corpora: what counts as a document, and which of them are validation."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare.corpus import (
    TINYSTORIES,
    Corpus,
    EmbeddedCorpus,
    HubCorpus,
    LocalCorpus,
    open_corpus,
)
from prepare.errors import CorruptFile, NoData
from prepare.files import find_files, read_file, read_parquet
from prepare.settings import Settings

STORIES = [f"Story number {i} has some words in it." for i in range(200)]


def both(corpus: Corpus) -> tuple[list[str], list[str]]:
    return list(corpus.documents("train")), list(corpus.documents("val"))


def write_parquet(path: Path, column: pa.Array) -> Path:
    pq.write_table(pa.table({"text": column}), path, row_group_size=50)
    return path


def test_marks_separate_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n one\n\nline <|endoftext|>\n<|endoftext|>  \ntwo\n<|endoftext|>three")
    assert list(read_file(file)) == ["one\n\nline", "two", "three"]


def test_marks_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prepare.files.BLOCK", 7)
    file = tmp_path / "a.txt"
    file.write_text("<|endoftext|>".join(STORIES))
    assert list(read_file(file)) == STORIES


def test_headings_separate_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    article = " \n = {} = \n \n Text x = 1 . \n \n = = Section = = \n \n More . \n"
    file.write_text("".join(article.format(name) for name in ("Lobster", "Snail", "Whelk")))
    documents = list(read_file(file))
    assert [document.split("\n")[0].rstrip() for document in documents] == [
        "= Lobster =",
        "= Snail =",
        "= Whelk =",
    ]
    assert all("= = Section = =" in document for document in documents)


def test_running_text_is_cut_at_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    text = "\n\n".join(f"Paragraph {i} with a line\nand another." for i in range(3000))
    file.write_text(text)
    documents = list(read_file(file))
    assert len(documents) > 100
    assert "\n\n".join(documents) == text
    assert all(document.startswith("Paragraph") for document in documents)


@pytest.mark.parametrize("text", ["x" * 5000, "word " * 2000, "line\n" * 3000, "竜" * 3000])
def test_running_text_loses_only_white_space(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text(text, encoding="utf-8")
    assert "".join("".join(read_file(file)).split()) == "".join(text.split())


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfcaf\xe9 <|endoftext|> caf\xc3\xa9\r\nnext")
    assert list(read_file(file)) == ["caf\ufffd", "café\r\nnext"]


def test_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"text": text}) for text in ("one\u2028still one", "  ", "half \ud83d pair")
    ]
    file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    assert list(read_file(file)) == ["one\u2028still one", "half \ufffd pair"]


@pytest.mark.parametrize("line", ["{", "[]", '{"content": "x"}', '{"text": 3}', '"x"'])
def test_broken_jsonl_names_the_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(CorruptFile, match="line 2"):
        list(read_file(file))


def test_parquet(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", pa.array([*STORIES, None, "  last "]))
    assert list(read_file(file)) == [*STORIES, "last"]
    assert list(read_parquet(file, 60, 120)) == STORIES[60:120]
    assert list(read_parquet(file, 190, None)) == [*STORIES[190:], "", "  last "]


def test_parquet_with_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    assert list(read_file(write_parquet(tmp_path / "a.parquet", column))) == ["good", "caf\ufffd"]


def test_half_a_parquet_file(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", pa.array(STORIES))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match=r"a\.parquet"):
        list(LocalCorpus(tmp_path).documents("train"))


def test_parquet_without_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(CorruptFile, match="no column text"):
        list(read_file(tmp_path / "a.parquet"))


def test_files_are_found_in_depth_and_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.jsonl", "a.parquet", ".hidden/x.txt", "notes.md", "C.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path)]
    assert found == ["C.TXT", "a.parquet", "a/z.jsonl", "b.txt"]


@pytest.mark.parametrize(
    "name", ["val.txt", "valid.txt", "x-valid.txt", "validation/00.txt", "dev_set.txt", "VAL.txt"]
)
def test_named_validation_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "invalid.txt").write_text("<|endoftext|>".join(STORIES[:150]))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("<|endoftext|>".join(STORIES[150:]))
    assert both(LocalCorpus(tmp_path)) == (STORIES[:150], STORIES[150:])


def test_split_by_hash(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("<|endoftext|>".join(STORIES * 2))
    train, val = both(LocalCorpus(file))
    assert sorted(train + val) == sorted(STORIES * 2)
    assert not set(train) & set(val)
    assert 10 <= len(val) <= 80
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("<|endoftext|>".join(reversed(STORIES * 2)))
    assert set(both(LocalCorpus(tmp_path / "folder"))[1]) == set(val)


@pytest.mark.parametrize(
    "text", ["one<|endoftext|>two", "one<|endoftext|>two<|endoftext|>three", "a few words here"]
)
def test_a_tiny_file_has_both_splits(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text(text)
    train, val = both(LocalCorpus(file))
    assert train
    assert val
    assert not set(train) & set(val)


def test_a_single_row_is_cut_up(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "\n\n".join(STORIES)}))
    train, val = both(LocalCorpus(file))
    assert train
    assert val
    assert not set(train) & set(val)


@pytest.mark.parametrize("text", ["", "x", "  \n "])
def test_too_little_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(NoData):
        both(LocalCorpus(tmp_path))


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="none of"):
        LocalCorpus(tmp_path)
    with pytest.raises(NoData, match="no corpus"):
        LocalCorpus(tmp_path / "missing")


def test_near_match() -> None:
    with pytest.raises(NoData) as caught:
        open_corpus(Settings(corpus="tinystorys"))
    assert "did you mean tinystories?" in caught.value.hint


def test_fingerprint_follows_content(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "text" / "a.txt"
    file.parent.mkdir()
    file.write_text("<|endoftext|>".join(STORIES))
    first = LocalCorpus(file.parent).fingerprint
    assert LocalCorpus(file.parent).fingerprint == first
    moved = file.parent.rename(tmp_path / "moved")
    assert LocalCorpus(moved).fingerprint == first
    (moved / "a.txt").write_text("<|endoftext|>".join([*STORIES, "one more"]))
    assert LocalCorpus(moved).fingerprint != first


def test_sample_has_every_file(tmp_path: Path) -> None:
    for name in "abc":
        documents = [f"{name} {story}" for story in STORIES * 5]
        (tmp_path / f"{name}.txt").write_text("<|endoftext|>".join(documents))
    sample = list(LocalCorpus(tmp_path).sample(6000))
    assert {text[0] for text in sample} == {"a", "b", "c"}
    assert 6000 <= sum(map(len, sample)) < 7000
    assert set(sample) <= set(LocalCorpus(tmp_path).documents("train"))


def test_embedded() -> None:
    corpus = EmbeddedCorpus(20_000)
    train = list(corpus.documents("train"))
    val = list(islice(corpus.documents("val"), 20))
    assert sum(map(len, train)) >= 20_000
    assert not set(train) & set(val)
    assert corpus.floor_bits("val", 20) > 0
    assert corpus.fingerprint != EmbeddedCorpus(30_000).fingerprint
    assert list(EmbeddedCorpus(20_000).documents("train")) == train


def test_tinystories_rows(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's split: tests first, then validation, then training."""
    monkeypatch.setenv("AUTORESEARCH_OFFLINE", "1")
    corpus = HubCorpus(TINYSTORIES, shards=1)
    path = corpus.files[0].path
    path.parent.mkdir(parents=True)
    write_parquet(path, pa.array([f"row {i}" for i in range(20_100)]))
    train, val = both(corpus)
    assert (val[0], val[-1], len(val)) == ("row 10000", "row 19999", 10_000)
    assert (train[0], len(train)) == ("row 20000", 100)
    assert corpus.train_bytes > 0


def test_shared_text(shared_data: Path) -> None:
    stories = LocalCorpus(shared_data / "tinystories-valid-head.txt")
    assert sum(1 for split in ("train", "val") for _ in stories.documents(split)) > 1700
    articles = both(LocalCorpus(shared_data / "wikitext2_valid.txt"))
    assert all(text.startswith("= ") for texts in articles for text in texts)
    assert 50 < sum(map(len, articles)) < 70

"""What travels from a study to its nodes: messages, prepared text, this program. No Ray here."""

import os
import subprocess
import sys
import zipfile

import pytest

from autoresearch.cluster import wire
from autoresearch.cluster.executor import passed_on
from autoresearch.cluster.package import program_archive
from autoresearch.cluster.tokens import Tokens, receive
from prepare.dataset import prepare_dataset
from prepare.errors import CorruptFile, NoData
from prepare.settings import Settings

SMALL = Settings(corpus_bytes=60_000, vocab_size=256, max_seq_len=32, eval_bytes=2_000)


def test_a_message_comes_back_as_it_was_and_a_cut_one_is_noticed():
    files = {"train.py": b"x = 1\n", "a/b.bin": bytes(range(256)), "empty": b""}
    message = wire.pack({"seed": 7}, files)
    assert wire.unpack(message) == ({"seed": 7}, files)
    for bad in (message[:-1], b"", b"{}\n", b"\x80"):
        with pytest.raises(wire.BadMessage):
            wire.unpack(bad)


def test_files_travel_without_links_git_and_what_is_too_large(tmp_path):
    (tmp_path / "a" / "__pycache__").mkdir(parents=True)
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_bytes(b"")
    (tmp_path / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "a" / "x.py").write_bytes(b"1")
    (tmp_path / "large").write_bytes(b"123456789")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert wire.read_files(tmp_path) == {"a/x.py": b"1", "large": b"123456789"}
    assert wire.read_files(tmp_path, most=5) == {"a/x.py": b"1"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a\\..\\x", "c:x"])
def test_a_path_that_leads_out_is_refused(tmp_path, path):
    with pytest.raises(wire.BadMessage):
        wire.write_files(tmp_path, {path: b""})


def test_a_large_file_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "CHUNK", 4)
    (tmp_path / "from").write_bytes(b"123456789")
    (tmp_path / "to").write_bytes(b"something longer that was there")
    offset = 0
    while data := wire.piece(tmp_path, "from", offset):
        wire.append(tmp_path, "to", offset, data)
        offset += len(data)
    assert (tmp_path / "to").read_bytes() == b"123456789"


def test_prepared_text_reaches_another_cache_once_and_is_the_same_there(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "driver"))
    here = prepare_dataset(SMALL)
    tokens = Tokens.loads(Tokens.of(SMALL).dumps())
    assert tokens.missing() == []
    pieces = {path: list(tokens.pieces(path)) for path in tokens.files}

    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "node"))
    there = SMALL.model_copy(update={"corpus": tokens.corpus})
    with pytest.raises(NoData):
        prepare_dataset(there)
    damaged = {**pieces, "train/tokens.bin": [b"x" * tokens.files["train/tokens.bin"][0]]}
    with pytest.raises(CorruptFile):
        receive(tokens, damaged, lambda piece: piece)
    assert "train/tokens.bin" in tokens.missing()
    assert "train/tokens.bin" in receive(tokens, pieces, lambda piece: piece)
    assert receive(tokens, pieces, lambda piece: piece) == []  # the second worker of a node
    assert prepare_dataset(there).fingerprint == here.fingerprint
    (tokens.folder / "train" / "tokens.bin").write_bytes(b"short")
    assert tokens.missing() == ["train/tokens.bin"]


def test_the_program_is_packed_once_and_runs_from_the_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    archive = program_archive()
    made = archive.stat().st_mtime_ns
    assert program_archive() == archive and archive.stat().st_mtime_ns == made
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "node")
    ask = "import autoresearch.worker as w, importlib.metadata as m; print(w.__file__); "
    ask += "print(m.version('autoresearch'))"
    said = subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "node")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[0].startswith(str(tmp_path / "node"))
    assert said[1]


def test_runs_elsewhere_see_our_settings_and_neither_our_folders_nor_secrets():
    ours = {
        "AUTORESEARCH_DTYPE": "float32",
        "OMP_NUM_THREADS": "1",
        "AUTORESEARCH_CACHE": "/here",
        "AUTORESEARCH_API_KEY": "secret",
        "HOME": "/root",
    }
    assert passed_on(ours) == {"AUTORESEARCH_DTYPE": "float32", "OMP_NUM_THREADS": "1"}

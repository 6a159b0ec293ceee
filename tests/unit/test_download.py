"""Downloads from a real server on this machine: the hub's layout, the web's accidents."""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare import download as module
from prepare.corpus import CLIMBMIX, HubCorpus
from prepare.dataset import prepare_dataset
from prepare.download import Patience, RemoteFile, download, present
from prepare.errors import (
    CorruptFile,
    DiskFull,
    DownloadError,
    IncompleteShard,
    UnwritableCache,
    UsageError,
)
from prepare.hub import hub_url
from prepare.settings import Settings

QUICK = Patience(attempts=3, first_wait=0.001, longest_wait=0.01, timeout=5.0)
CONTENT = bytes(range(256)) * 2000
TOKEN = "hf_secret"


class Server:
    """Serves CONTENT; a request takes the next of `plan`, `requests` remembers its headers."""

    def __init__(self) -> None:
        self.plan: list[str] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag = '"tag-1"'
        self.serve(CONTENT)
        self.ranges = True
        self.elsewhere = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, content: bytes) -> None:
        self.content, self.size = content, len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, dict(request.headers)))
        if self.elsewhere and request.path.startswith("/datasets/"):
            self.head(
                request, 302, {"Location": self.elsewhere + "/cdn" + request.path, **self.facts()}
            )
            return
        step = self.plan.pop(0) if self.plan else "whole"
        if step.isdecimal():
            extra = {"Retry-After": "0"} if step == "429" else {}
            self.head(request, int(step), extra)
            return
        start = self.start(request)
        if start >= len(self.content):
            self.head(request, 416, {"Content-Range": f"bytes */{len(self.content)}"})
            return
        body = self.content[start:]
        headers = {"ETag": self.etag, "Content-Length": str(len(body)), **self.facts()}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        self.head(request, 206 if start else 200, headers)
        request.wfile.write(body if step == "whole" else body[: len(body) // 2])
        request.close_connection = True

    def start(self, request: BaseHTTPRequestHandler) -> int:
        asked = request.headers.get("Range", "")
        if not (self.ranges and asked and request.headers.get("If-Range") == self.etag):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def facts(self) -> dict[str, str]:
        return {"X-Linked-Etag": f'"{self.sha256}"', "X-Linked-Size": str(self.size)}

    @staticmethod
    def head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name, value)
        request.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "AUTORESEARCH_OFFLINE", "AUTORESEARCH_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    yield running
    running.close()


@pytest.fixture
def file(server: Server, tmp_path: Path) -> RemoteFile:
    return RemoteFile(hub_url("someone/some", "a.parquet"), tmp_path / "cache" / "a.parquet")


def part_of(file: RemoteFile) -> Path:
    return file.path.with_name("a.parquet.part")


def test_whole_file_arrives_verified_once(server: Server, file: RemoteFile) -> None:
    events: list[dict[str, Any]] = []
    download([file], lambda name, data: events.append({"name": name, **data}), patience=QUICK)
    assert file.path.read_bytes() == CONTENT
    assert present(file)
    assert sorted(p.name for p in file.path.parent.iterdir()) == ["a.parquet", "a.parquet.json"]
    assert server.requests[0][0] == "/datasets/someone/some/resolve/main/a.parquet"
    assert events[-1]["done"] == events[-1]["total"] == len(CONTENT)
    download([file], patience=QUICK)
    assert len(server.requests) == 1


def test_cut_connection_goes_on_from_the_last_byte(server: Server, file: RemoteFile) -> None:
    server.plan = ["half", "half", "half", "half", "whole"]
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT
    ranges = [headers.get("Range") for _, headers in server.requests]
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len(CONTENT) // 2}-"
    assert len(ranges) == 5, "failures count anew when more has arrived"


def test_what_a_killed_run_left_is_used(server: Server, file: RemoteFile) -> None:
    server.plan = ["half"]
    with pytest.raises(DownloadError):
        download([file], patience=Patience(attempts=1, timeout=5.0))
    assert part_of(file).stat().st_size == len(CONTENT) // 2
    assert not file.path.exists()
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == f"bytes={len(CONTENT) // 2}-"


def test_a_part_that_is_all_there_is_accepted(server: Server, file: RemoteFile) -> None:
    server.plan = ["half"]
    with pytest.raises(DownloadError):
        download([file], patience=Patience(attempts=1, timeout=5.0))
    part_of(file).write_bytes(CONTENT)
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["etag", "ranges"])
def test_the_file_is_fetched_anew_when_the_rest_is_not_to_be_had(
    server: Server, file: RemoteFile, change: str
) -> None:
    server.plan = ["half"]
    with pytest.raises(DownloadError):
        download([file], patience=Patience(attempts=1, timeout=5.0))
    part_of(file).write_bytes(b"x" * (len(CONTENT) // 2))
    if change == "etag":
        server.etag = '"tag-2"'
    else:
        server.ranges = False
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT


def test_busy_servers_are_asked_again(server: Server, file: RemoteFile) -> None:
    warnings: list[str] = []
    server.plan = ["503", "429"]
    download([file], lambda name, data: warnings.append(data.get("message", "")), patience=QUICK)
    assert file.path.read_bytes() == CONTENT
    assert any("503" in message for message in warnings)
    assert any("429" in message for message in warnings)


def test_patience_ends(server: Server, file: RemoteFile) -> None:
    server.plan = ["503"] * 9
    with pytest.raises(DownloadError, match="503"):
        download([file], patience=QUICK)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", ["404", "403"])
def test_what_is_not_there_is_not_asked_for_again(
    server: Server, file: RemoteFile, status: str
) -> None:
    server.plan = [status] * 9
    with pytest.raises(DownloadError, match=status) as caught:
        download([file], patience=QUICK)
    assert caught.value.hint
    assert len(server.requests) == 1


def test_wrong_checksum(server: Server, file: RemoteFile) -> None:
    server.sha256 = "0" * 64
    with pytest.raises(CorruptFile, match="SHA-256"):
        download([file], patience=QUICK)
    assert len(server.requests) == 2
    assert not file.path.exists()
    assert not part_of(file).exists()


def test_wrong_size(server: Server, file: RemoteFile) -> None:
    """Neither the short answer nor the 416 that follows it makes the file whole."""
    server.content = CONTENT[:1000]
    with pytest.raises(IncompleteShard, match="1000"):
        download([file], patience=QUICK)
    assert not file.path.exists()


def test_manifest_outranks_the_server(server: Server, file: RemoteFile) -> None:
    stated = RemoteFile(file.url, file.path, len(CONTENT), "1" * 64)
    with pytest.raises(CorruptFile):
        download([stated], patience=QUICK)


def test_token_stays_at_the_hub(
    server: Server, file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect to another host (here another port) carries ranges and no token."""
    elsewhere = Server()
    try:
        server.elsewhere = elsewhere.url
        elsewhere.plan = ["half"]
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        download([file], patience=QUICK)
        assert file.path.read_bytes() == CONTENT
        assert all(h["Authorization"] == f"Bearer {TOKEN}" for _, h in server.requests)
        assert len(elsewhere.requests) == 2
        assert elsewhere.requests[0][0].startswith("/cdn/datasets/someone")
        for _, headers in elsewhere.requests:
            assert TOKEN not in str(headers)
        assert "Range" in elsewhere.requests[1][1]
    finally:
        elsewhere.close()


def test_mirror_gets_no_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "https://elsewhere.invalid")
    monkeypatch.setenv("AUTORESEARCH_MIRROR", server.url + "/")
    file = RemoteFile(hub_url("someone/some", "a.parquet"), tmp_path / "a.parquet")
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT
    assert TOKEN not in str(server.requests)


def test_token_and_password_stay_out_of_messages(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    url = server.url.replace("//", "//user:pass-word@")
    monkeypatch.setenv("AUTORESEARCH_MIRROR", url)
    server.plan = ["503"] * 9
    warnings: list[str] = []
    with pytest.raises(DownloadError) as caught:
        download(
            [RemoteFile(hub_url("a/b", "c"), tmp_path / "c")],
            lambda name, data: warnings.append(str(data)),
            patience=QUICK,
        )
    said = str(caught.value.message) + caught.value.hint + "".join(warnings)
    assert TOKEN not in said
    assert "pass-word" not in said


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadError, match="could not be downloaded"):
        download([RemoteFile("http://127.0.0.1:9/x", tmp_path / "x")], patience=QUICK)


def test_mirror_that_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download([RemoteFile("ftp://example.invalid/x", tmp_path / "x")], patience=QUICK)
    assert "AUTORESEARCH_MIRROR" in caught.value.hint


@pytest.mark.parametrize("variable", ["AUTORESEARCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(
    server: Server, file: RemoteFile, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadError, match="offline"):
        download([file], patience=QUICK)
    monkeypatch.delenv(variable)
    download([file], patience=QUICK)
    monkeypatch.setenv(variable, "1")
    download([file], patience=QUICK)
    file.path.write_bytes(CONTENT[:50])
    with pytest.raises(IncompleteShard, match="half here"):
        download([file], patience=QUICK)
    assert len(server.requests) == 1


def test_truncated_file_is_fetched_again(server: Server, file: RemoteFile) -> None:
    download([file], patience=QUICK)
    file.path.write_bytes(CONTENT[:50])
    assert not present(file)
    download([file], patience=QUICK)
    assert file.path.read_bytes() == CONTENT


def test_disk_that_is_too_small_is_seen_before_writing(
    server: Server, file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskFull) as caught:
        download([file], patience=QUICK)
    assert "AUTORESEARCH_CACHE" in caught.value.hint
    assert not part_of(file).exists()


def test_disk_that_fills_up_on_the_way(
    server: Server, file: RemoteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "sync", full)
    with pytest.raises(DiskFull):
        download([file], patience=QUICK)


def test_unwritable_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UnwritableCache):
        download([RemoteFile(server.url, tmp_path / "cache" / "a")], patience=QUICK)


def test_one_failure_stops_the_others(server: Server, tmp_path: Path) -> None:
    server.plan = ["404"]
    files = [RemoteFile(hub_url("a/b", f"{i}"), tmp_path / f"{i}") for i in range(40)]
    with pytest.raises(DownloadError, match="404"):
        download(files, workers=2, patience=QUICK)
    assert len(server.requests) < 40


def test_many_files_in_parallel(server: Server, tmp_path: Path) -> None:
    files = [RemoteFile(hub_url("a/b", f"{i}"), tmp_path / f"{i}") for i in range(12)]
    download(files, patience=QUICK)
    assert all(file.path.read_bytes() == CONTENT for file in files)


def test_climbmix_pins_its_validation_shard(server: Server, cache: Path) -> None:
    corpus = HubCorpus(CLIMBMIX, shards=2)
    corpus.fetch()
    names = {path.rpartition("/")[2] for path, _ in server.requests}
    assert names == {"shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"}
    assert corpus.fingerprint == HubCorpus(CLIMBMIX, shards=2).fingerprint
    with pytest.raises(UsageError, match="6542"):
        HubCorpus(CLIMBMIX, shards=6543)


def test_from_the_hub_to_rows(server: Server, cache: Path) -> None:
    """The same file serves as every shard, so training and validation text are equal here."""
    stories = [f"Story {i}. " + "The dragon sang. " * (1 + i % 40) for i in range(300)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": stories}), sink)
    server.serve(sink.getvalue().to_pybytes())
    settings = Settings(
        corpus="climbmix", shards=2, vocab_size=512, max_seq_len=64, eval_bytes=10_000
    )
    data = prepare_dataset(settings)
    assert data.train.store.n_documents == 600
    assert data.val_bytes >= 10_000
    assert len(server.requests) == 3
    server.plan = ["404"] * 9
    assert prepare_dataset(settings).fingerprint == data.fingerprint
    assert len(server.requests) == 3

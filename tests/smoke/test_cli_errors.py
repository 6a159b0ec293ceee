"""What goes wrong in real life, as a person meets it: what happened, what to do, an exit code.

2 usage, 3 data, 4 this machine, 5 train.py. Syntax error, missing import and NaN are in
test_cli_train.py, presets that are unknown or don't fit in tests/unit/test_cli_init.py.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoresearch import cli
from autoresearch.preset import load_preset, write_experiment
from backends.hardware import Hardware
from prepare import download
from prepare.settings import FILE_NAME, Settings
from tests.smoke.tiny import shrink

CPU = Hardware(
    "cpu", "maker", "a CPU", "x86_64", 8 * 2**30, 2, "", "torch", "2", "Linux", ("host",)
)
SHARD = 10_000  # bytes the server below promises; it sends a tenth


class CuttingHandler(http.server.BaseHTTPRequestHandler):
    """A dataset hub whose connection breaks, always at the same byte."""

    def do_GET(self) -> None:
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"tag"')
        self.send_header("Content-Length", str(SHARD - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{SHARD - 1}/{SHARD}")
        self.end_headers()
        self.wfile.write(b"x" * (SHARD // 10 - start))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that sends half of things, and little patience with it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), CuttingHandler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    patience = functools.partial(download.Patience, attempts=2, first_wait=0.01, longest_wait=0.01)
    monkeypatch.setattr(download, "Patience", patience)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AUTORESEARCH_MIRROR", address)
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def workspace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the demo preset with little text; the current folder."""
    for name, value in (
        ("BACKEND", "cpu"),
        ("COMPILE", "0"),
        ("DTYPE", "float32"),
        ("ATTENTION", "sdpa"),
    ):
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    folder = tmp_path / "w"
    changes = {"corpus_bytes": 200_000, "eval_bytes": 4_000, "time_budget": 1.0}
    write_experiment(load_preset("demo"), folder, CPU, **changes)
    shrink(folder)
    monkeypatch.chdir(folder)
    return folder


def settle(workspace: Path, **changes: object) -> None:
    settings = Settings.load(workspace).model_copy(update=changes)
    (workspace / FILE_NAME).write_text(settings.dumps(), encoding="utf-8")


def begin_build_model_with(workspace: Path, line: str) -> None:
    path = workspace / "train.py"
    text, count = re.subn(
        r"(?m)^def build_model\(.*:$", rf"\g<0>\n    {line}", path.read_text(encoding="utf-8")
    )
    assert count == 1
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Run a command that must fail; its exit code, message and hint, the same as in JSON."""

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(args))
        captured = capsys.readouterr()
        said, hint = captured.err.splitlines()[-2:]
        assert said.startswith("Error: ") and hint.startswith("  ")
        assert "val_bpb" not in captured.out and "Traceback" not in captured.err
        return code, said, hint

    return run


def test_no_data(workspace: Path, refused) -> None:
    settle(workspace, corpus="/no/such/text")
    code, said, hint = refused("prepare")
    assert (code, "/no/such/text" in said, "embedded" in hint) == (3, True, True)
    settle(workspace, corpus="tinystorys")
    code, said, hint = refused("prepare")
    assert (code, "'tinystorys'" in said, "did you mean tinystories?" in hint) == (3, True, True)
    (workspace / "texts").mkdir()
    settle(workspace, corpus="texts")
    code, said, _ = refused("prepare")
    assert code == 3
    assert str(workspace / "texts") in said and ".parquet" in said


def test_a_half_downloaded_shard(
    workspace: Path, cache: Path, mirror: str, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(workspace, corpus="climbmix", shards=1)
    code, said, hint = refused("prepare")
    assert code == 3
    assert "shard_" in said and mirror.removeprefix("http://") in said
    assert "1,000 bytes are kept" in hint and "AUTORESEARCH_MIRROR" in hint
    assert list(cache.glob("corpora/climbmix/*.part"))
    assert not list(cache.glob("corpora/climbmix/*.parquet"))
    monkeypatch.setenv("AUTORESEARCH_OFFLINE", "1")
    code, said, hint = refused("prepare")
    assert (code, "only half here" in said, "AUTORESEARCH_OFFLINE" in hint) == (3, True, True)


def test_offline_without_the_data(
    workspace: Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(workspace, corpus="tinystories")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, said, hint = refused("train")
    assert (code, "offline" in said, "embedded" in hint) == (3, True, True)


def test_a_tokenizer_that_is_damaged_or_of_another_vocabulary(
    workspace: Path, cache: Path, refused
) -> None:
    assert cli.run(["prepare"]) == 0
    (path,) = cache.glob("prepared/*/tokenizer.json")
    whole = path.read_text(encoding="utf-8")
    for damaged in (whole[:500], whole.replace('"IA=="', '"IQ=="', 1)):
        path.write_text(damaged, encoding="utf-8")
        code, said, hint = refused("train")
        assert (code, str(path) in said, "delete it" in hint) == (3, True, True)
    path.write_text(json.dumps({**json.loads(whole), "vocab_size": 2048}), encoding="utf-8")
    code, said, hint = refused("prepare")
    assert code == 3
    assert "2048" in said and "1024" in said and "delete it" in hint
    path.unlink()
    assert cli.run(["prepare"]) == 0


def test_a_full_disk(workspace: Path, cache: Path, refused, monkeypatch) -> None:
    def nearly_full(place: object) -> SimpleNamespace:
        return SimpleNamespace(free=100_000, total=10**9, used=10**9)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    code, said, hint = refused("prepare")
    assert code == 4
    assert str(cache) in said and "0.1 MB are free" in said and "AUTORESEARCH_CACHE" in hint
    code, said, hint = refused("train", "--run-dir", "here")
    assert (code, str(workspace / "here") in said, "--run-dir" in hint) == (4, True, True)


def test_a_place_that_can_not_be_written(
    workspace: Path, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workspace / "file"
    file.write_text("no folder")
    code, said, hint = refused("train", "--run-dir", str(file / "run"))
    assert (code, str(file) in said, "--run-dir" in hint) == (4, True, True)
    for place in (file, file / "cache"):
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(place))
        code, said, hint = refused("prepare")
        assert (code, str(place) in said, "AUTORESEARCH_CACHE" in hint) == (4, True, True)
    code, said, _ = refused("demo", "--backend", "cpu")
    assert (code, "a file lies where a folder should be" in said) == (4, True)


def test_no_git(workspace: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(workspace))
    code, said, hint = refused("init", "new", "--preset", "demo")
    assert (code, "git is not installed" in said, "install git" in hint) == (4, True, True)
    assert not (workspace / "new").exists()


def test_attention_that_this_hardware_has_not(workspace: Path, refused) -> None:
    code, said, hint = refused("train", "--attention", "fa3")
    assert (code, "fa3" in said, "sdpa" in hint) == (4, True, True)


def test_settings_that_are_wrong(workspace: Path, refused) -> None:
    for text, words in (
        ("[experiment]\nvocabsize = 512\n", "did you mean vocab_size?"),
        ("[experiment]\nvocab_size = 300\n", "vocab_size 300"),
        ("experiment = 3\n", "experiment"),
        ("[experiment\n", "not valid TOML"),
    ):
        (workspace / FILE_NAME).write_text(text, encoding="utf-8")
        code, said, _ = refused("prepare")
        assert (code, words in said) == (2, True)


@pytest.mark.parametrize(
    ("line", "allowed", "words"),
    [
        ("torch.empty(10**15)", 60.0, "build: out_of_memory"),
        ("import time; time.sleep(600)", 1.0, "build: timeout: build took longer than"),
        (
            "spec = type(spec)(spec.vocab_size // 2, spec.max_seq_len)",
            60.0,
            "warmup: exception: IndexError",
        ),
    ],
)
def test_a_train_py_that_fails(
    workspace: Path, capsys: pytest.CaptureFixture[str], line: str, allowed: float, words: str
) -> None:
    """Out of memory, a hang, and a model of another vocabulary than the tokenizer's."""
    settle(workspace, warmup_timeout=allowed)
    begin_build_model_with(workspace, line)
    code = cli.run(["train"])
    captured = capsys.readouterr()
    assert code == 5
    assert words in captured.err.splitlines()[-2]
    assert "train.py" in captured.err.splitlines()[-1]
    assert "val_bpb" not in captured.out

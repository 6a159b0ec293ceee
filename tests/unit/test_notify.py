"""Who is told of what, by which way; that it ends no night, and gives no address away."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autoresearch.background import Background, joined
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.notify import (
    Messenger,
    Notifier,
    Notify,
    body,
    find_address,
    message,
    next_morning,
)
from autoresearch.pretraining import Pretraining
from autoresearch.settings_file import read_part
from autoresearch.study import Study
from prepare.errors import UsageError
from prepare.settings import Settings
from tests.unit.command_line import make_fake_workspace, run

SECRET = "s3cr3t-key"


class Server:
    """Takes messages on 127.0.0.1; answers with the next of `answers`, then with 200."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.answers: list[int] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                server.received.append((self.path, self.headers["Content-Type"], text))
                self.send_response(server.answers.pop(0) if server.answers else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._http.server_port}/{SECRET}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def said(self) -> list[dict[str, Any]]:
        return [json.loads(text) for _, _, text in self.received]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def measure(study: Pretraining, request: MeasureRequest) -> Replicate:
    """Less is better; a program that says so crashes."""
    text = (request.folder / "train.py").read_text()
    assert "HOOK" not in os.environ  # nothing that is started can inherit it
    if "crash" in text:
        failure = Failure("training", "exception", "ValueError: it broke")
        return Replicate(request.seed, None, failure=failure, details={"tier": "none"})
    score = float(text.split()[2]) + request.seed % 5 / 1000
    return Replicate(request.seed, score, score_id="id", details={"tier": "none"})


def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> Path:
    files = {"autoresearch.toml": Settings().dumps() + "\n[notify]\n" + table}
    folder = tmp_path / "w"
    return make_fake_workspace(folder, monkeypatch, measure, "DEPTH = 3\n", files)


def night(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *programs: str
) -> tuple[int, str, str]:
    """A run whose proposer writes these programs in turn, the last one ever again."""
    count = tmp_path / "count"
    count.write_text("0")
    script = tmp_path / "propose.py"
    script.write_text(
        "import pathlib\n"
        f"count = pathlib.Path({str(count)!r}); n = int(count.read_text())\n"
        f"program = {list(programs)!r}[min(n, {len(programs) - 1})] + f'# {{n}}\\n'\n"
        "pathlib.Path('train.py').write_text(program.replace('NUMBER', str(n)))\n"
        "count.write_text(str(n + 1))\n"
        'print(\'{"description": "<!here> idea %d"}\' % n)\n'
    )
    agent = ("--agent", "command", "--agent-option", f"command=python {script}")
    limits = ("--trials", len(programs), "--no-combine", "--sandbox", "process")
    return run(capsys, "run", *agent, *limits)


def test_a_night_is_told_and_its_secret_is_not(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = workspace(tmp_path, monkeypatch, 'webhook = "env:HOOK"\n')
    monkeypatch.setenv("HOOK", server.address)
    server.answers = [503]  # is tried again
    monkeypatch.setattr(Messenger, "waits", (0.01, 0.01))
    with caplog.at_level(logging.DEBUG):
        code, out, err = night(capsys, tmp_path, "DEPTH = 2\n", "DEPTH = 4\n")
    assert code == 0, err
    assert [said["event"] for said in server.said] == ["keep", "keep", "stop"]
    kept, stop = server.said[1:]
    assert kept["trial"]["id"] == 1 and "trial 1 is kept, val_bpb 2.00" in kept["text"]
    assert stop["reason"] == "2 trials done" and stop["standing"]["champion"]["id"] == 1
    assert "1 keep, 1 discard" in stop["text"] and str(tmp_path) not in json.dumps(server.said)
    left = [p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts]
    texts = [out, err, caplog.text, *(data.decode("utf-8", "replace") for data in left)]
    assert not [text for text in texts if SECRET in text]


def test_trouble_is_told_before_the_end(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace(tmp_path, monkeypatch, f'webhook = "{server.address}"\non = ["trouble", "stop"]\n')
    monkeypatch.setattr("autoresearch.engine.loop.backoff", lambda times: 0.0)
    code, _, err = night(capsys, tmp_path, *["crash = NUMBER\n"] * 3)
    events = [said["event"] for said in server.said]
    assert code == 0 and events[-1] == "stop" and "trouble" in events, err
    assert "crashes in a row" in server.said[0]["text"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoresearch.engine.ledger.Ledger.append_trial", full)
    code, _, err = night(capsys, tmp_path, "DEPTH = 1\n")
    assert code == 4
    trouble, stop = server.said[-2:]
    assert (trouble["event"], stop["event"]) == ("trouble", "stop")
    assert "No space left" in trouble["text"] and "No space left" in stop["reason"]


@pytest.mark.parametrize("how", ["refused", "404", "slow", "broken"])
def test_a_webhook_that_fails_is_told_once_and_ends_nothing(
    how: str,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = server.address
    if how == "refused":
        server.close()
    server.answers = [404] * 20
    monkeypatch.setattr(Messenger, "waits", (0.01,))
    if how == "slow":
        monkeypatch.setattr(Messenger, "_post", lambda *_: time.sleep(60))
        monkeypatch.setattr("autoresearch.background.Background.__init__.__defaults__", (0.2,))
    if how == "broken":
        monkeypatch.setattr(Notifier, "take", lambda *_: 1 / 0)
        monkeypatch.setattr("autoresearch.notify.summary_text", lambda *_: [][0])
    workspace(tmp_path, monkeypatch, f'webhook = "{address}"\n')
    begun = time.monotonic()
    code, out, err = night(capsys, tmp_path, "DEPTH = 2\n", "DEPTH = 1\n")
    assert code == 0 and Study.read(Path(".")).state.champion == 2
    expected = {"refused": "ConnectError", "404": "says 404", "slow": "given up", "broken": "Zero"}
    assert expected[how] in err and SECRET not in err + out
    assert ("IndexError at the end" in err) == (how == "broken")
    assert err.count("of a keep") <= 1
    assert time.monotonic() - begun < 60


def test_a_command_gets_the_message_and_its_failure_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    took = tmp_path / "took"
    script = tmp_path / "tell me.py"
    script.write_text(f"import sys; open({str(took)!r}, 'a').write(sys.stdin.read())")
    folder = workspace(tmp_path, monkeypatch, f"command = \"python '{script}'\"\n")
    code, out, err = run(capsys, "notify", "--json")
    assert (code, json.loads(out)["sent"]) == (0, True), err
    assert json.loads(took.read_text())["event"] == "test"
    for words, why in (
        ("python -c 'exit(3)'", "exit status 3"),
        ("no-such-program", "can't be run"),
    ):
        table = json.dumps(words)
        (folder / "autoresearch.toml").write_text(f"[experiment]\n[notify]\ncommand = {table}\n")
        code, _, err = run(capsys, "notify")
        assert code == 4 and why in err


def test_an_address_does_not_belong_in_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace(tmp_path, monkeypatch, f'webhook = "https://example.org/{SECRET}"\n')
    for command in (["notify"], ["run", "--trials", "1"]):
        code, out, err = run(capsys, *command)
        assert code == 2 and "env:NAME" in err and SECRET not in out + err
    for webhook in ("env:NOT_SET", "file:none.txt", "file:~nobody-of-that-name/x"):
        with pytest.raises(UsageError):
            find_address(webhook, tmp_path)
    # The last of them is one whose parser says what it was given.
    for address in (f"ftp://{SECRET}", f"https://[{SECRET}", f"https://{SECRET}\u2100/x"):
        (tmp_path / "address").write_text(f"{address}\n", encoding="utf-8")
        with pytest.raises(UsageError, match="no http address") as told:
            find_address("file:address", tmp_path)
        assert SECRET not in told.value.message + told.value.hint
    (tmp_path / "address").write_text(f" https://example.org/{SECRET}\n")
    assert find_address("file:address", tmp_path) == f"https://example.org/{SECRET}"


def test_settings_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "autoresearch.toml"
    assert not read_part(file, "notify", Notify).wanted
    for table in ('on = ["kept"]', 'morning = "7:30"', 'morning = "24:00"', 'wehbook = "x"'):
        file.write_text(f"[notify]\n{table}\n")
        with pytest.raises(UsageError, match="notify"):
            read_part(file, "notify", Notify)


def test_bodies_are_what_the_services_take_and_mention_nobody() -> None:
    said = message("keep", "mar5", "trial 1 <!channel> & @everyone")
    assert json.loads(body("json", said)[0]) == said
    assert json.loads(body("slack", said)[0]) == {
        "text": "mar5: trial 1 &lt;!channel&gt; &amp; @everyone"
    }
    discord = json.loads(body("discord", said)[0])
    assert discord["allowed_mentions"] == {"parse": []} and "@everyone" in discord["content"]
    assert body("text", said)[0].decode() == said["text"]


def test_a_summary_comes_every_morning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace(tmp_path, monkeypatch, "")
    night_before = datetime(2026, 3, 5, 23, 0).timestamp()
    assert next_morning(None, night_before) is None
    assert next_morning("07:30", night_before) == datetime(2026, 3, 6, 7, 30).timestamp()
    assert next_morning("23:30", night_before) == datetime(2026, 3, 5, 23, 30).timestamp()
    now, sent = [night_before], []

    class Kept:
        def send(self, said: dict[str, Any]) -> None:
            sent.append(said["event"])

    settings = Notify(command=("x",), morning="07:30")
    messenger: Any = Kept()
    notifier = Notifier(settings, Study.read(Path(".")), messenger, lambda: now[0])
    for hours, expected in ((1, 0), (9, 1), (10, 1), (32, 1), (33, 2)):
        now[0] = night_before + 3600 * hours
        notifier.take("progress", {})
        assert len(sent) == expected and set(sent) <= {"summary"}


def test_too_much_waiting_is_left_out_and_told() -> None:
    hold = threading.Event()
    background = Background("notify", 5.0)
    done: list[int] = []

    def work(n: int) -> Callable[[], None]:
        return lambda: (hold.wait(), done.append(n))[1]

    for n in range(300):
        background.put(work(n))
    heard: list[str] = []
    event = joined(lambda name, data: heard.append(str(data)), lambda *_: None, background)
    event("progress", {})
    event("progress", {})
    assert len([text for text in heard if "left out" in text]) == 1
    hold.set()
    background.close()
    assert done == list(range(len(done))) and 200 <= len(done) <= 201

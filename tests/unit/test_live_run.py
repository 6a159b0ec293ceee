"""What `run` shows of itself on a terminal: of any size and code page, resized, interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoresearch.engine.ledger import Ledger
from autoresearch.init import make_workspace
from autoresearch.live import WANTED, below
from autoresearch.live_run import LEAST_HEIGHT, LiveRun
from autoresearch.now import Now
from autoresearch.standing import Look
from prepare.settings import Settings
from tests.unit.quick_trials import SEED
from tests.unit.test_status_watch import baseline, trial

IDEA = "a larger rate → 更好 " + "and more words " * 20


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with a champion and a discarded trial, whose loop is amid a third."""
    folder = tmp_path / "w"
    files = {"train.py": SEED + "# slow\n", "autoresearch.toml": Settings().dumps()}
    make_workspace(folder, files, "begin")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ledger(workspace: Path) -> Ledger:
    ledger = Ledger(workspace / "results.jsonl")
    ledger.append({"kind": "study", "tag": "mar5"})
    ledger.append_trial(baseline())
    ledger.append_trial(trial(1, "keep", delta=-0.04, score=1.96, description=IDEA))
    ledger.append_trial(trial(2))
    now = Now(workspace / ".autoresearch" / "now.json")
    now.take("begin", {"limits": {"trials": 5}, "trials_before": 1})
    now.take("trial", {"id": 3, "description": IDEA})
    now.take("run", {"id": 3, "label": "candidate", "seed": 0})
    now.take("phase", {"phase": "training"})
    for step in range(60):
        progress = {"step": step, "loss": 5 - step / 40, "elapsed": 3.0 * step, "budget": 300.0}
        now._wrote_at = float("-inf")
        now.take("progress", {**progress, "tokens_per_second": 9000.0, "mfu": 0.4})
    return ledger


def document(workspace: Path) -> dict[str, Any]:
    """As `standing` gives it while this process is the writer."""
    with Ledger(workspace / "results.jsonl"):
        return Look(workspace)()


def terminal(width: int = 100, height: int = 30, encoding: str = "utf-8", **more: Any) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, width=width, height=height, force_terminal=True, **more)


def drawn(console: Console, picture: Any) -> list[str]:
    lines = console.render_lines(picture, pad=False)
    return ["".join(part.text for part in line) for line in lines]


def test_all_that_is_asked_for_is_shown(workspace: Path, ledger: Ledger) -> None:
    console = terminal()
    text = "\n".join(drawn(console, below(document(workspace), console)))
    for words in (
        *("trial 3", "a larger rate", "run 1: candidate, seed 0: training", "59%", "step 59"),
        *("this run  ", "champion  █", "the champion's", "trial 1  val_bpb 1.960000", "-0.0400"),
        *("1 keep, 1 discard", "2 of 5 trials", "left", "0.750 dollars"),
    ):
        assert words in text, text


@pytest.mark.parametrize("encoding", ["utf-8", "cp437", "cp1252", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(40, 12), (60, 16), (100, 24), (300, 80)])
def test_it_fits(workspace: Path, ledger: Ledger, width: int, height: int, encoding: str) -> None:
    """No line is cut by the terminal, none ends in blanks, and what it draws itself can be said."""
    console = terminal(width, height, encoding)
    lines = drawn(console, below(document(workspace), console))
    assert 3 <= len(lines) <= max(height // 2, WANTED)
    assert max(map(len, lines)) <= width and all(line == line.rstrip() for line in lines)
    "\n".join(lines).replace(IDEA, "").encode(
        encoding, "strict" if encoding == "utf-8" else "replace"
    )
    curves = "".join(line for line in lines if line.startswith(("this run", "champion  ")))
    if encoding != "utf-8":
        assert curves.isascii() and lines[0].isascii()


def test_no_colour_where_none_is_wanted(workspace: Path, ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal(no_color=None)
    console.print(below(document(workspace), console))
    console.file.flush()
    written = console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9)\d", written) and "trial 3" in written


def test_a_bar_until_the_study_begins(workspace: Path, ledger: Ledger) -> None:
    console = terminal()
    with Ledger(workspace / "results.jsonl"), LiveRun(console, workspace) as live:
        live("phase", {"phase": "looking at the hardware"})
        assert live._bar is not None and live._live is None
        live("begin", {"limits": {}})
        assert live._bar is None and live._live is not None
        assert any("trial 3" in line for line in drawn(console, live.picture()))
        console.width = 50  # a resize is seen at the next picture
        assert max(map(len, drawn(console, live.picture()))) <= 50
        ledger.path.write_bytes(b"no ledger\n" * 3)
        assert any("trial 3" in line for line in drawn(console, live.picture())), "the last one"
    assert live._live is not None and not live._live.is_started


@pytest.mark.parametrize(("height", "named"), [(LEAST_HEIGHT - 1, True), (30, False)])
def test_the_bar_alone_where_there_is_no_room(workspace: Path, height: int, named: bool) -> None:
    with LiveRun(terminal(height=height), workspace if named else None) as live:
        live("begin", {"limits": {}})
        live("phase", {"phase": "training"})
        live("progress", {"loss": 3.0, "step": 1, "elapsed": 1.0, "budget": 5.0})
        assert live._bar is not None and live._live is None


# -- the real command ----------------------------------------------------------------------------

COMMAND = [sys.executable, str(Path(__file__).with_name("quick_trials.py"))]


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_in_a_terminal_and_interrupted_twice(workspace: Path, cache: Path) -> None:
    """Seen amid the baseline; the first Ctrl-C says what it does, the second ends it at once."""
    import fcntl
    import pty
    import struct
    import termios

    process, terminal_end = pty.fork()
    if process == 0:
        root = str(Path(__file__).resolve().parents[2])
        os.environ.update(TERM="xterm-256color", PYTHONPATH=root)
        os.execv(COMMAND[0], [*COMMAND, "run", "--trials", "2"])
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    seen = b""

    def until(words: bytes) -> None:
        nonlocal seen
        ends = time.monotonic() + 120
        while words not in seen:
            assert time.monotonic() < ends, seen
            try:
                data = os.read(terminal_end, 65_536)
            except OSError:  # it has ended
                data = b""
            assert data, seen
            seen += data

    until(b"this run")
    assert b"trial 0" in seen and b"step" in seen
    os.write(terminal_end, b"\x03")
    until(b"stopping after what is under way")
    os.write(terminal_end, b"\x03")
    until(b"interrupted")
    _, status = os.waitpid(process, 0)
    os.close(terminal_end)
    assert os.waitstatus_to_exitcode(status) == 130
    assert not Ledger(workspace / "results.jsonl").trials()


def test_a_code_page_ends_nothing(workspace: Path, ledger: Ledger) -> None:
    """Where Windows' own are in use, what goes to a file lacks most of what people write."""
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    for arguments in (["results"], ["status"], ["results", "--json"]):
        done = subprocess.run([*COMMAND, *arguments], env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout.decode("utf-8"))["trials"]
    assert trials[1]["description"] == IDEA, "JSON is UTF-8 everywhere"

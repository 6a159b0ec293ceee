"""What a command says: to people, to programs, and while it works."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from autoresearch.console import LiveProgress, Output, PlainProgress, describe, to_json

STEP = {
    "step": 12,
    "loss": 3.25,
    "tokens": 4096,
    "tokens_per_second": 12345.6,
    "mfu": 0.4,
    "elapsed": 3.0,
    "budget": 10.0,
}


def test_json_has_no_nan_and_keeps_text() -> None:
    text = to_json({"loss": math.nan, "rates": (1.0, math.inf), "name": "é", "path": object})
    document = json.loads(text)
    assert document["loss"] is None
    assert document["rates"] == [1.0, None]
    assert document["name"] == "é"


def test_a_command_without_events_gives_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=True)
    out.say("not for programs")
    out.table(["a"], [["1"]])
    out.result({"a": 1}, then=["do this"])
    assert json.loads(capsys.readouterr().out) == {"a": 1, "next": ["do this"]}


def test_a_command_with_events_gives_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=True)
    with out.progress("cpu") as on_event:
        on_event("phase", {"phase": "training"})
        on_event("progress", STEP)
    out.warn("slow")
    out.result({"val_bpb": 1.0})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["phase", "progress", "warning", "result"]
    assert lines[0]["run"] == "cpu"
    assert lines[1]["loss"] == 3.25
    assert lines[3]["val_bpb"] == 1.0


def test_people_get_text_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=False)
    out.facts([("a", "1"), ("long", "[not markup]")])
    out.table(["name", ">value"], [["x", "1"]])
    out.result({"a": 1}, then=["autoresearch train"])
    text = capsys.readouterr().out
    assert "  a     1\n  long  [not markup]\n" in text
    assert text.rstrip().endswith("autoresearch train")
    assert "\x1b[" not in text  # no colours in a pipe


def test_cells_of_a_table_are_literal(capsys: pytest.CaptureFixture[str]) -> None:
    """Ideas stand in them, and names of metrics: `[/x]` would be markup that ends nothing."""
    Output(json_mode=False).table(["[a]", ">b"], [["take x[0] and [/x]", "[bold]1"]])
    text = capsys.readouterr().out
    assert "[a]" in text and "take x[0] and [/x]" in text and "[bold]1" in text


def test_a_step_in_words() -> None:
    assert describe(STEP) == "step 12  loss 3.2500  12,346 tok/s  MFU 40.0%"
    assert describe({"step": 1, "loss": None, "mfu": None}) == "step 1"


def test_plain_progress_is_occasional(capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainProgress("cpu", every=3600.0)
    report("phase", {"phase": "training"})
    for _ in range(100):
        report("progress", STEP)
    report("warning", {"message": "hot"})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["cpu: training", "cpu: warning: hot"]


def test_plain_progress_has_share_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainProgress(every=0.0)
    report("phase", {"phase": "training"})
    report("progress", STEP)
    report("preparing", {"task": "tokens", "done": 5e6, "total": 1e7, "unit": "bytes"})
    report("scoring", {"done": 1, "of": 4})
    lines = capsys.readouterr().err.splitlines()
    assert "30%" in lines[1] and "loss 3.2500" in lines[1] and lines[1].endswith("7 s left")
    assert lines[2] == "tokens   50%  5.0 of 10.0 MB"
    assert "25%" in lines[3]


def test_live_progress_draws_step_loss_speed_mfu_and_time_left() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with LiveProgress(console, "cpu") as report:
        report("phase", {"phase": "training"})
        report("progress", STEP)
        report._progress.refresh()
        report("warning", {"message": "hot"})
        report("phase", {"phase": "scoring"})
        report("scoring", {"done": 1, "of": 4})
    text = stream.getvalue()
    for words in (
        "cpu training",
        "step 12",
        "loss 3.2500",
        "12,346 tok/s",
        "MFU 40.0%",
        "7 s left",
    ):
        assert words in text
    assert "warning: hot" in text


def test_a_token_budget_is_what_the_bar_shows(capsys: pytest.CaptureFixture[str]) -> None:
    live = PlainProgress(every=0)
    step = {"step": 1, "loss": 3.0, "tokens": 250, "elapsed": 9.0, "budget": 4.0}
    live("progress", {**step, "token_budget": 1000})
    said = capsys.readouterr().err
    assert " 25%" in said and "left" not in said


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal of POSIX")
def test_lines_take_the_bar_away_first() -> None:
    import pty

    code = """
from autoresearch.console import Output
out = Output(False)
with out.progress() as live:
    live("phase", {"phase": "training"})
    out.say("a decision")
    out.warn("careful")
out.say("the end")
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = seen.decode()
    for line in ("a decision", "Warning: careful", "the end"):
        before = text.split(line)[0]
        shown = re.sub(r"\x1b\[[0-9;]*m", "", before)  # colours aside
        assert shown.endswith(("\x1b[2K", "\n", "\x1b[?25h")), (line, before[-40:])

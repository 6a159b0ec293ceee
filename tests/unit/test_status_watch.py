"""`status` and its live view: what they say of a study, however wide, and while it is written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoresearch import cli
from autoresearch.commands import status as command
from autoresearch.commands.status import PlainLines
from autoresearch.console import Output
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.state import State
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus
from autoresearch.init import make_workspace
from autoresearch.live import below, decision_of, duration, frame, one_line_of, progress
from autoresearch.narration import compared
from autoresearch.now import Now
from autoresearch.standing import Look, pace
from prepare.settings import Settings

CURVE = tuple((3.0 * i, 5.0 - i / 50) for i in range(1, 101))  # 300 s, from 5 to 3
IDEA = "gated MLP, \x1b[2Jand a long tail of words " + "that goes on " * 20


def trial(number: int, status: str = "discard", **more: Any) -> Trial:
    run = Replicate(0, 2.0, score_id="id")
    fields: dict[str, Any] = {
        "parent": 0,
        "reason": "worse",
        "description": f"idea {number}",
        "score": 2.0,
        "score_id": "id",
        "replicates": (run,),
        "delta": 0.01,
        "confidence": 0.1,
        "curve": CURVE,
        "cost": Cost(0.25, 1000, 500, "native"),
        "started_at": f"2026-01-01T00:{number % 60:02d}:00+00:00",
        "finished_at": f"2026-01-01T00:{number % 60:02d}:30+00:00",
    }
    return Trial(id=number, status=TrialStatus(status), **{**fields, **more})


def baseline() -> Trial:
    runs = tuple(Replicate(seed, 2.0 + seed / 1000, score_id="id") for seed in range(3))
    return trial(0, "keep", parent=None, replicates=runs, delta=None, description="baseline")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "w"
    files = {"train.py": "X = 1\n", "autoresearch.toml": Settings().dumps()}
    make_workspace(folder, files, "begin")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ledger(workspace: Path) -> Ledger:
    """Four trials: the baseline, one worse, one kept, one crashed."""
    ledger = Ledger(workspace / "results.jsonl")
    ledger.append({"kind": "study", "tag": "mar5"})
    ledger.append_trial(baseline())
    ledger.append_trial(trial(1))
    ledger.append_trial(trial(2, "keep", delta=-0.04, score=1.96, description=IDEA))
    broken = Replicate(0, None, failure=Failure("training", "exception", "it broke"))
    crash = trial(3, "crash", score=None, delta=None, replicates=(broken,), reason="it broke")
    ledger.append_trial(crash)
    return ledger


def at_work(workspace: Path) -> Now:
    """The loop at trial 4, half through its second run, with 12 trials asked for."""
    now = Now(workspace / ".autoresearch/now.json")
    now.take("begin", {"limits": {"trials": 12}, "trials_before": 0})
    now.take("proposing", {"proposer": "search", "attempt": 0})
    now.take("trial", {"id": 4, "description": IDEA})
    now.take("run", {"id": 4, "label": "candidate", "seed": 0})
    now.take("ran", {"id": 4, "run": "candidate-0"})
    now.take("run", {"id": 4, "label": "candidate", "seed": 1})
    now.take("phase", {"phase": "training"})
    for spent, loss in CURVE[:50]:
        step = {"step": int(spent), "loss": loss + 0.5, "tokens": 10 * spent, "elapsed": spent}
        now.take("progress", {**step, "tokens_per_second": 30112.0, "budget": 300.0})
    now.take("phase", {"phase": "training"})
    return now


def drawn(document: dict[str, Any], width: int, height: int | None = None) -> str:
    if document["now"]:
        document = {**document, "at": document["now"]["at"]}
    file = io.StringIO()
    console = Console(file=file, width=width, height=height or 50, legacy_windows=False)
    console.print(frame(document, console, "note", height))
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


# -- the document --------------------------------------------------------------------------------


def test_the_document_of_a_study_at_work(ledger: Ledger, workspace: Path, capsys) -> None:
    with ledger:
        at_work(workspace)
        assert cli.run(["status", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert cli.run(["status"]) == 0
        said = words(capsys.readouterr().out)
    assert document["tag"] == "mar5" and document["counts"] == {"discard": 1, "keep": 1, "crash": 1}
    champion = document["champion"]
    assert champion["id"] == 2 and champion["gain"] == -0.04 and champion["score"] == 1.96
    assert champion["curve"][-1] == [300.0, 3.0] and len(champion["curve"]) <= 120
    assert document["now"]["run"]["label"] == "candidate" and document["now"]["run"]["seed"] == 1
    assert document["dollars"] == 1.0 and document["tokens"] == 6000
    assert document["pace"]["trials_per_hour"] == pytest.approx(120)
    assert document["pace"]["done"] == 3
    assert 8 * 30 <= document["pace"]["seconds_left"] <= 9 * 30
    assert [item["id"] for item in document["recent"]] == [0, 1, 2, 3]
    assert "\x1b" not in said + json.dumps(document)
    for part in ("trial 2 val_bpb 1.960000 (-0.0400 since the baseline)", "run 2: candidate, seed"):
        assert part in said
    for part in ("(120 an hour)", "1.00 dollars, 6,000 tokens", "3 of 12 trials", "30,112 tok/s"):
        assert part in said


def test_a_killed_loop_is_told_from_one_that_ended(ledger: Ledger, workspace: Path) -> None:
    look = Look(workspace)
    assert look()["running"] is None and look()["killed"] is False
    holder = workspace / "results.jsonl.holder"
    with ledger:
        running = look()["running"]
        assert f"(process {os.getpid()}, since 20" in running and str(workspace) not in running
        left = json.loads(holder.read_text())
    holder.write_text(json.dumps({**left, "process_started": 1.0}))
    assert (look()["running"], look()["killed"]) == (None, True)
    assert "was killed" in drawn(look(), 100)


def test_looking_again_reads_what_is_new_alone(ledger: Ledger, workspace: Path) -> None:
    look = Look(workspace)
    path = workspace / "results.jsonl"
    before = look()
    with path.open("ab") as file:  # a writer is half through a line
        file.write(b'{"half": "a li')
    assert look()["trials"] == before["trials"] == 4
    os.truncate(path, path.stat().st_size - len(b'{"half": "a li'))
    ledger.append_trial(trial(4, "keep", parent=2, delta=-0.02))
    after = look()
    assert after["trials"] == 5 and after["champion"]["gain"] == pytest.approx(-0.06)
    ledger.append({"kind": "champion", "trial": 0})
    assert look()["champion"]["id"] == 0 and look()["champion"]["gain"] is None
    os.replace(path, workspace / "aside.jsonl")
    assert look()["trials"] == 0
    Ledger(path).append({"kind": "study", "tag": "mar6"})
    Ledger(path).append_trial(baseline())
    assert (look()["tag"], look()["trials"]) == ("mar6", 1)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"trials": 8}, 4 * 30 - 10),
        ({"hours": 1}, 3600 - 100),
        ({"dollars": 2.0}, 4 * 30 - 10),
        ({"tokens": 15_000}, 6 * 30 - 10),
        ({"hours": 1, "trials": 5}, 30 - 10),
        ({"trials": 3}, 0),
        ({}, None),
    ],
)
def test_when_a_loop_will_end(limits: dict[str, Any], left: float | None) -> None:
    state = State()
    state.add(trial(0, "keep", parent=None, cost=Cost()))
    for number in range(1, 5):
        state.add(trial(number))
    assert (state.dollars, state.tokens) == (1.0, 6000)
    now = {
        "loop": {"since": 900.0, "limits": limits, "trials_before": 0},
        "trial": {"since": 990.0},
    }
    found = pace(state, now, 1000.0)
    assert found["seconds"] == 100 and found["done"] == 4
    assert found.get("seconds_left") == (None if left is None else pytest.approx(left))
    assert pace(State(), {}, 0.0) == {}


# -- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 100, 160])
def test_a_frame_says_it_all_and_fits(ledger: Ledger, workspace: Path, width: int) -> None:
    with ledger:
        at_work(workspace)
        text = drawn(Look(workspace)(), width)
    assert all(len(line) <= width for line in text.splitlines())
    said = words(text)
    assert "\x1b" not in text
    for part in ("mar5", "trial 2", "1.960000", "-0.0400", "noise", "1 crash", "3 of 12 trials"):
        assert part in said, part
    for part in ("trial 4 gated MLP", "seed 1: training", "50% 150 of 300 s", "30,112 tok/s"):
        assert part in said, part
    assert "loss 4.55" in said and "(+0.5000)" in said, "against the champion's at equal budget"
    assert "crash" in said and "+0.0100" in said and "note" in said


def test_a_low_terminal_drops_decisions_oldest_first(ledger: Ledger, workspace: Path) -> None:
    with ledger:
        at_work(workspace)
        for number in range(4, 14):
            ledger.append_trial(trial(number, parent=2))
        document = Look(workspace)()
    for height in (22, 24, 26):
        text = drawn(document, 100, height)
        assert len(text.rstrip("\n").splitlines()) <= height and "note" in text
        assert "idea 13" in text and "idea 6" not in text
    assert "idea 6" in drawn(document, 100)


def test_what_only_training_has_is_left_out_before(ledger: Ledger, workspace: Path) -> None:
    with ledger:
        now = at_work(workspace)
        now.take("ran", {"id": 4, "run": "candidate-1"})
        now.take("run", {"id": 4, "label": "champion", "seed": 7})
        text = words(drawn(Look(workspace)(), 100))
        assert "run 3: champion, seed 7" in text and "%" not in text.split("seed 7")[1][:20]
        now.take("proposing", {"proposer": "claude", "attempt": 0})
        assert "asking claude for an edit" in drawn(Look(workspace)(), 100)


def test_a_pause_says_why_and_until_when(ledger: Ledger, workspace: Path, capsys) -> None:
    with ledger:
        now = at_work(workspace)
        now.take("warning", {"message": "disturbed, measured again: other processes"})
        assert cli.run(["status"]) == 0
        assert "warning: disturbed, measured again" in words(capsys.readouterr().out)
        before = time.localtime(time.time() + 60)
        now.take("ran", {"id": 4, "run": "candidate-1"})
        now.take("pause", {"seconds": 60.0, "reason": "3 crashes in a row (killed)"})
        assert cli.run(["status"]) == 0
        said = words(capsys.readouterr().out)
        assert "paused until " in said and "3 crashes in a row (killed)" in said
        assert time.strftime("%H:%M", before) in said or before.tm_sec == 59
        assert "run 2" not in said, "what ran before is over"
        now.take("run", {"id": 2, "label": "check", "seed": 0})
        assert "run 1: check, seed 0" in words(drawn(Look(workspace)(), 100))


def test_a_baseline_is_named_once() -> None:
    item = {"id": 0, "status": "keep", "delta": None, "idea": "baseline"}
    said = decision_of({**item, "reason": "baseline, measured on 3 seeds"})
    assert said.count("baseline") == 1
    other = decision_of({**item, "idea": "DEPTH: 4 -> 5", "reason": "it broke"})
    assert other.endswith("DEPTH: 4 -> 5: it broke")


def test_curves_are_set_side_by_side_on_one_scale() -> None:
    other = [(float(i), 10.0 - i / 10) for i in range(101)]
    own = [(float(i), 10.0 - i / 10) for i in range(51)]
    mine, theirs = compared(own, other, 100, 40, "utf-8")
    assert len(theirs) == 40 and 19 <= len(mine) <= 21
    assert mine[:19] == theirs[:19] and theirs[0] == "█" and theirs[-1] == "▁"
    worse, _ = compared([(a, b + 3) for a, b in own], other, 100, 40, "utf-8")
    assert worse[-1] > theirs[len(worse) - 1]
    assert compared(own, other, 100, 40, "ascii")[1].isascii()
    assert compared([(0.0, float("nan"))], [], 100, 40, "ascii") == ("", "")
    gap, _ = compared([(0.0, 3.0), (90.0, 2.0)], [], 100, 10, "ascii")
    assert len(gap) == 10, "a part without a step repeats the one before"


def test_a_bar_runs_on_between_two_notes() -> None:
    run = {"elapsed": 10.0, "budget": 12.0, "tokens": 100, "tokens_per_second": 10.0}
    now = {"at": 1000.0, "phase": "training", "run": run}
    assert progress({"at": 1001.0, "now": now}) == (11.0, 12.0)
    assert progress({"at": 1009.0, "now": now}) == (12.0, 12.0)
    assert progress({"at": 900.0, "now": now}) == (10.0, 12.0), "a clock that was set back"
    now["run"] = {**run, "token_budget": 1000}
    assert progress({"at": 1002.0, "now": now}) == (120.0, 1000.0)
    now["phase"] = "scoring"
    assert progress({"at": 1002.0, "now": now}) == (100.0, 1000.0)
    assert [duration(s) for s in (5, 600, 4 * 3600 + 300)] == ["5 s", "10 min", "4 h 05 min"]


# -- watching ------------------------------------------------------------------------------------


def watched(
    workspace: Path, steps: list[Callable[[], Any]], json_mode: bool, stay: bool = False
) -> None:
    """Watch while one step after the other happens; an interrupt when there is none left."""
    look = Look(workspace)

    def then() -> dict[str, Any]:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()
        return look()

    command.watch_study(Output(json_mode), then, stay, every=0)


def nothing() -> None:
    pass


def test_elsewhere_a_line_is_printed_per_change(workspace: Path, capsys) -> None:
    ledger = Ledger(workspace / "results.jsonl")
    now = Now(workspace / ".autoresearch/now.json")
    step = {"step": 1, "loss": 3.0, "tokens": 5, "tokens_per_second": 1.0, "budget": 9.0}
    steps = [
        nothing,
        nothing,
        ledger.open,
        lambda: ledger.append({"kind": "study", "tag": "mar5"}),
        lambda: now.take("run", {"id": 0, "label": "baseline", "seed": 0}),
        lambda: now.take("phase", {"phase": "training"}),
        lambda: now.take("progress", {**step, "elapsed": 1.0}),
        lambda: ledger.append_trial(baseline()),
        lambda: ledger.append_trial(trial(1, description=IDEA)),
        nothing,
        ledger.close,
        lambda: pytest.fail("the loop has ended"),
    ]
    watched(workspace, steps, json_mode=False)
    out = capsys.readouterr().out
    lines = [line[10:] for line in out.splitlines()]
    assert "waiting" in lines[0] and lines[2].startswith("mar5: no champion yet"), lines
    assert lines[3].endswith("run 1: baseline, seed 0"), lines
    assert lines[-1].endswith("the loop has ended")
    assert len(lines) == len(set(lines)) == 9, lines
    assert [line.split("  ")[:2] for line in lines if line.startswith("trial ")] == [
        ["trial 0", "keep"],
        ["trial 1", "discard"],
    ]
    assert all(char.isprintable() or char == "\n" for char in out), "no control characters"


def test_as_json_a_document_is_printed_per_change(ledger, workspace: Path, capsys) -> None:
    now = Now(workspace / ".autoresearch/now.json")
    step = {"step": 1, "loss": float("nan"), "tokens": 5, "tokens_per_second": 1.0, "budget": 9.0}
    steps = [
        ledger.open,
        nothing,
        lambda: now.take("progress", {**step, "elapsed": 1.0}),
        nothing,
        lambda: ledger.append_trial(trial(4)),
        ledger.close,
    ]
    watched(workspace, steps, json_mode=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["trials"] for line in lines] == [4, 4, 5, 5]
    assert [line["over"] for line in lines] == [False, False, False, True]
    assert lines[1]["now"]["run"]["loss"] is None


def test_staying_ends_with_an_interrupt_alone(ledger: Ledger, workspace: Path, capsys) -> None:
    steps = [nothing, ledger.open, ledger.close, nothing]
    watched(workspace, steps, json_mode=False, stay=True)
    assert steps == [] and "process" not in capsys.readouterr().err
    assert cli.run(["status", "--stay"]) == 2


def test_a_baseline_that_fails_ends_the_watch(workspace: Path, capsys) -> None:
    ledger = Ledger(workspace / "results.jsonl")
    steps = [nothing, ledger.open, ledger.close, lambda: pytest.fail("it has ended")]
    watched(workspace, steps, json_mode=False)
    assert capsys.readouterr().out.splitlines()[-1].endswith("the loop has ended")


def test_a_damaged_ledger_is_told(ledger: Ledger, workspace: Path, capsys) -> None:
    path = workspace / "results.jsonl"
    path.write_text(path.read_text().replace("idea 1", "idea X"))
    assert cli.run(["status", "--watch"]) == 3
    assert "line 3" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal of POSIX")
@pytest.mark.parametrize("ends_by", ["interrupt", "loop"])
def test_in_a_terminal(ledger: Ledger, workspace: Path, ends_by: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    code = "from autoresearch.cli import main; main(['status', '-w'])"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "LINES": "40"}
    with ledger:
        at_work(workspace)
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=theirs,
            stderr=theirs,
            stdin=theirs,
            env=environment,
        )
        os.close(theirs)
        seen = read_until(ours, b"since the")
        if ends_by == "interrupt":
            process.send_signal(signal.SIGINT)
            seen += read_until(ours, None)
    seen += read_until(ours, None)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"\x1b[?1049h" in seen and b"\x1b[?1049l" in seen, "the screen is given back"
    last = seen.split(b"\x1b[?1049l")[-1].decode()
    assert "gated MLP" in last and "Traceback" not in last
    assert ("the loop has ended" in last) == (ends_by == "loop")


def read_until(file: int, what: bytes | None) -> bytes:
    """What a terminal prints until `what` was seen, or to its end."""
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            data = os.read(file, 65536)
        except OSError:  # how Linux says that the other side is closed
            data = b""
        seen += data
        if not data or (what is not None and what in seen):
            break
    return seen


def test_several_runs_under_way_are_told_in_a_line_each(ledger: Ledger, workspace: Path) -> None:
    with ledger:
        now = at_work(workspace)
        for number in range(5, 12):
            now.take("trial", {"id": number, "description": f"idea {number}"})
            now.take("run", {"id": number, "label": "candidate", "seed": 3})
        which = {"id": 5, "run": "candidate-3"}
        now.take("phase", {**which, "phase": "training"})
        now.take("progress", {**which, "elapsed": 75.0, "budget": 300.0, "loss": 2.0})
        now.take("proposing", {"proposer": "claude", "attempt": 0})
        document = Look(workspace)()
        lines = drawn(document, 100).splitlines()
        assert any("50%" in line for line in lines), "the first trial keeps its bar"
        beside = [line for line in lines if line.startswith("trial ") and "seed 3" in line]
        assert beside[0].startswith("trial 5 seed 3, training 25%: idea 5")
        assert beside[1].startswith("trial 6 seed 3, begins: idea 6") and len(beside) == 3
        assert any(line.startswith("and 4 more runs") for line in lines)
        assert any(line.startswith("asking claude for an edit") for line in lines)
        said = one_line_of(document)
        assert said.endswith("8 runs under way of trials 4, 5, 6, 7, 8, 9, 10, 11")
        console = Console(file=io.StringIO(), width=100, height=24, legacy_windows=False)
        console.print(below(document, console))
        assert "champion" in console.file.getvalue(), "it isn't pushed out of a small terminal"


def test_lines_say_what_is_new_of_several_runs_and_not_every_step(
    ledger: Ledger, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = PlainLines()
    with ledger:
        now = at_work(workspace)
        now.take("trial", {"id": 5, "description": "idea 5"})
        now.take("run", {"id": 5, "label": "candidate", "seed": 3})
        show(Look(workspace)())
        now.take("phase", {"id": 5, "run": "candidate-3", "phase": "training"})
        show(Look(workspace)())
        assert len(capsys.readouterr().out.splitlines()) == 1
        now.take("ran", {"id": 5, "run": "candidate-3"})
        now.take("run", {"id": 5, "label": "candidate", "seed": 4})
        show(Look(workspace)())
        assert len(capsys.readouterr().out.splitlines()) == 1

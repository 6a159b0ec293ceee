"""Trackers: what they are given, that one which fails harms nothing, each real one's own files."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.opening import open_study
from autoresearch.pretraining import Pretraining
from autoresearch.study import Study
from autoresearch.taskfile.scaffold import make_task
from autoresearch.trackers import BUILT_IN, TrackedTrial, find_tracker
from autoresearch.trackers.tracking import Worker
from prepare.errors import MissingTool, UsageError
from prepare.settings import Settings
from tests.unit.command_line import make_fake_workspace, run
from tests.unit.test_notify import night

TABLE = "\n[tracker]\nname = 'fake'\n"
FAKE = """
import json, os, time
from dataclasses import asdict

class Fake:
    def __init__(self, place, study):
        self.file = open(place / "fake.jsonl", "a")

    def trial(self, trial):
        print("a tracker may print what it likes")
        how = os.environ.get("FAKE", "")
        if how == "raises":
            raise RuntimeError("s3cr3t")
        if how == "asks":
            input("your key, please")
        if how == "exits":
            os._exit(3)
        if how == "hangs":
            time.sleep(600)
        self.file.write(json.dumps(asdict(trial)) + chr(10))
        self.file.flush()

    def close(self):
        self.file.write("closed")
        self.file.close()

def make(place, study):
    return Fake(place, study)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings the tracker `fake`."""
    site = tmp_path / "site"
    info = site / "fake_tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[autoresearch.trackers]\nfake = fake_tracker:make\n")
    (site / "fake_tracker.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(site))
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{inherited}")


def measure(study: Pretraining, request: MeasureRequest) -> Replicate:
    text = (request.folder / "train.py").read_text()
    details = {"tier": "none", "backend": "cpu", "curve": [[0.5, 5.0], [1.0, math.nan], [2.0, 4.0]]}
    if "crash" in text:
        failure = Failure("training", "exception", "ValueError: it broke")
        return Replicate(request.seed, None, failure=failure, details={"tier": "none"})
    score = float(text.split()[2]) + request.seed % 5 / 1000
    metrics = {"tokens_per_second": 100.0, "mfu_percent": math.inf}
    return Replicate(request.seed, score, metrics, {"total": 3.0}, score_id="i", details=details)


def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> Path:
    files = {"autoresearch.toml": Settings().dumps() + table}
    return make_fake_workspace(tmp_path / "w", monkeypatch, measure, "DEPTH = 3\n", files)


def test_every_decision_is_tracked_as_it_was_recorded(
    fake: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = workspace(tmp_path, monkeypatch, TABLE)
    code, _, err = night(capsys, tmp_path, "DEPTH = 2\n", "DEPTH = 4\n", "crash = NUMBER\n")
    assert code == 0 and "tracker" not in err, err
    kept = folder / ".autoresearch" / "trackers"
    *lines, end = (kept / "fake.jsonl").read_text().splitlines()
    trials = {trial["id"]: trial for trial in map(json.loads, lines)}
    state = Study.read(folder).state
    assert end == "closed" and trials.keys() == state.trials.keys() == {0, 1, 2, 3}
    assert [t["status"] for t in trials.values()] == ["keep", "keep", "discard", "crash"]
    first = trials[1]
    assert first["metrics"]["val_bpb"] == state.trials[1].score == first["best"]
    assert first["metrics"]["tokens_per_second"] == 100.0 and "mfu_percent" not in first["metrics"]
    assert first["curve"] == [[0.5, 5.0], [2.0, 4.0]] and first["unit"] == "seconds"
    assert first["config"]["commit"] == state.trials[1].commit and "idea 0" in first["idea"]
    assert trials[3]["curve"] == [] and "val_bpb" not in trials[3]["metrics"]
    assert "print what it likes" in (kept / "fake.log").read_text()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raises", "RuntimeError"),
        ("asks", "EOFError"),
        ("exits", "process ended"),
        ("hangs", "given up"),
    ],
)
def test_a_tracker_that_fails_is_told_once_and_ends_nothing(
    how: str,
    told: str,
    fake: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace(tmp_path, monkeypatch, TABLE)
    monkeypatch.setenv("FAKE", how)
    monkeypatch.setattr("autoresearch.trackers.tracking.LAST_SECONDS", 3.0)
    begun = time.monotonic()
    code, out, err = night(capsys, tmp_path, "DEPTH = 2\n", "DEPTH = 1\n")
    assert code == 0 and Study.read(Path(".")).state.champion == 2
    assert err.count("tracker fake") == err.count(told) == 1, err
    assert "s3cr3t" not in out + err and time.monotonic() - begun < 60


def test_what_is_not_there_is_told_before_the_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace(tmp_path, monkeypatch, "")
    code, _, err = run(capsys, "run", "--trials", "1", "--tracker", "wandd")
    assert code == 2 and "did you mean 'wandb'" in err
    # A folder of that name, as wandb itself makes one, is no package.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path)])
    for name in BUILT_IN:
        (tmp_path / name).mkdir()
        with pytest.raises(MissingTool) as error:
            find_tracker(name)
        assert f"autoresearch[{name}]" in error.value.hint
    study = Study.read(folder)
    assert study.tracker is None and not study.state.trials
    file = folder / "autoresearch.toml"
    file.write_text('tracker = "wandb"\n' + file.read_text())
    with pytest.raises(UsageError, match="tracker must be a table"):
        Study.read(folder)


def test_a_tasks_night_is_tracked_and_told(
    fake: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "task"
    make_task(folder)
    code, _, err = run(capsys, "task", "run", folder, "--trials", "2", "--tracker", "wandd")
    assert code == 2 and "did you mean 'wandb'" in err
    took = folder / "took.jsonl"
    tell = "import sys; open('took.jsonl', 'a').write(sys.stdin.read())"
    with (folder / "task.yaml").open("a") as file:
        file.write(f"notify: {{command: [python, -c, {json.dumps(tell)}], on: [keep, stop]}}\n")
        file.write("tracker: {name: fake}\n")
    code, _, err = run(capsys, "task", "run", folder, "--trials", "2", "--json")
    assert code == 0 and "fake" not in err, err
    said = [json.loads(line) for line in took.read_text().splitlines()]
    *lines, end = (folder / "work" / "trackers" / "fake.jsonl").read_text().splitlines()
    state = open_study(folder).state
    assert [json.loads(line)["id"] for line in lines] == list(state.trials) and end == "closed"
    kept = [t for t in state.trials.values() if t.status == "keep" and t.parent is not None]
    assert [one["event"] for one in said] == ["keep"] * len(kept) + ["stop"]
    assert "2 trials done" in said[-1]["text"] and said[-1]["standing"]["trials"] == 3
    assert run(capsys, "notify", "--dir", folder)[0] == 0
    assert json.loads(took.read_text().splitlines()[-1])["event"] == "test"
    header = open_study(folder).ledger.records("study")[-1]["task"]
    assert not {"notify", "tracker"} & header.keys(), "who is told is no part of the record"


# -- the real ones, where they are installed -----------------------------------------------------


def track(name: str, place: Path) -> None:
    """A kept trial and a crashed one, through the process that a night uses."""
    pytest.importorskip(name)
    kept = TrackedTrial(
        "mar5",
        7,
        "keep",
        "wider <b>layers</b>",
        "better",
        "val_bpb",
        best=1.25,
        curve=((0.5, 5.0), (1.5, 4.0)),
        metrics={"val_bpb": 1.25, "tokens_per_second": 100.0},
        config={"commit": "abc", "settings_seed": 42},
        ended=1_800_000_000.0,
    )
    crash = TrackedTrial("mar5", 8, "crash", "no idea", "it broke", "val_bpb", best=1.25)
    worker = Worker(name, place, "mar5")
    try:
        for trial in (kept, crash):
            assert TrackedTrial.from_dict(json.loads(json.dumps(asdict(trial)))) == trial
            worker.send(trial)
        worker.finish()
    finally:
        worker.kill()


def test_tensorboard_shows_the_curve_and_the_night(tmp_path: Path) -> None:
    track("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(folder: str, name: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / "tensorboard" / "mar5" / folder)).Reload()
        return [(event.step, event.value) for event in events.Scalars(name)]

    assert scalars("0007", "loss") == [(500, 5.0), (1500, 4.0)]
    assert scalars("0007", "tokens_per_second") == [(0, 100.0)]
    assert (scalars("", "val_bpb"), scalars("", "best")) == ([(7, 1.25)], [(7, 1.25), (8, 1.25)])
    events = EventAccumulator(str(tmp_path / "tensorboard" / "mar5" / "0008")).Reload()
    assert b"it broke" in events.Tensors("trial")[0].tensor_proto.string_val[0]


def test_mlflow_has_a_run_per_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track("mlflow", tmp_path)
    # Its own client takes many seconds to load: what it wrote is read as what it is.
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = dict(database.execute("select name, status from runs").fetchall())
        assert runs == {"0007": "FINISHED", "0008": "FAILED"}
        assert database.execute("select name from experiments where name = 'mar5'").fetchall()
        metrics = "select step, value from metrics where key = ? order by step"
        assert database.execute(metrics, ("loss",)).fetchall() == [(500, 5.0), (1500, 4.0)]
        assert database.execute(metrics, ("val_bpb",)).fetchall() == [(0, 1.25)]
        tags = database.execute("select value from tags where key = 'mlflow.note.content'")
        assert ("wider <b>layers</b>",) in tags.fetchall()


def test_wandb_keeps_runs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    track("wandb", tmp_path)
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.name)
    assert [path.name[:13] for path in files] == ["run-mar5-0007", "run-mar5-0008"]
    first, second = (path.read_bytes() for path in files)
    for word in (b"loss", b"val_bpb", b"tokens_per_second", b"keep", b"wider", b"mar5 0007"):
        assert word in first
    assert b"it broke" in second


def test_trackio_keeps_a_project_per_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    track("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "own" / "autoresearch-mar5.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step")
        logged: list[Any] = [(run, step, json.loads(text)) for run, step, text in rows.fetchall()]
        configs = database.execute("select run_name, config from configs").fetchall()
    assert {run for run, _, _ in logged} <= {"0007", "0008"}
    losses = [(m["seconds"], m["loss"]) for run, _, m in logged if run == "0007" and "loss" in m]
    assert losses == [(0.5, 5.0), (1.5, 4.0)]
    assert any(m.get("val_bpb") == 1.25 for _, _, m in logged)
    assert {run: json.loads(text)["status"] for run, text in configs}["0007"] == "keep"

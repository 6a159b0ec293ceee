"""The demo's search with the real loop, ledger and git; only the runs are made up."""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoresearch import demo_search
from autoresearch.constants import constants_of
from autoresearch.demo_search import SEARCHED, meaning, run_search, search_workspace
from autoresearch.engine.loop import Loop
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate, TrialStatus
from autoresearch.study import Study
from autoresearch.verification import verify
from prepare.errors import UsageError

NOISE = 0.02
DISTURBED = "other processes took 60% of the machine"


class Harness:
    """Scores train.py by its constants: small models are better here, plus noise by seed."""

    compiling: str | None = None
    disturbed_from = math.inf  # runs up to this one are calm
    runs = 0

    def __init__(self, settings: Any, **options: Any) -> None:
        type(self).runs = 0

    def remember(self, runs: Iterable[Replicate]) -> Harness:
        return self

    def measure(self, request: MeasureRequest) -> Replicate:
        cls = type(self)
        cls.compiling = os.environ.get("AUTORESEARCH_COMPILE")
        cls.runs += 1
        constants = constants_of((request.folder / "train.py").read_text(encoding="utf-8"))
        width = constants["DEPTH"] * constants["ASPECT_RATIO"]
        text = f"{request.seed} {[constants[name] for name in SEARCHED]}"
        score = 2.0 + 0.3 * math.log(width / 128) + random.Random(text).gauss(0, NOISE)
        return Replicate(
            request.seed,
            score,
            seconds={"training": 1.0},
            disturbed=DISTURBED if cls.runs > cls.disturbed_from else "",
            score_id="one",
        )


@pytest.fixture
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's workspace, scored by `Harness`."""
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "1")
    monkeypatch.setattr("autoresearch.loop_parts.Pretraining", Harness)
    monkeypatch.setattr(Harness, "disturbed_from", math.inf)
    place, there = search_workspace(tmp_path / "search", "cpu")
    assert not there
    return place


def search(folder: Path, trials: int | None, seconds: float | None = None) -> Any:
    """A search whose events are collected, and that Ctrl-C ends as usual."""
    events: list[str] = []

    def on_event(name: str, data: Mapping[str, Any]) -> None:
        events.append(name)

    def stopping(loop: Loop) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    report = run_search(folder, "cpu", trials, seconds, on_event, stopping)
    assert "decided" in events or not report.trials
    return report


def test_what_helps_is_kept_and_what_does_not_is_discarded(folder: Path) -> None:
    report = search(folder, 8)
    statuses = {trial.status for trial in report.trials[1:]}
    assert statuses == {TrialStatus.KEEP, TrialStatus.DISCARD}
    assert len(report.trials) == 9 and len(report.trials[0].replicates) == 3
    assert report.champion and report.gain < -0.1
    assert NOISE / 4 < report.noise < 4 * NOISE
    kept = sum(trial.status is TrialStatus.KEEP for trial in report.trials[1:])
    assert f"Of 8 ideas {kept} passed" in report.meaning
    assert f"{-report.gain:.2f} lower" in report.meaning
    study = Study.read(folder)
    assert verify(study) == []
    assert [trial.id for trial in study.ledger.trials()] == list(range(9))
    document = report.to_dict()
    assert document["trials"][1]["status"] in ("keep", "discard")
    assert document["champion"] == report.champion


def test_its_runs_are_eager_and_the_environment_is_put_back(folder: Path) -> None:
    search(folder, 1)
    assert Harness.compiling == "0"
    assert os.environ["AUTORESEARCH_COMPILE"] == "1"
    assert "AUTORESEARCH_BACKEND" not in os.environ


def test_a_second_search_goes_on_where_the_first_ended(folder: Path) -> None:
    first = search(folder, 2)
    assert search_workspace(folder, "cpu") == (folder, True)
    again = search(folder, 1)
    assert again.before == 3 and len(again.trials) == 4
    assert again.trials[:3] == first.trials


def test_no_trial_begins_after_its_time(folder: Path) -> None:
    report = search(folder, None, seconds=1e-3)
    assert len(report.trials) == 1 and report.reason == "its 0 seconds are over"
    assert "no idea was tried" in report.meaning


def test_no_run_begins_after_the_last_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_search, "GRACE_SECONDS", -1.0)
    report = search(folder, None, seconds=1e-3)
    assert report.trials == () and report.champion is None
    assert "dropped" in report.reason and "nothing was tried" in report.meaning
    assert Harness.runs == 0
    assert verify(Study.read(folder)) == []
    assert len(search(folder, 1).trials) == 2  # nothing is in the way of the next one


def test_a_busy_machine_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Harness, "disturbed_from", 3)
    report = search(folder, 2)
    assert [trial.status for trial in report.trials[1:]] == [TrialStatus.NOISY] * 2
    assert "2 ideas (`noisy`)" in report.meaning and "other programs" in report.meaning
    monkeypatch.setattr(Harness, "disturbed_from", 0)
    calm = meaning(report.trials[:1], 0.02, [report.trials[0]])
    assert "other programs" not in calm


def test_a_baseline_on_a_busy_machine_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Harness, "disturbed_from", 0)
    report = search(folder, None, seconds=1e-3)
    assert "The baseline ran while other programs" in report.meaning


def test_a_folder_of_something_else_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        search_workspace(tmp_path, "cpu")

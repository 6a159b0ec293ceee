"""What the running loop says of itself: complete, seldom, and harmless when it can't be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch.now import CURVE_POINTS, WRITE_EVERY, Now, read_now

STEP = {"step": 1, "loss": 5.0, "tokens": 100, "tokens_per_second": 50.0, "budget": 4.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "now.json"


def test_a_trial_from_its_proposal_to_its_decision(path: Path) -> None:
    clock = Clock()
    now = Now(path, clock)
    now.take("begin", {"limits": {"trials": 3}, "trials_before": 1})
    clock.now += 1
    now.take("proposing", {"proposer": "search", "attempt": 0})
    found = read_now(path)
    assert found["phase"] == "asking search for an edit"
    assert found["loop"] == {"since": 1000.0, "limits": {"trials": 3}, "trials_before": 1}
    clock.now += 5
    now.take("trial", {"id": 7, "description": "an idea"})
    now.take("run", {"id": 7, "label": "candidate", "seed": 2})
    now.take("phase", {"phase": "training"})
    found = read_now(path)
    assert found["trial"]["since"] == 1001.0, "a trial begins with its proposal"
    assert (found["trial"]["id"], found["trial"]["description"]) == (7, "an idea")
    assert (found["run"]["number"], found["run"]["label"], found["run"]["seed"]) == (
        1,
        "candidate",
        2,
    )
    clock.now += 10
    now.take("progress", {**STEP, "elapsed": 0.5, "mfu": None})
    now.take("warning", {"message": "disturbed"})
    found = read_now(path)
    assert found["run"]["curve"] == [[0.5, 5.0]] and found["run"]["tokens_per_second"] == 50.0
    assert found["trial"]["warning"] == "disturbed" and found["at"] == 1016.0
    now.take("run", {"id": 7, "label": "champion", "seed": 3})
    found = read_now(path)
    assert found["run"]["number"] == 2 and "step" not in found["run"], "each run has its own"
    assert found["run"]["curve"] == []
    now.take("decided", {"trial": {}})
    found = read_now(path)
    assert set(found) == {"loop", "at"}, "nothing is under way"
    now.clear()
    assert read_now(path) == {}


def test_a_mending_keeps_the_trial(path: Path) -> None:
    now = Now(path)
    now.take("proposing", {"proposer": "x", "attempt": 0})
    now.take("trial", {"id": 7, "description": "an idea"})
    now.take("run", {"id": 7, "label": "candidate", "seed": 2})
    now.take("proposing", {"proposer": "x", "attempt": 1})
    found = read_now(path)
    assert found["trial"]["id"] == 7 and "run" not in found and "mend" in found["phase"]


def test_progress_is_written_seldom_and_thin(path: Path) -> None:
    clock, written = Clock(), 0
    now = Now(path, clock)
    now.take("run", {"label": "candidate", "seed": 0})
    for step in range(10_000):
        clock.now += 0.05
        now.take("progress", {**STEP, "elapsed": step * 0.05})
        if path.exists():
            written += 1
            path.unlink()
    assert 0.95 <= written / (10_000 * 0.05 / WRITE_EVERY) <= 1
    now.take("phase", {"phase": "scoring"})
    curve = read_now(path)["run"]["curve"]
    assert len(curve) <= CURVE_POINTS and curve[0] == [0.0, 5.0] and curve[-1][0] > 499
    assert path.stat().st_size < 10_000
    clock.now -= 3600  # the clock was set back
    now.take("progress", {**STEP, "step": 8, "elapsed": 1.0})
    assert read_now(path)["run"]["step"] == 8


def test_under_a_token_budget_the_curve_is_over_tokens(path: Path) -> None:
    now = Now(path)
    now.take("progress", {**STEP, "elapsed": 0.5, "token_budget": 1000})
    assert read_now(path)["run"]["curve"] == [[100.0, 5.0]]


def test_a_loss_that_is_no_number_is_no_point_and_no_bad_json(path: Path) -> None:
    now = Now(path)
    now.take("progress", {**STEP, "elapsed": 0.5, "loss": float("nan")})
    document = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert document["run"]["curve"] == []


def test_a_place_that_cant_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    now = Now(tmp_path / "file" / "now.json")
    now.take("phase", {"phase": "training"})
    now.clear()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"at": 1, "run": []}', "\x00"])
def test_what_is_not_ours_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "now.json"
    assert read_now(path) == {}
    path.write_text(text)
    assert read_now(path) == {}


def test_of_several_trials_each_run_is_told_and_the_first_trial_in_full(path: Path) -> None:
    clock = Clock()
    now = Now(path, clock)
    for number in (4, 5):
        now.take("trial", {"id": number, "description": f"idea {number}"})
        now.take("run", {"id": number, "label": "candidate", "seed": number})
        now.take("phase", {"id": number, "run": f"candidate-{number}", "phase": "training"})
    now.take("run", {"id": 4, "label": "champion", "seed": 9})
    clock.now += 10
    for number, loss in ((5, 3.0), (4, 4.0)):
        run = f"candidate-{number}"
        now.take("progress", {**STEP, "id": number, "run": run, "loss": loss, "elapsed": 1.0})
        clock.now += 10
    now.take("warning", {"id": 5, "message": "a worker died"})
    now.take("proposing", {"proposer": "claude", "attempt": 0})
    found = read_now(path)
    assert found["trial"]["id"] == 4 and "warning" not in found["trial"]
    assert found["run"]["label"] == "champion" and found["phase"] == "", "its latest run"
    assert [(run["id"], run["label"], run["phase"]) for run in found["flight"]] == [
        (4, "candidate", "training"),
        (4, "champion", ""),
        (5, "candidate", "training"),
    ]
    assert [run.get("loss") for run in found["flight"]] == [4.0, None, 3.0]
    assert found["flight"][2]["description"] == "idea 5" and "curve" not in found["flight"][2]
    assert found["asking"] == "asking claude for an edit"
    # A decision ends its own trial alone, in whatever order they come.
    now.take("ran", {"id": 4, "run": "champion-9"})
    now.take("decided", {"trial": {"id": 5}})
    found = read_now(path)
    assert found["trial"]["id"] == 4 and "flight" not in found, "one run is left"
    assert found["run"]["curve"] == [[1.0, 4.0]] and found["phase"] == "training"
    now.take("trial", {"id": 6, "description": "idea 6"})
    now.take("decided", {"trial": {"id": 4}})
    found = read_now(path)
    assert found["trial"]["id"] == 6 and "run" not in found and "asking" not in found

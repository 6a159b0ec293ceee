"""`autoresearch combine`, and what `run` and `show` say of near-misses and of other starts."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from autoresearch.engine.constants import constants_of
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.pretraining import Pretraining
from prepare.settings import Settings
from tests.unit.command_line import make_fake_workspace, run

# Worth 0.05 at least: what gains less is a near-miss.
TASK = "\n[task.policy]\nmin_effect = 0.05\n"
SEED = "GAIN_A = 0.0\nGAIN_B = 0.0\nGAIN_C = 0.0\nGAIN_D = 0.0\n"


def measure(self: Pretraining, request: MeasureRequest) -> Replicate:
    """2 less the gains; a little noise by the seed."""
    source = (request.folder / "train.py").read_text()
    score = 2.0 - sum(constants_of(source).values())
    noise = random.Random(f"{request.seed} {score}").gauss(0, 1e-4)
    return Replicate(request.seed, score + noise, score_id="id")


@pytest.fixture
def workspace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a small train.py, and no real harness."""
    return make_fake_workspace(
        tmp_path / "w", monkeypatch, measure, SEED, {"autoresearch.toml": Settings().dumps() + TASK}
    )


def edit(capsys, **gains: float) -> int:
    path, text = Path("train.py"), Path("train.py").read_text()
    for name, gain in gains.items():
        text = text.replace(f"GAIN_{name} = 0.0", f"GAIN_{name} = {gain}")
    path.write_text(text)
    return run(capsys, "trial", "-m", f"gain {gains}")[0]


def test_near_misses_are_kept_together(workspace: Path, capsys) -> None:
    assert edit(capsys, A=0.03) == 10
    assert edit(capsys, C=0.04) == 10
    code, out, err = run(capsys, "combine", "--json")
    assert code == 0, err
    document = json.loads(out.splitlines()[-1])
    assert document["trial"]["combines"] == [2, 1]
    assert (document["champion"], document["exit_code"], document["left_out"]) == (3, 0, {})
    text = (workspace / "train.py").read_text()  # the study's branch is checked out, and follows
    assert "GAIN_A = 0.03\nGAIN_B = 0.0\nGAIN_C = 0.04" in text
    code, out, _ = run(capsys, "show", 3)
    assert "combines  trials 2, 1" in out
    assert "together: #2 gain {'C': 0.04}; #1 gain {'A': 0.03}" in out
    assert run(capsys, "verify")[0] == 0


def test_a_crash_of_edits_together_shows_the_end_of_its_log(workspace, capsys, monkeypatch) -> None:
    edit(capsys, A=0.03)
    edit(capsys, C=0.04)

    def crash(self: Pretraining, request: MeasureRequest) -> Replicate:
        failure = Failure("training", "exception", "it broke", "Traceback ...\nboom at the end")
        return Replicate(request.seed, None, failure=failure)

    monkeypatch.setattr(Pretraining, "measure", crash)
    code, out, _ = run(capsys, "combine")
    assert code == 5 and "boom at the end" in out
    assert "GAIN_A = 0.0" in (workspace / "train.py").read_text()


def test_what_can_not_be_combined(workspace: Path, capsys) -> None:
    code, _, err = run(capsys, "combine")
    assert code == 2 and "no champion yet" in err
    assert edit(capsys, A=0.03) == 10
    code, _, err = run(capsys, "combine")
    assert code == 2 and "not yet combined: 1" in err
    assert edit(capsys, A=0.02) == 10
    assert edit(capsys, B=-0.5) == 10
    assert edit(capsys, C=0.5) == 0
    code, _, err = run(capsys, "combine", 1, 2)
    assert code == 2 and "trial 2 conflicts" in err
    code, _, err = run(capsys, "combine", 1, 4)
    assert code == 2 and "trial 4 can't be combined: keep" in err
    code, _, err = run(capsys, "combine", 1, 9)
    assert code == 2 and "no trial 9" in err
    assert run(capsys, "combine", 1)[0] == 2
    assert run(capsys, "combine", 0, 1)[0] == 2
    assert json.loads(run(capsys, "results", "--json")[1])["trials"][-1]["id"] == 4
    # By name also what was worse goes together, and what doesn't merge is left out.
    code, _, err = run(capsys, "combine", 1, 2, 3)
    assert code == 10 and "trial 2 is left out" in err
    assert run(capsys, "verify")[0] == 0


def test_edits_that_are_not_committed_are_refused(workspace: Path, capsys) -> None:
    edit(capsys, A=0.03)
    edit(capsys, B=0.03)
    (workspace / "train.py").write_text(SEED + "# mine\n")
    code, _, err = run(capsys, "combine")
    assert code != 0 and "not committed" in err
    assert "# mine" in (workspace / "train.py").read_text()


def test_run_combines_by_itself_and_begins_elsewhere(workspace: Path, capsys) -> None:
    assert edit(capsys, A=0.3) == 0
    assert edit(capsys, B=0.04) == 10
    assert edit(capsys, C=0.04) == 10
    assert edit(capsys, D=0.04) == 10
    code, _, err = run(capsys, "run", "--trials", 3, "--frontier", 2)
    assert code == 0, err
    trials = json.loads(run(capsys, "results", "--json")[1])["trials"]
    assert sorted(trials[5]["combines"]) == [2, 3, 4] and trials[5]["status"] == "keep"
    starts = [trial["start"] for trial in trials[6:]]
    # The better of the two former champions, by turns with the champion.
    assert sorted(starts, key=str) == [1, None]
    at = 6 + starts.index(1)
    assert "begun at" in run(capsys, "show", at)[1]
    assert subprocess.run(["git", "diff", "--quiet"]).returncode == 0
    assert run(capsys, "verify")[0] == 0

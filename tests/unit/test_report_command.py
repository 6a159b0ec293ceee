"""`autoresearch report`: what it writes, what it says, and which studies it sets side by side."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import pytest

from autoresearch.report.compare import compare, differences, refusal
from prepare.errors import DataError
from tests.unit.command_line import run
from tests.unit.reported import night, trial, write, write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "night"
    write(folder, night())
    return folder


def test_it_writes_three_files_and_opens_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    code, out, err = run(capsys, "report", "--dir", folder, "--open", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["files"] == ["report.html", "progress.png", "report.md"]
    place = Path(document["folder"])
    assert place == folder / "report-mar5" and opened == [(place / "report.html").as_uri()]
    assert (place / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert (place / ".gitignore").read_text() == "*\n"  # git overlooks it
    assert (document["champion"], document["totals"]["kept"]) == (6, 2)
    assert document["verdict"] in (place / "report.html").read_text(encoding="utf-8")


def test_of_no_trial_there_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    write(tmp_path / "empty", [])
    target = tmp_path / "here"
    target.mkdir()
    (target / "progress.png").write_bytes(b"of another study")
    code, out, err = run(capsys, "report", "--dir", tmp_path / "empty", "--to", target, "--open")
    assert code == 0 and "No trial yet." in out and "no browser" in err
    assert sorted(path.name for path in target.iterdir()) == ["report.html", "report.md"]


def test_where_there_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "report", "--dir", tmp_path)
    assert code == 2 and "autoresearch init" in err


# -- two studies ---------------------------------------------------------------------------------


def other(
    folder: Path, settings: dict[str, Any], score_id: str = "other", better: float = 0.0
) -> Path:
    """A study like the night, with other settings and another score id."""
    trials = []
    for each in night():
        scores = [run.score - better for run in each.replicates if run.score is not None]
        runs = each.replicates
        more: dict[str, Any] = {"replicates": runs}
        if scores:
            fresh = trial(each.id, "keep", scores).replicates
            more["replicates"] = tuple(type(r)(**{**vars(r), "score_id": score_id}) for r in fresh)
            more |= {"score_id": score_id, "score": sum(scores) / len(scores)}
        trials.append(type(each)(**{**vars(each), **more}))
    from prepare.settings import Settings

    known = {**Settings().model_dump(mode="json"), **settings}
    write(folder, trials, {"settings": known})
    return folder


def test_equal_score_ids_are_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = other(tmp_path / "later", {"seed": 7}, "id", better=0.3)
    target = tmp_path / "out"
    code, out, _ = run(capsys, "report", "--compare", folder, second, "--to", target, "--json")
    document = json.loads(out)
    assert code == 0 and document["labels"] == ["night", "later"]
    found = document["difference"]
    assert found["gain"] == pytest.approx(0.3) and 0 < found["low"] < 0.3 < found["high"]
    assert document["verdict"].startswith("The champion of later is better than night's by 0.3000")
    assert document["differ"] == {"seed": "42 and 7"}
    html = (target / "compare.html").read_text(encoding="utf-8")
    assert html.count('data-chart="') == 3 and "idea 6" in html


def test_no_difference_beyond_noise(folder: Path, tmp_path: Path) -> None:
    same = compare(folder, other(tmp_path / "again", {}, "id", better=0.001))
    assert same.verdict.startswith("No difference is shown")
    ahead, low, high = same.difference
    assert ahead == pytest.approx(0.001) and low < 0 < high


def test_another_vocabulary_is_compared_and_said(folder: Path, tmp_path: Path) -> None:
    from autoresearch.opening import open_study
    from autoresearch.report.story import story_of

    second = other(tmp_path / "bytes", {"vocab_size": 256})
    one, two = (story_of(open_study(f)) for f in (folder, second))
    assert "isn't known" in refusal(one, two)  # nothing vouches for the text
    for story in (one, two):
        story["scored_bytes"] = 400_000
    assert refusal(one, two) == ""
    assert {f.name: f.value for f in differences(one, two)} == {"vocab_size": "8192 and 256"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"time_budget": 60.0}, "time_budget 300.0 and 60.0"),
        ({"eval_bytes": 1000, "vocab_size": 256}, "eval_bytes 400000 and 1000"),
        ({"corpus": "climbmix"}, "corpus embedded and climbmix"),
        ({}, "isn't known"),
    ],
)
def test_others_are_refused_with_the_reason(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    reason: str,
) -> None:
    second = other(tmp_path / "other", settings)
    code, _, err = run(capsys, "report", "--compare", folder, second)
    assert code == 3 and reason in err and "score ids id and other" in err
    assert not list(tmp_path.glob("compare-*"))


def test_another_machine_or_another_task_is_refused(folder: Path, tmp_path: Path) -> None:
    from autoresearch.opening import open_study
    from autoresearch.report.story import story_of

    one = {**story_of(open_study(folder)), "scored_bytes": 400_000}
    assert "another harness or tokenizer" in refusal(one, {**one, "score_id": "x"})
    far = {**one, "score_id": "x", "machines": [{"hardware_id": "a-gpu"}]}
    far["settings"] = {**one["settings"], "vocab_size": 256}
    assert "different machines" in refusal(one, far)
    assert "bytes were scored" in refusal(one, {**far, "scored_bytes": 12.0})
    write_task(tmp_path / "prose", [trial(0, "keep", [1.0, 1.0], parent=None)])
    with pytest.raises(DataError, match="metric val_bpb here, score there"):
        compare(folder, tmp_path / "prose")
    write(tmp_path / "empty", [])
    with pytest.raises(DataError, match="has no score yet"):
        compare(folder, tmp_path / "empty")

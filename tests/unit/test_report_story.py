"""The story of a study: its rows, its best so far, its effects, told whole and bit by bit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.console import to_json
from autoresearch.engine.trial import Cost, DiffStat
from autoresearch.live import rows
from autoresearch.narration import verdict as narrated
from autoresearch.opening import open_study
from autoresearch.report.charts import charts
from autoresearch.report.effects import quantile
from autoresearch.report.facts import figures, verdict
from autoresearch.report.kinds import kind_by_size, kind_of
from autoresearch.report.rows import Rows
from autoresearch.report.story import Story, story_of
from autoresearch.standing import Look
from autoresearch.study import lineage
from tests.unit.reported import night, run, trial, write, write_task


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("night")
    write(folder, night())
    return story_of(open_study(folder))


def test_a_row_per_trial_in_order(told: dict[str, Any]) -> None:
    rows = told["trials"]
    assert [row["id"] for row in rows] == list(range(7))
    assert [row["hours"] for row in rows][:2] == pytest.approx([20 / 3600, 1220 / 3600])
    assert [row["tokens_spent"] for row in rows] == [3e3, 4e3, 7e3, 8e3, 8e3, 9e3, 12e3]
    assert rows[2]["gain"] == 0.1 and rows[2]["delta"] == -0.1 and rows[2]["predicted_gain"] == 0.05
    assert rows[3]["score"] is None and rows[3]["best"] == pytest.approx(1.9)
    # Of twenty seconds 15 passed in runs, 12 of them in phases that have a name.
    assert rows[1]["seconds"] == {"startup": 2, "training": 10, "other": 3, "proposing": 5}


def test_the_best_steps_down_where_something_is_kept(told: dict[str, Any]) -> None:
    steps = told["steps"]
    assert [step["id"] for step in steps] == [0, 2, 6]
    assert [step["best"] for step in steps] == pytest.approx([2.0, 1.9, 1.81])
    sd = told["noise"]["sd"]
    assert steps[1]["high"] - steps[1]["best"] == pytest.approx(2 * sd)
    assert (told["best"], told["champion"], told["baseline"]) == (pytest.approx(1.81), 6, 2.0)


def test_lineage_has_effects_with_intervals(told: dict[str, Any]) -> None:
    first, *kept = told["lineage"]
    assert first["id"] == 0 and first["gain"] is None and first["low"] is None
    assert [step["id"] for step in kept] == [2, 6]
    for step in kept:
        assert step["low"] < step["gain"] < step["high"]
        assert step["gain"] - step["low"] == pytest.approx(step["high"] - step["gain"])


def test_an_interval_narrows_with_more_runs(tmp_path: Path) -> None:
    def width(runs: int) -> float:
        base = [2.0 + 0.01 * (-1) ** n for n in range(runs)]
        better = [1.9 + 0.01 * (-1) ** n for n in range(runs)]
        folder = tmp_path / str(runs)
        trials = [
            trial(0, "keep", base, parent=None),
            trial(1, "keep", better, delta=-0.1, confidence=0.99),
        ]
        write(folder, trials)
        step = story_of(open_study(folder))["lineage"][1]
        return float(step["high"] - step["low"])

    assert 0 < width(16) < width(4) / 2  # by the root of four, and the noise is known better


@pytest.mark.parametrize(("dof", "t"), [(4, 2.776), (10, 2.228), (30, 2.042), (1e6, 1.960)])
def test_quantile_is_students(dof: float, t: float) -> None:
    assert quantile(dof) == pytest.approx(t, rel=0.03)


def test_totals(told: dict[str, Any]) -> None:
    totals = told["totals"]
    assert (totals["trials"], totals["kept"]) == (6, 2)
    assert totals["gain"] == pytest.approx(0.19)
    assert totals["counts"] == {"discard": 2, "keep": 2, "crash": 1, "rejected": 1}
    assert totals["dollars"] == pytest.approx(2.5) and totals["dollars_unknown"] == 1
    phases = {(row["phase"], row["status"]): row["seconds"] for row in told["phases"]}
    assert [(m["hardware_id"], m["tier"], m["trials"]) for m in told["machines"]] == [
        ("a-cpu", "bubblewrap", 5)
    ]
    # Twenty minutes from one to the next, each twenty seconds long: it stood still in between.
    assert phases["standing still", "crash"] == 1180 and totals["still_seconds"] == 6 * 1180
    assert sum(phases.values()) == pytest.approx(3600 * totals["hours"], rel=0.02)
    assert phases["training", "keep"] == 30 and phases["proposing", "rejected"] == 20


def test_told_bit_by_bit_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = write(tmp_path, night()[:2])
    story = Story(open_study(tmp_path))
    assert story() is story()
    taken: list[int] = []
    take = Rows.take
    monkeypatch.setattr(Rows, "take", lambda self, t: taken.append(t.id) or take(self, t))
    for each in night()[2:]:
        ledger.append_trial(each)
        taken.clear()
        story()
        assert taken == [each.id]  # what was read before isn't read again
    assert story() == story_of(open_study(tmp_path))


def test_another_ledger_in_its_place_is_told_anew(tmp_path: Path) -> None:
    write(tmp_path, night())
    story = Story(open_study(tmp_path))
    assert len(story()["trials"]) == 7
    (tmp_path / "results.jsonl").unlink()
    write(tmp_path, night()[:2])
    assert [row["id"] for row in story()["trials"]] == [0, 1]


def test_an_earlier_champion_that_is_brought_back(tmp_path: Path) -> None:
    ledger = write(tmp_path, night())
    ledger.append({"kind": "champion", "trial": 2})
    ledger.append_trial(trial(7, "discard", [1.95], parent=2, delta=0.05))
    told = story_of(open_study(tmp_path))
    assert told["champion"] == 2 and [step["id"] for step in told["lineage"]] == [0, 2]
    assert told["trials"][-1]["best"] == pytest.approx(1.9)
    assert told["steps"][-1]["best"] == pytest.approx(1.9) and not told["steps"][-1]["kept"]


def test_scores_of_another_id_begin_another_part(tmp_path: Path) -> None:
    again = tuple(run(5.0 + seed / 100, seed, "other") for seed in range(3))
    own = (run(4.8, 0, "other"), run(4.81, 1, "other"))
    later = trial(
        7, "discard", [4.8], parent=6, score_id="other", replicates=own, champion_replicates=again
    )
    write(tmp_path, [*night(), later])
    told = story_of(open_study(tmp_path))
    assert [part["score_id"] for part in told["parts"]] == ["id", "other"]
    assert told["parts"][1]["first"] == 7 and told["parts"][1]["noise"]["sd"] < 0.1
    assert told["trials"][7]["best"] == pytest.approx(5.01)  # the champion's, measured anew
    assert [step["part"] for step in told["steps"]] == [0, 0, 0, 1]
    assert told["baseline"] == 2.0 and "→" in verdict(told)  # the champion's is of the first id


def test_nothing_is_said_across_score_ids(tmp_path: Path) -> None:
    again = tuple(run(5.0 + seed / 100, seed, "other") for seed in range(3))
    own = tuple(run(4.8 + seed / 100, seed, "other") for seed in range(3))
    idle = trial(7, "discard", [1.9], parent=6, delta=0.09)
    kept = trial(
        8, "keep", [], parent=6, score=4.81, score_id="other", delta=-0.2, confidence=0.99,
        replicates=own, champion_replicates=again,
    )  # fmt: skip
    write(tmp_path, [*night(), idle, kept])
    told = story_of(open_study(tmp_path))
    assert [(step["part"], step["id"]) for step in told["steps"]] == [
        (0, 0), (0, 2), (0, 6), (0, 7), (1, 8),
    ]  # fmt: skip
    assert told["baseline"] is None and told["totals"]["gain"] is None
    assert [kind["gain"] for kind in told["kinds"]] == [pytest.approx(0.2)]
    assert verdict(told) == (
        "val_bpb 4.810000, after 3 kept ideas of 8 trials; the baseline's score meant something "
        "else."
    )
    assert not [fact for fact in figures(told) if fact.name == "gain"]
    assert "2.000000" not in charts(told)[0].summary
    # Nor by whoever else tells how a study stands.
    standing = Look(tmp_path)()
    assert standing["champion"]["gain"] is None
    told_by_status = " ".join(words for _, words in rows(standing))
    assert "trial 8" in told_by_status and "since the baseline" not in told_by_status
    assert "don't add up" in narrated("val_bpb", lineage(open_study(tmp_path).state))


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    trials = night()
    trials[3] = replace(trials[3], started_at=trials[0].started_at, finished_at="")
    trials[4] = replace(trials[4], started_at="2020-01-01T00:00:00+00:00", finished_at="nonsense")
    trials[5] = replace(trials[5], finished_at="2020-01-01T00:00:00+00:00")
    write(tmp_path, trials)
    rows = story_of(open_study(tmp_path))["trials"]
    hours = [row["hours"] for row in rows]
    assert hours == sorted(hours) and rows[3]["elapsed"] is None and rows[5]["elapsed"] is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_studies_with_hardly_anything(tmp_path: Path, count: int) -> None:
    broken = replace(night()[3], id=1, parent=0)
    write(tmp_path, [night()[0], broken][:count])
    told = story_of(open_study(tmp_path))
    assert len(told["trials"]) == count
    assert (told["best"] is None) == (count == 0)
    assert told["totals"]["kept"] == 0 and "NaN" not in to_json(told)


def test_what_json_lacks_and_what_nobody_knows(tmp_path: Path) -> None:
    odd = trial(1, "discard", [math.inf], delta=math.nan, cost=Cost(), metrics={"tokens": math.nan})
    write(tmp_path, [night()[0], odd])
    told = story_of(open_study(tmp_path))
    row = told["trials"][1]
    assert (row["score"], row["delta"], row["gain"], row["tokens"]) == (None, None, None, None)
    assert told["totals"]["dollars_unknown"] == 1 and told["totals"]["dollars"] == 0


def test_a_task_to_be_maximised(tmp_path: Path) -> None:
    first = trial(0, "keep", [1.0, 1.0], parent=None, metrics={"score": 1.0, "words": 10.0})
    more = trial(1, "keep", [3.0], delta=2.0, confidence=1.0, metrics={"score": 3.0, "words": 30.0})
    worse = trial(2, "discard", [2.0], parent=1, delta=-1.0, metrics={"score": 2.0, "words": 40.0})
    ledger = write_task(tmp_path, [first, more, worse])
    ledger.append({"kind": "holdout", "trial": 1, "run": run(2.5).to_dict()})
    told = story_of(open_study(tmp_path))
    assert (told["kind"], told["direction"], told["totals"]["gain"]) == ("task", "maximize", 2.0)
    assert told["trials"][2]["gain"] == -1.0 and told["trials"][1]["secondary"] == {"words": 30.0}
    assert told["front"] == [0, 1] and told["holdouts"] == {"1": 2.5}


def test_a_second_metric_may_have_any_name(tmp_path: Path) -> None:
    ledger = write_task(tmp_path, [])
    file = tmp_path / "task.yaml"
    file.write_text(file.read_text().replace("words: minimize", "seconds: minimize"))
    ledger.append_trial(trial(0, "keep", [1.0], parent=None, metrics={"score": 1, "seconds": 7.0}))
    row = story_of(open_study(tmp_path))["trials"][0]
    assert row["secondary"] == {"seconds": 7.0} and row["seconds"]["training"] == 10


def test_what_the_harness_wrote_of_the_champion(tmp_path: Path) -> None:
    trials = night()[:1]
    runs = [
        replace(r, details={**r.details, "run_dir": "/gone/baseline-0"})
        for r in trials[0].replicates
    ]
    write(tmp_path, [replace(trials[0], replicates=tuple(runs))])
    study = open_study(tmp_path)
    place = study.run_folder(0) / "baseline-0"
    place.mkdir(parents=True)
    hardware = {"name": "A \x1b[31mCPU", "memory_bytes": 24 * 2**30}
    result = {"score_id": "id", "floor_bpb": 1.5, "scored_bytes": 10_462, "hardware": hardware}
    (place / "result.json").write_text(json.dumps(result))
    told = story_of(study)  # though the study was moved since
    assert (told["floor"], told["scored_bytes"]) == (1.5, 10_462)
    assert told["machines"][0]["name"] == "A CPU, 24 GiB"
    (place / "result.json").write_text(json.dumps({**result, "score_id": "another"}))
    assert story_of(study)["floor"] is None
    (place / "result.json").write_text("[not json")
    assert story_of(study)["floor"] is None


# -- kinds ---------------------------------------------------------------------------------------


def diff(*lines: str, hunk: str = "") -> str:
    return "\n".join(["--- a/train.py", "+++ b/train.py", f"@@ -1,9 +1,9 @@ {hunk}", *lines])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (diff("-DEPTH = 4", "+DEPTH = 6"), "model size"),
        (diff("-MATRIX_LR = 0.04", "+MATRIX_LR = 0.05"), "learning rate"),
        (diff("-WARMDOWN_RATIO = 0.5", "+WARMDOWN_RATIO = 0.6"), "schedule"),
        (diff("-ASPECT_RATIO = 32", "+ASPECT_RATIO = 64"), "model size"),
        (diff("-TOTAL_BATCH_SIZE = 1", "+TOTAL_BATCH_SIZE = 2"), "batch"),
        (diff("-DEPTH = 4", "+DEPTH = 6", "-MATRIX_LR = 1", "+MATRIX_LR = 2"), "several constants"),
        (diff("-    y = a", "+    y = b", hunk="class Attention(nn.Module):"), "attention"),
        (diff("+    y = b", hunk="class MLP(nn.Module):"), "architecture"),
        (diff(" class MLP(nn.Module):", "+    y = b", hunk="class Attention(nn.M"), "architecture"),
        (diff("+    lr = 1", hunk="def lr_multiplier(progress: float):"), "schedule"),
        (diff("+    g = h", "-DEPTH = 4", "+DEPTH = 6", hunk="def muon_step(p, g):"), "optimizer"),
        (diff("+    for x in y:", hunk="def train(model: GPT, run: Any):"), "training loop"),
        (diff("+    # a remark", "+", hunk="class MLP(nn.Module):"), "other"),
        ("", "other"),
    ],
)  # fmt: skip
def test_kind_of_an_edit(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_kind_without_a_diff_is_read_from_the_description() -> None:
    assert kind_of("", "MATRIX_LR: 0.04 -> 0.05") == "learning rate"
    assert kind_of("", "think again") == "other"


def test_kind_by_size() -> None:
    assert kind_by_size(DiffStat(1, 1, 1)) == "up to 2 lines"
    assert kind_by_size(DiffStat(1, 60, 0)) == "over 50 lines"

"""The charts: specs that compile, data that has what they name, colours that can be seen."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoresearch.dashboard import drawings
from autoresearch.opening import open_study
from autoresearch.report.charts import CHARTS, charts
from autoresearch.report.labels import placed
from autoresearch.report.looks import COLOURS, INK, PAPER, QUIET, SHAPES, config
from autoresearch.report.progress import reach
from autoresearch.report.story import story_of
from tests.unit.reported import night, trial, write, write_task

Story = dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("night")
    write(folder, night())
    return story_of(open_study(folder))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("tasks") / "task"
    trials = [
        trial(0, "keep", [1.0, 1.0], parent=None, metrics={"score": 1.0, "words": 10.0}),
        trial(1, "keep", [3.0], delta=2.0, confidence=1.0, metrics={"score": 3.0, "words": 30.0}),
    ]
    ledger = write_task(folder, trials)
    run = trials[1].replicates[0].to_dict()
    ledger.append({"kind": "holdout", "trial": 1, "run": run})
    return story_of(open_study(folder))


def test_which_charts_there_are(told: Story, task: Story) -> None:
    assert [chart.name for chart in charts(told)] == [
        "progress", "clock", "tokens", "effects", "kinds", "phases", "speed", "mfu", "throughput",
        "predicted",
    ]  # fmt: skip
    assert {"trade_offs", "held_out"} <= {chart.name for chart in charts(task)}


def named(spec: object) -> Iterator[str]:
    """Every field that a spec reads."""
    if isinstance(spec, Mapping):
        if isinstance(spec.get("field"), str):
            yield spec["field"]
        for item in spec.values():
            yield from named(item)
    elif isinstance(spec, list):
        for item in spec:
            yield from named(item)


def test_data_have_the_fields_that_specs_name(told: Story, task: Story) -> None:
    made = {"median", "at", "floor", "zero"}  # by the specs themselves
    for story in (told, task):
        for chart in charts(story):
            there = {name for rows in chart.data.values() for row in rows for name in row}
            assert set(named(chart.spec)) <= there | made, chart.name


def test_each_has_a_sentence_and_a_table(told: Story, task: Story) -> None:
    for story in (told, task):
        for chart in charts(story):
            assert chart.summary.endswith(".") and len(chart.summary) > 15
            assert chart.rows and chart.columns
            cells = [column.cell(row) for row in chart.rows for column in chart.columns]
            assert all(isinstance(cell, str) for cell in cells) and any(cells)


def test_every_spec_compiles(told: Story, task: Story) -> None:
    import vl_convert

    for story in (told, task):
        for chart in charts(story):
            made = vl_convert.vegalite_to_vega(chart.picture())
            assert made["marks"], chart.name


def test_the_picture_shows_every_trial_and_names_kept_ones(told: Story) -> None:
    import vl_convert

    progress = charts(told)[0]
    svg = vl_convert.vegalite_to_svg(progress.picture(dark=True), allowed_base_urls=[])
    points = re.findall(
        r'aria-label="decision: (\d+);[^>]*"point" transform="translate\(\S+,(\S+)\)"', svg
    )
    assert sorted(int(number) for number, _ in points) == list(range(7))
    # What has no score, and what is far off, lies on the edge, and nothing else does.
    assert {int(number) for number, y in points if float(y) == 8} == {3, 4, 5}
    assert (
        sorted(re.findall(r">(idea \d)</text>", svg)) == ["idea 2"] * 2 + ["idea 6"] * 2
    )  # with a halo
    assert PAPER[True] in svg
    assert progress.summary == (
        "6 trials, 2 of them kept: val_bpb 2.000000 to 1.810000. 1 of the scores is off the scale."
    )


def test_the_best_only_gets_better_where_trials_are_decided_in_another_order(
    tmp_path: Path,
) -> None:
    """Ids are given when trials begin, and several are under way."""
    decided = [
        trial(0, "keep", [2.0], parent=None),
        trial(3, "keep", [1.9], delta=-0.1),
        trial(1, "discard", [2.2], delta=0.2),
        trial(2, "keep", [1.8], delta=-0.1, parent=3),
    ]
    write(tmp_path, decided)
    story = story_of(open_study(tmp_path))
    assert [(row["decision"], row["id"]) for row in story["trials"]] == [
        (0, 0), (1, 3), (2, 1), (3, 2)
    ]  # fmt: skip
    chart = CHARTS["progress"](story)
    assert chart is not None
    lines = [layer for layer in chart.spec["layer"] if layer["mark"].get("type") == "line"]
    (line,) = lines
    x = line["encoding"]["x"]
    assert x["axis"]["title"] == "trials, in the order of their decisions"
    # Vega sorts a line by its x.
    drawn = sorted(chart.data["steps"], key=lambda step: step[x["field"]])
    assert [step["best"] for step in drawn] == pytest.approx([2.0, 1.9, 1.8])
    assert {label["decision"] for label in chart.data["labels"]} <= {1, 3}
    for name in ("progress", "clock", "tokens"):
        found = CHARTS[name](story)
        assert found is not None
        sent = drawings.document(found)
        fields = {
            layer["encoding"]["x"]["field"]
            for layer in found.spec["layer"]
            if layer.get("data", {}).get("name") == "trials"
        }
        assert fields <= set(sent["data"]["trials"][0]), "the dashboard has what is drawn"


def test_far_off_scores_do_not_flatten_the_rest(told: Story) -> None:
    low, high = reach(told) or (0.0, 0.0)
    assert 1.7 < low < 1.81 and 2.0 < high < 2.3  # trial 5 scored 50
    turned = {**told, "direction": "maximize"}
    low, high = reach(turned) or (0.0, 0.0)
    assert high > 50


def test_nothing_to_draw() -> None:
    empty = {"trials": [], "steps": [], "direction": "minimize"}
    assert reach(empty) is None


@pytest.mark.parametrize("below", [True, False])
def test_names_of_ideas_do_not_overlap(below: bool) -> None:
    sign = -1 if below else 1
    steps = [
        {
            "id": 100 - n,
            "decision": n,
            "best": 2 + sign * n / 100,
            "gain": 0.01,
            "idea": "an idea " * 9,
            "kept": True,
        }
        for n in range(60)
    ]
    domain = (1.4, 2.0) if below else (2.0, 2.6)
    labels = placed(steps, (0, 60), domain, below)
    assert 3 <= len(labels) <= 16
    assert "before" in {label["side"] for label in labels}
    first = placed(steps[:2], (0, 60), (1.0, 3.0), below)  # no room before the first trials
    assert {label["side"] for label in first} == {"behind"}
    for one, other in itertools.combinations(labels, 2):
        if one["side"] == other["side"]:  # 15 of 400 pixels high, 240 of 940 wide
            high = abs(one["best"] - other["best"]) / 0.6 * 400
            wide = abs(one["decision"] - other["decision"]) / 60 * 940
            assert high >= 14.99 or wide >= 240
    assert all(len(label["text"]) <= 40 for label in labels)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_seen(dark: bool) -> None:
    for name, colour in COLOURS.items():
        assert contrast(colour, PAPER[dark]) >= 3, name
    for ink in (INK, QUIET):
        assert contrast(ink[dark], PAPER[dark]) >= 4.5
    assert config(dark)["background"] == PAPER[dark]


def test_no_mark_differs_by_colour_alone() -> None:
    # Kept and discarded ones differ in size, and in that a line joins the kept.
    others = [SHAPES[name] for name in SHAPES if name != "keep"]
    assert len(set(others)) == len(others) and SHAPES.keys() == COLOURS.keys()


def test_a_picture_needs_no_second_place(tmp_path: Path, told: Story) -> None:
    picture = charts(told)[0].picture()
    assert set(picture["datasets"]) == {"trials", "steps", "labels"}
    assert "url" not in str(picture["layer"])

"""Charts of how fast the trials were, and of what speed did to the score."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.report.chart import Chart, Column, axis, spec
from autoresearch.report.forms import score_form
from autoresearch.report.looks import POINT, status, tip
from autoresearch.report.progress import clock, reach, tick_format

Story = Mapping[str, Any]
Row = Mapping[str, Any]
WINDOW = 7  # trials on either side that a running median takes in


def speed(story: Story) -> Chart | None:
    """Tokens per second of every trial."""
    return _over_time(
        story, "tokens_per_second", "speed", "Tokens per second", "~s", ",.0f", "tokens per second"
    )


def mfu(story: Story) -> Chart | None:
    """MFU of every trial: against the datasheet's peak where that is known, else the measured."""
    against = {"mfu": "the datasheet's peak", "mfu_measured": "the measured peak"}
    for name, words in against.items():
        if any(row[name] is not None for row in story["trials"]):
            return _over_time(story, name, "mfu", f"MFU against {words}", "", ".1f", "percent")
    return None


def _over_time(
    story: Story, field: str, name: str, title: str, form: str, shown: str, unit: str
) -> Chart | None:
    """A figure of every trial over the night, with a running median."""
    rows = [row for row in story["trials"] if row[field] is not None]
    if not rows:
        return None
    x = clock(story)
    x["scale"] = {"zero": False, "nice": False, "padding": 12}
    y: dict[str, Any] = {"type": "quantitative", "axis": axis(unit, form)}
    y["scale"] = {"zero": False}
    line = {"field": field, "op": "median", "as": "median"}
    layers = [
        {
            "mark": {**POINT, "size": 30, "opacity": 0.7},
            "encoding": {
                "x": x,
                "y": {**y, "field": field},
                **status(sorted({row["status"] for row in rows})),
                "tooltip": tip("trial|id|d", "status", "idea", f"{field}|{field}|{shown}"),
            },
        },
        {
            "transform": [{"window": [line], "frame": [-WINDOW, WINDOW]}],
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": {**y, "field": "median"}},
        },
    ]
    transform = [{"filter": f"isValid(datum.{field})"}]
    drawn = spec(height=220, data={"name": "trials"}, transform=transform, layer=layers)
    values = [row[field] for row in rows]
    middle = statistics.median(values)
    ends = f"{min(values):{shown}} to {max(values):{shown}}"
    words = f"{ends}, half of the trials above {middle:{shown}}."
    columns = (
        Column("Trials", "trials"), Column("Hours", "hours"), Column("Lowest", "low", shown),
        Column("Median", "median", shown), Column("Highest", "high", shown),
    )  # fmt: skip
    return Chart(
        name, title, words, drawn, {"trials": story["trials"]}, columns, _spans(rows, field)
    )


def _spans(rows: Sequence[Row], field: str, most: int = 12) -> list[dict[str, Any]]:
    """At most `most` stretches of the night, each with the lowest, median and highest value."""
    size = -(-len(rows) // most)
    found = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        values = [row[field] for row in some]
        found.append(
            {
                "trials": f"{some[0]['id']} to {some[-1]['id']}",
                "hours": f"{some[0]['hours']:.1f} to {some[-1]['hours']:.1f}",
                "low": min(values),
                "median": statistics.median(values),
                "high": max(values),
            }
        )
    return found


def throughput(story: Story) -> Chart | None:
    """The score of a trial against the tokens that one run of it trained on: speed or learning?"""
    rows = [row for row in story["trials"] if row["tokens"] and row["score"] is not None]
    domain = reach(story)
    if domain is None or len({row["tokens"] for row in rows}) < 3:
        return None
    low, high = domain
    y: dict[str, Any] = {"field": "score", "type": "quantitative"}
    y["axis"] = axis(story["metric"], tick_format(high - low))
    y["scale"] = {"domain": [low, high], "nice": False, "zero": False}
    x = {"field": "tokens", "type": "quantitative", "scale": {"zero": False, "padding": 12}}
    x["axis"] = axis("tokens that one run trained on", "~s")
    shown = tip(
        "trial|id|d", "status", "idea", f"score|score|{score_form(story)}", "tokens|tokens|,.0f"
    )
    inside = f"datum.tokens > 0 && datum.score >= {low!r} && datum.score <= {high!r}"
    points = {"x": x, "y": y, **status(sorted({row["status"] for row in rows}), tooltip=shown)}
    size = {"condition": {"test": "datum.status == 'keep'", "value": 90}, "value": 30}
    opacity = {"condition": {"test": "datum.status == 'keep'", "value": 1}, "value": 0.7}
    drawn = spec(
        height=280,
        data={"name": "trials"},
        transform=[{"filter": inside}],
        mark=POINT,
        encoding={**points, "size": size, "opacity": opacity},
    )
    kept = [row for row in rows if row["status"] == "keep"]
    if not kept:
        return None
    change = kept[-1]["tokens"] / kept[0]["tokens"] - 1
    words = f"A run of the champion's trains on {change:+.0%} tokens against the baseline's."
    columns = (
        Column("Trial", "id", "d"), Column("Tokens", "tokens", ",.0f"),
        Column("Score", "score", score_form(story)), Column("Idea", "idea"),
    )  # fmt: skip
    title = "Score against the tokens of one run"
    return Chart("throughput", title, words, drawn, {"trials": story["trials"]}, columns, kept)

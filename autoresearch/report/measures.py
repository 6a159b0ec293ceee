"""Charts of what lies behind the score: effects, kinds of tries, time, speed, predictions.

Each function takes a story and gives a Chart, or None where the study has nothing of the kind.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.narration import duration
from autoresearch.report.chart import Chart, Column, axis, spec
from autoresearch.report.forms import effect_form, gain
from autoresearch.report.looks import COLOURS, FAINT, KEPT, POINT, status, tip
from autoresearch.report.progress import decisions, reach
from autoresearch.report.rows import BETWEEN, OTHER, PROPOSING, STILL

Story = Mapping[str, Any]
Row = Mapping[str, Any]
MOST_EFFECTS = 40  # kept ideas in one chart, the largest
PHASES = (
    PROPOSING, "startup", "import", "build", "warmup", "training", "scoring", OTHER, BETWEEN, STILL,
)  # fmt: skip
ZERO = {
    "data": {"values": [{"zero": 0}]},
    "mark": {"type": "rule", "style": "guide", "color": FAINT},
}


def effects(story: Story) -> Chart | None:
    """What each kept idea brought, with its 95% interval."""
    kept = [step for step in story["lineage"][1:] if step["gain"] is not None]
    if not kept:
        return None
    shown = sorted(sorted(kept, key=lambda s: -abs(s["gain"]))[:MOST_EFFECTS], key=_id)
    rows = [{**step, "label": f"{step['id']}  {step['idea']}"} for step in shown]
    y = {"field": "label", "type": "nominal", "sort": None, "axis": axis("", labelLimit=300)}
    fit: dict[str, Any] = {
        "labelFlush": False,
        "labelOverlap": "greedy",
        "tickCount": 6,
    }  # phones are narrow
    x = {"type": "quantitative", "axis": axis("gain, with its 95% interval", **fit)}
    form = effect_form(story)
    shown_tip = tip(
        "trial|id|d", "idea", f"gain|gain|{form}", f"from|low|{form}", f"to|high|{form}",
        "confidence of the decision|confidence|.1%", "why|reason",
    )  # fmt: skip
    layers = [
        {**ZERO, "encoding": {"x": {"field": "zero", "type": "quantitative"}}},
        {
            "data": {"name": "effects"},
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "color": KEPT, "strokeWidth": 2.5, "opacity": 0.6},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": {"name": "effects"},
            "mark": {**POINT, "color": KEPT, "size": 90, "opacity": 1},
            "encoding": {"y": y, "x": {**x, "field": "gain"}, "tooltip": shown_tip},
        },
    ]
    largest = max(kept, key=lambda step: step["gain"])
    which = "" if len(shown) == len(kept) else f", the {len(shown)} largest shown"
    words = (
        f"{_count(len(kept), 'kept idea')}{which}; the most came from trial {largest['id']}: "
        f"{gain(story, largest['gain'])}."
    )
    columns = (
        Column("Trial", "id", "d"), Column("Idea", "idea"), Column("Gain", "gain", form),
        Column("From", "low", form), Column("To", "high", form),
        Column("Confidence", "confidence", ".1%"),
    )  # fmt: skip
    drawn = spec(height={"step": 26}, layer=layers)
    return Chart(
        "effects", "What each kept idea brought", words, drawn, {"effects": rows}, columns, rows
    )


def kinds(story: Story) -> Chart | None:
    """How many tries of each kind there were, and how they ended."""
    found = story["kinds"]
    if not found:
        return None
    bars = [
        {"kind": kind["kind"], "status": name, "count": kind[name], "place": place, "at": at}
        for at, kind in enumerate(found)
        for place, name in enumerate(COLOURS)
        if kind.get(name)
    ]
    drawn = _bars(
        {"field": "kind", "sort": {"field": "at", "op": "min"}},
        {"field": "count", "axis": axis("tries", "d", tickMinStep=1)},
        sorted({bar["status"] for bar in bars}),
        tip("kind", "status", "tries|count|d"),
    )
    drawn["data"] = {"name": "kinds"}
    best = max(found, key=lambda kind: kind["gain"] or 0.0)
    sorting = "the parts of the program" if story["kind"] == "pretraining" else "how many lines"
    words = f"{_count(len(found), 'kind')} of tries, by {sorting} they touch"
    if best["gain"]:
        words += f"; {best['kind']} brought the most: {gain(story, best['gain'])}"
    columns = (
        Column("Kind", "kind"), Column("Tried", "tried", "d"), Column("Kept", "keep", "d"),
        Column("Gain kept", "gain", effect_form(story)), Column("Crashed", "crash", "d"),
    )  # fmt: skip
    return Chart("kinds", "Tries by kind", f"{words}.", drawn, {"kinds": bars}, columns, found)


def phases(story: Story) -> Chart | None:
    """Where the time went, by phase and by how the trial ended."""
    spent = [row for row in story["phases"] if row["seconds"] > 0]
    if not spent:
        return None
    total = sum(row["seconds"] for row in spent)
    known = set(PHASES)
    others = sorted({row["phase"] for row in spent} - known)
    order = [*PHASES[:-3], *others, *PHASES[-3:]]
    rank = list(COLOURS)
    hours = total >= 3600
    unit, scale = ("hours", 3600.0) if hours else ("minutes", 60.0)
    bars = [
        {**row, "time": row["seconds"] / scale, "place": rank.index(row["status"])} for row in spent
    ]
    drawn = _bars(
        {"field": "phase", "sort": order},
        {"field": "time", "axis": axis(unit)},
        sorted({row["status"] for row in spent}),
        tip("phase", "status", f"{unit}|time|.2f"),
    )
    drawn["data"] = {"name": "phases"}
    by_phase = {
        name: sum(row["seconds"] for row in spent if row["phase"] == name) for name in order
    }
    rows = [
        {"phase": name, "time": duration(seconds), "share": seconds / total}
        for name, seconds in by_phase.items()
        if seconds
    ]
    most = max(by_phase, key=lambda name: by_phase[name])
    words = f"{duration(total)} in all, {by_phase[most] / total:.0%} of it {most}"
    columns = (Column("Phase", "phase"), Column("Time", "time"), Column("Share", "share", ".1%"))
    return Chart(
        "phases", "Where the time went", f"{words}.", drawn, {"phases": bars}, columns, rows
    )


def _bars(
    y: Mapping[str, Any], x: Mapping[str, Any], present: list[str], shown: list[dict[str, Any]]
) -> dict[str, Any]:
    """Horizontal bars, stacked by status: kept ones first."""
    return spec(
        height={"step": 28},
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "y": {**y, "type": "nominal", "axis": axis("", labelLimit=180)},
            "x": {**x, "type": "quantitative", "stack": "zero"},
            "color": status(present)["color"],
            "order": {"field": "place", "type": "quantitative"},
            "tooltip": shown,
        },
    )


def predicted(story: Story) -> Chart | None:
    """What proposers said that an idea would bring, against what it brought."""
    names = ("id", "status", "idea", "predicted_gain", "gain")
    rows = [
        {name: row[name] for name in names}
        for row in story["trials"]
        if row["predicted_gain"] is not None and row["gain"] is not None
    ]
    if not rows:
        return None
    low, high, form = *_square(rows), effect_form(story)
    scale = {"domain": [low, high], "clamp": True, "nice": False}
    x: dict[str, Any] = {"field": "predicted_gain", "type": "quantitative", "scale": scale}
    y: dict[str, Any] = {"field": "gain", "type": "quantitative", "scale": scale}
    x["axis"], y["axis"] = axis("predicted gain"), axis("actual gain")
    shown = tip(
        "trial|id|d", "status", "idea", f"predicted|predicted_gain|{form}", f"actual|gain|{form}"
    )
    ideal = [{"at": low}, {"at": high}]
    drawn = spec(
        height=300,
        layer=[
            {
                "data": {"values": ideal},
                "mark": {"type": "line", "style": "guide", "color": FAINT, "clip": True},
                "encoding": {"x": {**x, "field": "at"}, "y": {**y, "field": "at"}},
            },
            {
                "data": {"name": "predicted"},
                "mark": {**POINT, "size": 50, "opacity": 0.7},
                "encoding": {
                    "x": x,
                    "y": y,
                    **status(sorted({row["status"] for row in rows}), tooltip=shown),
                },
            },
        ],
    )
    right = sum((row["predicted_gain"] > 0) == (row["gain"] > 0) for row in rows)
    said, came = (
        statistics.fmean(row[name] for row in rows) for name in ("predicted_gain", "gain")
    )
    words = (
        f"{_count(len(rows), 'prediction')}; the sign came true {right} times. Predicted "
        f"{gain(story, said)} on average, it came to {gain(story, came)}."
    )
    columns = (
        Column("Trial", "id", "d"), Column("Status", "status"),
        Column("Predicted gain", "predicted_gain", form), Column("Actual gain", "gain", form),
        Column("Idea", "idea"),
    )  # fmt: skip
    title = "Predicted against actual"
    return Chart("predicted", title, words, drawn, {"predicted": rows}, columns, rows)


def _square(rows: Sequence[Row]) -> tuple[float, float]:
    """The same reach for both axes; a few that broke everything are left to its edge."""
    gains = sorted(row["gain"] for row in rows)
    said = sorted(row["predicted_gain"] for row in rows)
    some = len(rows) // 20
    low, high = min(0.0, gains[some], said[some]), max(0.0, gains[-1], said[-1 - some])
    pad = 0.05 * (high - low) or 1e-3
    return low - pad, high + pad


def trade_offs(story: Story) -> Chart | None:
    """A task's first two objectives against each other, with the trials that none other beats."""
    if not story["secondary"] or not story["front"]:
        return None
    metric, other = story["metric"], next(iter(story["secondary"]))
    front = set(story["front"])
    names = ("id", "status", "idea", "score")
    rows = [
        {
            **{name: row[name] for name in names},
            **{f"other_{n}": value for n, value in enumerate(row["secondary"].values())},
            "front": row["id"] in front,
        }
        for row in story["trials"]
        if row["score"] is not None and row["secondary"][other] is not None
    ]
    way = {"minimize": "lower", "maximize": "higher"}
    x = {"field": "other_0", "type": "quantitative", "scale": {"zero": False, "padding": 12}}
    x["axis"] = axis(f"{other}  ({way[story['secondary'][other]]} is better)")
    y: dict[str, Any] = {"field": "score", "type": "quantitative"}
    y["scale"] = {"domain": list(reach(story) or (0, 1)), "clamp": True, "nice": False}
    y["axis"] = axis(f"{metric}  ({way[story['direction']]} is better)")
    shown = tip("trial|id|d", "status", "idea", f"{metric}|score|.6g", f"{other}|other_0|.6g")
    look = status(sorted({row["status"] for row in rows}), tooltip=shown)
    drawn = spec(
        height=300,
        data={"name": "trade_offs"},
        layer=[
            {
                "transform": [{"filter": "datum.front"}],
                "mark": {"type": "line", "color": KEPT, "strokeWidth": 1.5, "opacity": 0.7},
                "encoding": {"x": x, "y": y, "order": {"field": "other_0"}},
            },
            {
                "mark": {**POINT, "size": 70, "opacity": 0.8},
                "encoding": {"x": x, "y": y, **look},
            },
        ],
    )
    columns = (
        Column("Trial", "id", "d"), Column("Status", "status"), Column(metric, "score", ".6g"),
        *(Column(name, f"other_{n}", ".6g") for n, name in enumerate(story["secondary"])),
        Column("Idea", "idea"),
    )  # fmt: skip
    best = [row for row in rows if row["front"]]
    words = (
        f"{_count(len(best), 'trial')} that no other beats in one metric without losing in another."
    )
    return Chart("trade_offs", "Trade-offs", words, drawn, {"trade_offs": rows}, columns, best)


def held_out(story: Story) -> Chart | None:
    """The held-out score of kept programs beside the one that decided."""
    trials = {row["id"]: row for row in story["trials"]}
    rows = [
        {**{name: row[name] for name in ("id", "decision", "idea")}, "score": score, "of": of}
        for number, held in story["holdouts"].items()
        if (row := trials.get(int(number))) is not None
        for of, score in (("decided", row["score"]), ("held out", held))
        if score is not None
    ]
    if not rows:
        return None
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False}}
    y["axis"] = axis(story["metric"])
    x = decisions(story)
    scale = {"domain": ["decided", "held out"], "range": [KEPT, COLOURS["noisy"]]}
    drawn = spec(
        height=240,
        data={"name": "held_out"},
        mark={"type": "line", "point": {"size": 60}, "strokeWidth": 1.5},
        encoding={
            "x": x,
            "y": y,
            "color": {"field": "of", "type": "nominal", "scale": scale},
            "strokeDash": {"field": "of", "type": "nominal"},
            "tooltip": tip("trial|id|d", "of", "score|score|.6g", "idea"),
        },
    )
    columns = (
        Column("Trial", "id", "d"), Column("Score", "of"), Column(story["metric"], "score", ".6g"),
    )  # fmt: skip
    words = "Scores that decided, and those of the held-out scorer, which decide nothing."
    return Chart("held_out", "Held out", words, drawn, {"held_out": rows}, columns, rows)


def _id(row: Row) -> int:
    return int(row["id"])


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"

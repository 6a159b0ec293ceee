"""The picture of the night: every trial, and the best so far stepping towards better.

Kept trials stand out and are named, discarded ones are faint, those without a score are marks on
the edge, and the band is what the champion's own runs scatter over. It is drawn by the number of
the trial, by the clock and by the tokens trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from autoresearch.narration import duration
from autoresearch.report.chart import Chart, Column, axis, spec
from autoresearch.report.facts import large
from autoresearch.report.forms import effect_form, score, score_form
from autoresearch.report.labels import HEIGHT, label_layers, placed
from autoresearch.report.looks import FAINT, KEPT, POINT, status, tip

Story = Mapping[str, Any]
# Up to so many trials: pixels squared and opacity of a mark that is no keep.
CROWDS = ((300, 28, 0.7), (1500, 14, 0.5), (math.inf, 9, 0.35))
SHORT = 1.5  # hours up to which the clock counts minutes
BEYOND = 0.45  # of the range of the best: so far worse scores are drawn to scale


def by_trial(story: Story) -> Chart | None:
    """The progress chart."""
    chart = _drawn(story, "progress", "Progress", decisions(story), labels=True)
    if chart is None:
        return None
    columns = (
        Column("Trial", "id", "d"), Column("Status", "status"), Column("Idea", "idea"),
        Column("Score", "score", score_form(story)), Column("Effect", "delta", effect_form(story)),
        Column("Confidence", "confidence", ".1%"), Column("Why", "reason"),
    )  # fmt: skip
    low, high = reach(story) or (0.0, 0.0)
    scores = [row["score"] for row in story["trials"] if row["score"] is not None]
    off = sum(not low <= value <= high for value in scores)
    more = f" {off:,} of the scores {'is' if off == 1 else 'are'} off the scale." if off else ""
    return replace(chart, columns=columns, rows=story["trials"], summary=f"{chart.summary}{more}")


def decisions(story: Story) -> dict[str, Any]:
    """The axis of decisions, in their order. Of trials under way together another may end first."""
    told = all(row["id"] == row["decision"] for row in story["trials"])
    title = "trial" if told else "trials, in the order of their decisions"
    return {"field": "decision", "type": "quantitative", "axis": axis(title, "d", tickMinStep=1)}


def by_clock(story: Story) -> Chart | None:
    """The score against wall clock, pauses included."""
    words = _halfway(story, "hours", lambda hours: duration(3600 * hours))
    return _drawn(story, "clock", "Score against wall clock", clock(story), words)


def by_tokens(story: Story) -> Chart | None:
    """The score against all tokens that runs trained on so far."""
    if not story["totals"]["tokens"]:
        return None
    title = "tokens trained on so far, all runs together"
    x = {"field": "tokens_spent", "type": "quantitative", "axis": axis(title, "~s")}
    words = _halfway(story, "tokens_spent", lambda tokens: f"{large(tokens)} tokens")
    return _drawn(story, "tokens", "Score against tokens", x, words)


def clock(story: Story) -> dict[str, Any]:
    """The axis of the time since the study began: minutes, of a short one."""
    unit = "hours" if story["totals"]["hours"] > SHORT else "minutes"
    return {"field": unit, "type": "quantitative", "axis": axis(f"{unit} since the study began")}


def _drawn(
    story: Story,
    name: str,
    title: str,
    x: dict[str, Any],
    words: str = "",
    labels: bool = False,
) -> Chart | None:
    trials, steps = story["trials"], story["steps"]
    domain = reach(story)
    if not trials:
        return None
    low, high = domain or (0.0, 1.0)
    x = {**x, "scale": {"zero": False, "nice": False, "padding": 12}}
    better = "lower" if story["direction"] == "minimize" else "higher"
    value = axis(f"{story['metric']}  ({better} is better)", tick_format(high - low))
    y = {"field": "score", "type": "quantitative", "axis": value}
    y["scale"] = {"domain": [low, high], "nice": False, "zero": False}
    present = sorted({row["status"] for row in trials})
    band, line = _best(x, y)
    *faint, kept = _points(story, x, y, present, (low, high))
    layers = [
        *(band, *faint, line, kept),
        *_parts(story, x),
        *_floor(story, (low, high)),
    ]
    data: dict[str, Any] = {"trials": trials, "steps": steps}
    if labels:
        span = trials[0]["decision"], trials[-1]["decision"]
        data["labels"] = placed(steps, span, (low, high), below=story["direction"] == "minimize")
        layers += label_layers(x, y, below=story["direction"] == "minimize")
    drawn = spec(height=HEIGHT if labels else 260, layer=layers)
    drawn["resolve"] = {"scale": {"color": "shared", "shape": "shared"}}
    columns = (
        Column("Trial", "id", "d"), Column("Best", "best", score_form(story)),
        Column("Hours", "hours", ".2f"), Column("Tokens", "tokens_spent", ",.0f"),
        Column("Idea", "idea"),
    )  # fmt: skip
    return Chart(name, title, words or summary(story), drawn, data, columns, steps)


def summary(story: Story) -> str:
    """The study in a sentence."""
    totals, metric = story["totals"], story["metric"]
    if story["best"] is None:
        return f"{totals['trials']} trials, none with a score."
    if not totals["trials"]:
        return f"The baseline alone: {metric} {score(story, story['best'])}."
    words = f"{totals['trials']:,} trials, {totals['kept']} of them kept"
    if not totals["kept"]:
        return f"{words}: the baseline's {metric} {score(story, story['best'])} stands."
    if story["baseline"] is None:
        return f"{words}: {metric} {score(story, story['best'])}."
    return f"{words}: {metric} {score(story, story['baseline'])} to {score(story, story['best'])}."


def _halfway(story: Story, field: str, said: Callable[[float], str]) -> str:
    """When half of the improvement was there; "" where there is none."""
    steps = [step for step in story["steps"] if step["part"] == story["steps"][-1]["part"]]
    if not steps or steps[0]["best"] == steps[-1]["best"]:
        return ""
    first, last = steps[0]["best"], steps[-1]["best"]
    at = next(step for step in steps if (step["best"] - first) / (last - first) >= 0.5)
    return (
        f"Half of the improvement was there after {said(at[field])}, of {said(steps[-1][field])}."
    )


def reach(story: Story) -> tuple[float, float] | None:
    """The scores that are drawn to scale: the best ones wholly, far worse ones not."""
    steps = story["steps"]
    scores = [row["score"] for row in story["trials"] if row["score"] is not None]
    ends = [step[end] for step in steps for end in ("low", "high")]
    ends += [row["score"] for row in story["trials"] if row["status"] == "keep" and row["score"]]
    if not ends:
        ends = scores
    if not ends:
        return None
    low, high = min(ends), max(ends)
    span = (high - low) or abs(high) * 0.01 or 1.0
    if story["direction"] == "minimize":
        low = min([low, *scores])
        high = max(high, min(max(scores, default=high), high + BEYOND * span))
    else:
        high = max([high, *scores])
        low = min(low, max(min(scores, default=low), low - BEYOND * span))
    pad = 0.05 * ((high - low) or span)
    return low - pad, high + pad


def _best(x: dict[str, Any], y: dict[str, Any]) -> list[dict[str, Any]]:
    """The band of noise and the line of the best."""
    best = {**y, "field": "best"}
    part = {"field": "part", "type": "nominal"}
    band = {
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.16, "color": KEPT},
        "encoding": {
            "x": x,
            "y": {**y, "field": "low"},
            "y2": {"field": "high"},
            "detail": part,
        },
    }
    line = {
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "color": KEPT,
            "strokeWidth": 2,
        },
        "encoding": {"x": x, "y": best, "detail": part},
    }
    return [{"data": {"name": "steps"}, **layer} for layer in (band, line)]


def _points(
    story: Story,
    x: dict[str, Any],
    y: dict[str, Any],
    present: list[str],
    domain: tuple[float, float],
) -> list[dict[str, Any]]:
    """Discarded ones faint, those off the scale and those without a score on the worse edge."""
    low, high = domain
    inside = f"isValid(datum.score) && datum.score >= {low!r} && datum.score <= {high!r}"
    outside = f"isValid(datum.score) && !({inside})"
    worse = 0 if story["direction"] == "minimize" else "height"
    edge = {"expr": "8" if worse == 0 else "height - 8"}
    size, opacity = next(look for most, *look in CROWDS if len(story["trials"]) <= most)
    point = {**POINT, "clip": False}
    both = status(present, tooltip=_tip(story))
    trials = {"data": {"name": "trials"}}
    away = {**both, "shape": {"value": "triangle-up" if worse == 0 else "triangle-down"}}
    return [
        {
            **trials,
            "transform": [{"filter": f"datum.status != 'keep' && {inside}"}],
            "mark": {**point, "size": size, "opacity": opacity},
            "encoding": {"x": x, "y": y, **both},
        },
        {
            **trials,
            "transform": [{"filter": outside}],
            "mark": {**point, "size": size + 10, "opacity": opacity},
            "encoding": {"x": x, "y": {"value": edge}, **away},
        },
        {
            **trials,
            "transform": [{"filter": "!isValid(datum.score)"}],
            "mark": {**point, "size": 2 * size, "opacity": opacity + 0.2},
            "encoding": {"x": x, "y": {"value": edge}, **both},
        },
        {
            **trials,
            "transform": [{"filter": f"datum.status == 'keep' && {inside}"}],
            "mark": {**point, "size": 90, "opacity": 1, "style": "ring", "strokeWidth": 1.5},
            "encoding": {"x": x, "y": y, **both},
        },
    ]


def _tip(story: Story) -> list[dict[str, Any]]:
    return tip(
        "trial|id|d", "status", "idea", f"score|score|{score_form(story)}",
        f"effect|delta|{effect_form(story)}", "confidence|confidence|.1%", "kind", "why|reason",
    )  # fmt: skip


def _parts(story: Story, x: dict[str, Any]) -> list[dict[str, Any]]:
    """A line wherever the score began to mean something else."""
    rows = {row["id"]: row for row in story["trials"]}
    places = [rows[part["first"]] for part in story["parts"][1:] if part["first"] in rows]
    if not places:
        return []
    values = [
        {name: row[name] for name in ("decision", "hours", "minutes", "tokens_spent")}
        for row in places
    ]
    data = {"data": {"values": values}}
    encoding = {"x": x}
    text = {"type": "text", "style": "note", "align": "left", "dx": 5, "baseline": "bottom"}
    words = {**encoding, "y": {"value": {"expr": "height - 4"}}}
    words["text"] = {"value": "other score from here"}
    return [
        {**data, "mark": {"type": "rule", "style": "guide", "color": FAINT}, "encoding": encoding},
        {**data, "mark": text, "encoding": words},
    ]


def _floor(story: Story, domain: tuple[float, float]) -> list[dict[str, Any]]:
    """The entropy of the text, where it lies in the picture."""
    floor = story["floor"]
    if floor is None or not domain[0] <= floor <= domain[1]:
        return []
    return [
        {
            "data": {"values": [{"floor": floor}]},
            "mark": {"type": "rule", "style": "guide", "color": FAINT},
            "encoding": {"y": {"field": "floor", "type": "quantitative"}},
        }
    ]


def tick_format(span: float) -> str:
    """d3's format of an axis that spans so much: three digits tell its ends apart."""
    if not span or not math.isfinite(span):
        return ""
    return f".{max(0, min(8, 2 - math.floor(math.log10(span))))}f"

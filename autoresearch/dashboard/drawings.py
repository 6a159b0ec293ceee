"""Charts for the pages: those of `report.charts`, and loss curves, as JSON that vega-embed takes.

document(chart)               # {"title", "summary", "spec", "data", "light", "dark"}
losses(own, champion, "s")    # the curve of a run above the champion's
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.report.chart import Chart, Column, axis, spec
from autoresearch.report.looks import COLOURS, config, tip

# Of a trial's row, what the charts of all trials read; the rest would double what is sent.
FIELDS = (
    "id",
    "decision",
    "status",
    "idea",
    "reason",
    "kind",
    "score",
    "delta",
    "confidence",
    "hours",
    "minutes",
    "tokens_spent",
)
OWN, CHAMPION = "this run", "champion"
TABLE_ROWS = 20  # of a curve's table
Curve = Sequence[Sequence[float]]


def document(chart: Chart) -> dict[str, Any]:
    """A chart with all that a page needs to draw it."""
    data = {name: list(rows) for name, rows in chart.data.items()}
    if "trials" in data and chart.name in ("progress", "clock", "tokens"):
        data["trials"] = [{name: row[name] for name in FIELDS} for row in data["trials"]]
    return {
        "name": chart.name,
        "title": chart.title,
        "summary": chart.summary,
        "spec": dict(chart.spec),
        "data": data,
        "light": config(False),
        "dark": config(True),
    }


def losses(own: Curve, champion: Curve, unit: str, name: str = OWN) -> Chart:
    """The training loss of a run against what it spent, and the champion's at the same place."""
    rows = [_point(name, *point) for point in own]
    rivals = [_point(CHAMPION, *point) for point in champion]
    encoding = {
        "x": {
            "field": "spent",
            "type": "quantitative",
            "axis": axis(f"training, {unit}", "~s", tickCount=8),
        },
        "y": {
            "field": "loss",
            "type": "quantitative",
            "axis": axis("training loss"),
            "scale": {"zero": False},
        },
        "color": {
            "field": "run",
            "type": "nominal",
            "scale": {"domain": [name, CHAMPION], "range": [COLOURS["noisy"], COLOURS["keep"]]},
        },
        "strokeDash": {
            "field": "run",
            "type": "nominal",
            "scale": {"domain": [name, CHAMPION], "range": [[1, 0], [5, 3]]},
        },
        "tooltip": tip("run", f"{unit}|spent|,.1f", "loss|loss|.4f"),
    }
    layers = [
        {"data": {"name": part}, "mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding}
        for part in ("champion", "own")
    ]
    return Chart(
        "losses",
        "Training loss",
        _words(own, champion),
        spec(height=240, layer=layers),
        {"own": rows, "champion": rivals},
        (
            Column(unit.capitalize(), "spent", ",.4g"),
            Column("Loss", "loss", ".4f"),
            Column("Champion's", "champion", ".4f"),
        ),
        _beside(own, champion),
    )


def _point(run: str, spent: float, loss: float) -> dict[str, Any]:
    return {"run": run, "spent": spent, "loss": loss}


def _words(own: Curve, champion: Curve) -> str:
    if not own:
        return "No curve was recorded."
    words = f"From {own[0][1]:.3f} to {own[-1][1]:.3f}"
    there = _at(champion, own[-1][0])
    return f"{words}." if there is None else f"{words}; the champion's was {there:.3f} there."


def _beside(own: Curve, champion: Curve) -> list[Mapping[str, Any]]:
    """Some points of the curve, each with the champion's loss at the same place."""
    step = max(1, -(-len(own) // TABLE_ROWS))
    points = list(own[::step])
    if own and points[-1] != own[-1]:
        points.append(own[-1])
    return [
        {"spent": spent, "loss": loss, "champion": _at(champion, spent)} for spent, loss in points
    ]


def _at(curve: Curve, spent: float) -> float | None:
    """The loss of the nearest point, where the curve goes that far."""
    if not curve or spent > 1.02 * curve[-1][0]:
        return None
    return float(min(curve, key=lambda point: abs(point[0] - spent))[1])

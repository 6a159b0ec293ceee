"""Where the names of kept ideas stand in the progress chart: Vega-Lite would let them overlap.

The side on which nothing lies is the better one before a step: below the line where lower is
better, above it where higher is. What has no room there stands behind its point, above the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 940, 400  # pixels of the plot by which labels are placed
LETTER, LINE, LONGEST = 6.0, 15.0, 40  # pixels of a letter and of a line; letters of a label
AWAY, POINT = 8.0, 5.0  # pixels from the point to its label; half of a point
MOST = 16  # labels
Box = tuple[float, float, float, float]  # left, top, right, bottom


def placed(
    steps: Sequence[Mapping[str, Any]],
    span: tuple[int, int],
    domain: tuple[float, float],
    below: bool,
) -> list[dict[str, Any]]:
    """The kept ideas whose names have room, the largest gains first; `side`: before or behind.

    span: first and last decision. below: names before their point stand below the line.
    """
    width, height = max(1, span[1] - span[0]), (domain[1] - domain[0]) or 1.0
    kept = [step for step in steps if step["kept"]]
    points = {
        step["id"]: (
            (step["decision"] - span[0]) / width * WIDTH,
            (domain[1] - step["best"]) / height * HEIGHT,
        )
        for step in kept
    }
    taken: list[Box] = [(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points.values()]
    found: list[dict[str, Any]] = []
    named = [step for step in kept if step["gain"] is not None]
    for step in sorted(named, key=lambda step: -abs(step["gain"])):
        text = _short(step["idea"])
        for side, box in _boxes(*points[step["id"]], LETTER * len(text), below):
            if _inside(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                names = ("id", "decision", "best")
                found.append({name: step[name] for name in names} | {"text": text, "side": side})
                break
        if len(found) == MOST:
            break
    return sorted(found, key=lambda label: label["decision"])


def _short(idea: str) -> str:
    """The beginning of a long idea, whole words of it where it has some."""
    if len(idea) <= LONGEST:
        return idea
    cut = idea[: LONGEST - 1]
    words = cut if idea[LONGEST - 1].isspace() else cut.rpartition(" ")[0]
    return (words if len(words) > LONGEST // 2 else cut).rstrip(" .,;:") + "\u2026"


def _boxes(x: float, y: float, width: float, below: bool) -> list[tuple[str, Box]]:
    """Where a label of a point may stand, the better place first."""
    over, under = (y - AWAY - LINE, y - AWAY), (y + AWAY, y + AWAY + LINE)
    top, bottom = under if below else over
    return [
        ("before", (x - AWAY - width, top, x - AWAY, bottom)),
        ("behind", (x + AWAY, over[0], x + AWAY + width, over[1])),
    ]


def _inside(box: Box) -> bool:
    return box[0] >= 0 and box[1] >= -8 and box[2] <= WIDTH + 20 and box[3] <= HEIGHT


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def label_layers(x: dict[str, Any], y: dict[str, Any], below: bool) -> list[dict[str, Any]]:
    """The labels as layers over a data set `labels`, each on a halo."""
    under: dict[str, Any] = {"dy": AWAY, "baseline": "top"}
    over: dict[str, Any] = {"dy": -AWAY, "baseline": "bottom"}
    places = (
        ("before", {"align": "right", "dx": -AWAY, **(under if below else over)}),
        ("behind", {"align": "left", "dx": AWAY, **over}),
    )
    text = {"field": "text", "type": "nominal"}
    return [
        {
            "name": f"{style}-{side}",
            "data": {"name": "labels"},
            "transform": [{"filter": f"datum.side == '{side}'"}],
            "mark": {"type": "text", "style": style, **place},
            "encoding": {"x": x, "y": {**y, "field": "best"}, "text": text},
        }
        for side, place in places
        for style in ("halo", "idea")
    ]

"""How charts look: colours that hold on white and on black, and Vega's config for either.

    config(dark=False)            # for `vegaEmbed(..., {config})` and for pictures
    STATUS                        # encoding of a trial's status

Every colour has a contrast of 3 to 1 at least against both papers (WCAG 1.4.11), and no two marks
differ by colour alone.
"""

from __future__ import annotations

from typing import Any

from autoresearch.engine.trial import TrialStatus

COLOURS = {
    TrialStatus.KEEP.value: "#0c9a70",
    TrialStatus.DISCARD.value: "#838c97",
    TrialStatus.CRASH.value: "#e0533a",
    TrialStatus.REJECTED.value: "#b8619f",
    TrialStatus.PRUNED.value: "#b07d12",
    TrialStatus.NOISY.value: "#3c8fcb",
}
SHAPES = {
    TrialStatus.KEEP.value: "circle",
    TrialStatus.DISCARD.value: "circle",
    TrialStatus.CRASH.value: "cross",
    TrialStatus.REJECTED.value: "square",
    TrialStatus.PRUNED.value: "triangle-down",
    TrialStatus.NOISY.value: "diamond",
}
KEPT = COLOURS["keep"]
FAINT = COLOURS["discard"]
WORDS = {
    "keep": "kept",
    "discard": "discarded",
    "crash": "crashed",
    "rejected": "rejected",
    "pruned": "pruned",
    "noisy": "noisy",
}
POINT = {"type": "point", "filled": True}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PAPER = {False: "#ffffff", True: "#14171c"}
INK = {False: "#1f2328", True: "#e6e9ee"}
QUIET = {False: "#59636e", True: "#9aa4b0"}
GRID = {False: "#e4e8ec", True: "#2a3038"}


def config(dark: bool = False) -> dict[str, Any]:
    """Vega's config: papers, inks and the styles that marks name."""
    ink, quiet, grid, paper = INK[dark], QUIET[dark], GRID[dark], PAPER[dark]
    return {
        "background": paper,
        "font": FONT,
        "view": {"stroke": None},
        "text": {"color": ink},
        "line": {"color": quiet},
        "axis": {
            "domainColor": quiet,
            "gridColor": grid,
            "tickColor": quiet,
            "labelColor": quiet,
            "titleColor": ink,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 13,
            "titlePadding": 10,
        },
        "axisX": {"grid": False},
        "legend": {
            "labelColor": ink,
            "labelFontSize": 12,
            "titleColor": ink,
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "symbolOpacity": 1,
        },
        "title": {
            "color": ink,
            "subtitleColor": quiet,
            "fontSize": 17,
            "subtitleFontSize": 13,
            "anchor": "start",
            "frame": "bounds",
            "offset": 14,
            "subtitlePadding": 6,
        },
        "style": {
            "idea": {"fontSize": 11},
            "halo": {
                "fontSize": 11,
                "stroke": paper,
                "strokeWidth": 4,
                "strokeJoin": "round",
            },
            "note": {"fontSize": 11},
            "guide": {"strokeDash": [4, 4], "strokeWidth": 1.5},
            "ring": {"stroke": paper},
        },
    }


def status(present: list[str], **more: Any) -> dict[str, Any]:
    """Colour and shape of a trial's status, with one legend of those that occur."""
    names = [name for name in COLOURS if name in present]
    legend = {"values": names, "labelExpr": _label_expression()}
    colour = {"domain": names, "range": [COLOURS[name] for name in names]}
    shape = {"domain": names, "range": [SHAPES[name] for name in names]}
    base = {"field": "status", "type": "nominal", "legend": legend}
    return {
        "color": {**base, "scale": colour},
        "shape": {**base, "scale": shape},
        **more,
    }


def _label_expression() -> str:
    words = ", ".join(f"'{name}': '{word}'" for name, word in WORDS.items())
    return f"({{{words}}})[datum.value]"


def tip(*fields: str) -> list[dict[str, Any]]:
    """What hovering over a trial shows: `title|field|format`, the last two optional."""
    found = []
    for text in fields:
        title, _, rest = text.partition("|")
        name, _, form = rest.partition("|")
        item = {"field": name or title, "title": title}
        item["type"] = "quantitative" if form else "nominal"
        if form:
            item["format"] = form.replace("g", "~g")  # d3 keeps zeros that Python drops
        found.append(item)
    return found

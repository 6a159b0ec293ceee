"""Charts of a story: Vega-Lite specs, each with its data, a sentence and a table that say the same.

    for chart in charts(story):
        vl_convert.vegalite_to_png(chart.picture())           # complete, for a file
        chart.spec, chart.data                                # for a page: data by name, once

One spec serves the report, pictures and the dashboard. `charts` leaves out what a study has no data
for. A page may change a spec's width; `looks.config` is its theme.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autoresearch.report import measures, progress, speeds
from autoresearch.report.chart import Chart, Column

__all__ = ["CHARTS", "Chart", "Column", "charts"]

CHARTS: Mapping[str, Callable[[Mapping[str, Any]], Chart | None]] = {
    "progress": progress.by_trial,
    "clock": progress.by_clock,
    "tokens": progress.by_tokens,
    "effects": measures.effects,
    "kinds": measures.kinds,
    "phases": measures.phases,
    "speed": speeds.speed,
    "mfu": speeds.mfu,
    "throughput": speeds.throughput,
    "predicted": measures.predicted,
    "trade_offs": measures.trade_offs,
    "held_out": measures.held_out,
}


def charts(story: Mapping[str, Any]) -> list[Chart]:
    """Every chart that the story has data for."""
    made = (make(story) for make in CHARTS.values())
    return [chart for chart in made if chart is not None]

"""Writing a report: one HTML file, a picture, and Markdown.

names = write_report(study, folder)      # report.html, progress.png, report.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.opening import AnyStudy
from autoresearch.report.chart import Chart
from autoresearch.report.charts import CHARTS
from autoresearch.report.markdown import markdown
from autoresearch.report.page import page
from autoresearch.report.story import edits
from autoresearch.study import write_text

PAGE, PICTURE, MARKDOWN = "report.html", "progress.png", "report.md"
SCALE = 2.0  # pixels per pixel of the chart: sharp on a screen and in print


def write_report(study: AnyStudy, story: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the report of a study's story into a folder; the names of the files."""
    diffs = edits(study, [step["id"] for step in story["lineage"][1:]])
    write_text(folder / PAGE, page(story, diffs))
    names = [PAGE]
    progress = CHARTS["progress"](story)
    if progress is None:
        (folder / PICTURE).unlink(missing_ok=True)  # of a study that stood here before
    else:
        title = f"{story['tag']}: progress of {story['metric']}"
        (folder / PICTURE).write_bytes(picture(replace(progress, title=title)))
        names.append(PICTURE)
    write_text(folder / MARKDOWN, markdown(story, PICTURE if progress else ""))
    return [*names, MARKDOWN]


def picture(chart: Chart, dark: bool = False) -> bytes:
    """A chart as a PNG. Nothing is fetched for it."""
    import vl_convert

    spec = chart.picture(dark)
    made: bytes = vl_convert.vegalite_to_png(spec, scale=SCALE, allowed_base_urls=[])
    return made

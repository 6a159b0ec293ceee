"""The report as one HTML file that needs nothing else: no network, no other file.

    html = page(story, edits)        # edits: unified diffs by trial

Ideas, reasons and diffs were written by agents. They are escaped wherever they stand, data are
JSON that no script tag can end, and the page's policy runs the two scripts whose hashes it names
and nothing else: no eval, no handlers in the markup, no connections.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from autoresearch.console import to_json
from autoresearch.engine.proposers.text import clean, one_line
from autoresearch.report.chart import Chart
from autoresearch.report.charts import charts
from autoresearch.report.facts import circumstances, figures, verdict
from autoresearch.report.forms import gain_form, score_form, sure
from autoresearch.report.looks import config

TEMPLATES = Path(__file__).parent / "templates"
# Of a trial, what pictures and their hovering need; the rest stands in tables.
DRAWN = (
    "id", "decision", "status", "idea", "kind", "part", "score", "delta", "gain", "confidence",
    "hours", "minutes", "tokens_spent", "tokens", "tokens_per_second", "mfu", "mfu_measured",
)  # fmt: skip
HOVERED = 240  # characters of a reason that hovering shows
DIFF_LINES = 400  # of one edit that are shown
GROUPS = (
    ("Ideas", ("effects", "kinds", "predicted", "trade_offs", "held_out")),
    ("Time and speed", ("clock", "tokens", "throughput", "speed", "mfu", "phases")),
)


def page(story: Mapping[str, Any], edits: Mapping[int, str]) -> str:
    """The report of one study."""
    made = {chart.name: chart for chart in charts(story)}
    kept = [
        {**step, "diff": diff_lines(edits.get(step["id"], ""))} for step in story["lineage"][1:]
    ]
    return render(
        "report.html",
        list(made.values()),
        title=f"{story['tag']}: {story['metric']}",
        story=story,
        verdict=verdict(story),
        figures=figures(story),
        circumstances=circumstances(story),
        progress=made.get("progress"),
        groups=[(title, [made[name] for name in names if name in made]) for title, names in GROUPS],
        kept=kept,
        gain=gain_form(story),
        score=score_form(story),
    )


def render(template: str, drawn: Sequence[Chart], **values: Any) -> str:
    """A template with its charts' specs and data, its style and its scripts inside."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    library = bundle() if drawn else ""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in (library, script))
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            library=Markup(library),
            script=Markup(script),
            policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'",
            document=embedded(drawn),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    made = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters["sure"] = sure
    made.filters["number"] = lambda value, form: "" if value is None else format(value, form)
    return made


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that can stand inside a script tag."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def embedded(drawn: Sequence[Chart]) -> Markup:
    """Specs, data and themes of charts as JSON inside a script tag, each data set once."""
    data: dict[str, Any] = {}
    for chart in drawn:
        data |= chart.data
    if "trials" in data:
        data["trials"] = [
            {**{name: row[name] for name in DRAWN}, "reason": one_line(row["reason"], HOVERED)}
            for row in data["trials"]
        ]
    document = {
        "charts": [
            {"name": chart.name, "spec": chart.spec, "data": list(chart.data)} for chart in drawn
        ],
        "data": data,
        "config": {"light": config(False), "dark": config(True)},
    }
    return Markup(script_json(document))


def script_json(document: Mapping[str, Any]) -> str:
    """JSON that neither ends a script tag nor begins a comment: `<`, `>` and `&` are escaped."""
    text = to_json(_rounded(document))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _rounded(value: Any) -> Any:
    """Numbers with nine digits: what is drawn needs no more, and half of a page is numbers."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """Kind (add, del, hunk, file or same) and text of each line of a unified diff."""
    found: list[tuple[str, str]] = []
    kinds = {"+": "add", "-": "del", "@": "hunk"}
    lines = clean(diff).splitlines()
    for line in lines[:DIFF_LINES]:
        header = line.startswith(("diff --git", "index ", "--- ", "+++ "))
        found.append(("file" if header else kinds.get(line[:1], "same"), line))
    if len(lines) > DIFF_LINES:
        found.append(("hunk", f"... {len(lines) - DIFF_LINES} more lines"))
    return found


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

"""The report as Markdown, for where people already read: a pull request, a chat, a notebook.

text = markdown(story, picture="progress.png")
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.narration import number
from autoresearch.report.chart import Chart
from autoresearch.report.charts import charts
from autoresearch.report.facts import Fact, circumstances, figures, verdict
from autoresearch.report.forms import gain_form, score_form, sure

# With a table of each chart the file would repeat itself: these say what the others don't.
TABLES = ("kinds", "phases", "predicted", "trade_offs", "held_out")
MOST_ROWS = 30
# An underscore inside a word is one; of `->` nothing but the `<` of a tag would mean anything.
_SPECIAL = re.compile(r"([\\`*\[\]<|~&$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# Where the file is pasted, `@torch.compile` would call a person of that name, and #12 an issue.
_MENTION = re.compile(r"(?<!\w)@(?=\w)|#(?=\d)")


def markdown(story: Mapping[str, Any], picture: str = "") -> str:
    """The report; `picture`: where the progress chart lies, seen from the file."""
    lines = [f"# {escape(story['tag'])}", "", escape(verdict(story)), ""]
    made = {chart.name: chart for chart in charts(story)}
    if picture and "progress" in made:
        lines += [f"![{escape(made['progress'].summary)}]({picture})", ""]
    lines += _facts(figures(story))
    lines += _kept(story)
    for name in TABLES:
        if name in made:
            lines += _table(made[name])
    lines += ["## Measured on, and how", "", *_facts(circumstances(story))]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: object) -> str:
    """Text on one line that Markdown shows as it is: no link, picture, markup or mention in it."""
    line = _MENTION.sub(lambda found: f"{found[0]}\u200b", " ".join(str(text).split()))
    return _SPECIAL.sub(r"\\\1", line).replace("://", ":\\//").replace("www.", "www\\.")


def table(
    titles: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[bool]
) -> list[str]:
    """A table's lines, with an empty one behind."""
    lines = ["| " + " | ".join(map(escape, titles)) + " |"]
    lines.append("|" + "|".join("--:" if end else "---" for end in right) + "|")
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return [*lines, ""]


def _facts(facts: Sequence[Fact]) -> list[str]:
    rows = [(fact.name, fact.value, fact.note) for fact in facts]
    return table(("", "", ""), rows, (False, False, False)) if rows else []


def _kept(story: Mapping[str, Any]) -> list[str]:
    steps = story["lineage"][1:]
    if not steps:
        return []
    rows, form = [], gain_form(story)
    for step in steps:
        low, high = number(step["low"], form), number(step["high"], form)
        span = "-" if step["low"] is None else f"{low} to {high}"
        score, gain = number(step["score"], score_form(story)), number(step["gain"], form)
        rows.append((step["id"], score, gain, span, sure(step["confidence"]), step["idea"]))
    titles = ("trial", story["metric"], "gain", "95% interval", "confidence", "idea")
    right = (True, True, True, True, True, False)
    return ["## Kept ideas", "", *table(titles, rows, right)]


def _table(chart: Chart) -> list[str]:
    rows = [[column.cell(row) for column in chart.columns] for row in chart.rows[:MOST_ROWS]]
    titles = [column.title for column in chart.columns]
    lines = [f"## {escape(chart.title)}", "", escape(chart.summary), ""]
    lines += table(titles, rows, [column.numeric for column in chart.columns])
    left = len(chart.rows) - len(rows)
    return [*lines, f"{left} more are in report.html.", ""] if left > 0 else lines

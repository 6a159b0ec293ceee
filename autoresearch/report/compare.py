"""Two studies side by side, where their scores mean the same.

    found = compare(Path("a"), Path("b"))      # raises DataError with the reason if they can't be
    found.verdict, found.differ

Equal score ids compare. Beside them studies whose validation text, budget and machine agree and
whose vocabulary or context differ: the metric is per byte. The report says what differs.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.narration import number
from autoresearch.opening import open_study
from autoresearch.report.chart import Chart, Column, axis, spec
from autoresearch.report.effects import quantile
from autoresearch.report.facts import Fact, figures
from autoresearch.report.forms import effect_form, gain, score, score_form
from autoresearch.report.looks import COLOURS, KEPT, tip
from autoresearch.report.page import render
from autoresearch.report.progress import tick_format
from autoresearch.report.story import story_of
from autoresearch.study import write_text
from prepare.errors import DataError

Story = Mapping[str, Any]
PAGE = "compare.html"
MAY_DIFFER = ("vocab_size", "max_seq_len")  # settings that change the score id, but not its unit
MUST_AGREE = ("corpus", "eval_bytes", "time_budget", "token_budget", "devices")
PATTERNS = ([1, 0], [6, 3])  # solid and dashed: told apart without colour
HINT = "compare studies with one score id: the same text, budget and machine"


@dataclass(frozen=True)
class Comparison:
    """Two stories under the names of their folders, and what differs between them."""

    labels: tuple[str, str]
    stories: tuple[Story, Story]
    differ: tuple[Fact, ...]

    @property
    def difference(self) -> tuple[float, float, float]:
        """By how much the second champion is better, and the ends of its 95% interval.

        From the means of all their runs; infinite ends where the noise isn't known.
        """
        sign = -1.0 if self.stories[0]["direction"] == "minimize" else 1.0
        scores = [story["champion_scores"] or [story["best"]] for story in self.stories]
        ahead = sign * (statistics.fmean(scores[1]) - statistics.fmean(scores[0]))
        noises = [story["noise"] for story in self.stories]
        if None in noises:
            return ahead, -math.inf, math.inf
        variance = sum(n["sd"] ** 2 / len(s) for n, s in zip(noises, scores, strict=True))
        if variance == 0:
            return ahead, ahead, ahead
        half = quantile(sum(noise["dof"] for noise in noises)) * math.sqrt(variance)
        return ahead, ahead - half, ahead + half

    @property
    def verdict(self) -> str:
        """Which champion is better, and whether that is more than noise."""
        ahead, low, high = self.difference
        story, (first, second) = self.stories[0], self.labels
        if low <= 0 <= high:
            span = "" if math.isinf(low) else f": {gain(story, low)} to {gain(story, high)}"
            return f"No difference is shown between {first} and {second}{span}."
        better, worse = (second, first) if ahead > 0 else (first, second)
        ends = sorted((abs(low), abs(high)))
        span = " to ".join(gain(story, end).lstrip("+") for end in ends)
        by = gain(story, abs(ahead)).lstrip("+")
        return f"The champion of {better} is better than {worse}'s by {by} (95%: {span})."

    def to_dict(self) -> dict[str, Any]:
        """What `--json` says."""
        ahead, low, high = self.difference
        return {
            "verdict": self.verdict,
            "labels": list(self.labels),
            "difference": {"gain": ahead, "low": low, "high": high},
            "best": [story["best"] for story in self.stories],
            "score_ids": [story["score_id"] for story in self.stories],
            "differ": {fact.name: fact.value for fact in self.differ},
        }


def compare(first: Path, second: Path) -> Comparison:
    """Read two studies. Raises DataError where their scores mean different things."""
    stories = story_of(open_study(first)), story_of(open_study(second))
    for path, story in zip((first, second), stories, strict=True):
        if story["best"] is None:
            raise DataError(f"{path} has no score yet", "compare studies with a baseline at least")
    differ = differences(*stories)
    reason = refusal(*stories)
    if reason:
        raise DataError(f"these studies can't be compared: {reason}", HINT)
    return Comparison(_labels(first, second), stories, tuple(differ))


def refusal(first: Story, second: Story) -> str:
    """Why scores of two studies don't compare; "" if they do."""
    for name in ("metric", "direction"):
        if first[name] != second[name]:
            return f"{name} {first[name]} here, {second[name]} there"
    if first["score_id"] == second["score_id"]:
        return ""
    ids = f"score ids {first['score_id']} and {second['score_id']}"
    if not first["kind"] == second["kind"] == "pretraining":
        return f"{ids} differ: scorer, runner, support files or machine aren't the same"
    # Ledgers from before there could be more than one device don't say how many there were.
    one, other = ({"devices": 1, **story["settings"]} for story in (first, second))
    wrong = [
        f"{name} {one.get(name)} and {other.get(name)}"
        for name in MUST_AGREE
        if one.get(name) != other.get(name)
    ]
    if None in (first["scored_bytes"], second["scored_bytes"]):
        wrong.append("how much text was scored isn't known: the result.json of a run is gone")
    elif first["scored_bytes"] != second["scored_bytes"]:
        sizes = [number(story["scored_bytes"], ",.0f") for story in (first, second)]
        wrong.append(f"{sizes[0]} and {sizes[1]} bytes were scored")
    machines = [{m["hardware_id"] for m in story["machines"]} for story in (first, second)]
    if machines[0].isdisjoint(machines[1]):
        wrong.append("they ran on different machines")
    if wrong:
        return f"{ids} differ: {'; '.join(wrong)}"
    if all(one.get(name) == other.get(name) for name in MAY_DIFFER):
        return f"{ids} differ, though vocabulary and context don't: another harness or tokenizer"
    return ""


def differences(first: Story, second: Story) -> list[Fact]:
    """Settings and versions in which two studies differ."""
    found = []
    for table in ("settings", "versions"):
        for name in sorted({*first[table], *second[table]}):
            one, other = (story[table].get(name, "none") for story in (first, second))
            if one != other:
                found.append(Fact(name, f"{one} and {other}"))
    return found


def write_comparison(found: Comparison, folder: Path) -> list[str]:
    """Write compare.html into a folder; the names of the files."""
    drawn = [chart for chart in (best(found, field) for field in AXES) if chart is not None]
    facts = [{fact.name: fact for fact in figures(story)} for story in found.stories]
    names = list(dict.fromkeys(name for each in facts for name in each))
    html = render(
        "compare.html",
        drawn,
        title=" and ".join(found.labels),
        found=found,
        rows=[(name, *(each.get(name) for each in facts)) for name in names],
        charts=drawn,
        gain_form=effect_form(found.stories[0]),
        score_form=score_form(found.stories[0]),
    )
    write_text(folder / PAGE, html)
    return [PAGE]


AXES = {
    "decision": ("by_trial", "Best so far, by trial", "trials decided", "d"),
    "hours": ("by_clock", "Best so far, by the clock", "hours since the study began", ""),
    "tokens_spent": ("by_tokens", "Best so far, by tokens trained on", "tokens", "~s"),
}


def best(found: Comparison, field: str) -> Chart | None:
    """Both studies' best so far over one axis; None where the axis has no values."""
    name, title, label, form = AXES[field]
    rows = [
        {**step, "study": label}
        for label, story in zip(found.labels, found.stories, strict=True)
        for step in story["steps"]
        if step["part"] == story["steps"][-1]["part"]
    ]
    if not any(row[field] for row in rows):
        return None
    story = found.stories[0]
    levels = [row["best"] for row in rows]
    better = "lower" if story["direction"] == "minimize" else "higher"
    x = {"field": field, "type": "quantitative", "axis": axis(label, form)}
    y: dict[str, Any] = {"field": "best", "type": "quantitative", "scale": {"zero": False}}
    y["axis"] = axis(f"{story['metric']}  ({better} is better)", tick_format(_span(levels)))
    legend = {"symbolType": "stroke", "symbolStrokeWidth": 3, "symbolSize": 400}
    study = {"field": "study", "type": "nominal", "legend": legend}
    labels = list(found.labels)
    colour = {**study, "scale": {"domain": labels, "range": [KEPT, COLOURS["noisy"]]}}
    dash = {**study, "scale": {"domain": labels, "range": list(PATTERNS)}}
    shown = tip("study", "trial|id|d", "idea", f"best|best|{score_form(story)}")
    drawn = spec(
        height=320,
        data={"name": "best"},
        mark={"type": "line", "interpolate": "step-after", "point": {"size": 50}},
        encoding={"x": x, "y": y, "color": colour, "strokeDash": dash, "tooltip": shown},
    )
    columns = (
        Column("Study", "study"), Column("Trial", "id", "d"), Column("Hours", "hours", ".2f"),
        Column("Tokens", "tokens_spent", ",.0f"), Column("Best", "best", score_form(story)),
        Column("Idea", "idea"),
    )  # fmt: skip
    ends = [score(story, each["best"]) for each in found.stories]
    words = f"{labels[0]} came to {ends[0]}, {labels[1]} to {ends[1]}."
    return Chart(name, title, words, drawn, {"best": rows}, columns, rows)


def _span(values: list[float]) -> float:
    return max(values) - min(values) or abs(values[0]) * 0.01


def _labels(first: Path, second: Path) -> tuple[str, str]:
    """Names for two folders: their own, with the folder above where those are equal."""
    paths = [path.resolve() for path in (first, second)]
    for depth in range(1, max(len(path.parts) for path in paths)):
        one, other = (_plain("-".join(path.parts[-depth:])) for path in paths)
        if one != other:
            return one, other
    return "first", "second"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "study"

"""Trials in words: a line per decision, tables, a curve in one row of characters.

with narrated(out, folder) as on_event:     # live on a terminal, lines anywhere else
    loop.run(..., on_event=on_event)
"""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from autoresearch.console import Output
from autoresearch.engine.proposers.text import one_line
from autoresearch.engine.trial import Trial, TrialStatus

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#@"
JSON_PROGRESS_EVERY = 10.0  # seconds
# Many a second; under --json one of each run now and then.
PROGRESS_EVENTS = ("preparing", "progress", "scoring")
COLUMNS = (">trial", "status", ">score", ">effect", ">sure", ">runs", "idea")
Event = Callable[[str, Mapping[str, Any]], None]


def number(value: float | None, form: str = ".6f") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def decision_line(trial: Trial) -> str:
    """`trial 3  discard  1.234567 (+0.0021)  DEPTH: 8 -> 6: worse: ...`."""
    words = [f"trial {trial.id}", f"{trial.status:<8}"]
    if trial.score is not None:
        effect = "" if trial.delta is None else f" ({trial.delta:+.4f})"
        words.append(f"{trial.score:.6f}{effect}")
    return "  ".join([*words, f"{one_line(trial.description, 500)}: {trial.reason}"])


def sure(confidence: float | None) -> str:
    """A confidence in percent; what isn't certain doesn't look so."""
    nearly = confidence is not None and 0.995 <= confidence < 1
    return ">99%" if nearly else number(confidence, ".0%")


def row(trial: Trial) -> list[str]:
    """A trial as cells of COLUMNS."""
    runs = len(trial.replicates) + len(trial.champion_replicates)
    return [
        str(trial.id),
        str(trial.status),
        number(trial.score),
        number(trial.delta, "+.4f"),
        sure(trial.confidence),
        str(runs),
        one_line(trial.description, 500),
    ]


def show_trials(out: Output, trials: Sequence[Trial]) -> None:
    """The table of trials. Effects are against the champion of the time.

    Written line by line: thousands of rows take a fraction of a second. On a terminal the idea is
    broken to its width; anywhere else a trial is one line.
    """
    if out.json_mode:
        return
    rows = [row(trial) for trial in trials]
    names = [name.removeprefix(">") for name in COLUMNS]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)][:-1]
    left = 1 + sum(widths) + 2 * len(widths)
    room = max(20, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else 0

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if name.startswith(">") else cell.ljust(width)
            for name, width, cell in zip(COLUMNS, widths, cells, strict=False)
        ]
        idea = textwrap.wrap(cells[-1], room) if room else [cells[-1]]
        return " " + "  ".join([*aligned, ("\n" + " " * left).join(idea)]).rstrip()

    out.heading(line(names))
    if rows:
        click.echo("\n".join(map(line, rows)))


def extra_runs(count: int) -> str:
    """What deciding surely has cost beyond one run each; "" for none."""
    return f"{count} extra run{'' if count == 1 else 's'} to be sure" if count else ""


def together(kept: Sequence[Trial]) -> float | None:
    """What a lineage came to. Each effect was measured seed by seed; plain scores were not.

    None where the steps have several score ids: such effects don't add up.
    """
    if len({trial.score_id for trial in kept[1:]}) > 1:
        return None
    return sum(trial.delta or 0.0 for trial in kept[1:])


def show_kept(out: Output, metric: str, kept: Sequence[Trial]) -> None:
    """The champions in order, and what they came to together."""
    show_trials(out, kept)
    if kept:
        out.say(verdict(metric, kept))


def verdict(metric: str, kept: Sequence[Trial]) -> str:
    """A lineage in a sentence: which is best, by how much, and how sure that is."""
    first, best, steps = kept[0], kept[-1], len(kept) - 1
    if not steps:
        return f"Best: the baseline, {metric} {number(first.score)}. No edit of it is kept."
    gain = together(kept)
    words = f"Best: trial {best.id}, {metric} {number(best.score)}"
    if gain is None:
        words += "; the steps were measured under several score ids, so they don't add up"
    else:
        compares = first.score and first.score_id == best.score_id
        share = f" ({abs(gain / first.score):.1%})" if first.score and compares else ""
        words += f": {gain:+.4f}{share} against the baseline"
    sure = [trial.confidence for trial in kept[1:] if trial.confidence is not None]
    each = f", in {steps} steps" if steps > 1 else ""
    if len(sure) == steps:
        least = "over 99.9%" if min(sure) > 0.999 else f"{'at least ' * (steps > 1)}{min(sure):.1%}"
        each += f", {'each ' if each else ''}decided with {least} confidence"
    return f"{words}{each}."


def sparkline(curve: Sequence[tuple[float, float]], width: int = 60, encoding: str = "") -> str:
    """The losses of a curve in one row; "" where there is no finite one."""
    losses = [loss for _, loss in curve if math.isfinite(loss)]
    if not losses:
        return ""
    if len(losses) > width:
        losses = [losses[round(i * (len(losses) - 1) / (width - 1))] for i in range(width)]
    return "".join(_bars(losses, min(losses), max(losses), encoding))


def compared(
    own: Sequence[tuple[float, float]],
    other: Sequence[tuple[float, float]],
    budget: float,
    width: int,
    encoding: str = "",
) -> tuple[str, str]:
    """Two curves in a row of characters each, on one scale, both from 0 to the whole budget.

    budget: in the unit of the curves' first column. A row ends where its curve does.
    """
    rows = [_binned(curve, budget, width) for curve in (own, other)]
    losses = sorted(rows[0] + rows[1])
    if not losses:
        return "", ""
    # The fall of the first steps would flatten all that follows.
    low, high = losses[0], losses[int(0.9 * (len(losses) - 1))]
    first, second = ("".join(_bars(row, low, high, encoding)) for row in rows)
    return first, second


def _binned(curve: Sequence[tuple[float, float]], budget: float, width: int) -> list[float]:
    """Mean loss in each of `width` parts of the budget, as far as the curve goes."""
    bins: list[list[float]] = [[] for _ in range(width)]
    for spent, loss in curve:
        if math.isfinite(loss):
            bins[min(width - 1, max(0, int(width * spent / budget)))].append(loss)
    found: list[float] = []
    filled = [number for number, inside in enumerate(bins) if inside]
    for inside in bins[: filled[-1] + 1 if filled else 0]:
        level = sum(inside) / len(inside) if inside else None
        found.append(level if level is not None else found[-1] if found else bins[filled[0]][0])
    return found


def _bars(losses: Sequence[float], low: float, high: float, encoding: str) -> list[str]:
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "ascii"
    bars = BARS if encoding.lower().replace("-", "").startswith("utf") else ASCII_BARS
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return [bars[min(len(bars) - 1, max(0, round((loss - low) * scale)))] for loss in losses]


@contextmanager
def narrated(out: Output, folder: Path | None = None) -> Iterator[Event]:
    """A callback for a loop's events: JSON lines, a live view, or a line per decision.

    folder: whose study the loop works on; a terminal then shows the trial under way beside the
    champion, what was tried, until when, and what that cost.
    """
    if out.json_mode:
        yield _JsonLines(out)
        return
    if not sys.stderr.isatty():
        yield _Narrator(out, lambda name, data: None)
        return
    from autoresearch.live_run import LiveRun

    with out.drawing() as console:
        if console.is_dumb_terminal:  # it can't go back to a line
            yield _Narrator(out, lambda name, data: None)
            return
        with LiveRun(console, folder) as live:
            yield _Narrator(out, live)


class _JsonLines:
    """Every event of the loop, and progress now and then."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._last: dict[tuple[Any, Any], float] = {}  # by trial and run

    def __call__(self, name: str, data: Mapping[str, Any]) -> None:
        if name == "decided":
            self._last.clear()
        if name in PROGRESS_EVENTS:
            whose = data.get("id"), data.get("run")
            if time.monotonic() - self._last.get(whose, -math.inf) < JSON_PROGRESS_EVERY:
                return
            self._last[whose] = time.monotonic()
        self._out.event(name, data)


class _Narrator:
    """Decisions and warnings as lines; the rest goes to what is live."""

    def __init__(self, out: Output, live: Callable[[str, dict[str, Any]], None]) -> None:
        self._out, self._live, self._prefix = out, live, ""

    def __call__(self, name: str, data: Mapping[str, Any]) -> None:
        if name == "decided":
            trial = Trial.from_dict(data["trial"])
            style = "green" if trial.status is TrialStatus.KEEP else None
            self._out.say(decision_line(trial), style=style)
        elif name == "no_proposal":
            self._out.say(f"no proposal: {data['problem']}")
        elif name == "pause":
            words = f"pausing for {duration(data['seconds'])}"
            self._out.say(f"{words}: {one_line(str(data['reason']), 500)}")
            self._live("phase", {"phase": words})
        elif name == "held":
            self._out.say("paused: somebody asked for it, and may resume it")
            self._live("phase", {"phase": "paused"})
        elif name == "warning":
            which = f"trial {data['id']}: " if "id" in data else ""
            self._out.warn(which + str(data["message"]).removeprefix(which))
        elif name == "proposing":
            self._live("phase", {"phase": f"asking {data['proposer']}"})
        elif name == "run":
            label = "" if data["label"] == "candidate" else f" {data['label']}"
            self._prefix = f"trial {data['id']}{label} seed {data['seed']}"
        elif name == "phase":
            which = f"trial {data['id']} {data['run']}" if "run" in data else self._prefix
            self._live("phase", {"phase": f"{which}: {data.get('phase', '')}".lstrip(": ")})
        elif name != "ran":
            self._live(name, {key: item for key, item in data.items() if key != "task"})

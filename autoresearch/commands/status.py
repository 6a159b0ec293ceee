"""`autoresearch status`: where the study stands, and what runs now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output

EVERY = 1.0  # seconds between two looks


@click.command("status")
@click.option("--watch", "-w", is_flag=True, help="Go on showing it until the loop ends.")
@click.option("--stay", is_flag=True, help="With --watch: go on when the loop ends, too.")
@workspace_option
@json_option
def command(watch: bool, stay: bool, folder: Path, json_mode: bool) -> None:
    """The champion, the noise, how trials ended, what proposals cost, and what runs now.

    It reads files alone and disturbs nothing: any number may watch. With --watch a terminal shows
    the trial under way beside the champion's curve, once a second; Ctrl-C ends that. Anywhere else
    a line is printed per change, with --json a document per line. A study that has not begun is
    waited for. For an agent that calls `trial` again and again take --stay.
    """
    from autoresearch.console import Output
    from autoresearch.standing import Look

    if stay and not watch:
        raise click.UsageError("--stay goes with --watch")
    out = Output(json_mode)
    look = Look(folder)
    if watch:
        watch_study(out, look, stay)
        return
    document = look()
    show(out, document)
    out.result(document, then=next_steps(document, folder))


def next_steps(document: dict[str, Any], folder: Path) -> list[str]:
    """What to do from here."""
    from autoresearch.opening import go_on, there

    if document["running"]:
        steps = [f"autoresearch status --watch{there(folder)}    follow it"]
    else:
        steps = [f"{go_on(folder)}    {'go on' if document['trials'] else 'begin'}"]
    if document["trials"]:
        steps.insert(0, f"autoresearch results{there(folder)}    every trial")
    return steps


def show(out: Output, document: dict[str, Any]) -> None:
    """The document as lines."""
    from autoresearch.console import describe, left_words
    from autoresearch.live import beside, doing, extent, rows, warning_of

    lines = [*rows(document), ("running", document["running"] or "nothing")]
    if document["killed"]:
        lines[-1] = ("running", "nothing; the last one was killed")
    ends = extent(document)
    if ends:
        lines.append(("budget", ends))
    at = doing(document)
    run = document["now"].get("run", {})
    if document["now"].get("phase") == "training":
        figures = "  ".join(filter(None, (describe(run), left_words(run))))
        at.insert(len(at) - len(beside(document)), figures)
    warning = warning_of(document)
    at += [f"warning: {warning}"] if warning else []
    names = ["now", *[""] * len(at)]
    out.facts([*lines, *zip(names, at, strict=False)])


# -- watching ------------------------------------------------------------------------------------


def watch_study(
    out: Output, look: Callable[[], dict[str, Any]], stay: bool, every: float = EVERY
) -> None:
    """Show the study until the loop ends or Ctrl-C comes."""
    ran = False
    with picture(out) as draw:
        try:
            while True:
                document = look()
                ran = ran or bool(document["running"])
                draw({**document, "over": over(document, ran)})
                if over(document, ran) and not stay:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def over(document: dict[str, Any], ran: bool) -> bool:
    """Whether the loop has ended; a study without a trial has yet to begin, unless one `ran`."""
    return not document["running"] and bool(document["trials"] or document["killed"] or ran)


@contextmanager
def picture(out: Output) -> Iterator[Callable[[dict[str, Any]], None]]:
    """How the document is shown, again and again: a live view, JSON lines or plain lines."""
    from rich.console import Console

    console = Console(highlight=False)
    if out.json_mode:
        yield JsonLines()
    elif not sys.stdout.isatty() or console.is_dumb_terminal:
        yield PlainLines()
    else:
        with live_view(console) as draw:
            yield draw


class JsonLines:
    """A document per line, whenever it says something new: a step of a run counts."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, document: dict[str, Any]) -> None:
        """Print it, unless only time has passed."""
        from autoresearch.console import to_json

        mark = to_json({**document, "at": None, "pace": None})
        if mark != self._last:
            self._last = mark
            print(to_json(document), flush=True)


class PlainLines:
    """A line per decision, and per run that begins."""

    def __init__(self) -> None:
        self._last: object = None
        self._decided: int | None = None

    def __call__(self, document: dict[str, Any]) -> None:
        """Print what is new, if anything is."""
        from autoresearch.live import decision_of, one_line_of

        latest = max((item["id"] for item in document["recent"]), default=-1)
        for item in document["recent"]:
            if self._decided is not None and item["id"] > self._decided:
                self._print(decision_of(item))
        self._decided = latest
        now = {**document["now"], "at": None}
        names = ("id", "description", "number", "label", "seed")
        if "flight" in now:
            now["flight"] = [
                {name: run[name] for name in names if name in run} for run in now["flight"]
            ]
        if "run" in now:
            now["run"] = {name: now["run"][name] for name in names if name in now["run"]}
            now["phase"] = ""
        if (mark := {**document, "at": None, "now": now, "pace": None}) != self._last:
            self._last = mark
            self._print(one_line_of({**document, "now": now}))

    def _print(self, words: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {words}", flush=True)


@contextmanager
def live_view(console: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """The whole terminal, redrawn; the last frame stays when it is given back."""
    from rich.live import Live

    from autoresearch.live import frame

    last: list[dict[str, Any]] = []
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def draw(document: dict[str, Any]) -> None:
            last[:] = [document]
            note = "Ctrl-C ends this view alone"
            live.update(frame(document, console, note, console.height), refresh=True)

        yield draw
    if last:
        console.print(frame(last[0], console))

"""`autoresearch demo`: see a model train on this machine, and a search improve it."""

from __future__ import annotations

import shlex
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import SECONDS, backend_option, json_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.demo import DemoReport, Entry
    from autoresearch.demo_search import SearchReport


# All of the demo should take less than five minutes on two cores. Where the first part took long
# the search gets less, though not less than its baseline needs.
WHOLE_SECONDS = 265.0
LEAST_SECONDS = 50.0


@click.command("demo")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--seconds", type=SECONDS, help="Training time of each backend.  [default: 30 shared]"
)
@click.option(
    "--trials",
    type=click.IntRange(min=0),
    help="Trials of the search, without a deadline; 0 for no search.  [default: 110 s of them]",
)
@backend_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path | None,
    seconds: float | None,
    trials: int | None,
    backend: str | None,
    json_mode: bool,
) -> None:
    """Train a small model here, then let `search` look for a better one; under five minutes.

    Writes its own text (stories from a grammar whose true entropy is known), trains a tokenizer and
    a model on torch and on MLX where it is installed, scores them and samples a story. Then makes a
    workspace and runs trials in it, as `autoresearch run` does. Needs no network and no GPU.

    FOLDER keeps train.py, settings and runs, and the workspace in FOLDER/search; without it they go
    to the cache. A second time the models are trained anew, and the search goes on where it ended.
    """
    from autoresearch.console import Output
    from autoresearch.demo import frameworks_here, run_demo
    from prepare.cache import cache_root

    began = time.monotonic()
    out = Output(json_mode)
    place = folder if folder is not None else cache_root() / "demo"
    names = (backend,) if backend and backend != "auto" else frameworks_here()
    wanted = _wanted(out, trials)
    out.say(f"Training the demo preset on {' and '.join(names)}.")
    out.say("Without torch.compile, which pays in minutes, not in seconds.")
    report = run_demo(place, seconds, names, out.progress)
    show(out, report)
    trained = [entry.backend for entry in report.entries if not entry.failure]
    found = None
    if wanted and trained:
        left = max(LEAST_SECONDS, WHOLE_SECONDS - (time.monotonic() - began))
        found = _search(out, place / "search", trained[0], trials, left)
    seconds_spent = time.monotonic() - began
    out.say()
    out.say(f"All of it took {seconds_spent:.0f} s. Everything is in {place}")
    document = {**report.to_dict(), "seconds": seconds_spent}
    document["search"] = None if found is None else found.to_dict()
    out.result(document, then=_next(folder, found))
    if not trained:
        ctx.exit(5)


def _wanted(out: Output, trials: int | None) -> bool:
    """Whether to search. A workspace needs git; training can be seen without."""
    from autoresearch.init import git_version
    from prepare.errors import MissingTool

    if trials == 0:
        return False
    try:
        git_version()
    except MissingTool as missing:
        out.warn(f"{missing.message}: no search after the training; {missing.hint}")
        return False
    return True


def _search(
    out: Output, folder: Path, backend: str, trials: int | None, left: float
) -> SearchReport:
    """The last part, told as `run` and `results` tell it, and then in two sentences."""
    from autoresearch.commands.run import stopping
    from autoresearch.demo_search import (
        RUN_SECONDS,
        SEARCH_SECONDS,
        SEARCHED,
        run_search,
        search_workspace,
    )
    from autoresearch.narration import narrated, show_trials

    _, there = search_workspace(folder, backend)
    out.say()
    out.heading(f"{'More of the' if there else 'A'} search for a better train.py")
    out.say(
        f"Each trial gives {', '.join(SEARCHED)} other values and trains\n"
        f"for {RUN_SECONDS:.0f} s on {backend}; first the baseline, on three seeds.\n"
        f"The workspace is {folder}"
    )
    if there:
        out.say("Its earlier trials count; remove the folder to begin anew.")
    limit = min(SEARCH_SECONDS, left) if trials is None else None
    with narrated(out) as on_event:
        report = run_search(
            folder, backend, trials, limit, on_event, lambda loop: stopping(loop, out)
        )
    out.say(f"Ended: {report.reason}.")
    if report.trials:
        show_trials(out, report.trials)
    out.say(_wrap(report.meaning))
    return report


def show(out: Output, report: DemoReport) -> None:
    """The table, the floor and the stories."""
    out.table(
        ("backend", "device", ">val_bpb", ">floor", ">tokens/s", ">MFU", ">trained"),
        [_cells(entry) for entry in report.entries],
    )
    for entry in report.entries:
        if entry.failure:
            out.say(f"{entry.backend} failed: {entry.failure}", style="red")
    if report.floor_bpb is not None:
        out.say(
            "val_bpb is bits per byte of text never trained on; lower is better. The floor is the\n"
            f"text's true entropy: no model gets below {report.floor_bpb:.4f}."
        )
    for entry in report.entries:
        if entry.story:
            out.say()
            out.heading(f"A story by the model trained on {entry.backend}")
            out.say(textwrap.indent(_wrap(entry.story), "  "))


def _cells(entry: Entry) -> list[str]:
    if entry.failure:
        return [entry.backend, entry.device, "failed", "", "", "", ""]
    mfu = entry.mfu_percent if entry.mfu_percent is not None else entry.mfu_measured_percent
    kind = "" if entry.mfu_percent is not None else " of measured peak"
    return [
        entry.backend,
        entry.device,
        f"{entry.val_bpb:.4f}",
        "?" if entry.floor_bpb is None else f"{entry.floor_bpb:.4f}",
        f"{entry.tokens_per_second:,.0f}",
        "?" if mfu is None else f"{mfu:.1f}%{kind}",
        f"{entry.training_seconds:.0f} s",
    ]


def _wrap(story: str) -> str:
    return "\n".join(textwrap.fill(line, 92) for line in story.strip().splitlines())


def _next(folder: Path | None, found: SearchReport | None) -> list[str]:
    steps = [
        "autoresearch doctor                           what this machine has, and how it is used",
        "autoresearch init my-research --preset auto   a workspace for real research",
        "autoresearch run --hours 8                    in there: a night of trials, no key needed",
    ]
    if folder is not None:
        steps.insert(0, f"edit {folder / 'train.py'} and run `autoresearch train` there")
    if found is not None and found.champion is not None:
        where = f"--dir {shlex.quote(found.folder)}"
        steps[:0] = [
            f"autoresearch show {found.champion} {where}   the champion's diff, curve and reasons",
            f"autoresearch results {where}   this table again",
        ]
    return steps

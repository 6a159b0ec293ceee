"""`autoresearch demo`: see a model train on this machine, in a few minutes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import SECONDS, backend_option, json_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.demo import DemoReport, Entry


@click.command("demo")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--seconds", type=SECONDS, help="Training time of each backend.  [default: 60 shared]"
)
@backend_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path | None,
    seconds: float | None,
    backend: str | None,
    json_mode: bool,
) -> None:
    """Train a small model here, on torch and on MLX where it is installed.

    Writes its own text (stories from a grammar whose true entropy is known), trains a tokenizer and
    a model on each framework, scores them and samples a story. Needs no network and no GPU. FOLDER
    keeps train.py, settings and runs; without it they go to the cache.
    """
    from autoresearch.console import Output
    from autoresearch.demo import frameworks_here, run_demo
    from prepare.cache import cache_root

    out = Output(json_mode)
    place = folder if folder is not None else cache_root() / "demo"
    names = (backend,) if backend and backend != "auto" else frameworks_here()
    out.say(f"Training the demo preset on {' and '.join(names)}.")
    report = run_demo(place, seconds, names, out.progress)
    show(out, report)
    out.result(report.to_dict(), then=_next(folder))
    if all(entry.failure for entry in report.entries):
        ctx.exit(5)


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
    out.say()
    out.say(f"All of it took {report.seconds:.0f} s. train.py and the runs are in {report.folder}")


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


def _next(folder: Path | None) -> list[str]:
    steps = [
        "autoresearch doctor                           what this machine has, and how it is used",
        "autoresearch init my-research --preset auto   a workspace for real research",
    ]
    if folder is not None:
        steps.insert(0, f"edit {folder / 'train.py'} and run `autoresearch train` there")
    return steps

"""`autoresearch report`: the night as a page, a picture and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output


@click.command("report")
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: report-TAG beside the ledger]",
)
@click.option("--open", "show", is_flag=True, help="Show the page in your browser.")
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(exists=True, path_type=Path),
    metavar="A B",
    help="Two studies side by side, by their folders, in place of one.",
)
@workspace_option
@json_option
def command(
    target: Path | None,
    show: bool,
    compare: tuple[Path, Path] | None,
    folder: Path,
    json_mode: bool,
) -> None:
    """Make the report of a study: what was tried, what it did, where the time went.

    \b
    report.html     one file that works offline: charts, kept ideas with their edits, tables
    progress.png    every trial, and the best so far
    report.md       the figures and kept ideas as Markdown

    It reads files alone: make it while a run goes on, and again. An earlier report in the folder
    is replaced. With --compare it is compare.html of two studies that were measured alike; others
    are refused with the reason.
    """
    from autoresearch.console import Output

    out = Output(json_mode)
    made = _compared(compare, target) if compare else _reported(folder, target)
    _tell(out, made)
    page = Path(made["folder"]) / made["files"][0]
    if show and not _opened(page):
        out.warn(f"no browser could be started: open {page} yourself")
    out.result(made, then=[] if show else [f"open {page} in a browser, or add --open"])


def _reported(folder: Path, target: Path | None) -> dict[str, Any]:
    """Write the report of one study; what `--json` says of it."""
    from autoresearch.opening import open_study
    from autoresearch.report.facts import verdict
    from autoresearch.report.files import write_report
    from autoresearch.report.story import story_of

    study = open_study(folder)
    story = story_of(study)
    place = _place(target, study.root / f"report-{study.tag}")
    names = ("tag", "metric", "direction", "champion", "baseline", "best", "score_id", "noise")
    return {
        "folder": str(place),
        "files": write_report(study, story, place),
        "verdict": verdict(story),
        **{name: story[name] for name in (*names, "floor", "totals", "lineage", "kinds")},
    }


def _compared(both: tuple[Path, Path], target: Path | None) -> dict[str, Any]:
    """Write two studies side by side. Raises DataError where they can't be compared."""
    from autoresearch.report.compare import compare, write_comparison

    found = compare(*both)
    place = _place(target, Path(f"compare-{found.labels[0]}-{found.labels[1]}"))
    return {"folder": str(place), "files": write_comparison(found, place), **found.to_dict()}


def _place(target: Path | None, usual: Path) -> Path:
    """The folder to write to, made; the usual one is overlooked by git."""
    place = target or usual
    place.mkdir(parents=True, exist_ok=True)
    if target is None:
        (place / ".gitignore").write_text("*\n", encoding="utf-8")
    return place.resolve()


def _tell(out: Output, made: dict[str, Any]) -> None:
    out.heading(made["verdict"])
    for name in made["files"]:
        out.say(f"  {Path(made['folder']) / name}")


def _opened(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.as_uri())

"""`autoresearch clean`: what cache and workspace hold, and removing what can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import NearChoice, json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.cleaning import Heap
    from autoresearch.console import Output

# Those of `cleaning`; help then loads nothing. A test compares the two.
CACHE = ("compiled", "corpora", "prepared", "probes", "demo", "dashboard")
STUDY = ("scratches", "runs", "weights", "trackers")
ALL = "all"
BY_NAME = "trackers"  # it alone goes by its own name alone


@click.command("clean")
@click.argument(
    "names", nargs=-1, type=NearChoice("kind", (*CACHE, *STUDY, ALL)), metavar="[KIND]..."
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@workspace_option
@json_option
def command(
    names: tuple[str, ...], dry_run: bool, yes: bool, folder: Path, json_mode: bool
) -> None:
    """Say what the cache and this workspace hold, with sizes; remove the kinds that are named.

    \b
    Of the cache (AUTORESEARCH_CACHE, else the user's):
      compiled    compiled kernels             corpora    downloaded text
      prepared    tokens                       probes     speed figures
      demo        the demo's runs              dashboard  its charts' program
    Of the workspace:
      scratches   copies that a killed run left
      runs        logs and edits of trials that weren't kept, and of earlier studies
      weights     weights of earlier studies
      trackers    what trackers wrote in this workspace
    all           all of these but trackers

    All of it can be made or fetched again, but for logs and what trackers wrote: the ledger, the
    champions and git keep what was measured and edited. What something that runs is using is
    refused.
    """
    from autoresearch.cleaning import heaps
    from autoresearch.console import Output
    from prepare.cache import cache_root

    out = Output(json_mode)
    found = heaps(folder)
    wanted = {heap.name for heap in found} - {BY_NAME} if ALL in names else set()
    wanted |= set(names) - {ALL}
    missing = wanted - {heap.name for heap in found}
    if missing:
        raise click.UsageError(f"{folder.resolve()} is no workspace: it has no {missing.pop()}")
    chosen = [heap for heap in found if heap.name in wanted and heap.places]
    shown = chosen if names else found
    sizes = {heap.name: heap.bytes for heap in shown}
    out.say(f"The cache is {cache_root()}")
    out.table(
        ("kind", ">size", "what"),
        [[heap.name, in_words(sizes[heap.name]), heap.what] for heap in shown],
    )
    freed: dict[str, int] = {}
    if names and not dry_run:
        freed = clear(out, chosen, folder, yes, sum(sizes.values()))
    document = {
        "cache": str(cache_root()),
        "kinds": {
            heap.name: {"bytes": sizes[heap.name], "places": [str(p) for p in heap.places]}
            for heap in shown
        },
        "freed": freed,
    }
    out.result(document, then=[] if names else ["autoresearch clean compiled    removes one kind"])


def clear(out: Output, chosen: list[Heap], folder: Path, yes: bool, total: int) -> dict[str, int]:
    """Ask, and remove; bytes freed by kind. Raises DataError for what is in use."""
    from autoresearch.cleaning import remove, unused

    with unused(chosen, folder):
        pass  # who can't have it needn't be asked
    if not chosen:
        out.say("Nothing to remove")
    elif not yes:
        if out.json_mode:
            raise click.UsageError("--json asks nothing: add --yes to remove, or --dry-run")
        names = ", ".join(heap.name for heap in chosen)
        click.confirm(f"Remove {names}: {in_words(total)}?", abort=True, err=True)
    with unused(chosen, folder):  # the answer may have taken an hour
        freed = {heap.name: remove(heap) for heap in chosen}
    if chosen:
        out.say(f"Freed {in_words(sum(freed.values()))}")
    return freed


def in_words(n_bytes: int) -> str:
    """`1.2 GB`, `34 MB`, `5 kB`."""
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= each:
            return f"{n_bytes / each:.{1 if n_bytes < 10 * each else 0}f} {unit}"
    return f"{n_bytes} B"

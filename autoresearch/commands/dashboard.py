"""`autoresearch dashboard`: the study as web pages on this machine, live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option

if TYPE_CHECKING:
    from autoresearch.console import Output


@click.command("dashboard")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("."), required=False)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Listen on this port.  [default: the first free one from 8642]",
)
@click.option("--no-open", is_flag=True, help="Don't open a browser.")
@json_option
def command(folder: Path, port: int | None, no_open: bool, json_mode: bool) -> None:
    """Show the study of FOLDER, a workspace or a task, as web pages that follow it live.

    \b
    Night      the progress chart, the trial under way, every trial
    Champion   its lineage, what each step brought, its files
    Machine    how busy it is, tokens/s and MFU over the night
    Notes      your word to whoever proposes; pause, resume, stop after this trial

    It listens on 127.0.0.1 alone and needs no internet. The address that it prints has a token:
    without it, pages and other programs can neither read nor change anything. It reads files and
    disturbs no run; any number may watch, and Ctrl-C ends it alone. For a machine elsewhere:

    \b
      ssh -L 8642:127.0.0.1:8642 MACHINE      then open the printed address here
    """
    from autoresearch.console import Output
    from autoresearch.dashboard.serve import serve

    out = Output(json_mode)

    def announce(document: dict[str, Any]) -> None:
        tell(out, document)

    serve(folder, port, browse=not (no_open or json_mode), announce=announce)


def tell(out: Output, document: dict[str, Any]) -> None:
    """Where the dashboard is; with --json a line, as it goes on running."""
    out.event("dashboard", document)
    out.say(f"Dashboard of {document['folder']}:")
    out.say()
    out.say(f"  {document['url']}")
    out.say()
    out.say("The address is a key: keep it to yourself. Ctrl-C ends the dashboard, no run.")

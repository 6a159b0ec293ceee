"""`autoresearch config`: every setting of a workspace, its value, and where that comes from."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    NearChoice,
    attention_option,
    backend_option,
    json_option,
    workspace_option,
)

if TYPE_CHECKING:
    from autoresearch.configuration import Setting


@click.command("config")
@click.option(
    "--policy", type=NearChoice("policy", ("confirm", "greedy")), metavar="NAME", help="As of run."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="As of run.",
)
@click.option("--changed", is_flag=True, help="Leave out what is as by default.")
@backend_option
@attention_option
@workspace_option
@json_option
def command(folder: Path, changed: bool, json_mode: bool, **options: Any) -> None:
    """Every setting of a workspace, its value, and where that comes from.

    \b
    The first that says something wins:
      1  an option of the command, such as --backend or --policy
      2  an environment variable, AUTORESEARCH_... and a few of the hub's
      3  autoresearch.toml, where `init` wrote the values of the preset
      4  the default

    With options it shows what a command that was given them would take. Change a setting in
    autoresearch.toml: a study goes on under the new one, and measures its champion by it too.
    train.py's own constants are the program's, and no settings.
    """
    from autoresearch.configuration import DEFAULT, configuration
    from autoresearch.console import Output

    out = Output(json_mode)
    settings = configuration(folder, options)
    if changed:
        settings = [setting for setting in settings if setting.source != DEFAULT]
    for table, group in groupby(settings, lambda setting: table_of(setting.name)):
        out.heading(f"[{table}]" if table else "Environment")
        out.facts([(item.name.removeprefix(f"{table}."), words(item)) for item in group])
    document = {
        item.name: {"value": item.value, "source": item.source, "what": item.what}
        for item in settings
    }
    out.result({"settings": document})


def table_of(name: str) -> str:
    """The table of autoresearch.toml that a setting stands in, "" for a variable."""
    return name.partition(".")[0] if "." in name else ""


def words(setting: Setting) -> str:
    """A setting's value, its source, and what it is."""
    value = setting.value
    text = "none" if value in (None, [], ()) else str(value)
    return f"{text}  ({setting.source})" + (f"  {setting.what}" if setting.what else "")

"""`autoresearch mcp`: a workspace's study for agents that speak MCP."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import NearChoice, json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.mcp_server.clients import FileEdit

CLIENTS = ("claude", "codex", "gemini")  # those of mcp_server.clients; help then loads nothing


@click.command("mcp")
@click.option(
    "--install",
    "client",
    type=NearChoice("agent", CLIENTS),
    metavar="NAME",
    help=f"Write into the workspace what tells {', '.join(CLIENTS)} of the server, with the skill.",
)
@click.option("--plugin", is_flag=True, help="Say how an agent installs it for every folder.")
@click.option("--yes", is_flag=True, help="With --install: write without asking.")
@workspace_option
@json_option
def command(client: str | None, plugin: bool, yes: bool, folder: Path, json_mode: bool) -> None:
    """Serve the workspace to an agent over MCP, on standard input and output.

    \b
      autoresearch mcp --install claude    show and write the agent's settings files
      autoresearch mcp --plugin            or install it once, as a plugin
      autoresearch mcp                     what the agent then starts by itself

    Tools: status, history, champion, show_trial and read_log look; propose_trial measures an edit
    by the same checks and policy as `autoresearch trial`. Resources: program.md and the champion's
    train.py. Each agent has a process of its own; any number may look at once, and one trial runs
    at a time. When the agent goes, the trial under way is dropped.
    """
    from autoresearch.console import Output

    if client is not None:
        install(Output(json_mode), client, folder, yes)
    elif yes:
        raise click.UsageError("--yes goes with --install")
    elif plugin:
        show_plugin(Output(json_mode))
    else:
        serve(folder)


def serve(folder: Path) -> None:
    """Speak MCP until standard input ends. Raises MissingTool without the SDK."""
    from prepare.errors import MissingTool

    try:
        from autoresearch.mcp_server.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        hint = "pip install 'autoresearch[mcp]'"
        raise MissingTool("the MCP SDK is not installed", hint) from error
    if sys.stdin.isatty():
        click.echo(
            "Waiting for an agent's requests, which come from the agent that starts this: see "
            "`autoresearch mcp --help`. Ctrl-D ends it.",
            err=True,
        )
    make_server(folder).run("stdio")


def show_plugin(out: Output) -> None:
    """Where the plugin lies, and each client's own command."""
    from autoresearch.mcp_server.clients import plugin_commands, plugin_folder

    out.say(f"The plugin, with the server and the skill: {plugin_folder()}")
    out.result({"folder": str(plugin_folder())}, then=plugin_commands())


def install(out: Output, client: str, folder: Path, yes: bool) -> None:
    """Show what a client has to be told, ask, and write it."""
    from autoresearch.mcp_server.clients import edits_for
    from autoresearch.opening import in_git
    from prepare.settings import Settings

    Settings.load(folder)  # a folder that is no workspace is told so
    edits = [edit for edit in edits_for(client, folder) if edit.new]
    for edit in edits:
        show_edit(out, edit)
    if not edits:
        out.say(f"{client} knows of it already")
    elif not yes:
        if out.json_mode:
            raise click.UsageError("--json asks nothing: add --yes to write the files")
        click.confirm("Write this?", abort=True, err=True)
    for edit in edits:
        edit.write()
    root = folder.resolve()
    paths = [edit.path.relative_to(root).as_posix() for edit in edits]
    document: dict[str, Any] = {"client": client, "written": paths}
    git = f"git{in_git(folder)}"
    commit = f"{git} add -f {shlex.join(paths)} && {git} commit -m 'Tell {client} of the server'"
    then = [f"{commit}    or trials by hand are refused"] if paths else []
    out.result(document, then=[*then, f"start {client} in {root}"])


def show_edit(out: Output, edit: FileEdit) -> None:
    """The lines of a file that are new."""
    import difflib

    out.heading(f"{edit.path}  ({'new' if edit.before is None else 'changed'})")
    if edit.path.suffix == ".md":
        out.say(f"  the skill, {len(edit.text.splitlines())} lines")
        return
    old, new = (edit.before or "").splitlines(), edit.text.splitlines()
    for line in difflib.unified_diff(old, new, n=1, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            out.say(f"  {line}")

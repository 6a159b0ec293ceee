"""`autoresearch mcp`: a workspace's study for agents that speak MCP."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("mcp")
@workspace_option
@json_option
def command(folder: Path, json_mode: bool) -> None:
    """Serve the workspace to an agent over MCP, on standard input and output.

    Tools: status, history, champion, show_trial and read_log look; propose_trial measures an edit
    by the same checks and policy as `autoresearch trial`. Resources: program.md and the champion's
    train.py. An agent starts this itself, one process per agent; any number may look at once, and
    one trial runs at a time. When the agent goes, the trial under way is dropped.
    """
    from prepare.errors import MissingTool

    try:
        from autoresearch.mcp_server.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise MissingTool(
            "the MCP SDK is not installed", "pip install 'autoresearch[mcp]'"
        ) from error
    make_server(folder).run("stdio")

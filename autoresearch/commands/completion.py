"""`autoresearch completion`: the script that lets a shell complete our words."""

from __future__ import annotations

import os
from pathlib import Path

import click

from autoresearch.options import NearChoice, json_option

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": 'eval "$(autoresearch completion bash)"    in ~/.bashrc (bash 4.4 or later)',
    "zsh": 'eval "$(autoresearch completion zsh)"     in ~/.zshrc, after compinit',
    "fish": "autoresearch completion fish > ~/.config/fish/completions/autoresearch.fish",
}


@click.command("completion")
@click.argument("shell", type=NearChoice("shell", SHELLS), metavar="[SHELL]", required=False)
@json_option
def command(shell: str | None, json_mode: bool) -> None:
    """Print the script that completes commands, options, presets, trials and proposers at TAB.

    \b
    To have it in every shell, add this line:
      bash    eval "$(autoresearch completion bash)"    to ~/.bashrc (bash 4.4 or later)
      zsh     eval "$(autoresearch completion zsh)"     to ~/.zshrc, after compinit
      fish    autoresearch completion fish > ~/.config/fish/completions/autoresearch.fish

    SHELL is bash, zsh or fish; the one that $SHELL names unless given.
    """
    from click.shell_completion import get_completion_class

    from autoresearch.cli import COMPLETING, cli
    from autoresearch.console import Output

    name = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(name) if name in SHELLS else None
    if found is None:
        raise click.UsageError(f"which shell? Name one of {', '.join(SHELLS)}")
    source = found(cli, {}, "autoresearch", COMPLETING).source()
    if name == "fish":  # a line is a kind, a comma, and the rest: click cuts help at its commas
        source = source.replace('string split ","', 'string split -m 1 ","')
    if json_mode:
        Output(True).result({"shell": name, "script": source}, then=[INSTALL[name]])
    else:
        click.echo(source)

"""What the shell offers at TAB: presets, trials, proposers, and the names that options take.

complete(command)     # every parameter of a command that has something to offer

Parameters are known by their names, so that commands say nothing of it. Nothing heavy is loaded,
and no ledger is verified: a key was pressed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from autoresearch.options import NearChoice

MOST_TRIALS = 200  # the latest
MOST_WORDS = 60  # characters of an idea
Offer = Callable[[click.Context], Iterator[tuple[str, str]]]  # a word and its help


def complete(command: click.Command) -> None:
    """Let the parameters of a command, and of those in a group, offer what they take."""
    for parameter in command.params:
        offer = OFFERS.get((command.name or "", parameter.name or ""))
        offer = offer or OFFERS.get(("", parameter.name or "")) or _names_of(parameter)
        if offer is not None:
            parameter.shell_complete = _offering(offer)  # type: ignore[method-assign, assignment]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            complete(inner)


def _offering(offer: Offer) -> Callable[[click.Context, str], list[CompletionItem]]:
    def items(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [
            CompletionItem(word, help=words or None)
            for word, words in offer(ctx)
            if word.startswith(incomplete)
        ]

    return items


def _names_of(parameter: click.Parameter) -> Offer | None:
    """What an option with a few known names takes."""
    names = parameter.type.names if isinstance(parameter.type, NearChoice) else ()
    return (lambda ctx: ((name, "") for name in names)) if names else None


def presets(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """The built-in ones, and those in the user's folder."""
    from autoresearch.preset import list_presets, load_preset

    yield "auto", "what fits this machine"
    for name in list_presets():
        yield name, load_preset(name).description


def proposers(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Ours, the coding agents, and installed plug-ins."""
    from importlib import metadata

    from autoresearch.engine.proposers.base import AGENTS, BUILT_IN, GROUP

    for name in (*BUILT_IN, *AGENTS):
        yield name, ""
    for entry in metadata.entry_points(group=GROUP):
        yield entry.name, "a plug-in"


def trials(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """The workspace's trials, the latest first, as far as its ledger can be read."""
    folder = Path(ctx.params.get("folder") or ".")
    try:
        lines = (folder / "results.jsonl").read_bytes().splitlines()
    except OSError:
        return
    found = 0
    for line in reversed(lines):
        if found == MOST_TRIALS:
            return
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that is being written
        if isinstance(record, dict) and record.get("kind") == "trial":
            found += 1
            idea = " ".join(str(record.get("description", "")).split())[:MOST_WORDS]
            # A shell's script takes a line apart at its colons and commas.
            words = f"{record.get('status')} {idea}".replace(":", " ").replace(",", " ")
            yield str(record.get("id")), "".join(c for c in words if c.isprintable())


# By command and parameter, "" for every command.
OFFERS: dict[tuple[str, str], Offer] = {
    ("", "trial_id"): trials,
    ("", "trial_ids"): trials,
    ("", "on"): trials,
    ("", "preset"): presets,
    ("", "preset_name"): presets,
    ("show", "name"): presets,
    ("run", "agents"): proposers,
}

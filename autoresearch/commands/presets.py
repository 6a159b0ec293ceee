"""`autoresearch presets` and `autoresearch presets show NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.preset import Preset


@click.group("presets", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, json_mode: bool) -> None:
    """List the presets: data, model and times that work untouched on a machine.

    Your own are NAME.toml files in the folder that the list names.
    """
    if ctx.invoked_subcommand is None:
        show_list(json_mode)


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, json_mode: bool) -> None:
    """One preset's values, with the reason of each."""
    from autoresearch.console import Output
    from autoresearch.preset import load_preset

    out = Output(json_mode)
    preset = load_preset(name)
    out.heading(f"{preset.name}: {preset.description}")
    out.say(f"  for {_for(preset)}")
    for title, values in (("Experiment", preset.experiment), ("train.py", preset.train)):
        out.heading(title)
        _values(out, values, preset.reasons)
    then = [f"autoresearch init my-research --preset {name}"]
    out.result(preset.model_dump(mode="json"), then=then)


def show_list(json_mode: bool) -> None:
    """All presets, with what they are for."""
    from autoresearch.console import Output
    from autoresearch.preset import list_presets, load_preset, user_presets_folder

    out = Output(json_mode)
    presets = [load_preset(name) for name in list_presets()]
    out.table(
        ("preset", "for", ">time", "text", "what"),
        [
            [p.name, _for(p), _time(p.settings.time_budget), p.settings.corpus, p.description]
            for p in presets
        ],
    )
    folder = str(user_presets_folder())
    out.say(f"Your own: NAME.toml in {folder}")
    rows = [
        {"name": p.name, "description": p.description, "requires": p.requires.model_dump()}
        for p in presets
    ]
    then = [
        "autoresearch presets show NAME                the values, with their reasons",
        "autoresearch init my-research --preset auto   chooses by your hardware",
    ]
    out.result({"presets": rows, "user_folder": folder}, then=then)


def _for(preset: Preset) -> str:
    requires = preset.requires
    words = "/".join(requires.architectures or requires.backends)
    return f"{words}, {requires.min_memory_gb:g} GiB"


def _time(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def _values(out: Output, values: dict[str, Any], reasons: dict[str, str]) -> None:
    out.table(
        ("name", "value", "why"),
        [[key, str(value), reasons.get(key, "")] for key, value in values.items()],
    )

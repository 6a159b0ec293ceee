"""`autoresearch bench mfu`: how fast each backend of this machine trains."""

from __future__ import annotations

import os
from pathlib import Path

import click

from autoresearch.options import BACKENDS, SECONDS, NearChoice, json_option


@click.group("bench")
def command() -> None:
    """Measure this machine."""


@command.command("mfu")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=NearChoice("backend", ("all", *BACKENDS)),
    metavar="NAME",
    help="A backend, again for more, or all.  [default: all that are here]",
)
@click.option("--preset", "preset_name", default="demo", show_default=True, metavar="NAME")
@click.option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Of each run.")
@click.option("--repeats", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON file.")
@json_option
def mfu(
    backends: tuple[str, ...],
    preset_name: str,
    seconds: float,
    repeats: int,
    output: Path | None,
    json_mode: bool,
) -> None:
    """Tokens/s and MFU of each backend, medians of several short experiments.

    MFU is given against the datasheet's dense bf16 peak, where it is known, and against the peak of
    a big matrix product measured in the same run. Its table goes to GITHUB_STEP_SUMMARY when set.
    """
    from autoresearch import bench
    from autoresearch.console import Output, to_json
    from autoresearch.preset import load_preset

    out = Output(json_mode)
    preset = load_preset(preset_name)
    names = bench.backends_here() if not backends or "all" in backends else backends
    about = bench.conditions(preset.name, seconds, repeats)
    with out.progress() as on_event:
        rows = bench.bench_mfu(preset, names, seconds, repeats, on_event)
    document = bench.to_document(rows, about)
    if output is not None:
        output.write_text(to_json(document, indent=2) + "\n", encoding="utf-8")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(f"### MFU, preset {preset.name}\n\n{bench.markdown(rows, about)}\n")
    out.table(bench.COLUMNS, [bench.cells(row) for row in rows])
    for line in bench.failures(rows):
        out.say(line, style="red")
    then = ["autoresearch doctor    why this dtype and attention, and what would be faster"]
    if output is not None:
        then.append(f"{output}    the same figures with their conditions")
    out.result(document, then=then)
    if all(row.failure for row in rows):
        click.get_current_context().exit(5)

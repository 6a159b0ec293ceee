"""`autoresearch init [DIR] --preset NAME`: a workspace for research on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import backend_option, json_option


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("."), metavar="[DIR]")
@click.option(
    "--preset",
    "preset_name",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="See `autoresearch presets`; auto chooses by the hardware.",
)
@click.option(
    "--corpus",
    metavar="NAME|PATH",
    help="Other text than the preset's: a folder of parquet, jsonl or txt files.",
)
@click.option("--force", is_flag=True, help="Take a preset that doesn't fit this hardware.")
@backend_option
@json_option
def command(
    folder: Path,
    preset_name: str,
    corpus: str | None,
    force: bool,
    backend: str | None,
    json_mode: bool,
) -> None:
    """Make a workspace in DIR (this folder unless named): a git repository with

    \b
    train.py           what the agent edits, with the preset's constants
    program.md         what you edit: the aim, the rules, what is known
    autoresearch.toml  data, vocabulary, context, time: what a score means
    AGENTS.md, ...     instructions and permissions for common coding agents

    Never overwrites: a folder that holds anything is refused.
    """
    from autoresearch.console import Output
    from autoresearch.workspace import new_workspace

    out = Output(json_mode)
    made = new_workspace(folder, preset_name, backend=backend, corpus=corpus, force=force)
    for warning in made.warnings:
        out.warn(warning)
    out.heading(f"Workspace {made.folder}")
    out.facts(
        [
            ("preset", f"{made.preset}  ({made.why})"),
            ("hardware", made.hardware),
            ("device batch", f"{made.device_batch_size}  ({made.batch_reason})"),
            ("commit", made.commit),
            ("files", ", ".join(made.files)),
        ]
    )
    into = [] if Path(made.folder) == Path.cwd() else [f"cd {folder}"]
    out.result(
        made.to_dict(),
        then=[
            *into,
            "autoresearch prepare    make the data ready; train does it too",
            f"autoresearch train{f' --backend {backend}' if backend else ''}",
            "start your agent here: have a look at program.md and let's kick off a new experiment",
        ],
    )

"""`autoresearch log N`: what a trial's program printed."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option

MOST_BYTES = 1_000_000  # of one file, from its end


@click.command("log")
@click.argument("trial_id", type=click.IntRange(min=0), metavar="N", required=False)
@click.option("--run", "run_name", metavar="NAME", help="One of its runs, such as candidate-0.")
@workspace_option
@json_option
def command(trial_id: int | None, run_name: str | None, folder: Path, json_mode: bool) -> None:
    """What the program of trial N printed, run by run; the latest trial unless named.

    Of a trial that crashed and was mended that is the last attempt; runs of the earlier ones are
    named below it, such as attempt-1/candidate-0, and --run prints one.

    Control characters are taken out: it is the output of code that nobody vouches for.
    """
    from autoresearch.commands.show import find
    from autoresearch.console import Output
    from autoresearch.engine.proposers.text import clean
    from autoresearch.opening import open_study, there
    from prepare.errors import UsageError
    from prepare.runfiles import read_end

    out = Output(json_mode)
    study = open_study(folder)
    trial = find(study, next(reversed(study.state.trials), 0) if trial_id is None else trial_id)
    place = study.run_folder(trial.id)
    names, earlier = runs_of(place)
    known = [*names, *earlier]
    if run_name is not None and run_name not in known:
        raise UsageError(f"trial {trial.id} has no run {run_name!r}", f"it has {', '.join(known)}")
    logs = {}
    for name in [run_name] if run_name else names:
        for path in sorted((place / name).glob("*.log")):
            text = clean(read_end(path, MOST_BYTES).decode("utf-8", "replace")).rstrip()
            if text or path.name == "train.log":
                logs[f"{name}/{path.name}"] = text
    for name, text in logs.items():
        out.heading(name)
        out.say(text or "(nothing)")
    again = f"autoresearch log {trial.id}{there(folder)}"
    if not logs:
        out.say(f"trial {trial.id} left no log: {trial.reason}")
    then = [] if run_name else [f"{again} --run {name}    an earlier attempt" for name in earlier]
    document = {"trial": trial.id, "folder": str(place), "logs": logs, "earlier": earlier}
    out.result(document, then=then)


def runs_of(place: Path) -> tuple[list[str], list[str]]:
    """The runs in a trial's folder that left a log, and those of earlier attempts at it."""
    from autoresearch.engine.measuring import ASIDE

    def runs(pattern: str) -> list[str]:
        found = {path.parent for path in place.glob(pattern)}
        return sorted(path.relative_to(place).as_posix() for path in found)

    return runs("*/*.log"), [run for mark in ASIDE for run in runs(f"{mark}*/*/*.log")]

"""`autoresearch results`: all trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.engine.trial import Trial


@click.command("results")
@click.option("--tsv", is_flag=True, help="Upstream's five columns, as in results.tsv.")
@click.option("--kept", is_flag=True, help="Only the champion and those it stands on.")
@workspace_option
@json_option
def command(tsv: bool, kept: bool, folder: Path, json_mode: bool) -> None:
    """All trials as a table: score, effect against the champion of the time, how sure, the idea.

    The ledger itself is results.jsonl; results.tsv is written anew after every trial. --json leaves
    the training curves out: `autoresearch show N --json` has them.
    """
    from autoresearch.console import Output
    from autoresearch.engine.ledger import export_tsv
    from autoresearch.narration import show_trials
    from autoresearch.opening import go_on, open_study
    from autoresearch.study import lineage

    out = Output(json_mode)
    study = open_study(folder)
    state = study.state
    trials = lineage(state) if kept else list(state.trials.values())
    if tsv and not json_mode:
        click.echo(export_tsv(trials), nl=False)
        return
    show_trials(out, trials)
    then = [] if trials else [f"{go_on(folder)} --hours 8    begins a study"]
    document = {
        "tag": study.tag,
        "champion": state.champion,
        "trials": [_without_curve(trial) for trial in trials] if json_mode else [],
    }
    out.result(document, then=then)


def _without_curve(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values; the curve is nine tenths of it."""
    fields = replace(trial, curve=()).to_dict()
    del fields["curve"]
    return fields

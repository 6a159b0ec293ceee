"""`autoresearch results`: all trials."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("results")
@click.option("--tsv", is_flag=True, help="Upstream's five columns, as in results.tsv.")
@click.option("--kept", is_flag=True, help="Only the champion and those it stands on.")
@workspace_option
@json_option
def command(tsv: bool, kept: bool, folder: Path, json_mode: bool) -> None:
    """All trials as a table: score, effect against the champion of the time, how sure, the idea.

    The ledger itself is results.jsonl; results.tsv is written anew after every trial.
    """
    from autoresearch.console import Output
    from autoresearch.engine.ledger import export_tsv
    from autoresearch.narration import show_trials
    from autoresearch.study import Study, lineage

    out = Output(json_mode)
    study = Study.read(folder)
    trials = lineage(study.state) if kept else study.ledger.trials()
    if tsv and not json_mode:
        click.echo(export_tsv(trials), nl=False)
        return
    show_trials(out, trials)
    then = [] if trials else ["autoresearch run --hours 8    begins a study"]
    document = {
        "tag": study.tag,
        "champion": study.state.champion,
        "trials": [trial.to_dict() for trial in trials],
    }
    out.result(document, then=then)

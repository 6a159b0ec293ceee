"""`autoresearch results`: all trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.engine.trial import Trial
    from autoresearch.taskfile.study import TaskStudy


@click.command("results")
@click.option("--tsv", is_flag=True, help="Upstream's five columns, as in results.tsv.")
@click.option("--kept", is_flag=True, help="Only the champion and those it stands on.")
@click.option("--pareto", is_flag=True, help="A task's best trade-offs with its secondary metrics.")
@workspace_option
@json_option
def command(tsv: bool, kept: bool, pareto: bool, folder: Path, json_mode: bool) -> None:
    """All trials as a table: score, effect against the champion of the time, how sure, the idea.

    The ledger itself is results.jsonl; results.tsv is written anew after every trial. --json leaves
    the training curves out: `autoresearch show N --json` has them. Of a task, held-out scores stand
    below the table.
    """
    from autoresearch.console import Output
    from autoresearch.engine.ledger import export_tsv
    from autoresearch.narration import show_trials
    from autoresearch.opening import go_on, open_study
    from autoresearch.study import Study, lineage
    from autoresearch.taskfile.views import show_holdouts, show_trade_offs

    out = Output(json_mode)
    study = open_study(folder)
    state = study.state
    trials = lineage(state) if kept else list(state.trials.values())
    if tsv and not json_mode:
        click.echo(export_tsv(trials), nl=False)
        return
    task = None if isinstance(study, Study) else study
    if pareto:
        trials = trade_offs_of(task)
    if task is not None and pareto:
        show_trade_offs(out, task, trials)
    else:
        show_trials(out, trials)
    if task is not None:
        show_holdouts(out, task)
    then = [] if trials else [f"{go_on(folder)} --hours 8    begins a study"]
    document: dict[str, Any] = {
        "tag": study.tag,
        "champion": state.champion,
        "trials": [_without_curve(trial) for trial in trials] if json_mode else [],
    }
    if task is not None:
        document["holdout"] = {str(n): record["run"] for n, record in task.holdouts().items()}
    out.result(document, then=then)


def trade_offs_of(study: TaskStudy | None) -> list[Trial]:
    """The Pareto front of a task. Raises UsageError where one metric alone matters."""
    from autoresearch.taskfile.views import trade_offs
    from prepare.errors import UsageError

    if study is None or not study.task.secondary:
        raise UsageError(
            "--pareto: no second metric is declared",
            "a task file names those that also matter: `secondary: {words: minimize}`",
        )
    return trade_offs(study)


def _without_curve(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values; the curve is nine tenths of it."""
    fields = replace(trial, curve=()).to_dict()
    del fields["curve"]
    return fields

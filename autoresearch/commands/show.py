"""`autoresearch show N`: one trial, all that is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.trial import Replicate, Trial
    from autoresearch.study import Study


@click.command("show")
@click.argument("trial_id", type=click.IntRange(min=0), metavar="N")
@workspace_option
@json_option
def command(trial_id: int, folder: Path, json_mode: bool) -> None:
    """Trial N: the decision with its reasons, every run, the training curve, the edit."""
    from autoresearch.console import Output
    from autoresearch.study import Study

    out = Output(json_mode)
    study = Study.read(folder)
    trial = find(study, trial_id)
    diff = edit_of(study, trial)
    show(out, study, trial, diff)
    out.result({"trial": trial.to_dict(), "diff": diff}, then=[f"autoresearch log {trial_id}"])


def find(study: Study, trial_id: int) -> Trial:
    """The trial of that number. Raises UsageError."""
    from prepare.errors import UsageError

    trials = study.state.trials
    if trial_id not in trials:
        known = f"0 to {max(trials)}" if trials else "none yet"
        raise UsageError(f"no trial {trial_id}: there are {known}", "see `autoresearch results`")
    return trials[trial_id]


def edit_of(study: Study, trial: Trial) -> str:
    """The edit as a unified diff; from git if its file is gone, "" where there is none."""
    path = study.run_folder(trial.id) / "change.diff"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    commit = study.workspace.trial_commit(trial.id)
    return "" if commit is None else study.workspace.diff(f"{commit}^", commit)


def show(out: Output, study: Study, trial: Trial, diff: str) -> None:
    """All of it for people."""
    from autoresearch.narration import number, sparkline

    out.heading(f"Trial {trial.id}: {' '.join(trial.description.split())}")
    metric = study.task.objective.metric
    rows = [("status", f"{trial.status}: {trial.reason}"), (metric, number(trial.score))]
    if trial.start is not None:
        rows.append(("begun at", f"trial {trial.start}'s program, not the champion's"))
    if trial.combines:
        rows.append(("combines", "trials " + ", ".join(map(str, trial.combines))))
    if trial.delta is not None:
        sure = "" if trial.confidence is None else f", {trial.confidence:.1%} sure"
        rows.append(("effect", f"{trial.delta:+.6f} against trial {trial.parent}{sure}"))
    if trial.predicted is not None:
        rows.append(("predicted", f"{trial.predicted:+.6f}"))
    for label, name, form in (
        ("tokens/s", "tokens_per_second", ",.0f"),
        ("steps", "num_steps", ",.0f"),
        ("parameters", "num_params", ",.0f"),
        ("memory", "peak_memory_mb", ",.0f"),
        ("MFU", "mfu_percent", ".1f"),
    ):
        if name in trial.metrics:
            unit = {"memory": " MB", "MFU": "%"}.get(label, "")
            rows.append((label, format(trial.metrics[name], form) + unit))
    if trial.warning:
        rows.append(("warning", trial.warning))
    rows += [(name, value) for name, value in _origin(trial) if value]
    out.facts(rows)
    out.say()
    show_runs(out, trial)
    losses = sparkline(trial.curve)
    if losses:
        out.say(f"training loss {trial.curve[0][1]:.3g} {losses} {trial.curve[-1][1]:.3g}")
    show_failure(out, trial)
    if diff:
        out.say()
        for line in diff.rstrip("\n").split("\n"):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            out.say(_clean(line), style=style)


def _origin(trial: Trial) -> list[tuple[str, str]]:
    cost = "" if trial.cost.dollars is None else f"{trial.cost.dollars:.4f} dollars"
    seconds = trial.seconds.get("total")
    return [
        ("proposer", trial.proposer),
        ("cost", f"{cost} ({trial.cost.known})" if trial.cost.dollars else ""),
        ("commit", (trial.commit or "")[:12]),
        ("backend", f"{trial.backend}, isolation tier {trial.tier}" if trial.backend else ""),
        ("runs took", f"{seconds:,.0f} s" if seconds else ""),
        ("when", f"{trial.started_at} to {trial.finished_at}"),
    ]


def show_runs(out: Output, trial: Trial) -> None:
    """Every run by seed."""
    rows = [
        _run("candidate" if trial.parent is not None else "baseline", r) for r in trial.replicates
    ]
    rows += [_run("champion", run) for run in trial.champion_replicates]
    if rows:
        out.table((">seed", "program", ">score", "remark"), rows)


def _run(program: str, run: Replicate) -> list[str]:
    from autoresearch.narration import number

    remark = run.disturbed
    if run.failure is not None:
        remark = f"{run.failure.phase}: {run.failure.kind}: {run.failure.message}"
    return [str(run.seed), program, number(run.score), remark]


def show_failure(out: Output, trial: Trial) -> None:
    """The end of the log of a run that failed."""
    failure = next((run.failure for run in trial.replicates[::-1] if run.failure), None)
    if failure is not None and failure.log_tail.strip():
        out.say()
        out.say(_clean(failure.log_tail.rstrip()))


def _clean(text: Any) -> str:
    from autoresearch.engine.proposers.text import clean

    return clean(str(text))

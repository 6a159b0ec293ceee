"""`autoresearch show N`: one trial, all that is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.trial import Replicate, Trial
    from autoresearch.opening import AnyStudy


RUN_COLUMNS = (">seed", "program", ">score", "remark")
PHASES = ("startup", "import", "build", "warmup", "training", "scoring")


@click.command("show")
@click.argument("trial_id", type=click.IntRange(min=0), metavar="N")
@workspace_option
@json_option
def command(trial_id: int, folder: Path, json_mode: bool) -> None:
    """Trial N: the decision with its reasons, every run, the training curve, the edit.

    The log's end is shown of a run that failed; `autoresearch log N` prints whole logs.
    """
    from autoresearch.console import Output
    from autoresearch.opening import open_study, there

    out = Output(json_mode)
    study = open_study(folder)
    trial = find(study, trial_id)
    diff = edit_of(study, trial)
    show(out, study, trial, diff)
    log = f"autoresearch log {trial_id}{there(folder)}"
    out.result({"trial": trial.to_dict(), "diff": diff}, then=[log])


def find(study: AnyStudy, trial_id: int) -> Trial:
    """The trial of that number. Raises UsageError."""
    from prepare.errors import UsageError

    trials = study.state.trials
    if trial_id not in trials:
        known = f"0 to {max(trials)}" if trials else "none yet"
        raise UsageError(f"no trial {trial_id}: there are {known}", "see `autoresearch results`")
    return trials[trial_id]


def edit_of(study: AnyStudy, trial: Trial) -> str:
    """The edit as a unified diff; from git if its file is gone, "" where there is none."""
    path = study.run_folder(trial.id) / "change.diff"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    commit = study.workspace.trial_commit(trial.id)
    return "" if commit is None else study.workspace.diff(f"{commit}^", commit)


def show(out: Output, study: AnyStudy, trial: Trial, diff: str) -> None:
    """All of it for people."""
    from autoresearch.narration import sparkline

    out.heading(f"Trial {trial.id}: {_line(trial.description)}")
    out.facts(facts(study, trial))
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


def facts(study: AnyStudy, trial: Trial) -> list[tuple[str, str]]:
    """What is known of a trial, a name and its words each; what isn't known is left out."""
    from autoresearch.narration import extra_runs, number
    from autoresearch.study import Study

    metric = study.task.objective.metric
    rows = [("status", f"{trial.status}: {_line(trial.reason)}"), (metric, number(trial.score))]
    if trial.start is not None:
        rows.append(("begun at", f"trial {trial.start}'s program, not the champion's"))
    if trial.combines:
        rows.append(("combines", "trials " + ", ".join(map(str, trial.combines))))
    if trial.delta is not None:
        sure = "" if trial.confidence is None else f", {trial.confidence:.1%} sure"
        effect = f"{trial.delta:+.6f} against trial {trial.parent}{sure}"
        rows.append(("effect", "; ".join(filter(None, (effect, extra_runs(trial.extra_runs))))))
    if trial.predicted is not None:
        came = "" if trial.delta is None else f", it came to {trial.delta:+.6f}"
        rows.append(("predicted", f"{trial.predicted:+.6f}{came}"))
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
    if trial.mended:
        times = "once" if trial.mended == 1 else f"{trial.mended} times"
        rows.append(("mended", f"{times}, after a crash: `autoresearch log {trial.id}` has more"))
    if not isinstance(study, Study):
        rows.append(("metrics", _metrics(trial, metric)))
    if trial.warning:
        rows.append(("warning", trial.warning))
    rows += _origin(trial)
    return [(name, value) for name, value in rows if value]


def _origin(trial: Trial) -> list[tuple[str, str]]:
    """Who, where and how long; what isn't known is "" and left out."""
    phases = sorted(trial.seconds, key=lambda name: (name == "total", _place(name)))
    took = [f"{name} {trial.seconds[name]:,.1f} s" for name in phases]
    holes = "; ".join(_unprotected(trial))
    isolation = f"tier {trial.tier}" + (f"; not protected against {holes}" if holes else "")
    return [
        ("proposer", trial.proposer),
        ("cost", _cost(trial)),
        ("commit", (trial.commit or "")[:12]),
        ("backend", trial.backend),
        ("isolation", isolation if trial.tier else ""),
        ("runs took", ", ".join(took)),
        ("when", " to ".join(filter(None, (trial.started_at, trial.finished_at)))),
    ]


def _metrics(trial: Trial, metric: str) -> str:
    """What a task's scorer told beside the score; how long things took stands elsewhere."""
    shown = {k: v for k, v in trial.metrics.items() if k != metric and not k.endswith("_seconds")}
    return ", ".join(f"{name} {value:.6g}" for name, value in shown.items())


def _place(phase: str) -> int:
    """Where a phase stands in the order of a run; phases of other tasks behind the known ones."""
    return (*PHASES, phase).index(phase)


def _cost(trial: Trial) -> str:
    """What the proposal cost and how that is known; the baseline and an edit by hand cost none."""
    from autoresearch.engine.trial import in_dollars

    cost = trial.cost
    words = [] if cost.dollars is None else [in_dollars(cost.dollars)]
    words += [] if cost.tokens_in is None else [f"{cost.tokens_in:,} tokens in"]
    words += [] if cost.tokens_out is None else [f"{cost.tokens_out:,} out"]
    if not words:
        return cost.known if trial.proposer else ""
    return f"{', '.join(words)} ({cost.known})"


def _unprotected(trial: Trial) -> list[str]:
    """What the tier of its runs does not stop, each once."""
    runs = (*trial.replicates, *trial.champion_replicates)
    found = [str(item) for run in runs for item in run.details.get("not_protected_against", ())]
    return list(dict.fromkeys(found))


def show_runs(out: Output, trial: Trial) -> None:
    """Every run by seed."""
    rows = run_rows(trial)
    if rows:
        out.table(RUN_COLUMNS, rows)


def run_rows(trial: Trial) -> list[list[str]]:
    """Every run of a trial as cells of RUN_COLUMNS."""
    own = "candidate" if trial.parent is not None else "baseline"
    rows = [_run(own, run) for run in trial.replicates]
    return rows + [_run("champion", run) for run in trial.champion_replicates]


def _run(program: str, run: Replicate) -> list[str]:
    from autoresearch.narration import number

    remark = run.disturbed
    if run.failure is not None:
        remark = f"{run.failure.phase}: {run.failure.kind}: {run.failure.message}"
    return [str(run.seed), program, number(run.score), _line(remark)]


def show_failure(out: Output, trial: Trial) -> None:
    """The end of the log of a run that failed."""
    failure = next((run.failure for run in trial.replicates[::-1] if run.failure), None)
    if failure is not None and failure.log_tail.strip():
        out.say()
        out.say(_clean(failure.log_tail.rstrip()))


def _line(text: str) -> str:
    """Words of a candidate or a proposer on one line, fit for a terminal."""
    return " ".join(_clean(text).split())


def _clean(text: Any) -> str:
    from autoresearch.engine.proposers.text import clean

    return clean(str(text))

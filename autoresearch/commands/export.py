"""`autoresearch export`: the best train.py, its diff, and a patch with evidence per kept idea."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.engine.trial import Trial
    from autoresearch.opening import AnyStudy


@click.command("export")
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new or empty folder.  [default: export-TAG in the workspace]",
)
@click.option(
    "--hf-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the champion's model in place of all that: a new or empty folder as Hugging Face "
    "has them, with model.safetensors, config.json, tokenizer.json, train.py and a model card.",
)
@workspace_option
@json_option
def command(target: Path | None, hf_dir: Path | None, folder: Path, json_mode: bool) -> None:
    """Write what the study found, for review.

    \b
    train.py        the champion; of a task, its artifacts, in artifacts/
    train.diff      against the baseline; of a task, champion.diff
    patches/        one per kept idea, for `git am`, with what was measured
    README.md       the same as a table
    results.tsv     every trial
    """
    from autoresearch.console import Output
    from autoresearch.opening import go_on, open_study
    from autoresearch.study import lineage
    from prepare.errors import UsageError

    out = Output(json_mode)
    study = open_study(folder)
    kept = lineage(study.state)
    if not kept:
        raise UsageError("nothing to export: no trial yet", f"begin with `{go_on(folder)}`")
    if hf_dir is not None and target is not None:
        raise UsageError("--to and --hf-dir write different things", "name one of them")
    place = hf_dir or target or study.root / f"export-{study.tag}"
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} is not empty", "name another folder")
    files = export(study, kept, place) if hf_dir is None else export_model(study, place)
    out.heading(f"Exported to {place}")
    for name in files:
        out.say(f"  {name}")
    then = [f"read {place / 'README.md'}; apply the ideas elsewhere with `git am`"]
    if hf_dir is not None:
        then = [f"autoresearch sample --weights {shlex.quote(str(place))}    text that it writes"]
    out.result({"folder": str(place), "champion": kept[-1].id, "files": files}, then=then)


def export_model(study: AnyStudy, place: Path) -> list[str]:
    """Write the champion's model; the names of the files. Raises UsageError, NoData."""
    from autoresearch.hub_folder import write_hub_folder
    from autoresearch.study import Study
    from autoresearch.weights import weights_of
    from prepare.errors import UsageError

    if not isinstance(study, Study):
        raise UsageError("a task has no model to export", "leave --hf-dir out")
    return write_hub_folder(weights_of(study, study.state.champion or 0), place)


def export(study: AnyStudy, kept: list[Trial], place: Path) -> list[str]:
    """Write everything; the names of the files, relative to `place`."""
    from autoresearch.engine.ledger import export_tsv
    from autoresearch.study import Study, write_text

    first, best = str(kept[0].commit), str(kept[-1].commit)
    artifacts = study.workspace.artifacts(best, study.task)
    # A task's artifacts may have any name, also that of a file written here.
    folder, diff = (
        ("", "train.diff") if isinstance(study, Study) else ("artifacts/", "champion.diff")
    )
    for name, data in artifacts.items():
        artifact = place / folder / name
        artifact.parent.mkdir(parents=True, exist_ok=True)
        artifact.write_bytes(data)
    files = {
        diff: artifact_diff(study, first, best),
        "README.md": readme(study, kept),
        "results.tsv": export_tsv(study.ledger.trials()),
    }
    for number, trial in enumerate(kept[1:], 1):
        files[f"patches/{number:04d}-trial-{trial.id}.patch"] = patch(study, trial)
    for name, text in files.items():
        write_text(place / name, text)
    return [folder + name for name in artifacts] + list(files)


def artifact_diff(study: AnyStudy, older: str, newer: str) -> str:
    """The diff of the artifacts alone: others may have committed beside them."""
    from autoresearch.engine.git import open_repository

    paths = {p for commit in (older, newer) for p in study.workspace.artifacts(commit, study.task)}
    git = open_repository(study.git_root)
    plain = ("--no-ext-diff", "--no-textconv", "--no-renames")
    return git("diff", *plain, older, newer, "--", *sorted(paths))


def patch(study: AnyStudy, trial: Trial) -> str:
    """A kept trial's commit as mail, its evidence where `git am` doesn't look."""
    from autoresearch.engine.git import open_repository

    git = open_repository(study.git_root)
    text = git("format-patch", "-1", "--stdout", "--no-signature", str(trial.commit))
    head, mark, rest = text.partition("\n---\n")
    return f"{head}{mark}{evidence(study, trial)}\n{rest}"


def evidence(study: AnyStudy, trial: Trial) -> str:
    """What was measured for a decision, as lines."""
    from autoresearch.narration import number

    own = ", ".join(f"seed {run.seed}: {number(run.score)}" for run in trial.replicates)
    known = study.state.champion_scores(trial)
    champion = ", ".join(f"seed {seed}: {number(score)}" for seed, score in known.items())
    lines = [
        f"Decision    {trial.reason}",
        f"This        {own}",
        f"Before      {champion}",
        f"Effect      {number(trial.delta, '+.6f')}, confidence {number(trial.confidence, '.3f')}",
        *_figures(trial),
        f"Measured    {f'on {trial.backend}, ' if trial.backend else ''}tier {trial.tier}, "
        f"score id {trial.score_id}",
    ]
    if trial.predicted is not None:
        lines.append(f"Predicted   {trial.predicted:+.6f}")
    return "\n".join(lines)


def _figures(trial: Trial) -> list[str]:
    """What else was measured, as a line."""
    metrics = trial.metrics
    if "tokens_per_second" in metrics:
        speed, memory = metrics["tokens_per_second"], metrics.get("peak_memory_mb", 0)
        return [f"Speed       {speed:,.0f} tokens/s, {memory:,.0f} MB"]
    shown = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    return [f"Metrics     {shown}"] if shown else []


def readme(study: AnyStudy, kept: list[Trial]) -> str:
    """The kept ideas as a table, and under which settings they were found."""
    from autoresearch.narration import number, together
    from autoresearch.report.markdown import escape

    metric = study.task.objective.metric
    settings, gain = study.conditions, together(kept)
    change = "" if gain is None else f"{gain:+.6f} from a baseline of {number(kept[0].score)}, by "
    lines = [
        f"# Study {study.tag}",
        "",
        f"{metric}: {change}{len(kept) - 1} kept of {len(study.state.trials) - 1} trials.",
        "",
        f"| trial | {metric} | effect | confidence | idea |",
        "|---|---|---|---|---|",
    ]
    for trial in kept:
        idea = escape(trial.description)
        sure = number(trial.confidence, ".3f")
        effect = number(trial.delta, "+.6f")
        lines.append(f"| {trial.id} | {number(trial.score)} | {effect} | {sure} | {idea} |")
    lines += ["", "Settings: " + ", ".join(f"{k} = {v}" for k, v in settings.items()) + ".", ""]
    return "\n".join(lines)

"""`autoresearch trial -m "idea"`: measure the edit in the working tree, keep it or put it back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from autoresearch.options import (
    attention_option,
    backend_option,
    json_option,
    study_options,
    workspace_option,
)

if TYPE_CHECKING:
    from autoresearch.checkout import CheckoutEdit
    from autoresearch.console import Output
    from autoresearch.engine.change import Change
    from autoresearch.engine.trial import Trial
    from autoresearch.study import Study

EXIT_CODES = {"keep": 0, "crash": 5, "discard": 10, "rejected": 11, "pruned": 12, "noisy": 13}
MOST_WORDS = 1_000  # characters of an idea; more is a report
MOST_BYTES = 4_000_000  # of an edit that is handed in; the task's own limit is far lower
SUBMITTED = "submitted"  # the proposer of such an edit


@click.command("trial")
@click.option("-m", "--message", required=True, metavar="IDEA", help="What the edit is to do.")
@click.option("--predict", type=float, metavar="EFFECT", help="Expected change, such as -0.004.")
@click.option(
    "--edit",
    "submitted",
    type=click.File("rb"),
    metavar="FILE",
    help="Measure this edit and leave the checkout alone: a whole train.py, or a patch of the "
    "champion's as `git diff` prints it. `-` reads it from standard input.",
)
@click.option(
    "--on",
    type=click.IntRange(min=0),
    metavar="TRIAL",
    help="With --edit: the champion that it was made on; refused when another is by now.",
)
@study_options
@workspace_option
@backend_option
@attention_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    message: str,
    predict: float | None,
    submitted: BinaryIO | None,
    on: int | None,
    folder: Path,
    json_mode: bool,
    **choices: Any,
) -> None:
    """Measure your edit of train.py against the champion, and keep it or put it back.

    Kept: the study's branch has it as a commit. Otherwise train.py is as it was, and the edit lies
    in the trial's folder as change.diff, also when a check refused it. The first call measures
    train.py as it was before the edit, on three seeds. With --edit the checkout stays as it is,
    except that one of the study's branch without edits follows what is kept.

    \b
    Exit codes:
      0   keep       better beyond noise, or equal and simpler
      5   crash      it failed; the reason and the log's end are printed
      10  discard    not better
      11  rejected   it broke a rule, or repeats an earlier try
      12  pruned     stopped early: it could not catch up
      13  noisy      the machine was disturbed; train.py keeps the edit, try again
    """
    import backends
    from autoresearch.checkout import CheckoutEdit
    from autoresearch.console import Output, looking
    from autoresearch.engine.errors import Rejected
    from autoresearch.narration import narrated
    from autoresearch.study import Options, Study

    if on is not None and submitted is None:
        raise click.UsageError("--on goes with --edit")
    out = Output(json_mode)
    idea = idea_of(message, predict)
    options = Options(**choices)
    data = None if submitted is None else submitted.read(MOST_BYTES + 1)
    with narrated(out, folder) as on_event, Study.write(folder, options, on_event) as study:
        try:
            change = edit_to_measure(study, out, data, on)
        except Rejected as rejected:
            refuse(ctx, out, rejected)
            return
        with looking(on_event):
            backends.make_ready(choices["backend"])
        proposer = {} if data is None else {"proposer": SUBMITTED}
        edit = CheckoutEdit(change, idea, predict, **proposer)
        trial, left = measure(study, edit, out)
    show_end(out, study, trial, left)
    ctx.exit(EXIT_CODES[str(trial.status)])


def edit_to_measure(study: Study, out: Output, data: bytes | None, on: int | None) -> Change:
    """The edit in the checkout, or the one that was handed in. Raises Rejected and UsageError."""
    from autoresearch.checkout import switch_to_study, working_edit
    from autoresearch.submitted import submitted_edit

    if data is not None:
        if len(data) > MOST_BYTES:
            raise click.BadParameter(f"more than {MOST_BYTES:,} bytes", param_hint="--edit")
        return submitted_edit(study, data, on)
    moved = switch_to_study(study)
    if moved:
        out.say(moved)
    return working_edit(study)


def idea_of(message: str, predict: float | None) -> str:
    """The idea on one line, without control characters. Raises UsageError for none."""
    from autoresearch.engine.proposers.text import one_line

    if predict is not None and not math.isfinite(predict):
        raise click.BadParameter(f"{predict} is no effect", param_hint="--predict")
    idea = one_line(message, MOST_WORDS)
    if not idea:
        raise click.BadParameter("say what the edit is to do", param_hint="-m")
    return idea


def measure(study: Study, edit: CheckoutEdit, out: Output) -> tuple[Trial, tuple[str, ...]]:
    """The trial of an edit, and the files that could not be put back. Raises UsageError."""
    from autoresearch.awake import awake
    from autoresearch.checkout import put_back
    from autoresearch.commands.run import stopping
    from autoresearch.engine.errors import StudyStopped
    from autoresearch.engine.trial import Trial, TrialStatus
    from prepare.errors import UsageError

    change, begun = edit.change, bool(study.state.trials)
    with stopping(study.loop, out), awake():
        if not begun:
            out.say("measuring train.py as it was before the edit first: the baseline")
        baseline = study.loop.baseline()
        if change.empty and not begun:
            return baseline, ()
        if change.empty:
            raise UsageError(
                "nothing was edited: train.py is the champion's",
                "edit it, then call `autoresearch trial -m IDEA` again",
            )
        trial = study.loop.trial(edit)
    if not isinstance(trial, Trial):
        raise StudyStopped(f"no trial: {trial.problem}", "see `autoresearch status`")
    if trial.status in (TrialStatus.KEEP, TrialStatus.NOISY):
        return trial, ()
    save_edit(study, trial, change)
    return trial, () if edit.proposer == SUBMITTED else put_back(study, change)


def save_edit(study: Study, trial: Trial, change: Any) -> None:
    """See that the edit is in the trial's folder before train.py is put back.

    What is refused before it runs isn't stored by the loop: nothing else would have it.
    """
    folder = study.run_folder(trial.id)
    diff = folder / "change.diff"
    if diff.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    diff.write_text(change.diff, encoding="utf-8", newline="\n")
    for file in change.files:
        if file.new is not None and not is_text(file.new):  # what a diff can't hold
            place = folder / "edited" / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.new)


def is_text(data: bytes) -> bool:
    """UTF-8 without NUL bytes?"""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def refuse(ctx: click.Context, out: Output, rejected: Any) -> None:
    """The edit can't be measured as it lies there; nothing is recorded, nothing is put back."""
    code = EXIT_CODES["rejected"]
    document = {"status": "rejected", "rule": rejected.rule, "message": rejected.message}
    if out.json_mode:
        out.result({**document, "exit_code": code}, then=[rejected.hint] if rejected.hint else [])
    else:
        out.say(f"rejected: {rejected.rule}: {rejected.message}")
        if rejected.hint:
            out.say(f"  {rejected.hint}")
    ctx.exit(code)


def show_crash(out: Output, trial: Trial) -> None:
    """The end of the log of what crashed."""
    failure = next((run.failure for run in trial.replicates[::-1] if run.failure), None)
    if str(trial.status) == "crash" and failure is not None and failure.log_tail.strip():
        out.say()
        out.say(failure.log_tail.rstrip())


def show_end(out: Output, study: Study, trial: Trial, left: tuple[str, ...]) -> None:
    """What became of train.py, the log's end of a crash, and what to do next."""
    status = str(trial.status)
    diff = study.run_folder(trial.id) / "change.diff"
    show_crash(out, trial)
    if left:
        out.warn(f"not put back, it was edited on meanwhile: {', '.join(left)}")
    submitted = trial.proposer == SUBMITTED
    tree = "as edited" if status in ("keep", "noisy") or left else "put back"
    tree = "not touched" if submitted else tree
    document = {
        "trial": trial.to_dict(),
        "champion": study.state.champion,
        "train.py": tree,
        "exit_code": EXIT_CODES[status],
    }
    again = f"git apply {diff.relative_to(study.root).as_posix()}"
    steps = {
        "keep": ["edit train.py for the next idea, and call `autoresearch trial -m IDEA`"],
        "crash": [f"{again}    brings the edit back, to mend it", "or try another idea"],
        "rejected": [f"{again}    brings the edit back, to change it", "or try another idea"],
        "noisy": ["call the same again when the machine is calm: train.py still has the edit"],
    }
    if submitted:
        steps = {"noisy": ["call the same again when the machine is calm"]}
    then = steps.get(status, ["try another idea: train.py is the champion's again"])
    out.result(document, then=then)

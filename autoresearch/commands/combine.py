"""`autoresearch combine [N ...]`: near-misses put together and tried as one trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    attention_option,
    backend_option,
    json_option,
    study_options,
    workspace_option,
)

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.combining import Combination
    from autoresearch.engine.trial import Trial
    from autoresearch.opening import AnyStudy

COMBINABLE = ("discard", "pruned", "noisy")


@click.command("combine")
@click.argument("trial_ids", type=click.IntRange(min=1), metavar="[TRIAL ...]", nargs=-1)
@study_options
@workspace_option
@backend_option
@attention_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    trial_ids: tuple[int, ...],
    folder: Path,
    json_mode: bool,
    **choices: Any,
) -> None:
    """Try edits together that were each a little better, but not shown to be.

    Takes the trials named, or the up to three best near-misses that no combination has held yet: a
    near-miss was measured, looked better than its champion, and was discarded because the effect
    was within the noise. Their edits are merged onto the present champion one after the other; one
    that conflicts is left out and named. The result is one trial with the usual decision. `run`
    does this by itself with three whose effects are half a standard deviation of one run or more.

    \b
    Exit codes:
      0   keep       better beyond noise, or equal and simpler
      2   fewer than two edits go together: nothing was run
      5   crash      it failed; the reason and the log's end are printed
      10  discard    not better
      11  rejected   it broke a rule, or repeats an earlier try
      12  pruned     stopped early: it could not catch up
      13  noisy      the machine was disturbed; try again
    """
    import backends
    from autoresearch.awake import awake
    from autoresearch.commands.run import stopping
    from autoresearch.commands.trial import EXIT_CODES
    from autoresearch.console import Output, looking
    from autoresearch.engine.errors import StudyStopped
    from autoresearch.engine.trial import Trial
    from autoresearch.narration import narrated
    from autoresearch.opening import holds_task, open_study, write_study
    from autoresearch.study import Options

    out = Output(json_mode)
    options = Options(**choices)
    # Nothing is begun where nothing goes together.
    choose(open_study(folder, options), trial_ids)
    with narrated(out, folder) as on_event:
        if not holds_task(folder):
            with looking(on_event):
                backends.make_ready(choices["backend"])
        opened = write_study(folder, options, on_event, True)
        with opened as study, stopping(study.loop, out), awake():
            # Again, as the one writer: what opening mended or another finished counts.
            found = choose(study, trial_ids)
            for number, why in found.left_out.items():
                out.warn(f"trial {number} is left out: it {why}")
            trial = study.loop.trial(found, combines=found.ids)
    if not isinstance(trial, Trial):
        raise StudyStopped(f"no trial: {trial.problem}", "see `autoresearch status`")
    show_end(out, study, trial, found)
    ctx.exit(EXIT_CODES[str(trial.status)])


def choose(study: AnyStudy, trial_ids: tuple[int, ...]) -> Combination:
    """What to put together. Raises UsageError unless at least two edits go together."""
    from autoresearch.engine.combining import best_combination, combine, near_misses
    from prepare.errors import UsageError

    state = study.state
    if state.champion is None:
        raise UsageError("there is no champion yet", "begin with `autoresearch run`")
    if trial_ids:
        members = [combinable(study, number) for number in dict.fromkeys(trial_ids)]
        found = combine(study.workspace, study.task, members)
    else:
        members = near_misses(state, study.task.objective)
        found = best_combination(study.workspace, study.task, members)
    if len(found.members) < 2:
        why = [f"trial {number} {reason}" for number, reason in found.left_out.items()]
        have = ", ".join(str(trial.id) for trial in members) or "none"
        raise UsageError(
            f"at least two edits must go together; near-misses not yet combined: {have}"
            if not trial_ids
            else "at least two edits must go together" + "".join(f"; {text}" for text in why),
            "name trials that were measured and not kept: see `autoresearch results`",
        )
    return found


def combinable(study: AnyStudy, number: int) -> Trial:
    """A trial that was named. Raises UsageError if its edit can't be combined."""
    from autoresearch.commands.show import find
    from prepare.errors import UsageError

    trial = find(study, number)
    if str(trial.status) not in COMBINABLE or not trial.commit:
        raise UsageError(
            f"trial {number} can't be combined: {trial.status}: {trial.reason}",
            f"only what was measured and not kept can: {', '.join(COMBINABLE)}",
        )
    return trial


def show_end(out: Output, study: AnyStudy, trial: Trial, found: Combination) -> None:
    """The log's end of a crash, what was left out, and what to do next."""
    from autoresearch.commands.trial import EXIT_CODES, show_crash

    show_crash(out, trial)
    out.result(
        {
            "trial": trial.to_dict(),
            "champion": study.state.champion,
            "left_out": dict(found.left_out),
            "exit_code": EXIT_CODES[str(trial.status)],
        },
        then=[f"autoresearch show {trial.id}    the edits together, every run, the reasons"],
    )

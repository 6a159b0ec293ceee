"""`autoresearch undo [N]`: an earlier champion is the champion again."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("undo")
@click.argument("trial_id", type=click.IntRange(min=0), metavar="[N]", required=False)
@click.option("-m", "--message", default="", metavar="REASON", help="Why, for the ledger.")
@workspace_option
@json_option
def command(trial_id: int | None, message: str, folder: Path, json_mode: bool) -> None:
    """Bring the champion before this one back, or trial N's program, which must have been kept.

    Nothing is deleted: the ledger says so, and the branch gets one more commit. Weights that were
    dropped when a later champion came stay so, unless [weights] keeps all.
    """
    from autoresearch.commands.show import find
    from autoresearch.console import Output
    from autoresearch.engine.trial import TrialStatus
    from autoresearch.narration import number
    from autoresearch.opening import go_on, open_study, there, write_study
    from autoresearch.taskfile.study import TaskStudy
    from autoresearch.weights import has_weights
    from prepare.errors import UsageError

    out = Output(json_mode)
    if open_study(folder).state.champion is None:
        raise UsageError("there is no champion yet", f"begin with `{go_on(folder)}`")
    with write_study(folder) as study:
        state = study.loop.state
        now = state.trials[state.champion or 0]
        target = now.parent if trial_id is None else trial_id
        if target is None:
            raise UsageError("the champion is the baseline: there is none before it", "name one")
        chosen = find(study, target)
        if chosen.status is not TrialStatus.KEEP:
            raise UsageError(f"trial {target} was not kept: {chosen.status}", "name a kept one")
        study.loop.restore(target, message or f"undo of trial {now.id}")
        commit = study.workspace.champion_commit
        weights = None if isinstance(study, TaskStudy) else has_weights(study, target)
    out.say(f"trial {target} is the champion again: {number(chosen.score)}, {chosen.description}")
    if weights is False:
        out.warn(
            "its weights are gone, dropped for a later champion's: there is nothing to sample; "
            'keep = "all" under [weights] keeps every champion\'s from then on'
        )
    out.result(
        {"champion": target, "before": now.id, "commit": commit, "weights": weights},
        then=[f"autoresearch undo {now.id}{there(folder)}    takes this back"],
    )

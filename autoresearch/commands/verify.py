"""`autoresearch verify`: the ledger's chain, git against it, and the gain on fresh seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    attention_option,
    backend_option,
    json_option,
    sandbox_option,
    workspace_option,
)

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.recheck import Recheck

DAMAGED = 3


@click.command("verify")
@click.option(
    "--fresh-seeds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Also run baseline and champion again, on N seeds that nothing was decided by.",
)
@sandbox_option
@backend_option
@attention_option
@workspace_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, fresh_seeds: int | None, folder: Path, json_mode: bool, **choices: Any
) -> None:
    """Check that no record was changed, removed or added, and that git has what was kept.

    Every kept trial's commit must exist, stand on the study's branch in the ledger's order and hold
    the program that was measured. Exit code 3 when something doesn't fit.

    A champion is the best of many tries, so the scores that it was chosen by flatter it. With
    --fresh-seeds 5 it and the baseline are measured again, ten runs in all: the gain that you can
    quote. It is recorded, and changes no decision.
    """
    from autoresearch.console import Output
    from autoresearch.engine.errors import LedgerDamaged
    from autoresearch.opening import open_study
    from autoresearch.verification import Finding, verify

    out = Output(json_mode)
    records = 0
    try:
        study = open_study(folder)
        found = verify(study)
        records = len(study.ledger.records())
    except LedgerDamaged as error:
        found = [Finding("ledger", error.message), Finding("ledger", error.hint)]
    for finding in found:
        out.say(str(finding), style="red")
    if not found:
        out.say(f"{records} records, all as they were written; git agrees")
    then = ["look at what is named; a backup of results.jsonl helps"] if found else []
    problems = [{"where": finding.where, "message": finding.message} for finding in found]
    document: dict[str, Any] = {"ok": not found, "records": records, "problems": problems}
    if fresh_seeds is not None and not found:
        document["recheck"] = measure_again(out, folder, fresh_seeds, choices).to_dict()
    out.result(document, then=then)
    if found:
        ctx.exit(DAMAGED)


def measure_again(out: Output, folder: Path, seeds: int, choices: dict[str, Any]) -> Recheck:
    """The gain on fresh seeds, told as a table. Raises what `recheck` and opening a study raise."""
    import backends
    from autoresearch.awake import awake
    from autoresearch.commands.run import stopping
    from autoresearch.console import looking
    from autoresearch.engine.recheck import recheck
    from autoresearch.narration import narrated
    from autoresearch.opening import holds_task, write_study
    from autoresearch.study import Options

    with narrated(out) as on_event:
        if not holds_task(folder):
            with looking(on_event):
                backends.make_ready(choices["backend"])
        opened = write_study(folder, Options(**choices), on_event)
        with opened as study, awake(), stopping(study.loop, out):
            found = recheck(study.loop, seeds)
    show(out, study.task.objective.metric, found)
    return found


def show(out: Output, metric: str, found: Recheck) -> None:
    """Seed by seed, and what it comes to."""
    rows = [
        [str(seed), f"{old:.6f}", f"{new:.6f}", f"{new - old:+.6f}"]
        for seed, old, new in zip(found.seeds, found.baseline, found.champion, strict=True)
    ]
    out.table((">seed", ">baseline", f">trial {found.trial}", ">difference"), rows)
    verdict = "better" if found.gain > 0 else "no better"
    out.say(
        f"On fresh seeds trial {found.trial} is {verdict}: {metric} by {abs(found.gain):.4f} with "
        f"standard error {found.se:.4f}, on {found.wins} of {len(found.seeds)} seeds; "
        f"{found.confidence:.1%} sure that it is better than the baseline."
    )

"""`autoresearch verify`: the ledger's chain, and git against it."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option

DAMAGED = 3


@click.command("verify")
@workspace_option
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, json_mode: bool) -> None:
    """Check that no record was changed, removed or added, and that git has what was kept.

    Every kept trial's commit must exist, stand on the study's branch in the ledger's order and hold
    the program that was measured. Exit code 3 when something doesn't fit.
    """
    from autoresearch.console import Output
    from autoresearch.engine.errors import LedgerDamaged
    from autoresearch.study import Study
    from autoresearch.verification import Finding, verify

    out = Output(json_mode)
    records = 0
    try:
        study = Study.read(folder)
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
    out.result({"ok": not found, "records": records, "problems": problems}, then=then)
    if found:
        ctx.exit(DAMAGED)

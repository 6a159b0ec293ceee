"""`autoresearch notify`: send a message as [notify] says, to see that it arrives."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("notify")
@workspace_option
@json_option
def command(folder: Path, json_mode: bool) -> None:
    """Send a test message to the webhook and the command under [notify] in autoresearch.toml.

    \b
    [notify]
    webhook = "env:AUTORESEARCH_WEBHOOK"   the variable that holds the address, or file:PATH
    format = "slack"                       json, slack, discord or text
    command = "notify-send Research"       gets JSON on standard input
    on = ["keep", "stop", "trouble", "summary"]
    morning = "07:30"                      local time of a summary, beside the one at the end

    The address itself doesn't belong in autoresearch.toml: that is committed, and copied to whoever
    proposes. `autoresearch run` tells of kept trials, of pauses and errors, and of its end, and
    never waits for a message.
    """
    from autoresearch.background import Background
    from autoresearch.console import Output
    from autoresearch.notify import Messenger, find_address, message, read_notify
    from autoresearch.study import Study
    from prepare.errors import EnvironmentProblem, UsageError

    out = Output(json_mode)
    study = Study.read(folder)
    settings = read_notify(study.root)
    if not settings.wanted:
        raise UsageError(
            "nobody is to be told: [notify] names no webhook and no command",
            "see `autoresearch notify --help`",
        )
    address = find_address(settings.webhook, study.root) if settings.webhook else None
    with Background("notify", last_seconds=60.0) as background:
        Messenger(settings, study.root, address, background).send(
            message("test", study.tag, "a test of autoresearch notify")
        )
    problems = list(iter(background.problem, ""))
    if problems:
        raise EnvironmentProblem("; ".join(problems), "see [notify] in autoresearch.toml")
    out.say("Sent.")
    out.result({"sent": True})

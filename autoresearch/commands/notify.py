"""`autoresearch notify`: send a message as [notify] says, to see that it arrives."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("notify")
@workspace_option
@json_option
def command(folder: Path, json_mode: bool) -> None:
    """Send a test message to the webhook and the command under [notify] in autoresearch.toml, or
    under `notify` in a task file.

    \b
    [notify]
    webhook = "env:AUTORESEARCH_WEBHOOK"   the variable that holds the address, or file:PATH
    format = "slack"                       json, slack, discord or text
    command = "notify-send Research"       gets JSON on standard input
    on = ["keep", "stop", "trouble", "summary"]
    morning = "07:30"                      local time of a summary, beside the one at the end

    The address itself doesn't belong there: these files are committed, and copied to whoever
    proposes. A run tells of kept trials, of pauses and errors, and of its end, and never waits for
    a message.
    """
    from autoresearch.background import Background
    from autoresearch.console import Output
    from autoresearch.notify import Messenger, find_address, message
    from autoresearch.opening import open_study
    from prepare.errors import EnvironmentProblem, UsageError

    out = Output(json_mode)
    study = open_study(folder)
    settings = study.notify
    if not settings.wanted:
        raise UsageError(
            "nobody is to be told: [notify] names no webhook and no command",
            "see `autoresearch notify --help`",
        )
    address = find_address(settings.webhook, study.home) if settings.webhook else None
    with Background("notify", last_seconds=60.0) as background:
        Messenger(settings, study.home, address, background).send(
            message("test", study.tag, "a test of autoresearch notify")
        )
    problems = list(iter(background.problem, ""))
    if problems:
        raise EnvironmentProblem("; ".join(problems), "see [notify] in the settings")
    out.say("Sent.")
    out.result({"sent": True})

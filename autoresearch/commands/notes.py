"""`autoresearch notes`: the human's word in program.md, and what proposers are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import NearChoice, json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output


@click.command("notes")
@click.argument("action", required=False, type=NearChoice("action", ("add", "edit")))
@click.argument("words", nargs=-1, metavar="[NOTE]")
@click.option("--digest", is_flag=True, help="What proposers are told of the past, word for word.")
@workspace_option
@json_option
def command(
    action: str | None, words: tuple[str, ...], digest: bool, folder: Path, json_mode: bool
) -> None:
    """Your notes to whoever proposes. They win over everything else that is said there.

    \b
      autoresearch notes                  print them
      autoresearch notes add "NOTE"       add one, with today's date
      autoresearch notes edit             open program.md in $EDITOR
      autoresearch notes --digest         print what proposers are told of the past

    Notes are the section `## Notes` of program.md, so any editor will do. They may change while a
    run goes on: the next proposal reads them anew. Coding agents, `api` and `command` are given
    them; `search` reads no text. A task has its program.md beside its task file.
    """
    from autoresearch.console import Output
    from autoresearch.opening import own_folder, task_of
    from autoresearch.study import PROGRAM_NAME

    out = Output(json_mode)
    check(action, words, digest)
    own = own_folder(folder)  # a folder that is no workspace is told so
    if digest:
        show_digest(out, folder)
        return
    task = task_of(folder)
    path = (folder if task is None else task.parent) / PROGRAM_NAME
    if action == "add":
        add(out, path, " ".join(words), own)
    elif action == "edit":
        edit(path, own)
    show(out, path, said=action == "add")


def check(action: str | None, words: tuple[str, ...], digest: bool) -> None:
    """Refuse what goes together badly. Raises UsageError."""
    if digest and action is not None:
        raise click.UsageError(f"--digest prints something else: leave {action!r} out")
    if action == "edit" and words:
        raise click.UsageError('edit takes no text; `notes add "..."` does')
    if action == "add" and not words:
        raise click.UsageError('what is the note? Write `notes add "..."`')


def add(out: Output, path: Path, note: str, own: Path) -> None:
    """One more note. Raises EmptyNote."""
    import datetime

    from autoresearch.engine.program import add_note

    out.say(add_note(path, note, datetime.date.today(), own))


def edit(path: Path, own: Path) -> None:
    """Open the file, with a section to write in. Raises EnvironmentProblem without an editor."""
    from autoresearch.engine.program import begin_notes
    from prepare.errors import EnvironmentProblem

    begin_notes(path, own)
    try:
        click.edit(filename=str(path))
    except click.ClickException as error:
        hint = f'set EDITOR to one that works, or write `autoresearch notes add "..."`: {path}'
        raise EnvironmentProblem(f"no editor: {error.message}", hint) from error


def show(out: Output, path: Path, said: bool) -> None:
    """The notes; nothing more when `said`, unless a program asks."""
    from autoresearch.engine.program import Program

    notes = Program.read(path).notes
    if not said:
        out.say(notes or "no notes yet")
    then = [] if notes else ['autoresearch notes add "leave the optimizer alone"']
    out.result({"notes": notes, "path": str(path)}, then=then)


def show_digest(out: Output, folder: Path) -> None:
    """The digest as a prompt has it, or as JSON the form that `command` is given too."""
    from autoresearch.engine.asking import digest_of
    from autoresearch.opening import open_study

    study = open_study(folder)
    digest = digest_of(study.task, study.ledger, study.state.champion)
    if out.json_mode:
        out.result({"markdown": digest.markdown(), "history": digest.to_dict()})
    else:
        click.echo(digest.markdown(), nl=False)

"""The `autoresearch` command: `autoresearch --help` lists what it does.

This module knows names, errors and exit codes. Each command lives in `autoresearch/commands/` and
imports what is heavy inside its function, so that help and usage errors need no framework.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 data, 4 this machine lacks something,
5 train.py failed, 130 interrupted. `trial` and `combine` add 10 to 13: what became of the edit;
`bench --against` adds 10: slower.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from autoresearch.options import near

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETING = "_AUTORESEARCH_COMPLETE"  # set by the scripts that `completion` prints
COMMANDS = {
    "doctor": "see what this machine has and what will be used",
    "demo": "train a small model here in a few minutes",
    "presets": "list the presets, or show one with its reasons",
    "init": "make a workspace: train.py, program.md, settings",
    "config": "every setting, and where its value comes from",
    "prepare": "make the data ready: text, tokenizer, tokens",
    "train": "run one experiment and score it",
    "run": "research by itself: propose, measure, keep or drop",
    "trial": "measure your edit of train.py; it is kept or put back",
    "combine": "try edits together that were each nearly kept",
    "status": "the study: champion, counts, what runs now",
    "dashboard": "the same as web pages, live, with pause and stop",
    "results": "all trials as a table, JSON or upstream's TSV",
    "report": "the night as a page, a picture and Markdown",
    "show": "one trial: edit, curve, runs, reasons",
    "log": "what a trial's program printed",
    "sample": "text that the champion's weights write",
    "undo": "bring an earlier champion back",
    "notes": "your word to whoever proposes, also while a run goes on",
    "notify": "try the webhook or command that a night reports to",
    "verify": "check the ledger, and git against it",
    "export": "the best train.py, and a patch per kept idea",
    "task": "the same for any artifact with a score, by a task file",
    "cluster": "the file that starts a study on Slurm, Kubernetes ...",
    "mcp": "the same for agents that speak MCP",
    "completion": "let the shell complete words at TAB",
    "clean": "what the cache holds; remove what can be made again",
    "bench": "measure training, MFU, feed, loop ... as ratios",
}

HELP = """Pretraining research by an AI agent, on the hardware you have.

You write program.md, the agent edits train.py, the harness trains it for a fixed time and
measures val_bpb (validation bits per byte, lower is better).

\b
First time here:
  autoresearch doctor             what this machine has
  autoresearch demo               see a model train, a few minutes

\b
Then:
  autoresearch init my-research --preset auto
  cd my-research
  autoresearch train              one experiment: prepare, train, score
  autoresearch run --hours 8      search through the night, no model and no key
"""


class LazyCommands(click.Group):
    """Loads a command's module when it is used; help lists COMMANDS without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"autoresearch.commands.{name}")
        command: click.Command = module.command
        if COMPLETING in os.environ:
            from autoresearch.completing import complete

            complete(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """At TAB: the commands by name, none is loaded."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=words)
            for name, words in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*found, *options]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        mistyped = args and args[0] not in COMMANDS and not args[0].startswith("-")
        if mistyped and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {args[0]!r}.{near(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyCommands,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command takes --json for programs, and --help.",
)
@click.version_option(package_name="autoresearch", prog_name="autoresearch")
def cli() -> None:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `autoresearch` command; ends the process with the exit code."""
    warnings.formatwarning = _plain_warning
    args = sys.argv[1:] if argv is None else list(argv)
    _writable("--json" in args)
    sys.exit(run(args))


def _writable(json_mode: bool) -> None:
    """No character ends a run because a code page lacks it; JSON is UTF-8 everywhere."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if json_mode and stream is sys.stdout:
            stream.reconfigure(encoding="utf-8")
        stream.reconfigure(errors="replace")


def run(args: list[str]) -> int:
    """Run one command; every expected error becomes a message and an exit code."""
    json_mode = "--json" in args
    try:
        code = cli.main(args=args, prog_name="autoresearch", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        return _usage_error(error, json_mode)
    except click.ClickException as error:
        return _report(json_mode, type(error).__name__, error.format_message(), "", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _report(json_mode, "Interrupted", "interrupted", "", 130)
    except BrokenPipeError:
        # The reader went away (`autoresearch presets | head`): nothing is left to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = _known(error)
        _remember(args, error, 1 if known is None else known[2])
        if known is None:
            raise
        message, hint, code = known
        return _report(json_mode, type(error).__name__, message, hint, code)


def _remember(args: list[str], error: Exception, code: int) -> None:
    """Keep an error for `doctor --report`; of what was typed the command's name alone."""
    from autoresearch.bug_report import remember

    remember(next((word for word in args if word in COMMANDS), ""), error, code, args)


def _known(error: Exception) -> tuple[str, str, int] | None:
    """(message, hint, exit code) of an error that the user can act on, else None."""
    from autoresearch.engine.errors import EngineError
    from backends.errors import BackendError
    from prepare.errors import PrepareError

    if isinstance(error, PrepareError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, EngineError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, BackendError):
        hint = error.hint or "run `autoresearch doctor` to see what this machine has"
        return error.message, hint, error.exit_code
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
    ):
        place = f": {error.filename}" if error.filename else ""
        full = error.errno == errno.ENOSPC
        hint = "free some space" if full else "make it writable, or name another folder"
        return f"{error.strerror}{place}", hint, 4
    return None


def _plain_warning(
    message: Warning | str, category: type[Warning], *where: object, **more: object
) -> str:
    """A warning without the line of our code that gave it."""
    return f"Warning: {message}\n"


def _usage_error(error: click.UsageError, json_mode: bool) -> int:
    command = error.ctx.command_path if error.ctx is not None else "autoresearch"
    return _report(json_mode, "UsageError", error.format_message(), f"see `{command} --help`", 2)


def _report(json_mode: bool, kind: str, message: str, hint: str, code: int) -> int:
    """Say what went wrong: JSON on stdout for programs, two lines on stderr for people."""
    if json_mode:
        from autoresearch.console import to_json

        print(
            to_json({"error": {"type": kind, "message": message, "hint": hint, "exit_code": code}})
        )
        return code
    click.secho(f"Error: {message}", fg="red" if code != 130 else None, err=True, color=_color())
    if hint:
        click.echo(f"  {hint}", err=True)
    return code


def _color() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


if __name__ == "__main__":
    main()

"""`autoresearch task`: any artifact with a score, by a task file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    budget_options,
    json_option,
    near,
    sandbox_option,
    search_options,
    tracker_option,
)

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.taskfile.check import CheckReport
    from autoresearch.taskfile.study import TaskStudy

FILE = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
NO_EDIT = 5


class TaskCommands(click.Group):
    """Answers a mistyped subcommand with what comes close."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"no command task {args[0]!r}.{near(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group("task", cls=TaskCommands)
def command() -> None:
    """Optimise any artifact that has a score: a prompt, a skill, a configuration, small code.

    A task file (YAML) says which files may change and by how much, who proposes edits, how to run
    and to score, and in which direction. The rest is as for pretraining: the baseline first, its
    noise, each proposal measured, kept or dropped, and recorded.

    \b
    First time here:
      autoresearch task new my-task           a task that runs, to make your own
      autoresearch task check my-task         is it sound, how long, how noisy
      autoresearch task run my-task           until its budget is spent
      autoresearch results --dir my-task      every trial; show, status, verify too

    FILE is a task file, or a folder that holds one: its task.yaml, or the only one there. Records
    lie in work/ beside it; those of a folder's second task file in work/tasks/NAME. Your own files
    change on a keep alone, and the artifacts alone. Each of these takes --json.
    """


@command.command("run", short_help="propose, run, score, keep or drop, until the budget is spent")
@FILE
@click.option("--once", is_flag=True, help="One proposal; the exit code says what became of it.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Runs made at the same time on this machine, which they share: several trials are under "
    "way then. For runs that wait (for a model's API, say) or use few of the cores; refused where "
    "the scorer measures time.",
)
@budget_options
@search_options
@sandbox_option
@tracker_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    file: Path,
    once: bool,
    limits: dict[str, Any],
    tracker: str | None,
    json_mode: bool,
    **choices: Any,
) -> None:
    """Propose, run, score, keep or drop, until the task's budget is spent.

    The first run measures the files as they are: the baseline, and the noise. A run that was ended
    in any way goes on where it stopped. Ctrl-C once ends after what is under way, twice at once.
    Limits that aren't given are those of `budget` in the task file, which may also say who is told
    of keeps and trouble (`notify`) and where trials are tracked, too (`tracker`).

    \b
    Exit codes of --once:
      0   keep       the artifacts have changed
      5   crash      it failed, or nothing was proposed
      10  discard    not better
      11  rejected   it broke a rule, or repeats an earlier try
      13  noisy      the machine was disturbed; try again
    """
    from autoresearch.awake import awake
    from autoresearch.commands.run import counting_costs, stopping
    from autoresearch.console import Output
    from autoresearch.narration import narrated
    from autoresearch.notify import notifying
    from autoresearch.study import Options
    from autoresearch.taskfile.study import TaskStudy
    from autoresearch.trackers.tracking import tracking

    if once and "trials" in limits:
        raise click.UsageError("--once is one trial: leave --trials out")
    out = Output(json_mode)
    options = Options(**choices)
    with (
        narrated(out, file) as on_event,
        TaskStudy.write(task_file(file), options, on_event) as study,
        notifying(study) as ended,
        tracking(study, tracker),
    ):
        budget = study.task.budget.model_copy(update={**limits, **({"trials": 1} if once else {})})
        study.on_event = counting_costs(study.on_event, budget, study.loop)
        before = study.loop.state.next_id
        proposer = study.mutator()
        with stopping(study.loop, out), awake():
            measure_baseline(study, file)
            reason = study.loop.run(proposer, budget)
        ended(reason)
    show_end(out, file, study, reason)
    if once:
        ctx.exit(_exit_code(study, before))


def measure_baseline(study: TaskStudy, file: Path) -> None:
    """The files as they are, where that is still to be done. Raises StudyStopped if they fail."""
    from autoresearch.engine.errors import StudyStopped

    try:
        study.loop.baseline()
    except StudyStopped as error:
        hint = f"`autoresearch task check {file}` shows what it printed"
        raise StudyStopped(error.message, hint) from error


def _exit_code(study: TaskStudy, before: int) -> int:
    from autoresearch.commands.trial import EXIT_CODES

    last = study.state.next_id - 1
    if last < max(before, 1):
        return NO_EDIT
    return EXIT_CODES[str(study.state.trials[last].status)]


def show_end(out: Output, file: Path, study: TaskStudy, reason: str) -> None:
    """Why it ended, what was kept, and what to do next."""
    from autoresearch.commands.run import show_ended
    from autoresearch.opening import go_on, there
    from autoresearch.taskfile.views import show_holdouts

    ended = show_ended(out, study, reason)
    show_holdouts(out, study)
    out.result(
        {
            **ended,
            "holdout": {str(key): record["run"] for key, record in study.holdouts().items()},
        },
        then=[
            f"autoresearch results{there(file)}    every trial",
            f"autoresearch export{there(file)}    its files, and a patch per kept idea",
            f"{go_on(file)}    go on",
        ],
    )


@command.command("check", short_help="is it sound, how long, how noisy, what the sandbox hides")
@FILE
@sandbox_option
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path, sandbox: str, json_mode: bool) -> None:
    """Validate a task, and measure its program twice: noise, time, and what the sandbox hides.

    No study begins, nothing is proposed, and no file of yours changes. Exit code 5 when the
    program or its scorer fails.
    """
    from autoresearch.console import Output
    from autoresearch.narration import narrated
    from autoresearch.taskfile import check as checking
    from autoresearch.taskfile.model import load

    out = Output(json_mode)
    found = task_file(file)
    with narrated(out) as on_event:
        report = checking.check(found, sandbox, on_event if not json_mode else lambda *_: None)
    show_check(out, report, load(found).objective.metric)
    then = [f"autoresearch task run {file}"] if report.ok else ["mend what is named, check again"]
    out.result(report.to_dict(), then=then)
    if not report.ok:
        ctx.exit(NO_EDIT)


def show_check(out: Output, report: CheckReport, metric: str) -> None:
    """The report for people."""
    rows = [
        ("may change", _names(report.artifacts)),
        ("beside them", _names(report.beside)),
        *[("inputs", f"{_names(report.inputs)}  (read-only)") for _ in report.inputs[:1]],
        *[(f"the {role}'s", f"{_names(files)}  (hidden)") for role, files in report.hidden.items()],
        ("proposer", report.mutator),
        (metric, ", ".join(f"{score:.6g}" for score in report.scores) or "none"),
        ("noise", _noise(report)),
        ("one run", f"{report.seconds:.2f} s; a trial is one run, or a few if it looks promising"),
        ("sandbox", report.tier),
    ]
    out.facts([(name, words) for name, words in rows if words])
    out.say("  it stops")
    for item in report.stops:
        out.say(f"    {item}")
    out.say("  it does not stop")
    for item in report.does_not_stop:
        out.say(f"    {item}")
    if report.disturbed:
        words = "a study makes such a run again, and calls a trial noisy"
        out.say(f"disturbed: {report.disturbed}; {words}", style="yellow")
    for run in report.runs:
        if run.failure is not None:
            failure = run.failure
            out.say(f"failed: {failure.phase}: {failure.kind}: {failure.message}", style="red")
            out.say(failure.log_tail)
            break
    if report.broken_constraint:
        out.say(f"the program as it stands breaks {report.broken_constraint}", style="red")


def _noise(report: CheckReport) -> str:
    """What two runs tell of it; "" where there aren't two scores."""
    if report.noise is None:
        return ""
    if not report.noise:
        return "none: two runs agree exactly, so one run of a candidate will do"
    words = f"standard deviation {report.noise:.2g} of one run, by two runs"
    return words if report.timed else f"{words}; if it is time that differs, say `timed: true`"


def _names(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - 8} more" if len(paths) > 8 else ""
    return (", ".join(paths[:8]) + more) or "none"


@command.command("new", short_help="make a small task that runs, to be made your own")
@click.argument("folder", type=click.Path(path_type=Path), metavar="NAME")
@json_option
def new(folder: Path, json_mode: bool) -> None:
    """Make a small task that runs, in a new folder NAME, to be made your own.

    In a folder that holds a project already (`autoresearch task new .`) a task.yaml is put beside
    its files: a proposal of what may change, what is read where it lies, and which commands run
    and score it, guessed from the files' names. No file of yours is changed.
    """
    from autoresearch.console import Output
    from autoresearch.taskfile.scaffold import has_project, make_task

    out = Output(json_mode)
    project = has_project(folder)
    files = make_task(folder)
    out.heading(f"Proposed a task for {folder.resolve().name}" if project else f"Made {folder}")
    for name in files:
        out.say(f"  {name}")
    then = [f"autoresearch task check {folder}", f"autoresearch task run {folder}"]
    if project:
        then[0] = f"complete {folder / files[0]}, then {then[0]}"
    out.result({"folder": str(folder), "files": files}, then=then)


@command.command("schema", short_help="print the JSON Schema of a task file")
@json_option
def schema(json_mode: bool) -> None:
    """Print the JSON Schema of a task file, for editors and programs."""
    from autoresearch.taskfile.model import schema as text

    click.echo(text())


def task_file(given: Path) -> Path:
    """The task file that is meant: of a folder its task.yaml, or the only one in it.

    Raises UsageError where a folder has none, or several.
    """
    from autoresearch.opening import find_task
    from prepare.errors import UsageError

    found = find_task(given)
    if found is None and given.is_dir():
        hint = "name the file, or make a task with `autoresearch task new NAME`"
        raise UsageError(f"no task file in {given}", hint)
    return found or given

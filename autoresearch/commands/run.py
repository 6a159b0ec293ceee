"""`autoresearch run`: the loop by itself, trial after trial, until a budget is spent."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    NearChoice,
    attention_option,
    backend_option,
    budget_options,
    cluster_options,
    json_option,
    near,
    search_options,
    study_options,
    tracker_option,
    worker_options,
    workspace_option,
)

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.loop import Loop
    from autoresearch.engine.task import Budget, Event
    from autoresearch.opening import AnyStudy
    from autoresearch.study import Study


@click.command("run")
@click.option(
    "--agent",
    "agents",
    multiple=True,
    default=("search",),
    show_default=True,
    metavar="NAME",
    help="Who proposes: search (over the constants; no model, no key), claude, codex, gemini, "
    "opencode, aider, cursor, qwen, goose, api (any OpenAI-compatible endpoint), command. Several "
    "are asked in turn.",
)
@click.option(
    "--agent-option",
    "agent_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="For the proposer, such as model=NAME, base_url=URL, command='python edit.py'. Of several "
    "for the one that is named, by name or place: claude.model=NAME, 2.model=NAME.",
)
@budget_options
@click.option(
    "--policy",
    type=NearChoice("policy", ("confirm", "greedy")),
    metavar="NAME",
    help="confirm repeats what looks promising; greedy believes one run.  [default: confirm]",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="Asked of `confirm` before it keeps.  [default: 0.95]",
)
@search_options
@worker_options
@cluster_options
@study_options
@tracker_option
@workspace_option
@backend_option
@attention_option
@json_option
def command(
    agents: tuple[str, ...],
    agent_options: tuple[str, ...],
    limits: dict[str, Any],
    tracker: str | None,
    folder: Path,
    json_mode: bool,
    **choices: Any,
) -> None:
    """Do research unattended: propose an edit, measure it, keep or drop it, and again.

    The first run measures train.py as it stands on three seeds: the baseline, and the noise. Stops
    when a budget is spent, and goes on where it stopped when it is started again, also after a
    kill. Ctrl-C once ends after what is under way, twice at once. Limits that aren't given are
    those of [task.budget] in autoresearch.toml.

    With several accelerators, several trials are under way at the same time, one run on each. With
    --engine ray they are those of a cluster, which studies share.
    """
    import backends
    from autoresearch.awake import awake
    from autoresearch.console import Output, looking
    from autoresearch.narration import narrated
    from autoresearch.notify import notifying
    from autoresearch.study import Options, Study
    from autoresearch.trackers.tracking import tracking

    out = Output(json_mode)
    options = Options(**choices)
    given = deal_options(agents, read_options(agent_options))
    unopened = Study.read(folder, options)
    proposers = [unopened.proposer(*each) for each in zip(agents, given, strict=True)]
    with narrated(out, folder) as on_event:
        if options.engine == "local":  # what the nodes of a cluster have, they see themselves
            with looking(on_event):
                backends.make_ready(choices["backend"])
        with (
            Study.write(folder, options, on_event, True) as study,
            awake() as problem,
            notifying(study) as ended,
            tracking(study, tracker),
        ):
            if problem:
                out.warn(f"this machine may fall asleep: {problem}")
            budget = study.task.budget.model_copy(update=limits)
            study.on_event = counting_costs(study.on_event, budget, study.loop)
            with stopping(study.loop, out):
                reason = study.loop.run(proposers, budget)
            ended(reason)
    show_end(out, study, reason, folder)


def read_options(given: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value that is JSON (a number, true, a list) is taken as such.

    A key may begin with whose it is and a dot.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.rpartition(".")[2].isidentifier():
            raise click.UsageError(f"--agent-option {text!r}: write KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def deal_options(agents: tuple[str, ...], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each proposer's own options: `model` is everybody's, `claude.model` and `2.model` of those.

    Raises UsageError for one that is nobody's.
    """
    dealt: list[dict[str, Any]] = [{} for _ in agents]
    # What says whose it is counts for more than what doesn't, and a place for more than a name.
    for key in sorted(options, key=lambda key: ("." in key, key.partition(".")[0].isdigit())):
        whose, _, name = key.rpartition(".")
        places = [
            place for place, agent in enumerate(agents) if whose in ("", agent, str(place + 1))
        ]
        if not places:
            known = near(whose, dict.fromkeys(agents))
            raise click.UsageError(f"--agent-option {key}: no --agent {whose!r}.{known}")
        for place in places:
            dealt[place][name] = options[key]
    return dealt


def counting_costs(on_event: Event, budget: Budget, loop: Loop) -> Event:
    """Say when a limit of dollars or tokens can't be kept: proposals don't tell what they cost.

    Where no other limit would end the run, it ends after that trial.
    """
    told = set()

    def watched(name: str, data: Mapping[str, Any]) -> None:
        on_event(name, data)
        cost = data["trial"]["cost"] if name == "decided" and data["trial"]["id"] else {}
        for limit, part in (("dollars", "dollars"), ("tokens", "tokens_out")):
            if getattr(budget, limit) is None or limit in told or cost.get(part, 0) is not None:
                continue
            told.add(limit)
            message = f"proposals don't say what they cost: --{limit} can't end this run"
            if budget.hours is None and budget.trials is None:
                loop.stop_asked = True
                message += ", so it ends now; add --hours or --trials"
            on_event("warning", {"message": message})

    return watched


@contextmanager
def stopping(loop: Loop, out: Output) -> Iterator[None]:
    """Ctrl-C once lets the loop end what is under way; again, or a SIGTERM, stops it now."""

    def on_interrupt(number: int, frame: object) -> None:
        if loop.stop_asked or number != signal.SIGINT:
            raise KeyboardInterrupt
        loop.stop_asked = True
        out.warn(f"stopping after what is under way{several(loop)}; Ctrl-C again stops now")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def several(loop: Loop) -> str:
    """How many trials are under way, in words, and what becomes of them; "" for one."""
    count, waiting = len(loop.in_flight), loop.flight.waiting
    if count < 2:
        return ""
    words = f": {count} trials"
    if waiting:
        verb = "waits" if waiting == 1 else "wait"
        words += f", of which {waiting} beat a former champion and {verb} to be measured on the new"
        words += " one"
    return f"{words}. What is cut short is judged when the study goes on"


def show_end(out: Output, study: Study, reason: str, folder: Path) -> None:
    """Why it ended, the ideas that were kept, and what to do next."""
    from autoresearch.opening import in_git, there

    ended = show_ended(out, study, reason)
    at, best = there(folder), ended["champion"]
    steps = [
        (f"autoresearch results{at}", "every trial"),
        (f"autoresearch run --hours 8{at}", "go on"),
    ]
    if len(ended["kept"]) > 1:
        steps[:0] = [
            (f"git{in_git(folder)} switch {study.workspace.branch}", "take it: a commit per idea"),
            (f"autoresearch export{at}", "or its train.py, and a patch with evidence per idea"),
            (f"autoresearch show {best}{at}", "what the last one is and why it was kept"),
            (f"autoresearch verify --fresh-seeds 5{at}", "the gain to quote: measured anew"),
        ]
    width = max(len(command) for command, _ in steps)
    out.result(ended, then=[f"{command:<{width}}   {what}" for command, what in steps])


def show_ended(out: Output, study: AnyStudy, reason: str) -> dict[str, Any]:
    """Why a run ended and what was kept, on the screen; the same as JSON values."""
    from autoresearch.narration import extra_runs, show_kept
    from autoresearch.standing import counts
    from autoresearch.study import lineage

    state = study.state
    kept, by_status = lineage(state), counts(state)
    out.say()
    extra = sum(trial.extra_runs for trial in state.trials.values())
    words = ", ".join(f"{n} {name}" for name, n in by_status.items())
    out.say(f"Ended: {reason}. " + "; ".join(filter(None, (words, extra_runs(extra)))))
    show_kept(out, study.task.objective.metric, kept)
    return {
        "reason": reason,
        "tag": study.tag,
        "counts": by_status,
        "extra_runs": extra,
        "champion": state.champion,
        "kept": [trial.to_dict() for trial in kept],
    }

"""`autoresearch train [SCRIPT]`: one experiment, scored by the harness; git is left alone."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import (
    SECONDS,
    attention_option,
    backend_option,
    json_option,
    sandbox_option,
)

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.engine.sandbox import Tier
    from backends.hardware import Hardware
    from prepare.outcome import Failure, Result


@click.command("train")
@click.argument("script", type=click.Path(path_type=Path), default=Path("train.py"))
@click.option("--time-budget", type=SECONDS, help="Training time: 90, 90s, 5m, 1h.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and row order.")
@click.option(
    "--run-dir", type=click.Path(file_okay=False, path_type=Path), help="Log and weights."
)
@backend_option
@attention_option
@sandbox_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    script: Path,
    time_budget: float | None,
    seed: int | None,
    run_dir: Path | None,
    backend: str | None,
    attention: str | None,
    sandbox: str,
    json_mode: bool,
) -> None:
    """Run one experiment: train SCRIPT for the workspace's time, then measure val_bpb.

    SCRIPT is train.py of this folder unless named. Settings come from the autoresearch.toml beside
    it. Data is prepared first if need be. SCRIPT runs in a sandbox: the result says which, and what
    that does not stop. Exit code 5 when the script fails.
    """
    import backends
    from autoresearch.console import Output, looking
    from autoresearch.model_folder import describe
    from prepare.errors import PrepareError
    from prepare.experiment import run_experiment
    from prepare.outcome import Failure

    out = Output(json_mode)
    settings = workspace_settings(script, time_budget=time_budget, seed=seed)
    tier = chosen_tier(sandbox)
    program = script.read_bytes()
    with out.progress() as on_event:
        # Here, where what isn't there is a typed error and not the script's fault.
        with looking(on_event):
            require_attention(attention, backends.select(backend).hardware)
        outcome = run_experiment(
            script.resolve(),
            settings,
            backend=backend,
            attention=attention,
            run_dir=run_dir,
            on_event=on_event,
            sandbox=tier,
        )
    if isinstance(outcome, Failure):
        show_failure(out, outcome)
        ctx.exit(5)
    if outcome.weights is not None:
        try:
            describe(Path(outcome.run_dir), program, settings, outcome.to_dict())
        except (PrepareError, OSError) as error:  # the score stands
            out.warn(f"`autoresearch sample` can't use these weights: {error}")
    show_result(out, outcome)


def require_attention(name: str | None, hardware: Hardware) -> None:
    """Raises AttentionUnavailable when no code of `name` is for this hardware."""
    from backends.errors import AttentionUnavailable
    from backends.policy import attention_order

    known, why = attention_order(hardware)
    if name is not None and name not in known:
        hint = f"on {hardware.backend}: {', '.join(known)}"
        raise AttentionUnavailable(name, f"{why}; this is {hardware.name}", hint)


def chosen_tier(name: str) -> Tier:
    """The isolation tier of this name. Raises MissingTool when it doesn't work here."""
    from autoresearch.engine.sandbox import SandboxUnavailable, choose
    from prepare.errors import MissingTool

    try:
        return choose(name)
    except SandboxUnavailable as error:
        hint = "`--sandbox auto` takes the strictest tier that works here"
        raise MissingTool(str(error), hint) from error


def workspace_settings(script: Path, **overrides: Any) -> Any:
    """Settings beside `script`, with what is not None in `overrides` on top. Raises UsageError."""
    from prepare.errors import UsageError
    from prepare.settings import Settings

    if not script.is_file():
        raise UsageError(
            f"no file {script}", "change into a workspace, or make one with `autoresearch init`"
        )
    settings = Settings.load(script.resolve().parent)
    given = {key: value for key, value in overrides.items() if value is not None}
    return Settings.model_validate({**settings.model_dump(), **given})


def show_result(out: Output, result: Result) -> None:
    """The nine-line summary after `---`, where the score stands, and what to do next."""
    from prepare.outcome import format_summary

    out.say(format_summary(result).rstrip())
    if result.floor_bpb is not None:
        out.say()
        out.say(
            f"The text's true entropy is {result.floor_bpb:.4f} bits per byte: nothing gets below."
        )
    then = ["edit train.py and run `autoresearch train` again: lower val_bpb is better"]
    if result.weights is not None:
        folder = shlex.quote(os.path.relpath(result.run_dir))
        then.append(f"autoresearch sample --weights {folder}    text that it writes")
    out.result(result.to_dict(), then=then)


def show_failure(out: Output, failure: Failure) -> None:
    """What failed, in which phase, and the last lines of its log."""
    if out.json_mode:
        out.result(failure.to_dict(), then=["mend train.py and run `autoresearch train` again"])
        return
    if failure.log_tail.strip():
        click.echo(f"{failure.log_tail.rstrip()}\n", err=True)
    click.secho(f"Error: {failure.phase}: {failure.kind}: {failure.message}", fg="red", err=True)
    click.echo("  mend train.py and run `autoresearch train` again", err=True)

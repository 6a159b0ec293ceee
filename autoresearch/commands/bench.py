"""`autoresearch bench`: how fast this machine is at what we do, as ratios in one run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import BACKENDS, SECONDS, NearChoice, backend_option, json_option

if TYPE_CHECKING:
    from autoresearch.bench.samples import Report
    from autoresearch.console import OnEvent
    from backends import Selection

REGRESSED = 10  # as `trial` says "not better"
FAILED = 5

Measure = Callable[["Selection", int, "OnEvent"], "list[Report]"]


@click.group("bench")
def command() -> None:
    """Measure this machine.

    Every figure is made in one run: what is compared takes turns (A B A B ...), and the median,
    the spread from the lowest to the highest and the conditions are given. Use an idle machine.

    \b
    --output FILE     all samples and the conditions, as JSON
    --against FILE    compare the ratios with such a file; speeds of another day are not compared
    Exit codes:
      0   measured
      5   train.py failed, so nothing was measured
      10  a ratio is worse than in --against FILE, beyond both spreads and 5%
    """


def subject_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--repeats, --output, --against, --json: passed on as `report_options`."""

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        names = ("repeats", "output", "against", "json_mode")
        report_options = {name: given.pop(name) for name in names}
        return function(**given, report_options=report_options)

    decorated: Any = call
    path = click.Path(dir_okay=False, path_type=Path)
    for option in (
        json_option,
        click.option("--against", type=path, metavar="FILE", help="Results to compare with."),
        click.option("--output", type=path, metavar="FILE", help="Write the results here."),
        click.option(
            "--repeats",
            type=click.IntRange(1, 100),
            default=5,
            show_default=True,
            help="Samples of each variant.",
        ),
    ):
        decorated = option(decorated)
    return decorated


def run(
    measure: Measure,
    backend: str | None,
    *,
    repeats: int,
    output: Path | None,
    against: Path | None,
    json_mode: bool,
) -> None:
    """Measure under recorded conditions, then show, write and compare."""
    import backends
    from autoresearch.bench import results
    from autoresearch.bench.conditions import Conditions
    from autoresearch.console import Output, looking, to_json

    out = Output(json_mode)
    before = results.read(against) if against else None
    with out.progress() as on_event:
        with looking(on_event):
            selection = backends.make_ready(backend)
        with Conditions(selection) as conditions:
            reports = measure(selection, repeats, on_event)
    document = results.to_document(reports, conditions.to_dict())
    if output is not None:
        output.write_text(to_json(document, indent=1) + "\n", encoding="utf-8")
    compared = results.compare(document, before) if before else []
    regressed = any(line.regressed for line in compared)
    _show(out, document, compared, against)
    _summarise(document, compared)
    then = [f"{output}    all samples with their conditions"] if output else []
    out.result({**document, "compared": [vars(line) for line in compared]}, then=then)
    if regressed:
        click.get_current_context().exit(REGRESSED)
    if not any(report.figures for report in reports):
        click.get_current_context().exit(FAILED)


def _show(out: Any, document: dict[str, Any], compared: list[Any], against: Path | None) -> None:
    from autoresearch.bench import results

    out.table(results.RATIOS, results.ratio_rows(document))
    out.table(results.FIGURES, results.figure_rows(document))
    for line in results.remarks(document):
        out.say(line)
    out.say(results.conditions_line(document["conditions"]))
    if document["conditions"]["disturbance"]:
        out.warn(f"{document['conditions']['disturbance']}: measure again on an idle machine")
    if compared:
        out.heading(f"Against {against}")
        out.table(results.COMPARED, results.compared_rows(compared))
    elif against is not None:
        out.warn(f"{against} has no ratio of these sizes on this backend: nothing was compared")


def _summarise(document: dict[str, Any], compared: list[Any]) -> None:
    """The same for the page of a GitHub job, where there is one."""
    from autoresearch.bench import results

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write("### bench\n\n" + results.markdown(document))
            if compared:
                file.write("\nAgainst earlier results:\n\n" + results.compared_markdown(compared))


@command.command("training")
@backend_option
@click.option("--depth", type=click.IntRange(1), default=4, show_default=True)
@click.option("--width", type=click.IntRange(1), default=256, show_default=True)
@click.option("--seq-len", type=click.IntRange(1), default=256, show_default=True)
@click.option("--vocab", type=click.IntRange(256, 65536), default=2048, show_default=True)
@click.option("--step-tokens", type=click.IntRange(1), default=4096, show_default=True)
@click.option("--pattern", default="SSSL", show_default=True, help="Windows, as in train.py.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Rows of a forward pass of train.py.  [default: 1,024 tokens]",
)
@subject_options
def training(
    backend: str | None, rows: int | None, report_options: dict[str, Any], **sizes: Any
) -> None:
    """Tokens/s of train.py with its optimizer, against the same model written the plain way.

    The plain program (benchmarks/reference/plain.py) runs in eager fp32, and in bf16 with
    torch.compile: T x T masks for windows, all logits at once, one pass and one optimizer step per
    parameter. MFU is against a matrix product measured in the same turns.
    """
    from autoresearch.bench import training as subject
    from autoresearch.bench.variants import Size

    size = Size(**sizes, rows=rows or max(1, min(1024, sizes["step_tokens"]) // sizes["seq_len"]))
    size.check()
    run(
        lambda selection, repeats, on_event: [subject.measure(selection, size, repeats, on_event)],
        backend,
        **report_options,
    )


@command.command("mfu")
@click.option(
    "--backend",
    "names",
    multiple=True,
    type=NearChoice("backend", ("all", *BACKENDS)),
    metavar="NAME",
    help="A backend, again for more, or all.  [default: all that are here]",
)
@click.option("--preset", "preset_name", default="demo", show_default=True, metavar="NAME")
@click.option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Of each run.")
@subject_options
def mfu(
    names: tuple[str, ...], preset_name: str, seconds: float, report_options: dict[str, Any]
) -> None:
    """Tokens/s and MFU of each backend, from whole experiments with a preset's train.py.

    MFU is given against the datasheet's dense bf16 peak, where it is known, and against the peak of
    a big matrix product measured in the same run.
    """
    from autoresearch.bench import mfu as subject
    from autoresearch.preset import load_preset

    preset = load_preset(preset_name)
    chosen = subject.backends_here() if not names or "all" in names else names
    run(
        lambda selection, repeats, on_event: [
            subject.measure(preset, chosen, seconds, repeats, on_event)
        ],
        chosen[0],
        **report_options,
    )

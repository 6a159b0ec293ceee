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
    from autoresearch.bench.variants import Size
    from autoresearch.console import OnEvent, Output
    from backends import Selection

PRESET = click.option(
    "--preset", "preset_name", default="cpu-tinystories", show_default=True, metavar="NAME"
)
REGRESSED = 10  # as `trial` says "not better"
FAILED = 5

Measure = Callable[["Selection", int, "OnEvent"], "list[Report]"]


@click.group("bench")
def command() -> None:
    """Measure this machine: train.py and the harness, against the plain way to do the same.

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
    from autoresearch.console import Output, looking

    out = Output(json_mode)
    before = _before_measuring(output, against)
    with out.progress() as on_event:
        with looking(on_event):
            selection = backends.make_ready(backend)
        with Conditions(selection.hardware) as conditions:
            reports = measure(selection, repeats, on_event)
    _report(out, results.to_document(reports, conditions.to_dict()), before, output, against)


def run_on_host(
    measure: Callable[[int, OnEvent], Report],
    *,
    repeats: int,
    output: Path | None,
    against: Path | None,
    json_mode: bool,
) -> None:
    """As `run`, for what no framework takes part in: nothing is probed or compiled for it."""
    from autoresearch.bench import results
    from autoresearch.bench.conditions import Conditions
    from autoresearch.console import Output
    from backends.hardware import detect

    out = Output(json_mode)
    before = _before_measuring(output, against)
    with out.progress() as on_event, Conditions(detect()[0]) as conditions:
        report = measure(repeats, on_event)
    _report(out, results.to_document([report], conditions.to_dict()), before, output, against)


def _before_measuring(output: Path | None, against: Path | None) -> dict[str, Any] | None:
    """The results to compare with; what is wrong with either file is said now, not in minutes."""
    from autoresearch.bench import results
    from prepare.cache import writable_folder

    if output is not None:
        writable_folder(output.parent, "name another file with --output")
    return results.read(against) if against else None


def _report(
    out: Output,
    document: dict[str, Any],
    before: dict[str, Any] | None,
    output: Path | None,
    against: Path | None,
) -> None:
    """Show, write and compare; ends with the exit code of a regression or of a failure."""
    from autoresearch.bench import results
    from autoresearch.console import to_json
    from prepare.cache import explained

    if output is not None:
        with explained(output, "name another file with --output"):
            output.write_text(to_json(document, indent=1) + "\n", encoding="utf-8")
    compared = results.compare(document, before) if before else []
    regressed = any(line.regressed for line in compared)
    _show(out, document, compared, against)
    _summarise(document, compared)
    then = [f"{output}    all samples with their conditions"] if output else []
    out.result({**document, "compared": [vars(line) for line in compared]}, then=then)
    if regressed:
        click.get_current_context().exit(REGRESSED)
    if not any(report["figures"] for report in document["reports"]):
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


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Sizes of a model and its step: passes `size`, checked."""

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        from autoresearch.bench.variants import Size

        names = ("depth", "width", "seq_len", "vocab", "step_tokens", "pattern")
        sizes = {name: given.pop(name) for name in names}
        rows = given.pop("rows") or max(1, min(2048, sizes["step_tokens"]) // sizes["seq_len"])
        size = Size(**sizes, rows=rows)
        size.check()
        return function(**given, size=size)

    decorated: Any = call
    whole = click.IntRange(1)
    for option in (
        click.option("--rows", type=whole, help="Of a pass of train.py.  [default: 2,048 tokens]"),
        click.option("--pattern", default="SSSL", show_default=True, help="As WINDOW_PATTERN."),
        click.option(
            "--step-tokens",
            type=whole,
            default=4096,
            show_default=True,
            help="Of an optimizer step.",
        ),
        click.option("--vocab", type=click.IntRange(256, 65536), default=2048, show_default=True),
        click.option(
            "--seq-len", type=whole, default=256, show_default=True, help="Tokens of a row."
        ),
        click.option("--width", type=whole, default=256, show_default=True, help="Channels."),
        click.option("--depth", type=whole, default=4, show_default=True, help="Blocks."),
    ):
        decorated = option(decorated)
    return decorated


@command.command("training")
@backend_option
@model_options
@subject_options
def training(backend: str | None, size: Size, report_options: dict[str, Any]) -> None:
    """Tokens/s of train.py with its optimizer, against the same model written the plain way.

    The plain program (benchmarks/reference/plain.py) runs in eager fp32, and compiled in train.py's
    compute type: T x T masks for windows, all logits at once, all rows of a step in one pass, the
    optimizer parameter by parameter. MFU is against a matrix product measured in the same turns.
    """
    from autoresearch.bench import training as subject

    run(lambda *how: [subject.measure(how[0], size, *how[1:])], backend, **report_options)


@command.command("attention")
@backend_option
@click.option("--batch", type=click.IntRange(1), default=2, show_default=True)
@click.option("--tokens", type=click.IntRange(4), default=2048, show_default=True)
@click.option("--heads", type=click.IntRange(1), default=4, show_default=True)
@click.option("--head-dim", type=click.IntRange(1), default=64, show_default=True)
@subject_options
def attention(backend: str | None, report_options: dict[str, Any], **sizes: int) -> None:
    """Attention in windows of T/2 and T/4, against PyTorch's own (or MLX's) with a T x T mask.

    Forward and backward pass of one layer: time, and memory beyond what it is given.
    """
    from autoresearch.bench import attention as subject

    layer = subject.Layer(**sizes)
    run(lambda *how: [subject.measure(how[0], layer, *how[1:])], backend, **report_options)


@command.command("loss")
@backend_option
@click.option("--tokens", type=click.IntRange(1), default=4096, show_default=True)
@click.option("--vocab", type=click.IntRange(2), default=8192, show_default=True)
@click.option("--width", type=click.IntRange(1), default=256, show_default=True)
@subject_options
def loss(backend: str | None, report_options: dict[str, Any], **sizes: int) -> None:
    """Soft-capped cross-entropy in chunks, against all logits at once.

    Forward and backward pass: time, and memory beyond what it is given.
    """
    from autoresearch.bench import loss as subject

    head = subject.Head(**sizes)
    run(lambda *how: [subject.measure(how[0], head, *how[1:])], backend, **report_options)


@command.command("optimizer")
@backend_option
@model_options
@subject_options
def optimizer(backend: str | None, size: Size, report_options: dict[str, Any]) -> None:
    """A step of train.py's optimizer, against AdamW and Muon one parameter after the other."""
    from autoresearch.bench import optimizer as subject

    run(lambda *how: [subject.measure(how[0], size, *how[1:])], backend, **report_options)


@command.command("feed")
@click.option("--corpus-bytes", type=click.IntRange(10_000), default=16_000_000, show_default=True)
@subject_options
def feed(corpus_bytes: int, report_options: dict[str, Any]) -> None:
    """Tokens/s that the harness packs and hands out, against packing in plain Python."""
    from autoresearch.bench import feed as subject

    stream = subject.Stream(corpus_bytes=corpus_bytes)
    run_on_host(functools.partial(subject.measure, stream), **report_options)


@command.command("tokenizer")
@click.option("--text-bytes", type=click.IntRange(10_000), default=16_000_000, show_default=True)
@subject_options
def tokenizer(text_bytes: int, report_options: dict[str, Any]) -> None:
    """Text to tokens on disk, against tiktoken's own batch on all cores; memory by text size."""
    from autoresearch.bench import tokenizer as subject

    text = subject.Text(text_bytes=text_bytes)
    run_on_host(functools.partial(subject.measure, text), **report_options)


@command.command("startup")
@backend_option
@PRESET
@subject_options
def startup(backend: str | None, preset_name: str, report_options: dict[str, Any]) -> None:
    """Seconds from starting a run to its first timed step, when all is compiled and warm."""
    from autoresearch.bench import startup as subject
    from autoresearch.preset import load_preset

    preset = load_preset(preset_name)
    run(lambda *how: [subject.measure(how[0], preset, *how[1:])], backend, **report_options)


@command.command("loop")
@backend_option
@PRESET
@click.option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Of each run.")
@subject_options
def loop(
    backend: str | None, preset_name: str, seconds: float, report_options: dict[str, Any]
) -> None:
    """Wall clock of a trial beside its training: start-up, scoring, the harness.

    A real `autoresearch run` whose trials change a learning rate; --repeats are the trials counted.
    """
    from autoresearch.bench import loop as subject

    run(
        lambda selection, *how: [
            subject.measure(selection.hardware.backend, preset_name, seconds, *how)
        ],
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
@click.option("--profile", is_flag=True, help="Say where the time goes, too.")
@subject_options
def mfu(
    names: tuple[str, ...],
    preset_name: str,
    seconds: float,
    profile: bool,
    report_options: dict[str, Any],
) -> None:
    """Tokens/s and MFU of each backend, from whole experiments with a preset's train.py.

    MFU is given against the datasheet's dense bf16 peak, where it is known, and against the peak of
    a big matrix product measured in the same run. --profile tells matrix products, attention, loss,
    optimizer, feed and the rest apart, by torch's profiler; on MLX model, optimizer and feed.
    """
    from autoresearch.bench import mfu as subject
    from autoresearch.bench import profile as profiling
    from autoresearch.preset import load_preset

    preset = load_preset(preset_name)
    chosen = subject.backends_here() if not names or "all" in names else names

    def measure(selection: Selection, repeats: int, on_event: OnEvent) -> list[Report]:
        reports = [subject.measure(preset, chosen, seconds, repeats, on_event)]
        if profile:
            reports += [profiling.measure(preset, name, on_event) for name in chosen]
        return reports

    run(measure, chosen[0], **report_options)


@command.command("all")
@backend_option
@subject_options
def all_subjects(backend: str | None, report_options: dict[str, Any]) -> None:
    """Every subject at its usual size: some ten minutes of two cores.

    Training is measured at a context of 2,048 tokens as well, startup and loop with the preset
    cpu-tinystories on the embedded corpus.
    """
    from autoresearch.bench.everything import measure

    run(measure, backend, **report_options)

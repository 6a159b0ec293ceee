"""`bench all`: every subject at its usual size, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autoresearch.bench import (
    attention,
    feed,
    loop,
    loss,
    mfu,
    optimizer,
    startup,
    tokenizer,
    training,
)
from autoresearch.bench.samples import Report, silent
from autoresearch.bench.variants import Size
from autoresearch.console import OnEvent
from backends.errors import BackendError
from prepare.errors import PrepareError

if TYPE_CHECKING:
    from backends import Selection

PRESET = "cpu-tinystories"  # works on any machine; the embedded corpus in place of its own
LONG = Size(seq_len=2048, step_tokens=8192, rows=1)
TEXT = tokenizer.Text(text_bytes=8_000_000)
MFU_SECONDS, LOOP_SECONDS, LOOP_TRIALS = 4.0, 4.0, 3


def measure(selection: Selection, repeats: int, on_event: OnEvent = silent) -> list[Report]:
    """All reports, in the order of the help. A subject that fails says why; the others go on."""
    from autoresearch.preset import load_preset

    backend, preset, demo = selection.hardware.backend, load_preset(PRESET), load_preset("demo")
    on_this = functools.partial(_reported, repeats, on_event)
    return [
        on_this("training T256", training.measure, selection, Size()),
        on_this("training T2048", training.measure, selection, LONG, eager=False),
        on_this("mfu", mfu.measure, demo, [backend], MFU_SECONDS),
        on_this("attention", attention.measure, selection, attention.Layer()),
        on_this("loss", loss.measure, selection, loss.Head()),
        on_this("optimizer", optimizer.measure, selection, Size()),
        on_this("feed", feed.measure, feed.Stream()),
        on_this("tokenizer", tokenizer.measure, TEXT),
        on_this("startup", startup.measure, selection, preset),
        _reported(LOOP_TRIALS, on_event, "loop", loop.measure, backend, PRESET, LOOP_SECONDS),
    ]


def _reported(
    repeats: int,
    on_event: OnEvent,
    subject: str,
    measure: Callable[..., Report],
    *arguments: Any,
    **options: Any,
) -> Report:
    try:
        return measure(*arguments, repeats, on_event, **options)
    except (PrepareError, BackendError) as error:
        on_event("warning", {"message": f"{subject}: {error.message}"})
        return Report(subject, {}, failures={subject: error.message})

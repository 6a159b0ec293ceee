"""`bench all`: every subject at its usual size, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from backends import Selection

PRESET = "cpu-tinystories"  # works on any machine; the embedded corpus in place of its own
LONG = Size(seq_len=2048, step_tokens=8192, rows=1)
TEXT = tokenizer.Text(text_bytes=8_000_000)
MFU_SECONDS, LOOP_SECONDS, LOOP_TRIALS = 5.0, 5.0, 3


def measure(selection: Selection, repeats: int, on_event: OnEvent = silent) -> list[Report]:
    """All reports, in the order of the help."""
    from autoresearch.preset import load_preset

    backend, preset = selection.hardware.backend, load_preset(PRESET)
    return [
        training.measure(selection, Size(), repeats, on_event),
        training.measure(selection, LONG, repeats, on_event, eager=False),
        mfu.measure(load_preset("demo"), [backend], MFU_SECONDS, repeats, on_event),
        attention.measure(selection, attention.Layer(), repeats, on_event),
        loss.measure(selection, loss.Head(), repeats, on_event),
        optimizer.measure(selection, Size(), repeats, on_event),
        feed.measure(feed.Stream(), repeats, on_event),
        tokenizer.measure(TEXT, repeats, on_event),
        startup.measure(selection, preset, repeats, on_event),
        loop.measure(backend, PRESET, LOOP_SECONDS, LOOP_TRIALS, on_event),
    ]

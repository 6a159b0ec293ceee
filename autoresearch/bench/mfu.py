"""`bench mfu`: how much of a device's peak the preset's train.py makes use of, on each backend.

Every figure comes from a whole experiment, the path that `train` takes: data through the parent,
its clock, warm-up outside it. The backends take turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.bench.samples import Figure, Ratio, Report, silent
from autoresearch.console import OnEvent, looking
from autoresearch.options import BACKENDS

if TYPE_CHECKING:
    from autoresearch.preset import Preset
    from prepare.outcome import Outcome, Result
    from prepare.settings import Settings

# Only speed is wanted here, so little is scored; the least that Settings allows is too few rows to
# hide probes among.
EVAL_BYTES = 20_000


def backends_here() -> tuple[str, ...]:
    """The backends that this machine offers, in the order of preference."""
    from backends.errors import BackendError
    from backends.hardware import detect

    found = []
    for name in BACKENDS:
        if name in ("auto", "torch"):
            continue
        try:
            detect(name)
        except BackendError:
            continue
        found.append(name)
    return tuple(found)


def measure(
    preset: Preset,
    names: Sequence[str],
    seconds: float,
    repeats: int,
    on_event: OnEvent = silent,
) -> Report:
    """MFU of each backend. Raises PrepareError for data trouble."""
    from prepare.outcome import Failure

    results: dict[str, list[Result]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        settings = {
            name: _write(preset, Path(folder) / name, name, seconds, on_event) for name in names
        }
        for repeat in range(repeats):
            for name in names:
                if name in failures:
                    continue
                on_event("phase", {"phase": f"mfu: {name} {repeat + 1}/{repeats}"})
                outcome = _run(Path(folder) / name, settings[name], name, on_event)
                if isinstance(outcome, Failure):
                    failures[name] = f"{outcome.phase}: {outcome.kind}: {outcome.message}"
                    del results[name]
                else:
                    results[name].append(outcome)
    about = {"preset": preset.name}
    policies = (f"{name}: {policy_line(found[0])}" for name, found in results.items())
    notes = (f"runs of {seconds:g} s", *policies)
    figures = tuple(figure for name, found in results.items() for figure in _figures(name, found))
    ratios = tuple(ratio for name, found in results.items() for ratio in _ratios(name, found))
    return Report("mfu", about, figures, ratios, notes, failures)


def _write(preset: Preset, folder: Path, name: str, seconds: float, on_event: OnEvent) -> Settings:
    import backends
    from autoresearch.preset import write_experiment

    with looking(on_event):
        hardware = backends.make_ready(name).hardware
    return write_experiment(preset, folder, hardware, time_budget=seconds, eval_bytes=EVAL_BYTES)


def _run(folder: Path, settings: Settings, backend: str, on_event: OnEvent) -> Outcome:
    from prepare.experiment import run_experiment

    return run_experiment(folder / "train.py", settings, backend=backend, on_event=on_event)


def policy_line(result: Result) -> str:
    """On what and how it was computed."""
    policy = result.policy
    how = "compiled" if policy.get("compile") else "eager"
    return (
        f"{result.hardware.get('name', '')}, {policy.get('compute_dtype')}, attention "
        f"{policy.get('attention')}, {how}"
    )


def _figures(name: str, results: Sequence[Result]) -> list[Figure]:
    rates = tuple(result.tokens_per_second for result in results)
    memory = tuple(result.peak_memory_mb for result in results if result.peak_memory_mb)
    figures = [Figure(name, rates, "tokens/s")]
    return figures + ([Figure(f"{name}, peak memory", memory, "MB")] if memory else [])


def _ratios(name: str, results: Sequence[Result]) -> list[Ratio]:
    """MFU against both peaks, where they are known."""
    found = []
    for peak, attribute in (
        ("measured peak", "mfu_measured_percent"),
        ("datasheet", "mfu_percent"),
    ):
        values = [getattr(result, attribute) for result in results]
        if all(value is not None for value in values):
            found.append(Ratio(f"MFU of {name}, {peak}", tuple(v / 100 for v in values)))
    return found

"""Speed of the preset's train.py on the backends of this machine.

    backends_here()                                  # ("cpu", "mlx")
    rows = bench_mfu(preset, ["cpu", "mlx"], seconds=10, repeats=3)
    print(markdown(rows))

Every figure comes from a whole experiment, the path that `train` takes: data through the parent,
its clock, warm-up outside it. Medians over the repeats.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.console import OnEvent, looking
from autoresearch.options import BACKENDS

if TYPE_CHECKING:
    from autoresearch.preset import Preset
    from prepare.outcome import Result

# Only speed is wanted here, so little is scored; the least that Settings allows is too few rows to
# hide probes among.
EVAL_BYTES = 20_000


@dataclass(frozen=True)
class Row:
    """One backend's medians, or why there are none. Rates in tokens/s, MFU in percent."""

    backend: str
    device: str
    repeats: int
    tokens_per_second: float | None = None
    mfu_percent: float | None = None
    mfu_measured_percent: float | None = None
    peak_memory_mb: float | None = None
    dtype: str = ""
    attention: str = ""
    compiled: bool | None = None
    versions: dict[str, str] | None = None
    failure: str = ""


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


def bench_mfu(
    preset: Preset, names: Sequence[str], seconds: float, repeats: int, on_event: OnEvent
) -> list[Row]:
    """One row per backend, measured one after the other. Raises PrepareError for data trouble."""
    return [_measure(preset, name, seconds, repeats, on_event) for name in names]


def conditions(preset: str, seconds: float, repeats: int) -> dict[str, Any]:
    """What somebody who compares figures must know."""
    return {
        "preset": preset,
        "seconds": seconds,
        "repeats": repeats,
        "statistic": "median",
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _measure(preset: Preset, name: str, seconds: float, repeats: int, on_event: OnEvent) -> Row:
    import backends
    from autoresearch.preset import write_experiment
    from prepare.experiment import run_experiment
    from prepare.outcome import Failure

    with looking(on_event):
        hardware = backends.select(name).hardware
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        settings = write_experiment(
            preset, Path(folder), hardware, time_budget=seconds, eval_bytes=EVAL_BYTES
        )
        for repeat in range(repeats):
            on_event("phase", {"phase": f"{name} {repeat + 1}/{repeats}"})
            outcome = run_experiment(
                Path(folder) / "train.py", settings, backend=name, on_event=on_event
            )
            if isinstance(outcome, Failure):
                reason = f"{outcome.phase}: {outcome.kind}: {outcome.message}"
                return Row(name, hardware.name, repeats, failure=reason)
            results.append(outcome)
    return _row(name, hardware.name, results)


def _row(name: str, device: str, results: list[Result]) -> Row:
    first = results[0]
    return Row(
        backend=name,
        device=device,
        repeats=len(results),
        tokens_per_second=_median([r.tokens_per_second for r in results]),
        mfu_percent=_median([r.mfu_percent for r in results]),
        mfu_measured_percent=_median([r.mfu_measured_percent for r in results]),
        peak_memory_mb=_median([r.peak_memory_mb for r in results]),
        dtype=str(first.policy.get("compute_dtype", "")),
        attention=str(first.policy.get("attention", "")),
        compiled=first.policy.get("compile"),
        versions=dict(first.versions),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


COLUMNS = (
    "backend",
    "device",
    ">tokens/s",
    ">MFU, datasheet",
    ">MFU, measured peak",
    ">memory MB",
    "dtype",
    "attention",
    "compiled",
)


def cells(row: Row) -> list[str]:
    """One row of the table, as text in the order of COLUMNS."""
    if row.failure:
        return [row.backend, row.device, "failed", "", "", "", "", "", ""]
    return [
        row.backend,
        row.device,
        f"{row.tokens_per_second:,.0f}" if row.tokens_per_second is not None else "?",
        percent(row.mfu_percent, "unknown peak"),
        percent(row.mfu_measured_percent, "?"),
        f"{row.peak_memory_mb:,.0f}" if row.peak_memory_mb is not None else "?",
        row.dtype,
        row.attention,
        {True: "yes", False: "no", None: "?"}[row.compiled],
    ]


def percent(value: float | None, unknown: str) -> str:
    """`12.3%`, or what to say of an unknown one."""
    return unknown if value is None else f"{value:.1f}%"


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """The table with its conditions, for a step summary or a README."""
    names = [column.removeprefix(">") for column in COLUMNS]
    ruler = ["---:" if column.startswith(">") else "---" for column in COLUMNS]
    lines = [names, ruler, *(cells(row) for row in rows)]
    table = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )
    says = [", ".join(f"{key} {value}" for key, value in about.items() if value is not None)]
    return "\n\n".join([table, *failures(rows), *says]) + "\n"


def failures(rows: Sequence[Row]) -> list[str]:
    """One line for each backend without figures."""
    return [f"{row.backend} failed: {row.failure}" for row in rows if row.failure]


def to_document(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain values."""
    return {"conditions": about, "rows": [asdict(row) for row in rows]}

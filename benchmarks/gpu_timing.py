"""What every section of gpu.py is made of: rows, failures with their type, and times taken in turn.

section = Section("loss", path, until, tiny=False)
kernel = section.attempt("triton", load)        # None after a failure, which is recorded
section.compare("N 65536", {"chunked": one, "triton": other}, flops=1e12)
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

ROUNDS = 7  # of all variants in turn
SAMPLE_MS = 10.0  # of device time in one sample: far more than an event's resolution
MOST_CALLS = 100  # in one sample

T = TypeVar("T")
Call = Callable[[], object]


class OutOfTime(Exception):
    """A section has used up its seconds: what is left was not measured."""


class Section:
    """Rows and failures of one section, written to its file as they come."""

    def __init__(self, name: str, path: Path, until: float, tiny: bool) -> None:
        self.name, self.path, self.until, self.tiny = name, path, until, tiny
        self.device = torch.device("cpu" if tiny else "cuda")
        self.rows: list[dict[str, Any]] = []
        self.failures: list[dict[str, str]] = []
        self.began = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write everything so far: the process may not live to its end."""
        seconds = round(time.monotonic() - self.began, 1)
        result = {"rows": self.rows, "failures": self.failures, "seconds": seconds}
        self.path.write_text(json.dumps(result), encoding="utf-8")

    def row(self, **values: Any) -> None:
        """One row of the section's table."""
        self.rows.append(values)
        self.save()

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """What `call` returns; None after any failure, which is recorded with its type."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - recorded, and shown in the table
            lines = str(error).strip().splitlines()
            message = lines[0][:300] if lines else ""
            failure = {"what": what, "type": type(error).__name__, "message": message}
            self.failures.append(failure)
            self.save()
            return None

    def check_time(self) -> None:
        """Raises OutOfTime where a further measurement may not fit."""
        if time.monotonic() > self.until:
            raise OutOfTime(f"{self.name}: the rest was not measured")

    def compiled(self, function: Callable[..., T]) -> Callable[..., T]:
        """Through torch.compile; as it is in a dry run."""
        return function if self.tiny else torch.compile(function, dynamic=False, fullgraph=True)

    def compare(
        self, case: str, variants: Mapping[str, Call], flops: float = 0.0, bytes: float = 0.0
    ) -> None:
        """Time variants in turn: a row for each. flops and bytes are the least the task needs."""
        calls: dict[str, int] = {}
        for name, call in variants.items():
            self.check_time()
            count = self.attempt(f"{case}: {name}", lambda call=call: self._calls(call))
            if count is not None:
                calls[name] = count
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(2 if self.tiny else ROUNDS):
            for name, count in calls.items():
                samples[name].append(self.milliseconds(variants[name], count))
        for name, taken in samples.items():
            self.row(case=case, variant=name, flops=flops, bytes=bytes, **spread(taken, "ms"))

    def _calls(self, call: Call) -> int:
        """How many calls make a sample, after the calls that compile and tune."""
        for _ in range(2):
            call()
        once = self.milliseconds(call, 1)
        return 1 if self.tiny else max(1, min(MOST_CALLS, math.ceil(SAMPLE_MS / once)))

    def milliseconds(self, call: Call, count: int) -> float:
        """Time of one call, of `count` in a row: device events, or the clock on the processor."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            for _ in range(count):
                call()
            return 1e3 * (time.perf_counter() - start) / count
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count

    def peak_mb(self, call: Call) -> float | None:
        """MB that a call holds at its peak beyond what was held before; None on the processor."""
        if self.device.type == "cpu":
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def spread(samples: list[float], unit: str) -> dict[str, Any]:
    """Median, lowest, highest and all samples."""
    return {
        "median": statistics.median(samples),
        "lowest": min(samples),
        "highest": max(samples),
        "unit": unit,
        "samples": samples,
    }


def difference(found: torch.Tensor, truth: torch.Tensor) -> float:
    """||found - truth|| / ||truth|| in fp64; infinite where anything found is not finite."""
    found = found.detach().double()
    if not bool(found.isfinite().all()):
        return math.inf
    truth = truth.detach().double()
    return float((found - truth).norm() / truth.norm())

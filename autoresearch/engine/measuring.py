"""Running a program for a trial: once per seed, again when the machine disturbed it.

runs = Runs(folder, first_seed, large_files, stopped)
ticket = executor.submit(runs.request(wanted, 0, on_event))
trial = measured(trial, replicates)
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.engine.change import Change
from autoresearch.engine.steps import Wanted
from autoresearch.engine.task import Curve, Event, MeasureRequest
from autoresearch.engine.trial import COST_SOURCES, Cost, Replicate, Trial

DISTURBED_RETRIES = 2
_CODE = re.compile(rb"^[^\S\n]*[^\s#]", re.M)  # a line that is neither blank nor a comment
# Phases of a run before its clock starts: a program that does work there hides it. A cold compile
# of a changed model takes 35 to 80 s on a CPU where the champion's comes from a cache in a few, so
# a ratio alone would alarm at every change of shape: less than SLOW_START says nothing.
BEFORE_THE_CLOCK = ("startup", "warmup")
SLOW_START, SLOW_START_RATIO = 120.0, 3.0  # seconds; times the champion's slowest
# Labels of runs of a trial's own program; its folder also holds extra runs of the champion.
OWN = ("baseline", "candidate")
# What a champion's run says that was made for another trial, whose number this is: no device was
# busy with it a second time.
MADE_FOR = "made_for"
# Folders in a trial's folder that hold what was there before: of an attempt that crashed and was
# mended, of a process that was killed amid a trial of the same number, and of runs against a
# champion that was replaced meanwhile.
MENDED, KILLED, REBASED = "attempt", "killed", "rebased"
ASIDE = (f"{MENDED}-", f"{KILLED}-", f"{REBASED}-")


@dataclass(frozen=True)
class Runs:
    """How runs are asked for, and what is kept of them: a folder per trial, in it one per run.

    first_seed: the seed of a run is this plus the number the policy asks for. large_files: globs of
    what a run leaves that is worth its disk for a champion only.
    """

    root: Path
    first_seed: int
    large_files: tuple[str, ...]
    stopped: Callable[[], bool]

    def request(self, wanted: Wanted, attempt: int, on_event: Event) -> MeasureRequest:
        """The run to submit; `attempt` counts those that the machine disturbed."""
        suffix = f"-{attempt}" if attempt else ""
        return MeasureRequest(
            wanted.folder,
            self.first_seed + wanted.seed,
            self.folder(wanted.number) / f"{name_of(wanted)}{suffix}",
            on_event,
            wanted.champion_curves,
        )

    def again(self, run: Replicate, attempt: int) -> bool:
        """Is this run to be made once more? One that the machine disturbed is, at most twice."""
        disturbed = bool(run.disturbed) and run.failure is None
        return disturbed and attempt < DISTURBED_RETRIES and not self.stopped()

    def finish(self, wanted: Wanted, run: Replicate) -> Replicate:
        """What is kept of a run that isn't made again."""
        if run.score is not None and run.details.get("curve"):
            # Beside the run's folder: what is in there the candidate may have made.
            curve = self.folder(wanted.number) / f"{name_of(wanted)}.curve.json"
            curve.write_text(json.dumps(run.details["curve"]), encoding="utf-8")
        return replace(run, seed=wanted.seed)

    def curves(self, number: int, labels: Sequence[str] = OWN) -> tuple[Curve, ...]:
        """The training curves of a trial's own program; a file that a kill cut short is none."""
        found: list[Curve] = []
        for label in labels:
            for path in sorted(self.folder(number).glob(f"{label}-*.curve.json")):
                with contextlib.suppress(ValueError, TypeError):
                    points = json.loads(path.read_text(encoding="utf-8"))
                    found.append([(float(spent), float(loss)) for spent, loss in points])
        return tuple(found)

    def folder(self, number: int) -> Path:
        """Where everything that a trial's runs leave is put."""
        folder = self.root / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def set_aside(self, number: int, name: str) -> None:
        """Move what a trial's earlier attempt left into `name` in its folder, for `log` to show.

        name: followed by the next free number, from 1. Large files go: nothing will be kept of it.
        """
        root, before = self.folder(number), f"{name}-"
        left = [path for path in root.iterdir() if not path.name.startswith(ASIDE)]
        if not left:
            return
        self.clear(number)
        taken = [path.name.removeprefix(before) for path in root.glob(f"{before}*")]
        place = root / f"{before}{1 + max((int(n) for n in taken if n.isdigit()), default=0)}"
        place.mkdir()
        for path in left:
            path.rename(place / path.name)

    def clear(self, number: int) -> None:
        """Remove the large files of a trial that wasn't kept."""
        for pattern in self.large_files:
            for path in self.folder(number).glob(f"*/{pattern}"):
                path.unlink(missing_ok=True)


def name_of(wanted: Wanted) -> str:
    """`candidate-0`: a run's folder in its trial's."""
    return f"{wanted.label}-{wanted.seed}"


def add_costs(first: Cost, second: Cost) -> Cost:
    """Two costs together; known only as well as the less known one."""

    def total(a: float | None, b: float | None) -> Any:
        return None if a is None and b is None else (a or 0) + (b or 0)

    known = max(first.known, second.known, key=COST_SOURCES.index)
    return Cost(
        total(first.dollars, second.dollars),
        total(first.tokens_in, second.tokens_in),
        total(first.tokens_out, second.tokens_out),
        known,
    )


def measured(trial: Trial, runs: Sequence[Replicate]) -> Trial:
    """The trial with what its runs say together: means of score and metrics, sums of seconds."""
    scored = [run for run in runs if run.score is not None]
    names = {name for run in scored for name in run.metrics}
    metrics = {
        name: statistics.fmean(run.metrics[name] for run in scored if name in run.metrics)
        for name in sorted(names)
    }
    seconds: dict[str, float] = {}
    screening = (*trial.screening, *trial.champion_screening)
    for run in (*runs, *trial.champion_replicates, *screening):
        for phase, value in run.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    first = runs[0].details if runs else {}
    return replace(
        trial,
        score=statistics.fmean(run.score for run in scored if run.score is not None)
        if scored
        else None,
        score_id=scored[0].score_id if scored else "",
        metrics=metrics,
        seconds=seconds,
        curve=tuple((float(a), float(b)) for a, b in first.get("curve", ())),
        tier=str(first.get("tier", "")),
        backend=str(first.get("backend", "")),
        hardware_id=str(first.get("hardware_id", "")),
        replicates=tuple(_without_curve(run) for run in trial.replicates),
        champion_replicates=tuple(_without_curve(run) for run in trial.champion_replicates),
        screening=tuple(_without_curve(run) for run in trial.screening),
        champion_screening=tuple(_without_curve(run) for run in trial.champion_screening),
    )


def slow_start(runs: Sequence[Replicate], champion: Sequence[Replicate]) -> str:
    """That a candidate took far longer than the champion before its clock started, or ""."""
    own, usual = (max(map(_before_the_clock, each), default=0.0) for each in (runs, champion))
    if own <= max(SLOW_START, SLOW_START_RATIO * usual):
        return ""
    return (
        f"{own:.0f} s passed before its clock started, where the champion took {usual:.0f} s: "
        "see that no training is hidden in there"
    )


def other_conditions(runs: Sequence[Replicate], champion: Sequence[Replicate]) -> str:
    """In what a candidate's runs were made otherwise than the champion's, or "".

    Decided by what runs say of themselves in `details["conditions"]`: equal score ids allow it.
    """
    if not runs or not champion:
        return ""
    own, usual = (each[0].details.get("conditions") or {} for each in (runs, champion))
    differ = [name for name in own if name in usual and own[name] != usual[name]]
    if not differ:
        return ""
    words = ", ".join(f"{name} {own[name]}, not {usual[name]}" for name in differ)
    return f"measured otherwise than the champion: {words}; that alone may be the effect"


def _before_the_clock(run: Replicate) -> float:
    return sum(run.seconds.get(phase, 0.0) for phase in BEFORE_THE_CLOCK)


def _without_curve(run: Replicate) -> Replicate:
    """The trial holds one curve; the others stay in their run folders."""
    details = {name: value for name, value in run.details.items() if name != "curve"}
    return replace(run, details=details)


def code_lines_delta(change: Change) -> int:
    """Lines of code that an edit adds, less those it removes; blank lines and comments are none."""
    return sum(_code_lines(file.new) - _code_lines(file.old) for file in change.files)


@functools.lru_cache(32)
def _code_lines(data: bytes | None) -> int:
    return len(_CODE.findall((data or b"").replace(b"\r", b"\n")))

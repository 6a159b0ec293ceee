"""Trying a task out before a study: the program as it stands, run and scored twice.

report = check(Path("tasks/speed/task.yaml"), sandbox="auto")
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.sandbox import Tier
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.study import _sandbox
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import TaskFile, load
from autoresearch.taskfile.mutators import mutator_of
from autoresearch.taskfile.repository import make_work_folder

RUNS = 2


@dataclass(frozen=True)
class CheckReport:
    """What two runs of the program as it stands showed."""

    artifacts: tuple[str, ...]
    beside: tuple[str, ...]  # files that a candidate has and may not change
    inputs: tuple[str, ...]  # what runner and scorer read where it lies
    hidden: dict[str, tuple[str, ...]]  # files by role that no candidate and no mutator sees
    runs: tuple[Replicate, ...]
    tier: str
    stops: tuple[str, ...]
    does_not_stop: tuple[str, ...]
    mutator: str
    broken_constraint: str

    @property
    def scores(self) -> list[float]:
        """Of the runs that have one."""
        return [run.score for run in self.runs if run.score is not None]

    @property
    def ok(self) -> bool:
        """Would a study begin?"""
        return len(self.scores) == len(self.runs) and not self.broken_constraint

    @property
    def seconds(self) -> float:
        """One run, scoring included."""
        return statistics.fmean(run.seconds["total"] for run in self.runs)

    @property
    def noise(self) -> float | None:
        """Standard deviation of one run, as far as two runs tell."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        document = asdict(self)
        document["runs"] = [run.to_dict() for run in self.runs]
        derived = {"ok": self.ok, "scores": self.scores, "noise": self.noise}
        return {**document, **derived, "seconds_per_run": self.seconds}


def check(file: Path, sandbox: str = "auto") -> CheckReport:
    """Validate a task file and measure its program twice; no study begins, nothing is changed.

    Raises TaskError, ProposerError, EnvironmentProblem.
    """
    place = Place.of(file)
    task = load(place.file)
    tier = _sandbox(sandbox)
    paths = place.programs(task)
    guard = Guard.of(place, task)
    mutator = mutator_of(task, guard, tier).name
    runs = _measure(place, task, guard, tier, paths)
    metrics, inputs = runs[0].metrics, guard.inputs.inputs
    return CheckReport(
        artifacts=tuple(path for path in paths if task.artifacts.match(path)),
        beside=tuple(path for path in paths if not task.artifacts.match(path)),
        inputs=inputs.shared,
        hidden={role: (*files, *inputs.own.get(role, ())) for role, files in guard.files.items()},
        runs=runs,
        tier=tier.name,
        stops=tier.stops(),
        does_not_stop=tier.does_not_stop(),
        mutator=mutator,
        broken_constraint=task.broken_constraint(metrics, metrics) if metrics else "",
    )


def _measure(
    place: Place, task: TaskFile, guard: Guard, tier: Tier, paths: tuple[str, ...]
) -> tuple[Replicate, ...]:
    make_work_folder(place.work)
    measure = CommandMeasure(task, guard, tier, "check")
    with tempfile.TemporaryDirectory(prefix="check-", dir=place.work) as name:
        program = Path(name) / "program"
        for path in paths:
            target = program / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place.folder / path, target, follow_symlinks=False)
        requests = [MeasureRequest(program, seed, Path(name) / str(seed)) for seed in range(RUNS)]
        return tuple(measure(request) for request in requests)

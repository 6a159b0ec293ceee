"""Trying a task out before a study: the program as it stands, run and scored twice.

report = check(Path("tasks/speed/task.yaml"), sandbox="auto")
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.sandbox import Tier
from autoresearch.engine.task import Event, MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.loop_parts import sandbox_of
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import TaskFile, load
from autoresearch.taskfile.mutators import mutator_of
from autoresearch.taskfile.repository import make_work_folder

RUNS = 2
# What commands of a task may do where there is no sandbox: no hook looks over their shoulder, as
# one does over a train module's.
UNCONFINED_STOPS = (
    "a change of the scorer's files, the inputs or the candidate itself: it is found, and refused",
    "programs that outlive a run, as far as they are found, and one file growing without end",
)
UNCONFINED = (
    "runner, scorer and proposer reading any file that you can, the hidden ones among them",
    "their writing any other file that you can",
    "the network",
    "their inspecting, stopping or killing processes of yours",
)


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
    timed: bool  # does the scorer measure time
    disturbed: str  # why the runs can't be compared, where time is measured

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


def check(
    file: Path, sandbox: str = "auto", on_event: Event = lambda name, data: None
) -> CheckReport:
    """Validate a task file and measure its program twice; no study begins, nothing is changed.

    Where the first run fails there is no second one. `on_event` is told what goes on.
    Raises TaskError, ProposerError, EnvironmentProblem.
    """
    place = Place.of(file)
    task = load(place.file)
    tier = sandbox_of(sandbox)
    paths = place.programs(task)
    guard = Guard.of(place, task)
    mutator = mutator_of(task, guard, tier).name
    runs = _measure(place, task, guard, tier, paths, on_event)
    metrics, inputs = runs[0].metrics, guard.inputs.inputs
    return CheckReport(
        artifacts=tuple(path for path in paths if task.artifacts.match(path)),
        beside=tuple(path for path in paths if not task.artifacts.match(path)),
        inputs=inputs.shared,
        hidden={role: (*files, *inputs.own.get(role, ())) for role, files in guard.files.items()},
        runs=runs,
        tier=tier.name,
        stops=tier.stops() if tier.strict else UNCONFINED_STOPS,
        does_not_stop=_gaps(task, tier),
        mutator=mutator,
        broken_constraint=task.broken_constraint(metrics, metrics) if metrics else "",
        timed=task.scorer.timed,
        disturbed=next((run.disturbed for run in runs if run.disturbed), ""),
    )


def _gaps(task: TaskFile, tier: Tier) -> tuple[str, ...]:
    """What the isolation of this task does not stop; what it says itself comes first."""
    if not tier.strict:
        return UNCONFINED
    programs = {"runner": task.runner, "scorer": task.scorer, "held-out scorer": task.holdout}
    open_to = [name for name, program in programs.items() if program and program.network]
    found = [f"the network for the {name}: the task file allows it" for name in open_to]
    mutator = task.mutator
    if mutator.type == "command" and mutator.network:
        found.append("the network for the proposer: the task file allows it")
    if mutator.type == "agent" or not mutator.sandbox:
        who = f"the agent {mutator.name}" if mutator.name else "the proposer (`sandbox: false`)"
        found.append(
            f"{who} works outside it, in a copy without the hidden files; whatever else you can "
            "read it may be able to read, the originals too"
        )
    return (*found, *tier.does_not_stop())


def _measure(
    place: Place,
    task: TaskFile,
    guard: Guard,
    tier: Tier,
    paths: tuple[str, ...],
    on_event: Event,
) -> tuple[Replicate, ...]:
    make_work_folder(place.work)
    measure = CommandMeasure(task, guard, tier, "check")
    with tempfile.TemporaryDirectory(prefix="check-", dir=place.work) as name:
        program = Path(name) / "program"
        for path in paths:
            target = program / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place.folder / path, target, follow_symlinks=False)
        runs: list[Replicate] = []
        while len(runs) < RUNS and not (runs and runs[-1].failure):
            seed = len(runs)
            which = f"run {seed + 1} of {RUNS}"
            told = _told(on_event, which)
            runs.append(measure(MeasureRequest(program, seed, Path(name) / str(seed), told)))
        return tuple(runs)


def _told(on_event: Event, which: str) -> Event:
    """Events of one run, their phases saying which run it is."""

    def told(name: str, data: Mapping[str, Any]) -> None:
        on_event(name, {**data, "phase": f"{which}: {data['phase']}"} if name == "phase" else data)

    return told

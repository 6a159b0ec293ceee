"""Trackers that people already use: each decided trial becomes one of its runs.

    tracker = find_tracker("wandb").make(Path(".autoresearch/trackers"), "mar5")
    tracker.trial(TrackedTrial(...))
    tracker.close()

    [tracker]
    name = "wandb"                        # in autoresearch.toml; or `run --tracker wandb`

In a task file the table `tracker` says the same. Another one is a plug-in: an entry point of the
group `autoresearch.trackers`, a callable as `make` here. A tracker works in a process of its own
(`autoresearch.trackers.tracking`): what it prints, imports or breaks is there.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from autoresearch.engine.task import Part
from prepare.errors import MissingTool, UsageError

GROUP = "autoresearch.trackers"
BUILT_IN = ("mlflow", "tensorboard", "trackio", "wandb")  # modules here, and packages of that name


class Tracking(Part):
    """The table `[tracker]` of autoresearch.toml, and `tracker` of a task file."""

    name: str | None = Field(
        None, description=f"where trials are tracked, too: {', '.join(BUILT_IN)}, or a plug-in"
    )


@dataclass(frozen=True)
class TrackedTrial:
    """What a tracker is given of a trial.

    curve: (spent, loss) of its first run, spent in `unit`, which is seconds or tokens. metrics:
    numbers as they are at its end, the score under the metric's own name. best: the champion's
    score after it. config: what it was made with, as plain values.
    """

    study: str
    id: int
    status: str
    idea: str
    reason: str
    metric: str
    best: float | None = None
    unit: str = "seconds"
    curve: tuple[tuple[float, float], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    ended: float = 0.0  # seconds since the epoch

    @property
    def name(self) -> str:
        """`0007`."""
        return f"{self.id:04d}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrackedTrial:
        """The inverse of `dataclasses.asdict` through JSON."""
        curve = tuple((float(spent), float(loss)) for spent, loss in data["curve"])
        return cls(**{**data, "curve": curve})


class Tracker(Protocol):
    """Takes trials as they are decided. May raise whatever it likes: that is told, once."""

    def trial(self, trial: TrackedTrial) -> None:
        """One more."""

    def close(self) -> None:
        """There are no more."""


Make = Callable[[Path, str], Tracker]


@dataclass(frozen=True)
class Found:
    """A tracker by its name. make: takes a folder for what it keeps here, and the study's name."""

    name: str
    make: Make


def find_tracker(name: str) -> Found:
    """The tracker of that name; nothing heavy is loaded.

    Raises UsageError for an unknown one, MissingTool where its package is not installed.
    """
    if name in BUILT_IN:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a mere folder `wandb`, as wandb itself makes it
            raise MissingTool(
                f"the tracker {name} is not installed", f"pip install 'autoresearch[{name}]'"
            )
        return Found(name, functools.partial(_make_built_in, name))
    plugins = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if name in plugins:
        return Found(name, lambda place, study: plugins[name].load()(place, study))
    known = [*BUILT_IN, *plugins]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"no tracker {name!r}", hint)


def _make_built_in(name: str, place: Path, study: str) -> Tracker:
    tracker: Tracker = import_module(f"{__name__}.{name}").make(place, study)
    return tracker

"""trackio: a run per trial in the project `autoresearch-STUDY`; `trackio show` shows it.

TRACKIO_DIR says where it is kept, TRACKIO_SPACE_ID a Space to send it to.
"""

from __future__ import annotations

from pathlib import Path

import trackio

from autoresearch.trackers import TrackedTrial


class Trackio:
    """A run per trial."""

    def __init__(self, place: Path, study: str) -> None:
        self._project = f"autoresearch-{study}"

    def trial(self, trial: TrackedTrial) -> None:
        """Write it whole, and finish it."""
        about = {"idea": trial.idea, "status": trial.status, "reason": trial.reason}
        run = trackio.init(
            project=self._project,
            name=trial.name,
            group=trial.status,
            config={**trial.config, **about},
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # that would be the next trial's load
            auto_log_cpu=False,
        )
        for step, (spent, loss) in enumerate(trial.curve):
            run.log({"loss": loss, trial.unit: spent}, step=step)
        run.log(dict(trial.metrics), step=len(trial.curve))
        run.finish()

    def close(self) -> None:
        """Each run is finished."""


def make(place: Path, study: str) -> Trackio:
    """The tracker."""
    return Trackio(place, study)

"""Weights & Biases: a run per trial in the group of the study, in the project `autoresearch`.

WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE count; with WANDB_MODE=offline nothing is sent, and
`wandb sync` sends what was kept.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import wandb

from autoresearch.trackers import TrackedTrial


class Wandb:
    """A run per trial."""

    def __init__(self, place: Path, study: str) -> None:
        self._place, self._study = place, study

    def trial(self, trial: TrackedTrial) -> None:
        """Write it whole, and finish it."""
        # Another study may have the same name, and ids are the project's.
        mark = hashlib.sha256(f"{self._place} {trial.ended}".encode()).hexdigest()[:6]
        quiet = {"console": "off", "disable_git": True, "save_code": False, "silent": True}
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "autoresearch"),
            group=self._study,
            job_type=trial.status,
            name=f"{self._study} {trial.name}",
            id=f"{self._study}-{trial.name}-{mark}",
            notes=trial.idea,
            tags=[trial.status],
            dir=str(self._place),
            config={**trial.config, "idea": trial.idea},
            # The machine's load is that of the next trial by now.
            settings=wandb.Settings(**quiet, x_disable_stats=True),
        )
        run.define_metric("loss", step_metric=trial.unit)
        for spent, loss in trial.curve:
            run.log({"loss": loss, trial.unit: spent})
        run.summary.update({**trial.metrics, "status": trial.status, "reason": trial.reason})
        run.finish()

    def close(self) -> None:
        """Each run is finished."""


def make(place: Path, study: str) -> Wandb:
    """The tracker."""
    return Wandb(place, study)

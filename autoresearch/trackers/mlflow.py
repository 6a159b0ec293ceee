"""MLflow: a run per trial in the experiment of the study.

MLFLOW_TRACKING_URI says where; without it `.autoresearch/trackers/mlflow.db`, which `mlflow ui
--backend-store-uri sqlite:///.autoresearch/trackers/mlflow.db` shows.
"""

from __future__ import annotations

import os
from pathlib import Path

# Before it is imported, in this process alone: nobody asked for reports on the use of it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from autoresearch.trackers import TrackedTrial

MOST = 500  # characters of a parameter; metrics of one call
BATCH = 900


class Mlflow:
    """A run per trial."""

    def __init__(self, place: Path, study: str) -> None:
        local = f"sqlite:///{(place / 'mlflow.db').as_posix()}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        found = self._client.get_experiment_by_name(study)
        if found is not None:
            self._experiment = found.experiment_id
        else:
            folder = None if os.environ.get("MLFLOW_TRACKING_URI") else (place / "mlruns").as_uri()
            self._experiment = self._client.create_experiment(study, artifact_location=folder)

    def trial(self, trial: TrackedTrial) -> None:
        """Write it whole, and end it."""
        end = int(trial.ended * 1000)
        spent = trial.metrics.get("seconds_total", 0.0)
        run = self._client.create_run(
            self._experiment, start_time=end - int(1000 * spent), run_name=trial.name
        ).info.run_id
        # A step is a whole number: milliseconds, or tokens.
        scale = 1000 if trial.unit == "seconds" else 1
        metrics = [Metric(name, value, end, 0) for name, value in trial.metrics.items()]
        metrics += [Metric("loss", loss, end, round(scale * x)) for x, loss in trial.curve]
        tags = {"mlflow.note.content": trial.idea, "status": trial.status, "reason": trial.reason}
        for start in range(0, max(len(metrics), 1), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])
        self._client.log_batch(
            run,
            params=[Param(name, str(value)[:MOST]) for name, value in trial.config.items()],
            tags=[RunTag(name, text) for name, text in tags.items()],
        )
        self._client.set_terminated(run, "FAILED" if trial.status == "crash" else "FINISHED", end)

    def close(self) -> None:
        """Each run is ended."""


def make(place: Path, study: str) -> Mlflow:
    """The tracker."""
    return Mlflow(place, study)

"""TensorBoard: a run per trial, and one of the whole study with the score of every trial.

`tensorboard --logdir .autoresearch/trackers/tensorboard` shows them. A step is a millisecond of the
budget, or a token of it; in the study's own run it is a trial.
"""

from __future__ import annotations

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from autoresearch.trackers import TrackedTrial


class TensorBoard:
    """A folder of events per trial."""

    def __init__(self, place: Path, study: str) -> None:
        self._root = place / "tensorboard" / study
        self._study = EventFileWriter(str(self._root))

    def trial(self, trial: TrackedTrial) -> None:
        """Write its curve and numbers, and its place in the study."""
        writer = EventFileWriter(str(self._root / trial.name))
        scale = 1000 if trial.unit == "seconds" else 1
        last = trial.curve[-1][0] if trial.curve else 0.0
        for spent, loss in trial.curve:
            # By the clock that TensorBoard calls relative, a second is a second of the budget.
            at = trial.ended - (last - spent if trial.unit == "seconds" else 0.0)
            writer.add_event(_scalar("loss", loss, round(scale * spent), at))
        for name, value in trial.metrics.items():
            writer.add_event(_scalar(name, value, 0, trial.ended))
        about = f"**{trial.status}**: {trial.reason}\n\n{trial.idea}"
        writer.add_event(_text("trial", about, trial.ended))
        writer.close()
        score = trial.metrics.get(trial.metric)
        for name, number in ((trial.metric, score), ("best", trial.best)):
            if number is not None:
                self._study.add_event(_scalar(name, number, trial.id, trial.ended))
        self._study.flush()

    def close(self) -> None:
        """No more trials."""
        self._study.close()


def _scalar(name: str, value: float, step: int, at: float) -> Event:
    return Event(
        wall_time=at,
        step=step,
        summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]),
    )


def _text(name: str, text: str, at: float) -> Event:
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    value = Summary.Value(
        tag=name,
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]),
    )
    return Event(wall_time=at, step=0, summary=Summary(value=[value]))


def make(place: Path, study: str) -> TensorBoard:
    """The tracker."""
    return TensorBoard(place, study)

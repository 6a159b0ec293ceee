"""A loop's decisions, handed to a tracker in a process of its own.

    with tracking(study, "wandb"):        # None: what the study's settings say, if anything
        study.loop.run(...)

It never holds the loop up: what a tracker is slow at waits in a queue, what it can't do is a
warning, once, and at the end it gets some seconds for what is left.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.background import Background, Undone, joined, tell
from autoresearch.console import to_json
from autoresearch.engine.proposers.text import clean
from autoresearch.engine.trial import Trial
from autoresearch.trackers import TrackedTrial, find_tracker
from prepare.process import kill_tree

if TYPE_CHECKING:
    from autoresearch.opening import AnyStudy

FOLDER = "trackers"
LAST_SECONDS = 30.0
WORDS = 2_000  # characters of an idea or a reason


@contextmanager
def tracking(study: AnyStudy, name: str | None = None) -> Iterator[None]:
    """Track what is decided inside. Raises UsageError and MissingTool before that."""
    name = name or study.tracker
    if name is None:
        yield
        return
    find_tracker(name)
    background = Background(f"tracker {name}", LAST_SECONDS)
    worker = Worker(name, study.now_file.with_name(FOLDER), study.tag)
    usual = study.on_event

    def take(event: str, data: Mapping[str, Any]) -> None:
        if event == "decided":
            trial = tracked(study, Trial.from_dict(data["trial"]))
            background.put(lambda: worker.send(trial))

    study.on_event = joined(usual, take, background)
    try:
        yield
    finally:
        background.put(worker.finish)
        background.close()
        worker.kill()
        study.on_event = usual
        tell(usual, background)


class Worker:
    """The process, started with the first trial. Used by one thread; `kill` by any."""

    def __init__(self, name: str, folder: Path, study: str) -> None:
        self._name, self._folder, self._study = name, folder, study
        self._process: subprocess.Popen[str] | None = None
        self._gone = False

    @property
    def log(self) -> Path:
        """What the tracker printed."""
        return self._folder / f"{self._name}.log"

    def send(self, trial: TrackedTrial) -> None:
        """Have a trial tracked. Raises Undone."""
        if self._gone:
            return  # told when it went
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(to_json(asdict(trial)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            if self._gone:
                return  # by our own hand
            self._gone = True
            raise Undone(f"its process ended, nothing more is tracked; see {self.log}")
        problem = json.loads(answer)["problem"]
        if problem:
            raise Undone(f"{problem}; see {self.log}")

    def finish(self) -> None:
        """Let it write what is left, and end. Raises Undone."""
        process = self._process
        if process is None or self._gone:
            return
        assert process.stdin is not None
        with suppress(OSError):  # it ended before: its exit status tells
            process.stdin.close()
        if process.wait() and not self._gone:
            raise Undone(f"it ended with exit status {process.returncode}; see {self.log}")

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._gone = True
        process = self._process
        if process is not None and process.poll() is None:
            kill_tree(process.pid)
            process.wait()

    def _start(self) -> subprocess.Popen[str]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P" if sys.version_info >= (3, 11) else "-B",
                        "-m",
                        "autoresearch.trackers",
                        self._name,
                        str(self._folder.resolve()),
                        self._study,
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    cwd=self._folder,
                    start_new_session=True,  # Ctrl-C is the loop's affair
                )
        except OSError as error:
            self._gone = True
            raise Undone(f"it can't be started: {error.strerror}") from error
        return self._process


def tracked(study: AnyStudy, trial: Trial) -> TrackedTrial:
    """What is told of a trial."""
    champion, conditions = study.state.champion, study.conditions
    metric = study.task.objective.metric
    numbers = {
        **trial.metrics,
        metric: trial.score,
        "delta": trial.delta,
        "confidence": trial.confidence,
        "dollars": trial.cost.dollars,
        **{f"seconds_{phase}": seconds for phase, seconds in trial.seconds.items()},
    }
    config = {
        "trial": trial.id,
        "parent": trial.parent,
        "proposer": trial.proposer,
        "commit": trial.commit,
        "score_id": trial.score_id,
        "backend": trial.backend,
        "hardware_id": trial.hardware_id,
        "tier": trial.tier,
        "runs": len(trial.replicates),
        "predicted": trial.predicted,
        **{f"settings_{name}": v for name, v in conditions.items() if not isinstance(v, Mapping)},
    }
    if "corpus" in conditions:  # no folder of this machine
        config["settings_corpus"] = Path(str(conditions["corpus"])).name
    best = None if champion is None else study.state.trials[champion].score
    return TrackedTrial(
        study=study.tag,
        id=trial.id,
        status=str(trial.status),
        idea=clean(trial.description)[:WORDS],
        reason=clean(trial.reason)[:WORDS],
        metric=metric,
        best=best,
        unit="tokens" if conditions.get("token_budget") else "seconds",
        curve=tuple(point for point in trial.curve if all(map(math.isfinite, point))),
        metrics={n: v for n, v in numbers.items() if v is not None and math.isfinite(v)},
        config={name: value for name, value in config.items() if value not in (None, "")},
        ended=time.time(),
    )

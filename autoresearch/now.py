"""What the running loop is at: `now.json`, written by the loop and read by whoever watches.

    now = Now(folder / "now.json")
    now.take("progress", {"step": 3, "loss": 5.1, ...})     # the loop's events, all of them
    read_now(folder / "now.json")                           # {} when no loop says anything

The document has a part per level, each there only while it holds:

    at       when it was written (seconds since the epoch, as all times here)
    loop     since when, its limits (hours, trials, dollars, tokens), trials in the ledger before
    trial    since when, id, description, warning, runs begun
    run      since when, number within the trial, label (candidate, champion ...), seed, and of the
             training: step, loss, tokens, tokens_per_second, mfu, elapsed and budget (seconds),
             token_budget, curve ([spent seconds, or tokens under a token budget, and loss])
    phase    what goes on, in a word or a few
    asking   who is asked for an edit meanwhile
    flight   where more than one run is under way: all of them, each with the parts of `run` but
             the curve, its phase, and its trial's id and description

Of several trials `trial`, `run` and `phase` are those of the one that began first.

Nothing depends on it: it is not synced, and a disk that is full is no error here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.console import to_json
from autoresearch.pretraining import thin

WRITE_EVERY = 2.0  # seconds between two notes of a run's progress; a new phase is told at once
CURVE_POINTS = 120
HELD = "paused until somebody resumes it"
_PROGRESS = (
    "step",
    "loss",
    "tokens",
    "tokens_per_second",
    "mfu",
    "elapsed",
    "budget",
    "token_budget",
)


@dataclass
class _Run:
    """One run under way."""

    facts: dict[str, Any]
    phase: str = ""
    curve: list[tuple[float, float]] = field(default_factory=list)

    def progress(self, data: Mapping[str, Any]) -> None:
        """Take a step of its training."""
        self.facts.update({key: data[key] for key in _PROGRESS if data.get(key) is not None})
        spent = data.get("elapsed" if data.get("token_budget") is None else "tokens")
        if spent is not None and math.isfinite(data.get("loss", math.nan)):
            self.curve.append((float(spent), float(data["loss"])))


@dataclass
class _Trial:
    """One trial under way, or on its way: what is asked for has no id yet."""

    facts: dict[str, Any]
    phase: str = ""
    runs: dict[str, _Run] = field(default_factory=dict)  # by name, in the order of their beginning

    def begin(self, data: Mapping[str, Any], now: float) -> None:
        """One more run of it."""
        self.facts["runs"] = self.facts.get("runs", 0) + 1
        about = {key: item for key, item in data.items() if key != "id"}
        run = _Run({"since": now, "number": self.facts["runs"], **about})
        self.runs[f"{data.get('label')}-{data.get('seed')}"] = run
        self.phase = ""

    def run(self, name: str | None) -> _Run | None:
        """The run of this name; the latest where none is named."""
        return self.runs.get(name) if name else next(reversed(self.runs.values()), None)


ASKED = -1  # the place of a trial that has no id yet


class Now:
    """Keeps `now.json` from a loop's events."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._loop: dict[str, Any] | None = None
        self._phase = ""
        self._trials: dict[int, _Trial] = {}
        self._wrote_at = float("-inf")

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        """One event of the loop."""
        now = self._clock()
        if name == "progress":
            trial = self._named(data) or self._trials.setdefault(ASKED, _Trial({"since": now}))
            if trial.run(data.get("run")) is None:
                trial.begin({}, now)
            run = trial.run(data.get("run")) or trial.run(None)
            assert run is not None
            run.progress(data)
            if 0 <= now - self._wrote_at < WRITE_EVERY:
                return
        elif not self._other(name, data, now):
            return
        self._wrote_at = now
        self._write(now)

    def clear(self) -> None:
        """The loop ends: it is at nothing any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _named(self, data: Mapping[str, Any]) -> _Trial | None:
        """The trial that an event is of; the first that is under way where it names none."""
        return self._trials.get(int(data["id"])) if "id" in data else self._first

    @property
    def _first(self) -> _Trial | None:
        """The trial under way that began first; what is asked for comes last."""
        known = min((number for number in self._trials if number != ASKED), default=ASKED)
        return self._trials.get(known)

    def _other(self, name: str, data: Mapping[str, Any], now: float) -> bool:
        """Take an event that isn't progress; False if it says nothing new."""
        known = name in _TAKEN
        if known:
            self._phase = ""
            _TAKEN[name](self, data, now)
        return known

    def _begin(self, data: Mapping[str, Any], now: float) -> None:
        self._loop = {"since": now, **data}

    def _proposing(self, data: Mapping[str, Any], now: float) -> None:
        mended = self._named(data) if data.get("attempt") else None
        if mended is not None:
            mended.runs.clear()
            mended.phase = f"asking {data['proposer']} to mend it"
        else:
            self._trials[ASKED] = _Trial({"since": now}, f"asking {data['proposer']} for an edit")

    def _trial(self, data: Mapping[str, Any], now: float) -> None:
        number = int(data.get("id", ASKED))
        before = self._trials.get(number) or self._trials.get(ASKED)
        since = now if before is None else before.facts["since"]
        self._trials.pop(ASKED, None)
        self._trials[number] = _Trial({"since": since, "runs": 0, **data})

    def _run(self, data: Mapping[str, Any], now: float) -> None:
        number = int(data.get("id", ASKED))
        self._trials.setdefault(number, _Trial({"since": now})).begin(data, now)

    def _ran(self, data: Mapping[str, Any], now: float) -> None:
        trial = self._named(data)
        if trial is not None:
            trial.runs.pop(str(data.get("run")), None)

    def _phases(self, data: Mapping[str, Any], now: float) -> None:
        trial, words = self._named(data), str(data.get("phase", ""))
        run = None if trial is None else trial.run(data.get("run"))
        if run is not None:
            run.phase = words
        elif trial is not None:
            trial.phase = words
        else:
            self._phase = words

    def _pause(self, data: Mapping[str, Any], now: float) -> None:
        self._trials = {number: trial for number, trial in self._trials.items() if trial.runs}
        until = time.strftime("%H:%M:%S", time.localtime(now + float(data["seconds"])))
        self._phase = f"paused until {until}: {data['reason']}"

    def _held(self, data: Mapping[str, Any], now: float) -> None:
        self._phase = HELD

    def _warning(self, data: Mapping[str, Any], now: float) -> None:
        trial = self._named(data)
        if trial is None:
            trial = self._trials.setdefault(ASKED, _Trial({"since": now}))
        trial.facts["warning"] = str(data.get("message", ""))

    def _decided(self, data: Mapping[str, Any], now: float) -> None:
        trial = self._named(data.get("trial", {}))
        self._trials = {n: other for n, other in self._trials.items() if other is not trial}

    def _no_proposal(self, data: Mapping[str, Any], now: float) -> None:
        self._trials.pop(ASKED, None)

    def _document(self, now: float) -> dict[str, Any]:
        found: dict[str, Any] = {} if self._loop is None else {"loop": self._loop}
        first = self._first
        phase = self._phase
        if first is not None:
            found["trial"] = first.facts
            run = first.run(None)
            phase = phase or first.phase or ("" if run is None else run.phase)
            if run is not None:
                found["run"] = {**run.facts, "curve": thin(run.curve, CURVE_POINTS)}
        if phase or first is not None:
            found["phase"] = phase
        asked = self._trials.get(ASKED)
        if asked is not None and asked is not first:
            found["asking"] = asked.phase
        flight = [
            {**run.facts, "phase": run.phase, **_about(trial)}
            for _, trial in sorted(self._trials.items())
            for run in trial.runs.values()
        ]
        if len(flight) > 1:
            found["flight"] = flight
        return {**found, "at": now}

    def _write(self, now: float) -> None:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(to_json(self._document(now)), encoding="utf-8")
            os.replace(fresh, self._path)


def _about(trial: _Trial) -> dict[str, Any]:
    return {key: trial.facts[key] for key in ("id", "description") if key in trial.facts}


_TAKEN: dict[str, Callable[[Now, Mapping[str, Any], float], None]] = {
    "begin": Now._begin,
    "proposing": Now._proposing,
    "trial": Now._trial,
    "run": Now._run,
    "ran": Now._ran,
    "phase": Now._phases,
    "pause": Now._pause,
    "held": Now._held,
    "warning": Now._warning,
    "decided": Now._decided,
    "no_proposal": Now._no_proposal,
}


def read_now(path: Path) -> dict[str, Any]:
    """What the loop last said; {} when it says nothing, or something that isn't ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("at"), (int, float)):
        return {}
    parts = [found.get(part, {}) for part in ("loop", "trial", "run")]
    flight = found.get("flight", [])
    parts += flight if isinstance(flight, list) else [flight]
    return found if all(isinstance(part, dict) for part in parts) else {}

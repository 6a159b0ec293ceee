"""What the running loop is at: `now.json`, written by the loop and read by whoever watches.

    now = Now(folder / "now.json")
    now.take("progress", {"step": 3, "loss": 5.1, ...})     # the loop's events, all of them
    read_now(folder / "now.json")                           # {} when no loop says anything

The document has a part per level, each there only while it holds:

    at       when it was written (seconds since the epoch, as all times here)
    loop     since when, its limits (hours, trials, dollars, tokens), trials in the ledger before
    trial    since when, id, description, warning
    run      since when, number within the trial, label (candidate, champion ...), seed, and of the
             training: step, loss, tokens, tokens_per_second, mfu, elapsed and budget (seconds),
             token_budget, curve ([spent seconds, or tokens under a token budget, and loss])
    phase    what goes on, in a word or a few

Nothing depends on it: it is not synced, and a disk that is full is no error here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
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


class Now:
    """Keeps `now.json` from a loop's events."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._facts: dict[str, Any] = {}
        self._curve: list[tuple[float, float]] = []
        self._wrote_at = float("-inf")

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        """One event of the loop."""
        now = self._clock()
        if name == "progress":
            self._progress(data)
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

    def _other(self, name: str, data: Mapping[str, Any], now: float) -> bool:
        """Take an event that isn't progress; False if it says nothing new."""
        facts = self._facts
        if name == "begin":
            facts["loop"] = {"since": now, **data}
        elif name == "proposing":
            mending = bool(data.get("attempt"))
            if not mending:
                facts["trial"] = {"since": now}
            facts.pop("run", None)
            to_do = "to mend it" if mending else "for an edit"
            facts["phase"] = f"asking {data['proposer']} {to_do}"
        elif name == "trial":
            began = facts.get("trial", {}).get("since", now)
            facts["trial"] = {"since": began, "runs": 0, **data}
            facts["phase"] = ""
        elif name == "run":
            trial = facts.setdefault("trial", {"since": now})
            trial["runs"] = trial.get("runs", 0) + 1
            run = {key: item for key, item in data.items() if key != "id"}
            facts["run"] = {"since": now, "number": trial["runs"], **run}
            facts["phase"], self._curve = "", []
        elif name == "phase":
            facts["phase"] = str(data.get("phase", ""))
        elif name == "pause":
            for part in ("trial", "run"):
                facts.pop(part, None)
            until = time.strftime("%H:%M:%S", time.localtime(now + float(data["seconds"])))
            facts["phase"] = f"paused until {until}: {data['reason']}"
        elif name == "held":
            facts["phase"] = HELD
        elif name == "warning":
            facts.setdefault("trial", {"since": now})["warning"] = str(data.get("message", ""))
        elif name in ("decided", "no_proposal"):
            for part in ("trial", "run", "phase"):
                facts.pop(part, None)
        else:
            return False
        return True

    def _progress(self, data: Mapping[str, Any]) -> None:
        run = self._facts.setdefault("run", {})
        run.update({key: data[key] for key in _PROGRESS if data.get(key) is not None})
        spent = data.get("elapsed" if data.get("token_budget") is None else "tokens")
        if spent is not None and math.isfinite(data.get("loss", math.nan)):
            self._curve.append((float(spent), float(data["loss"])))

    def _write(self, now: float) -> None:
        document = {**self._facts, "at": now}
        if "run" in document:
            document["run"] = {**document["run"], "curve": thin(self._curve, CURVE_POINTS)}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(to_json(document), encoding="utf-8")
            os.replace(fresh, self._path)


def read_now(path: Path) -> dict[str, Any]:
    """What the loop last said; {} when it says nothing, or something that isn't ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("at"), (int, float)):
        return {}
    parts = [found.get(part, {}) for part in ("loop", "trial", "run")]
    return found if all(isinstance(part, dict) for part in parts) else {}

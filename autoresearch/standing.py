"""Where a study stands, as one JSON-ready document: what `status` shows, prints and watches.

    look = Look(folder)
    look()       # again and again: reads only what is new, never takes the writer's lock

It is made of files alone: the ledger, who writes it (its holder), and `now.json`.
"""

from __future__ import annotations

import datetime
import socket
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoresearch.engine.holder import Holder
from autoresearch.engine.proposers.text import one_line
from autoresearch.engine.state import BASELINE, State
from autoresearch.engine.trial import Trial
from autoresearch.narration import together
from autoresearch.now import CURVE_POINTS, read_now
from autoresearch.opening import AnyStudy, open_study
from autoresearch.pretraining import thin
from autoresearch.study import lineage

RECENT = 8  # decisions shown
PACE_OF = 20  # trials that tell how long one takes
WORDS = 200  # characters of an idea


class Look:
    """Looks at the study of one folder. Raises what opening it and the ledger can raise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.study = open_study(folder)
        self.state = State()
        self._known: tuple[tuple[str, str], dict[str, Any]] | None = None

    def __call__(self) -> dict[str, Any]:
        """The document, as things are now."""
        study = self.study
        headers = study.ledger.records("study")
        if not headers or headers[-1]["tag"] != study.tag:
            # Whoever begins a study names it.
            study = self.study = open_study(self._folder)
        records = study.ledger.records()
        mark = (study.tag, str(records[-1]["hash"]) if records else "")
        if self._known is None or self._known[0] != mark:
            self.state = study.state
            self._known = mark, recorded(study, self.state)
        running, killed = _writer(study)
        now = read_now(study.now_file) if running or killed else {}
        at = time.time()
        return {
            "at": at,
            **self._known[1],
            "running": running,
            "killed": killed,
            "now": now,
            "asked": study.control.asked() if running and "loop" in now else "",
            "pace": pace(self.state, now, at) if running else {},
        }


def recorded(study: AnyStudy, state: State) -> dict[str, Any]:
    """What the ledger says."""
    champion = None if state.champion is None else state.trials[state.champion]
    baseline = state.trials.get(BASELINE)
    noise = None if champion is None else state.noise(champion.score_id)
    return {
        "tag": study.tag,
        "metric": study.task.objective.metric,
        "direction": study.task.objective.direction,
        "trials": len(state.trials),
        "counts": counts(state),
        "extra_runs": sum(trial.extra_runs for trial in state.trials.values()),
        "baseline": None if baseline is None else baseline.score,
        "champion": None if champion is None else _champion(state, champion),
        "noise": None if noise is None else {"sd": noise.sd, "dof": noise.dof},
        "dollars": state.dollars,
        "tokens": state.tokens,
        "recent": [_decision(trial) for trial in list(state.trials.values())[-RECENT:]],
    }


def counts(state: State) -> dict[str, int]:
    """How many trials ended in which way, the baseline left out."""
    found: dict[str, int] = {}
    for trial in state.trials.values():
        if trial.parent is not None:
            found[str(trial.status)] = found.get(str(trial.status), 0) + 1
    return found


def _champion(state: State, champion: Trial) -> dict[str, Any]:
    kept = lineage(state)
    return {
        "id": champion.id,
        "score": champion.score,
        "idea": one_line(champion.description, WORDS),
        "gain": together(kept) if len(kept) > 1 else None,
        "curve": [list(point) for point in thin(list(champion.curve), CURVE_POINTS)],
    }


def _decision(trial: Trial) -> dict[str, Any]:
    return {
        "id": trial.id,
        "status": str(trial.status),
        "score": trial.score,
        "delta": trial.delta,
        "confidence": trial.confidence,
        "idea": one_line(trial.description, WORDS),
        "reason": one_line(trial.reason, WORDS),
    }


def _writer(study: AnyStudy) -> tuple[str | None, bool]:
    """Who writes the ledger now, and whether the last one was killed."""
    path = study.ledger.path
    holder = Holder.read(path.with_name(path.name + ".holder"))
    if holder is None:
        return None, False
    alive = holder.alive() is not False  # another machine's can't be known
    return (_running(holder, study) if alive else None), not alive


def _running(holder: Holder, study: AnyStudy) -> str:
    """`autoresearch run --hours 8  (process 4256, since 2026-03-05 23:10)`, in local time."""
    began = datetime.datetime.fromisoformat(holder.started_at).astimezone()
    place = "" if holder.host == socket.gethostname() else f" on {holder.host}"
    if holder.folder and Path(holder.folder) != study.root.resolve():
        place += f" in {holder.folder}"
    _, _, arguments = holder.command.partition(" ")  # the first word is where Python found it
    return f"autoresearch {arguments}  (process {holder.pid}{place}, since {began:%Y-%m-%d %H:%M})"


# -- how fast, and until when --------------------------------------------------------------------


def pace(state: State, now: Mapping[str, Any], time_now: float) -> dict[str, Any]:
    """Trials per hour and, of the loop under way, its limits, seconds, trials done, seconds left.

    A part that can't be known, or not yet, is left out.
    """
    found: dict[str, Any] = {}
    recent = [t for t in list(state.trials.values())[-PACE_OF:] if t.parent is not None]
    spans = [span for trial in recent if (span := _span(trial)) is not None]
    each = _together(spans) / len(spans) if spans else None
    if each:
        found["trials_per_hour"] = 3600 / each
    loop = now.get("loop", {})
    if loop:
        found["limits"] = dict(loop.get("limits") or {})
        found["seconds"] = max(0.0, time_now - float(loop.get("since", time_now)))
        # The baseline is no trial that was asked for.
        done = state.next_id - max(int(loop.get("trials_before", 0)), BASELINE + 1)
        done -= len(state.begun)
        found["done"] = max(0, done)
        left = list(_left(state, recent, loop, found["done"], each, now, time_now))
        if left:
            found["seconds_left"] = max(0.0, min(left))
    return found


def _left(
    state: State,
    recent: list[Trial],
    loop: Mapping[str, Any],
    done: int,
    each: float | None,
    now: Mapping[str, Any],
    time_now: float,
) -> Iterator[float]:
    """Seconds until each limit is reached; those that can't be known are left out."""
    limits = loop.get("limits") or {}
    if "hours" in limits:
        yield float(loop.get("since", time_now)) + 3600 * limits["hours"] - time_now
    if not each:
        return
    under_way = min(each, max(0.0, time_now - float(now.get("trial", {}).get("since", time_now))))
    if "trials" in limits:
        yield (limits["trials"] - done) * each - under_way
    dollars = [t.cost.dollars for t in recent if t.cost.dollars]
    tokens = [n for t in recent if (n := (t.cost.tokens_in or 0) + (t.cost.tokens_out or 0))]
    if "dollars" in limits and dollars:
        yield (limits["dollars"] - state.dollars) / statistics.fmean(dollars) * each - under_way
    if "tokens" in limits and tokens:
        yield (limits["tokens"] - state.tokens) / statistics.fmean(tokens) * each - under_way


def _span(trial: Trial) -> tuple[float, float] | None:
    """When a trial began, with its proposal, and ended; None where a clock was set back."""
    try:
        times = (trial.started_at, trial.finished_at)
        began, ended = (datetime.datetime.fromisoformat(at).timestamp() for at in times)
    except ValueError:
        return None
    return (began, ended) if ended >= began else None


def _together(spans: list[tuple[float, float]]) -> float:
    """Seconds in which any of them was under way: several trials can be at the same time."""
    total, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total

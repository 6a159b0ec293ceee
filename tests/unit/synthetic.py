"""A study of any size in a second: a real ledger in a real workspace, nothing of it measured."""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Iterator
from pathlib import Path

from autoresearch.engine.chain import GENESIS, canonical, seal
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.trial import (
    Cost,
    DiffStat,
    Failure,
    Replicate,
    Trial,
    TrialStatus,
)
from autoresearch.init import make_workspace
from autoresearch.study import LEDGER_NAME
from prepare.settings import Settings

BEGAN = datetime.datetime(2026, 3, 5, 22, 0, tzinfo=datetime.timezone.utc)
IDEAS = (
    "DEPTH: 8 -> 6, to fit more steps into the time",
    "MATRIX_LR: 0.04 -> 0.05",
    "a learned gate on the residual of every second block",
    "softcap 15 -> 20",
    "WINDOW_PATTERN: SSSL -> SL",
    '<b>bold</b> <script>alert(1)</script> & "quotes"',
)
SPEED = {"tokens_per_second": 61_000.0, "mfu_percent": 33.0, "peak_memory_mb": 4_096.0}


def make_study(folder: Path, trials: int, points: int = 12) -> Ledger:
    """A workspace whose study has a baseline and so many trials, each with a curve of `points`."""
    files = {
        "train.py": "DEPTH = 8\n",
        "program.md": "be bold\n\n## Notes\n\n- leave the optimizer alone\n",
        "autoresearch.toml": Settings().dumps(),
        ".gitignore": "results.*\n.autoresearch/\n",
    }
    make_workspace(folder, files, "begin")
    header = {"kind": "study", "tag": "synthetic", "settings": Settings().model_dump(mode="json")}
    prev, lines = GENESIS, []
    records = [header, *({"kind": "trial", **t.to_dict()} for t in trials_of(trials, points))]
    for number, record in enumerate(records):
        sealed = seal(record, number, prev)
        prev = sealed["hash"]
        lines.append(canonical(sealed))
    path = folder / LEDGER_NAME
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Ledger(path)


def trials_of(count: int, points: int = 12, first: int = 0) -> Iterator[Trial]:
    """The baseline and `count` trials, the same for the same numbers; from number `first` on."""
    best, champion = 1.2, 0
    for number in range(count + 1):
        chance = random.Random(number)
        trial = _trial(number, champion, best, points, chance)
        if trial.status is TrialStatus.KEEP:
            champion, best = number, float(trial.score or best)
        if number >= first:
            yield trial


def _trial(number: int, champion: int, best: float, points: int, chance: random.Random) -> Trial:
    started = BEGAN + datetime.timedelta(seconds=20 * number)
    facts = {
        "id": number,
        "description": IDEAS[number % len(IDEAS)] if number else "baseline",
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": (started + datetime.timedelta(seconds=18)).isoformat(timespec="seconds"),
        "diff_stat": DiffStat(1, 1, 1),
        "seconds": {"training": 12.0, "scoring": 3.0, "total": 16.0},
        "tier": "bubblewrap",
        "backend": "torch-cpu",
        "hardware_id": "synthetic",
    }
    if number == 0:
        runs = tuple(_run(seed, best + 0.002 * (seed - 1)) for seed in range(3))
        return Trial(parent=None, status=TrialStatus.KEEP, reason="the baseline", score=best,
                     score_id="s", replicates=runs, metrics=SPEED,
                     curve=_curve(best, points, chance), **facts)  # fmt: skip
    facts |= {"parent": champion, "proposer": "search", "cost": Cost(0.01, 900, 120, "native")}
    if chance.random() < 0.07:
        failure = Failure("training", "exception", "ValueError: <i>shapes</i>", "Traceback ...")
        return Trial(status=TrialStatus.CRASH, reason="training: exception: ValueError",
                     replicates=(Replicate(0, None, failure=failure),), **facts)  # fmt: skip
    gain = 0.004 * math.exp(-number / 1500) if chance.random() < 0.012 else -chance.expovariate(90)
    score = best - gain
    kept = gain > 0
    return Trial(
        status=TrialStatus.KEEP if kept else TrialStatus.DISCARD,
        reason="better: 3 of 3 seeds" if kept else "worse beyond the noise",
        score=score,
        score_id="s",
        delta=-gain,
        confidence=0.97 if kept else 0.1,
        replicates=tuple(_run(seed, score) for seed in range(3 if kept else 1)),
        metrics=SPEED,
        curve=_curve(score, points, chance),
        predicted=-0.002,
        **facts,
    )


def _run(seed: int, score: float) -> Replicate:
    details = {"tier": "bubblewrap", "backend": "torch-cpu", "probes": {"causality": "held"}}
    return Replicate(seed, score, metrics=SPEED, seconds={"training": 12.0}, score_id="s",
                     details=details)  # fmt: skip


def _curve(score: float, points: int, chance: random.Random) -> tuple[tuple[float, float], ...]:
    return tuple(
        (300 * at / points, 3 * score + 4 * math.exp(-6 * at / points) + chance.gauss(0, 0.02))
        for at in range(points)
    )

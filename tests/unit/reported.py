"""Studies for tests of the report: a ledger beside an autoresearch.toml, no git, nothing run."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.trial import Cost, Failure, Replicate, Trial, TrialStatus
from prepare.settings import Settings

BEGAN = datetime.datetime(2026, 3, 5, 22, tzinfo=datetime.timezone.utc)
EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{7*7}} <!-- \"' [a](http://x)"
)
DIFF = f"""diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -1,3 +1,3 @@
-DEPTH = 4
+DEPTH = 6  # {EVIL}
"""


def run(score: float | None, seed: int = 0, score_id: str = "id", **more: Any) -> Replicate:
    """A run that trained on 1,000 tokens in 10 of its 15 seconds."""
    fields: dict[str, Any] = {
        "metrics": {"tokens": 1000.0, "tokens_per_second": 100.0, "mfu_percent": 40.0},
        "seconds": {"startup": 2.0, "training": 10.0, "total": 15.0},
        "details": {"tier": "bubblewrap", "conditions": {"attention": "flash"}},
    }
    return Replicate(seed, score, score_id=score_id, **{**fields, **more})


def trial(number: int, status: str, scores: list[float], **more: Any) -> Trial:
    """Trial `number`, twenty minutes after the one before, twenty seconds long."""
    runs = tuple(run(score, seed) for seed, score in enumerate(scores))
    start = BEGAN + datetime.timedelta(minutes=20 * number)
    fields: dict[str, Any] = {
        "parent": 0,
        "reason": f"because {number}",
        "description": f"idea {number}",
        "score": sum(scores) / len(scores) if scores else None,
        "score_id": "id" if scores else "",
        "replicates": runs,
        "metrics": {**runs[0].metrics, "tokens": 1000.0 + number} if runs else {},
        "seconds": {"startup": 2.0, "training": 10.0, "total": 15.0} if runs else {},
        "tier": "bubblewrap" if runs else "",
        "backend": "cpu",
        "hardware_id": "a-cpu",
        "proposer": "claude",
        "cost": Cost(0.5, 1000, 100, "native"),
        "started_at": start.isoformat(),
        "finished_at": (start + datetime.timedelta(seconds=20)).isoformat(),
    }
    return Trial(id=number, status=TrialStatus(status), **{**fields, **more})


def night() -> list[Trial]:
    """A baseline, then one of each: discarded, kept, crashed, rejected, far off, kept again."""
    broken = run(None, failure=Failure("training", "exception", "it broke"), score_id="")
    first = [2.00, 2.01, 1.99]
    return [
        trial(0, "keep", first, parent=None, proposer="", cost=Cost(), description="baseline"),
        trial(1, "discard", [2.05], delta=0.05, confidence=0.01, predicted=-0.02),
        trial(2, "keep", [1.90, 1.91, 1.89], delta=-0.1, confidence=0.99, predicted=-0.05),
        trial(3, "crash", [], parent=2, replicates=(broken,), reason="it broke"),
        trial(4, "rejected", [], parent=2, reason="duplicate: as trial 1", cost=Cost()),
        trial(5, "discard", [50.0], parent=2, delta=48.1, confidence=0.0),
        trial(6, "keep", [1.80, 1.82, 1.81], parent=2, delta=-0.09, confidence=0.98),
    ]


def write(folder: Path, trials: list[Trial], header: dict[str, Any] | None = None) -> Ledger:
    """A workspace's folder with these trials in its ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "autoresearch.toml").write_text(Settings().dumps(), encoding="utf-8")
    ledger = Ledger(folder / "results.jsonl")
    settings = Settings().model_dump(mode="json")
    with ledger:
        ledger.append({"kind": "study", "tag": "mar5", "settings": settings, **(header or {})})
        for each in trials:
            ledger.append_trial(each)
    return ledger


def write_task(folder: Path, trials: list[Trial]) -> Ledger:
    """A task to be maximised with `words` beside its score, and these trials."""
    (folder / "work").mkdir(parents=True)
    lines = (
        "id: prose", "artifacts: {include: [a.md]}",
        "mutator: {type: command, command: python m.py}",
        "scorer: {command: 'python s.py {program}'}", "objective: {direction: maximize}",
        "secondary: {words: minimize}",
    )  # fmt: skip
    (folder / "task.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("a.md", "m.py", "s.py"):
        (folder / name).write_text("x\n", encoding="utf-8")
    ledger = Ledger(folder / "work" / "results.jsonl")
    with ledger:
        ledger.append({"kind": "study", "tag": "prose"})
        for each in trials:
            ledger.append_trial(each)
    return ledger

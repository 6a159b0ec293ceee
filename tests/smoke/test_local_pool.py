"""Two workers of the real harness on one processor, one of them killed amid its run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import backends
from autoresearch.engine.sandbox import choose
from autoresearch.engine.task import MeasureRequest
from autoresearch.local_pool import LocalPool
from autoresearch.pretraining import Pretraining
from autoresearch.slots import find_slots
from backends.facts import usable_cores
from prepare.settings import Settings
from tests.smoke.candidates import write_candidate

WORDS = ["red", "green", "blue", "cat", "dog", "house", "runs", "sleeps"]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretraining:
    """Measures a small model on words in an order that it can learn; nothing is probed."""
    draw, corpus = random.Random(0), tmp_path / "corpus"
    corpus.mkdir()
    for name, documents in (("train.txt", 400), ("valid.txt", 40)):
        texts = [" ".join(draw.choice(WORDS) for _ in range(80)) for _ in range(documents)]
        (corpus / name).write_text("<|endoftext|>".join(texts), encoding="utf-8")
    plain = {"BACKEND": "cpu", "DTYPE": "float32", "COMPILE": "0", "ATTENTION": "sdpa"}
    for name, value in {**plain, "CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    settings = Settings.model_validate(
        {
            "corpus": str(corpus),
            "vocab_size": 256,
            "max_seq_len": 64,
            "token_budget": 30_000,
            "eval_bytes": 4_000,
        }
    )
    return Pretraining(settings, sandbox=choose("auto"), shared_by=2)


@pytest.mark.skipif(usable_cores() < 2, reason="each worker needs a core")
@pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals")
def test_a_killed_workers_run_is_made_again_and_scores_the_same(
    harness: Pretraining, tmp_path: Path
) -> None:
    (tmp_path / "program").mkdir()
    write_candidate(tmp_path / "program").rename(tmp_path / "program" / "train.py")
    slots = find_slots(backends.detected(), workers=2, share=True)
    warnings: list[str] = []
    with LocalPool(harness.spec(), slots, tmp_path / "logs") as pool:

        def on_event(name: str, data: Mapping[str, Any]) -> None:
            if name == "warning" and "another process prepares" not in data["message"]:
                warnings.append(str(data["message"]))
            elif name == "phase" and data["phase"] == "training" and not warnings:
                os.kill(pool.pids[0], signal.SIGKILL)

        # The first queued is the first worker's.
        sinks = (on_event, lambda name, data: None)
        tickets = [
            pool.submit(MeasureRequest(tmp_path / "program", 7, tmp_path / f"run-{n}", sink))
            for n, sink in enumerate(sinks)
        ]
        found = {}
        while set(found) < set(tickets):
            found |= {done.ticket: done.replicate for done in pool.collect(timeout=120)}
        family = [psutil.Process(pid) for pid in pool.pids]
        family += [child for process in family for child in process.children(recursive=True)]
    killed, other = (found[ticket] for ticket in tickets)
    assert killed.failure is None, killed.failure
    assert len(warnings) == 1 and "made again" in warnings[0]
    assert killed.failure is None, killed.failure
    assert killed.score == other.score and killed.score_id == other.score_id, "one seed, one score"
    assert "hardware_id" in killed.details and (tmp_path / "run-0/result.json").is_file()
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left

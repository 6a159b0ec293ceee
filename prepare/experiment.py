"""One experiment: train a candidate train.py for its budget, then measure its val_bpb.

    outcome = run_experiment(Path("train.py"), Settings.load(Path(".")), run_dir=Path("runs/1"))

The candidate runs in processes of its own (`prepare.child`). This process feeds the data, owns
the clock and does the arithmetic; the candidate's own prints and timings are never used.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from prepare import upstream
from prepare.channel import ProtocolError
from prepare.dataset import Dataset, prepare_dataset
from prepare.errors import UsageError
from prepare.evaluate import evaluate, question_rows
from prepare.outcome import Failure, Outcome, Result
from prepare.probes import ProbeReport
from prepare.process import CandidateProcess, ProcessGone, TimedOut, log_tail
from prepare.score import Answerer, CandidateFailed, InvalidAnswer, Score
from prepare.settings import Settings
from prepare.training import EventSink, Trained, TrainingFailed, train_candidate

# Part of every score id: raise it when the same model would get another number.
HARNESS_VERSION = 1
TIER = "process"
# Bits per byte below the entropy of the text itself that sampling noise can explain.
FLOOR_MARGIN = 0.02


def run_experiment(
    script: Path,
    settings: Settings,
    *,
    backend: str | None = None,
    attention: str | None = None,
    run_dir: Path | None = None,
    on_event: EventSink | None = None,
) -> Outcome:
    """Train and score `script`; write log, weights and result.json into `run_dir`.

    Args:
        backend: a backend's name or None for the environment's choice. attention: likewise.
        on_event: called with ("phase" | "progress" | "warning" | ..., details).

    Raises PrepareError when the request or this machine is at fault. Whatever the candidate does
    wrong is a Failure.
    """
    started = time.monotonic()
    emit: EventSink = on_event or _ignore
    if not script.is_file():
        raise UsageError(f"no such file: {script}", "name a train module, or run in a workspace")
    folder = (run_dir or _new_run_dir(script.parent)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(backend, attention)
    style = upstream.style_of(script)
    if isinstance(style, Failure):
        return _record(folder, replace(style, run_dir=str(folder)))
    emit("phase", {"phase": "prepare"})
    dataset = prepare_dataset(settings, emit)
    if style == "upstream":
        outcome = upstream.run_script(script, settings, folder, environment, emit)
        return _record(folder, outcome)
    experiment = _Experiment(script.resolve(), settings, dataset, folder, environment, emit)
    return _record(folder, experiment.run(started))


def _ignore(name: str, data: dict[str, Any]) -> None:
    """The event sink of those who don't want events."""


def _new_run_dir(folder: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return folder / "runs" / f"{stamp}-{secrets.token_hex(2)}"


def _environment(backend: str | None, attention: str | None) -> dict[str, str]:
    chosen = {"AUTORESEARCH_BACKEND": backend, "AUTORESEARCH_ATTENTION": attention}
    return {name: value for name, value in chosen.items() if value}


def _record(folder: Path, outcome: Outcome) -> Outcome:
    text = json.dumps(outcome.to_dict(), indent=2, default=str)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    return outcome


def score_id(settings: Settings, dataset: Dataset, hardware_id: str) -> str:
    """Hash of all that must agree before two numbers may be compared."""
    parts = {
        "harness": HARNESS_VERSION,
        "text": dataset.fingerprint,
        "max_seq_len": settings.max_seq_len,
        "time_budget": settings.time_budget,
        "token_budget": settings.token_budget,
        "hardware": hardware_id,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class _Experiment:
    """The steps of one experiment and what they share."""

    def __init__(
        self,
        script: Path,
        settings: Settings,
        dataset: Dataset,
        folder: Path,
        environment: Mapping[str, str],
        emit: EventSink,
    ) -> None:
        self._settings, self._dataset, self._folder = settings, dataset, folder
        self._environment, self._emit = environment, emit
        self._configuration: dict[str, Any] = {
            "script": str(script),
            "seed": settings.seed,
            "spec": {
                "vocab_size": dataset.tokenizer.vocab_size,
                "max_seq_len": settings.max_seq_len,
            },
            "weights": str(folder / "weights.safetensors"),
        }

    def run(self, started: float) -> Outcome:
        process = CandidateProcess(self._folder, "train", self._environment)
        try:
            with process:
                trained = train_candidate(
                    process, self._configuration, self._settings, self._dataset.train, self._emit
                )
        except TrainingFailed as failed:
            return self._failure(failed.phase, failed.kind, failed.message, "train")
        begun = time.monotonic()
        try:
            score, probes = self._score(str(trained.hello["compute_dtype"]))
        except InvalidAnswer as invalid:
            return self._failure("scoring", invalid.kind, invalid.message, "answer")
        except CandidateFailed as failed:
            return self._failure("scoring", failed.failure, failed.message, "answer")
        except ProcessGone as gone:
            kind = "killed" if gone.returncode < 0 else "exit"
            return self._failure("scoring", kind, str(gone), "answer")
        except TimedOut:
            limit = self._settings.score_timeout
            return self._failure("scoring", "timeout", f"no answers within {limit:.0f} s", "answer")
        except ProtocolError as error:
            return self._failure("scoring", "invalid_output", str(error), "answer")
        trained.seconds["scoring"] = time.monotonic() - begun
        return self._result(trained, score, probes, time.monotonic() - started)

    def _failure(self, phase: str, kind: str, message: str, role: str) -> Failure:
        tail = log_tail(self._folder / f"{role}.log")
        return Failure(phase, kind, message, tail, run_dir=str(self._folder))

    # Scoring --------------------------------------------------------------------------------

    def _score(self, compute_dtype: str) -> tuple[Score, ProbeReport]:
        settings, dataset = self._settings, self._dataset
        rows = dataset.val.read_all()
        vocab_size = dataset.tokenizer.vocab_size
        size = question_rows(len(rows), settings.max_seq_len, vocab_size)
        probe_folder = self._folder / "probes"
        probe_folder.mkdir(exist_ok=True)
        with (
            self._answerer(self._folder, size) as first,
            self._answerer(probe_folder, size) as second,
        ):
            first.wait_until_ready()
            second.wait_until_ready()
            score, probes = evaluate(
                rows,
                dataset.tokenizer.token_bytes,
                compute_dtype,
                first.ask,
                second.ask,
                np.random.default_rng(secrets.randbits(128)),
                lambda done, total: self._emit("scoring", {"done": done, "of": total}),
            )
        self._check_plausible(score)
        np.save(self._folder / "row_nats.npy", score.row_nats, allow_pickle=False)
        return score, probes

    def _answerer(self, folder: Path, rows: int) -> Answerer:
        return Answerer(
            folder,
            self._configuration,
            self._environment,
            max_rows=rows,
            timeout=self._settings.score_timeout,
        )

    def _check_plausible(self, score: Score) -> None:
        floor = self._dataset.floor_bpb
        if floor is not None and score.val_bpb < floor - FLOOR_MARGIN:
            raise InvalidAnswer(
                "implausible",
                f"val_bpb {score.val_bpb:.4f} is below the text's own entropy, {floor:.4f}",
            )

    # The record -----------------------------------------------------------------------------

    def _result(self, trained: Trained, score: Score, probes: ProbeReport, total: float) -> Result:
        hello, built, seconds = trained.hello, trained.built, trained.seconds
        training = seconds["training"]
        rate = trained.tokens / training
        flops = rate * float(built["flops_per_token"])
        peak, measured = hello["peak_flops"], hello["measured_peak_flops"]
        depth = built.get("depth")
        return Result(
            val_bpb=score.val_bpb,
            score_id=score_id(self._settings, self._dataset, str(hello["hardware_id"])),
            verified=True,
            training_seconds=training,
            total_seconds=total,
            startup_seconds=seconds["startup"] + seconds["build"],
            warmup_seconds=seconds["warmup"],
            scoring_seconds=seconds["scoring"],
            peak_memory_mb=trained.peak_memory_mb,
            mfu_percent=100 * flops / peak if peak else None,
            mfu_measured_percent=100 * flops / measured if measured else None,
            measured_peak_flops=measured,
            tokens=trained.tokens,
            tokens_per_second=rate,
            num_steps=trained.steps,
            num_params=int(built["num_params"]),
            depth=depth if isinstance(depth, int) else None,
            backend=str(hello["backend"]),
            hardware=hello["hardware"],
            policy=hello["policy"],
            versions=hello["versions"],
            tier=TIER,
            probes=asdict(probes)["deviations"],
            floor_bpb=self._dataset.floor_bpb,
            scored_tokens=score.tokens,
            scored_bytes=score.bytes,
            seed=self._settings.seed,
            weights=str(trained.weights),
            run_dir=str(self._folder),
        )

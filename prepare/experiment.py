"""One experiment: train a candidate train.py for its budget, then measure its val_bpb.

    outcome = run_experiment(Path("train.py"), Settings.load(Path(".")), run_dir=Path("runs/1"))

The candidate runs in processes of its own (`prepare.child`). This process feeds the data, owns
the clock and does the arithmetic; the candidate's own prints and timings are never used.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from prepare import upstream
from prepare.cache import require_space, writable_folder
from prepare.channel import ProtocolError, SharedFile
from prepare.compiled import keep_compiled
from prepare.dataset import Dataset, prepare_dataset
from prepare.devices import accelerators, not_stopped, require_loopback
from prepare.errors import UsageError
from prepare.evaluate import evaluate, question_rows
from prepare.feeder import ring_bytes
from prepare.isolation import (
    Access,
    Sandbox,
    access_for,
    text_folders,
)
from prepare.logs import log_tail
from prepare.messages import Touched
from prepare.outcome import Failure, Outcome, Result
from prepare.probes import ProbeReport
from prepare.process import CandidateProcess, CandidateStopped, ProcessGone, TimedOut
from prepare.runfiles import Tampered, clear, create
from prepare.score import Answerer, CandidateFailed, InvalidAnswer, Score
from prepare.score_id import score_id
from prepare.settings import Settings
from prepare.training import (
    WEIGHTS_NAME,
    EventSink,
    Trained,
    TrainingFailed,
    train_candidate,
)

# Bits per byte below the entropy of the text itself that sampling noise can explain.
FLOOR_MARGIN = 0.02
ROW_NATS_NAME = "row_nats.npy"
# Before its first answer a candidate may take this much longer than it can need to: a share of the
# training time, and at least so many seconds.
FIRST_ANSWER_SHARE, FIRST_ANSWER_SECONDS = 0.05, 20.0
# A cold compile of a changed model was seen to take 35 to 80 s on a CPU. Training's may come from a
# cache, the forward pass's never does: what answered could have kept the questions in one.
COMPILE_SECONDS = 90.0
# A run's log, weights and record; a full disk is no fault of train.py, so it is told beforehand.
RUN_BYTES = 20_000_000
ELSEWHERE = "name another folder with --run-dir"
# Names that tell neither process which of the two is scored.
ANSWERERS = ("answer-a", "answer-b")


def run_experiment(
    script: Path,
    settings: Settings,
    *,
    backend: str | None = None,
    attention: str | None = None,
    run_dir: Path | None = None,
    on_event: EventSink | None = None,
    sandbox: Sandbox | None = None,
    warm_from: Path | None = None,
    shared_by: int = 1,
) -> Outcome:
    """Train and score `script`; write log, weights and result.json into `run_dir`.

    Args:
        backend: a backend's name or None for the environment's choice. attention: likewise.
        sandbox: the isolation tier that the candidate's processes run in; None for no more than
            the audit hook. A strict one hides the cache: call `backends.select()` before, or each
            process measures the machine's speeds again.
        warm_from: another train module whose compiled kernels may be used, such as the champion.
        shared_by: how many runs share this device at the same time: part of the score id.
        on_event: called with ("phase" | "progress" | "warning" | ..., details).

    Raises PrepareError when the request or this machine is at fault. Whatever the candidate does
    wrong is a Failure.
    """
    started = time.monotonic()
    emit: EventSink = on_event or _ignore
    if not script.is_file():
        raise UsageError(f"no such file: {script}", "name a train module, or run in a workspace")
    folder = (run_dir or _new_run_dir(script.parent)).resolve()
    writable_folder(folder, ELSEWHERE)
    require_space(folder, RUN_BYTES, ELSEWHERE)
    environment = _environment(backend, attention)
    style = upstream.style_of(script)
    if isinstance(style, Failure):
        return _record(folder, replace(style, run_dir=str(folder)))
    if settings.devices > 1:
        require_loopback(sandbox, settings.devices)
    emit("phase", {"phase": "prepare"})
    dataset = prepare_dataset(settings, emit)
    if style == "upstream":
        outcome = upstream.run_script(script, settings, folder, environment, emit)
        return _record(folder, outcome)
    script = script.resolve()
    access = access_for(script, sandbox, text_folders(settings), warm_from)
    experiment = _Experiment(
        script, settings, dataset, folder, environment, access, emit, shared_by
    )
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
    with create(folder / "result.json") as file:
        file.write(text.encode() + b"\n")
    return outcome


def _phases(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase as they are recorded: building the model is part of starting up."""
    phases = dict(seconds)
    if "build" in phases:
        phases["startup"] = phases.get("startup", 0.0) + phases.pop("build")
    return phases


# What ends the scoring and is the candidate's doing.
_SCORING_FAILURES = (
    InvalidAnswer,
    CandidateFailed,
    CandidateStopped,
    ProcessGone,
    TimedOut,
    ProtocolError,
    Tampered,
)


class _Experiment:
    """The steps of one experiment and what they share."""

    def __init__(
        self,
        script: Path,
        settings: Settings,
        dataset: Dataset,
        folder: Path,
        environment: Mapping[str, str],
        access: Access,
        emit: EventSink,
        shared_by: int,
    ) -> None:
        self._shared_by = shared_by
        self._settings, self._dataset, self._folder = settings, dataset, folder
        self._environment, self._access, self._emit = environment, access, emit
        self._touched: list[Touched] = []
        self._configuration: dict[str, Any] = {
            "script": str(script),
            "seed": settings.seed,
            "spec": {
                "vocab_size": dataset.tokenizer.vocab_size,
                "max_seq_len": settings.max_seq_len,
            },
        }

    def run(self, started: float) -> Outcome:
        """All of it; what the candidate's processes left in their folders is removed."""
        try:
            return self._run(started)
        finally:
            clear(self._folder / "work")

    def _run(self, started: float) -> Outcome:
        weights = self._folder / WEIGHTS_NAME
        for left in (weights, self._folder / "result.json", self._folder / ROW_NATS_NAME):
            clear(left)
        ring = SharedFile(ring_bytes(self._settings.max_seq_len))
        process = CandidateProcess(
            self._folder,
            "train",
            self._environment,
            access=self._access,
            shared=(ring,),
            loopback=self._settings.devices > 1,
        )
        self._touched = process.touched
        try:
            with contextlib.closing(ring), process:
                trained = train_candidate(
                    process,
                    self._configuration,
                    self._settings,
                    self._dataset.train,
                    ring,
                    self._emit,
                    weights,
                )
        except TrainingFailed as failed:
            return self._failure(failed.phase, failed.kind, failed.message, failed.seconds, "train")
        begun = time.monotonic()
        try:
            score, probes = self._score(trained, process.folder)
        except _SCORING_FAILURES as error:
            seconds = {**trained.seconds, "scoring": time.monotonic() - begun}
            return self._failure("scoring", *self._why(error), seconds, *ANSWERERS)
        trained.seconds["scoring"] = time.monotonic() - begun
        return self._result(trained, score, probes, time.monotonic() - started)

    def _why(self, error: Exception) -> tuple[str, str]:
        """Kind and message of what ended the scoring."""
        if isinstance(error, CandidateFailed):
            return error.failure, error.message
        if isinstance(error, InvalidAnswer | CandidateStopped):
            return error.kind, error.message
        if isinstance(error, ProcessGone):
            return "killed" if error.returncode < 0 else "exit", str(error)
        if isinstance(error, TimedOut):
            return "timeout", (
                f"weights not loaded within {self._settings.startup_timeout:.0f} s, or questions "
                f"not answered within {self._settings.score_timeout:.0f} s"
            )
        return "tampered" if isinstance(error, Tampered) else "invalid_output", str(error)

    def _failure(
        self, phase: str, kind: str, message: str, seconds: Mapping[str, float], *logs: str
    ) -> Failure:
        tail = "\n".join(filter(None, (log_tail(self._folder / f"{name}.log") for name in logs)))
        return Failure(
            phase,
            kind,
            message,
            tail,
            _phases(seconds),
            run_dir=str(self._folder),
            tier=self._access.sandbox.name,
            touched=self._reported(),
        )

    def _reported(self) -> tuple[str, ...]:
        said = (
            f"{touched.act} {touched.target}" + (" (forbidden)" if touched.forbidden else "")
            for touched in self._touched
        )
        return tuple(dict.fromkeys(said))

    # Scoring --------------------------------------------------------------------------------

    def _score(self, trained: Trained, trained_in: Path) -> tuple[Score, ProbeReport]:
        settings, dataset = self._settings, self._dataset
        rows = dataset.val.read_all()
        names = secrets.SystemRandom().sample(ANSWERERS, 2)
        limits = (settings.startup_timeout, self._first_answer_seconds(trained))
        with (
            contextlib.ExitStack() as first_lives,
            self._answerer(trained, names[1]) as second,
        ):
            first = first_lives.enter_context(self._answerer(trained, names[0]))
            # Both load the framework by now, which takes longer than this.
            keep_compiled(trained_in, Path(self._configuration["script"]))
            first.configure()
            second.configure()
            first.load(*limits)

            def ask_second(questions: list[np.ndarray]) -> Iterator[np.ndarray]:
                """The candidate's code runs in one of them at a time: no notes can be passed."""
                first_lives.close()
                clear(self._folder / "work" / names[0])
                second.load(*limits)
                return second.ask(questions)

            score, probes = evaluate(
                rows,
                dataset.tokenizer.token_bytes,
                trained.hello.compute_dtype,
                first.ask,
                ask_second,
                np.random.default_rng(secrets.randbits(128)),
                lambda done, total: self._emit("scoring", {"done": done, "of": total}),
            )
        trained.seal.check()
        self._check_plausible(score)
        buffer = io.BytesIO()
        np.save(buffer, score.row_nats, allow_pickle=False)
        with create(self._folder / ROW_NATS_NAME) as file:
            file.write(buffer.getvalue())
        return score, probes

    def _first_answer_seconds(self, trained: Trained) -> float:
        """What may pass between loading the weights and the first answer.

        As long as building and warming up took in training, or a cold compile where it was warm,
        and a forward pass at a quarter of training's speed; beyond that a share of the training,
        or what a busy machine may need.
        """
        seconds, dataset = trained.seconds, self._dataset
        length, vocab_size = self._settings.max_seq_len, dataset.tokenizer.vocab_size
        tokens = 2 * length * question_rows(len(dataset.val), length, vocab_size)
        asked = 4 * tokens * seconds["training"] / max(1, trained.tokens)
        extra = max(FIRST_ANSWER_SHARE * seconds["training"], FIRST_ANSWER_SECONDS)
        begun = seconds["build"] + seconds["warmup"]
        if trained.hello.policy.get("compile"):
            begun = max(begun, COMPILE_SECONDS)
        return begun + asked + extra

    def _answerer(self, trained: Trained, name: str) -> Answerer:
        settings, dataset = self._settings, self._dataset
        length, vocab_size = settings.max_seq_len, dataset.tokenizer.vocab_size
        return Answerer(
            self._folder,
            {**self._configuration, "weights": str(trained.weights)},
            self._environment,
            name=name,
            access=self._access,
            touched=self._touched,
            max_rows=question_rows(len(dataset.val), length, vocab_size),
            timeout=settings.score_timeout,
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
        hello, built, seconds = trained.hello, trained.built, _phases(trained.seconds)
        training = seconds["training"]
        rate = trained.tokens / training
        # Of each accelerator, since the peaks are of one.
        flops = rate * built.flops_per_token / accelerators(hello, self._settings.devices)
        peak, measured = hello.peak_flops, hello.measured_peak_flops
        return Result(
            val_bpb=score.val_bpb,
            score_id=score_id(self._settings, self._dataset, hello.hardware_id, self._shared_by),
            verified=True,
            training_seconds=training,
            total_seconds=total,
            startup_seconds=seconds["startup"],
            warmup_seconds=seconds["warmup"],
            scoring_seconds=seconds["scoring"],
            peak_memory_mb=trained.peak_memory_mb,
            mfu_percent=100 * flops / peak if peak else None,
            mfu_measured_percent=100 * flops / measured if measured else None,
            measured_peak_flops=measured,
            tokens=trained.tokens,
            tokens_per_second=rate,
            num_steps=trained.steps,
            num_params=built.num_params,
            depth=built.depth,
            backend=hello.backend,
            hardware=hello.hardware,
            policy=hello.policy,
            versions=hello.versions,
            tier=self._access.sandbox.name,
            probes=asdict(probes)["deviations"],
            floor_bpb=self._dataset.floor_bpb,
            scored_tokens=score.tokens,
            scored_bytes=score.bytes,
            seed=self._settings.seed,
            weights=str(trained.weights),
            run_dir=str(self._folder),
            devices=self._settings.devices,
            not_protected_against=not_stopped(self._access.sandbox, self._settings.devices),
            touched=self._reported(),
        )

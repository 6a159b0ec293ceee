"""One training run of a candidate: the harness feeds the data, owns the clock, counts tokens.

The clock starts when the first real batch is handed out and stops when the finished weights
arrive, on this process's monotonic clock. Before that come start-up and a capped warm-up on random
tokens, after which the weights are made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prepare.channel import ProtocolError, SharedFile
from prepare.devices import accelerators, check_devices
from prepare.feed import Feed
from prepare.feeder import MAX_BATCH_TOKENS, Feeder
from prepare.messages import Built, Hello, Open, Progress, Weights, failed_report, parse
from prepare.packing import Rows
from prepare.process import CandidateProcess, CandidateStopped, ProcessGone, TimedOut
from prepare.runfiles import Seal, Tampered
from prepare.settings import Settings

EventSink = Callable[[str, dict[str, Any]], None]

WEIGHTS_NAME = "weights.safetensors"
# A run may end a little late (its last step, writing the weights); more than this is cheating or
# a hang.
OVERRUN_SHARE, OVERRUN_SECONDS = 0.02, 2.0
# A message from the candidate is waited for in slices, so that the clock is looked at.
SLICE = 0.1
RSS_INTERVAL = 1.0
# Steps are reported onwards no more often than this many seconds.
PROGRESS_INTERVAL = 0.05


class TrainingFailed(Exception):
    """Training has no weights to show; phase, kind, message and seconds as in `Failure`."""

    def __init__(self, phase: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.phase, self.kind, self.message = phase, kind, message
        self.seconds: dict[str, float] = {}


@dataclass
class Trained:
    """What training left, and what was measured from outside."""

    weights: Path
    hello: Hello
    built: Built
    seal: Seal
    tokens: int = 0
    steps: int = 0
    peak_memory_mb: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


class TrainingRun:
    """State of one candidate's training, driven by its messages."""

    def __init__(
        self,
        process: CandidateProcess,
        settings: Settings,
        rows: Rows,
        ring: SharedFile,
        on_event: EventSink,
        weights: Path,
    ) -> None:
        self._process, self._settings, self._rows = process, settings, rows
        self._ring = ring
        self._on_event = on_event
        self._feed = Feed(rows, settings.seed)
        self._feeder: Feeder | None = None
        self._batch_tokens = 0
        self._phase = "startup"
        # When the phase began, and when a batch was last taken (messages alone buy no time).
        self._entered = self._last_read = time.monotonic()
        self._clock_started: float | None = None
        self._ended = False
        self._peak_rss, self._rss_sampled, self._progress_at = 0, float("-inf"), float("-inf")
        self._hello: Hello | None = None
        self._built: Built | None = None
        self._weights = weights
        self._tokens = 0
        self._seconds: dict[str, float] = {}

    # Phases and their deadlines -------------------------------------------------------------

    def _enter(self, phase: str, now: float) -> None:
        self._seconds[self._phase] = now - self._entered
        self._phase, self._entered = phase, now
        self._on_event("phase", {"phase": phase})

    def _deadline(self) -> float:
        settings = self._settings
        if self._clock_started is not None and settings.token_budget is None:
            overrun = OVERRUN_SHARE * settings.time_budget + OVERRUN_SECONDS
            return self._clock_started + settings.time_budget + overrun
        if self._clock_started is not None:  # a token budget: slow is allowed, stuck is not
            return self._last_read + settings.warmup_timeout
        limit = settings.startup_timeout if self._phase == "startup" else settings.warmup_timeout
        return self._entered + limit

    def _late(self) -> TrainingFailed:
        seconds = time.monotonic() - self._entered
        if self._phase == "training":
            message = (
                f"no weights {seconds:.0f} s after the first batch, with a budget of "
                f"{self._settings.time_budget:.0f} s: train() must return when run.batches() ends"
            )
        else:
            name = "startup_timeout" if self._phase == "startup" else "warmup_timeout"
            message = (
                f"{self._phase} took longer than the {seconds:.0f} s it is allowed "
                f"({name} in autoresearch.toml)"
            )
        return TrainingFailed(self._phase, "timeout", message)

    # Messages -------------------------------------------------------------------------------

    def drive(self) -> Trained:
        """Serve the candidate until its weights are here. Raises TrainingFailed."""
        self._on_event("phase", {"phase": "startup"})
        try:
            while True:
                message = self._next_message()
                trained = None if message is None else self._take(message)
                if trained is not None:
                    return trained
        except TrainingFailed as failed:
            failed.seconds = {**self._seconds, self._phase: time.monotonic() - self._entered}
            raise
        finally:
            self._close_feeder()

    def _next_message(self) -> dict[str, Any] | None:
        now = time.monotonic()
        if now > self._deadline():
            raise self._late()
        self._end_when_spent(now)
        if self._phase == "training" and now - self._rss_sampled > RSS_INTERVAL:
            self._rss_sampled = now
            self._peak_rss = max(self._peak_rss, self._process.rss_bytes())
        if self._feeder is not None and self._feeder.error is not None:
            raise self._feeder.error
        try:
            return self._process.receive(SLICE)
        except TimedOut:
            return None
        except CandidateStopped as stopped:
            raise TrainingFailed(self._phase, stopped.kind, stopped.message) from stopped
        except ProcessGone as gone:
            kind = "killed" if gone.returncode < 0 else "exit"
            raise TrainingFailed(self._phase, kind, str(gone)) from gone
        except ProtocolError as error:
            raise TrainingFailed(self._phase, "invalid_output", str(error)) from error

    def _take(self, message: dict[str, Any]) -> Trained | None:
        try:
            return self._handle(message)
        except ProtocolError as error:
            raise TrainingFailed(self._phase, "invalid_output", str(error)) from error

    def _handle(self, message: dict[str, Any]) -> Trained | None:
        """Each message has its phase, and hello and built come once: what was measured before the
        candidate's code was loaded can't be said again."""
        kind, now = message["kind"], float(message["received_at"])
        if kind == "failed":
            raise TrainingFailed(*failed_report(message))
        if kind == "hello" and self._phase == "startup":
            self._hello = parse(Hello, message)
            check_devices(self._hello, self._settings.devices)
            self._enter("build", now)
        elif kind == "built" and self._phase == "build":
            self._built = parse(Built, message)
            self._enter("warmup", now)
        elif kind == "open" and self._phase in ("warmup", "training"):
            self._open(parse(Open, message).rows)
        elif kind == "released" and self._feeder is not None:
            self._feeder.released()
            self._tokens += self._batch_tokens
            self._last_read = now
        elif kind == "progress" and self._phase == "training":
            self._progress(parse(Progress, message), now)
        elif kind == "weights":
            return self._finish(parse(Weights, message))
        elif kind != "warm":
            raise ProtocolError(f"unexpected {kind[:40]!r} during {self._phase}")
        return None

    def _open(self, rows: int) -> None:
        """The candidate asks for batches of some size: pack some, then start the clock."""
        if self._ended:
            self._process.send("end")
            return
        if rows * self._settings.max_seq_len > MAX_BATCH_TOKENS:
            raise ProtocolError(f"batches of {rows} rows are beyond {MAX_BATCH_TOKENS} tokens")
        self._close_feeder()
        self._batch_tokens = rows * self._settings.max_seq_len
        budget, limit = self._settings.token_budget, None
        if budget is not None:
            limit = -(-(budget - self._tokens) // self._batch_tokens)
        row_tokens = self._settings.max_seq_len + 1
        self._feeder = Feeder(self._process, self._feed, rows, row_tokens, self._ring, limit)
        self._process.send("opened", **self._feeder.announcement)
        if self._clock_started is None:
            self._clock_started = self._last_read = time.monotonic()
            self._enter("training", self._clock_started)
        self._feeder.start()

    def _close_feeder(self) -> None:
        """Batches that were handed out count, whether or not the candidate says it read them."""
        if self._feeder is not None:
            self._feeder.close()
            self._tokens += (self._feeder.handed_out - self._feeder.read) * self._batch_tokens
            self._feeder = None

    def _end_when_spent(self, now: float) -> None:
        if self._clock_started is None or self._ended:
            return
        budget = self._settings.token_budget
        if budget is not None:
            spent = self._tokens >= budget
        else:
            spent = now - self._clock_started >= self._settings.time_budget
        if spent:
            self._ended = True
            if self._feeder is not None:
                self._feeder.stop()
            self._process.send("end")

    def _progress(self, message: Progress, now: float) -> None:
        if now - self._progress_at < PROGRESS_INTERVAL:
            return
        self._progress_at = now
        elapsed = now - (self._clock_started or now)
        rate = self._tokens / elapsed if elapsed > 0 else 0.0
        flops = self._built.flops_per_token if self._built else 0.0
        peak = None
        if self._hello is not None:
            peak = self._hello.peak_flops or self._hello.measured_peak_flops
            peak = peak and peak * accelerators(self._hello, self._settings.devices)
        self._on_event(
            "progress",
            {
                "step": message.step,
                "loss": message.loss,
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "mfu": rate * flops / peak if peak else None,
                "elapsed": elapsed,
                "budget": self._settings.time_budget,
                "token_budget": self._settings.token_budget,
            },
        )

    def _finish(self, message: Weights) -> Trained:
        if self._clock_started is None or self._hello is None or self._built is None:
            raise TrainingFailed(
                "training", "no_training", "train() returned without asking run.batches() for any"
            )
        # Killed before the file is taken, so that nothing improves it after the clock stopped;
        # and stopped only now, so that a message that waited behind others buys no time.
        self._process.kill()
        self._enter("scoring", time.monotonic())
        try:
            seal = Seal.adopt(self._process.folder / WEIGHTS_NAME, self._weights)
        except Tampered as error:
            raise TrainingFailed("training", "invalid_output", str(error)) from error
        if self._settings.token_budget is not None:
            self._close_feeder()
        peak_memory = message.peak_memory_mb
        features = self._hello.hardware.get("features")
        if isinstance(features, list) and "host" in features:
            # Where the model lives in main memory, its own word can be checked from outside.
            peak_memory = max(peak_memory, self._peak_rss / 2**20)
        return Trained(
            weights=self._weights,
            hello=self._hello,
            built=self._built,
            seal=seal,
            tokens=self._tokens,
            steps=message.steps,
            peak_memory_mb=peak_memory,
            seconds=self._seconds,
        )


def train_candidate(
    process: CandidateProcess,
    configuration: Mapping[str, Any],
    settings: Settings,
    rows: Rows,
    ring: SharedFile,
    on_event: EventSink,
    weights: Path,
) -> Trained:
    """Train the candidate in `process` and move its weights to `weights`.

    Raises TrainingFailed with phase, kind and message.
    """
    budget: dict[str, float] = {"seconds": settings.time_budget}
    if settings.token_budget is not None:
        budget = {"tokens": float(settings.token_budget)}
    process.configure(
        **configuration,
        weights=str(process.folder / WEIGHTS_NAME),
        budget=budget,
        devices=settings.devices,
        handles=list(ring.handles),
        rendezvous=str(process.folder / "rendezvous"),
        warmup_seconds=settings.warmup_timeout / 2,
    )
    return TrainingRun(process, settings, rows, ring, on_event, weights).drive()

"""One training run of a candidate: the harness feeds the data, owns the clock, counts tokens.

The clock starts when the first real batch is handed out and stops when the finished weights
arrive, on this process's monotonic clock. Before that come start-up and a capped warm-up on random
tokens, after which the weights are made anew.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prepare.channel import ProtocolError, scratch_folder, shared_array
from prepare.feed import Feed
from prepare.packing import Rows
from prepare.process import CandidateProcess, ProcessGone, TimedOut
from prepare.settings import Settings

EventSink = Callable[[str, dict[str, Any]], None]

# Batches packed and announced ahead of need.
SLOTS = 4
# A run may end a little late (its last step, writing the weights); more than this is cheating or
# a hang.
OVERRUN_SHARE, OVERRUN_SECONDS = 0.02, 5.0
# A message from the candidate is waited for in slices, so that the clock is looked at.
SLICE = 0.1
RSS_INTERVAL = 1.0
MAX_LOG_BYTES = 256 * 1024 * 1024


class TrainingFailed(Exception):
    """Training has no weights to show; phase, kind and message as in `Failure`."""

    def __init__(self, phase: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.phase, self.kind, self.message = phase, kind, message


@dataclass
class Trained:
    """What training left, and what was measured from outside."""

    weights: Path
    hello: dict[str, Any] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    steps: int = 0
    peak_memory_mb: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


class Feeder(threading.Thread):
    """Packs batches into a ring ahead of need and announces each filled slot."""

    def __init__(self, process: CandidateProcess, feed: Feed, rows: int, row_tokens: int) -> None:
        super().__init__(daemon=True)
        self._process, self._feed = process, feed
        shape = (SLOTS, rows, row_tokens)
        self._folder = scratch_folder(int(np.prod(shape)) * feed.rows.dtype.itemsize)
        path = self._folder / "ring"
        self._ring = shared_array(path, shape, feed.rows.dtype.name, create=True)
        self._free = threading.Semaphore(SLOTS)
        self._stopped = threading.Event()
        self._feed.fill(self._ring[0])  # ready before it is asked for, and before the clock starts
        self.error: BaseException | None = None
        self.announcement = {"path": str(path), "shape": list(shape), "dtype": feed.rows.dtype.name}

    def run(self) -> None:
        filled = 1
        try:
            while True:
                self._free.acquire()
                if self._stopped.is_set():
                    return
                slot = (filled - 1) % SLOTS
                if filled > 1:
                    self._feed.fill(self._ring[slot])
                self._process.send("slot", slot=slot)
                filled += 1
        except OSError as error:  # the token file went away under us: reported by the owner
            self.error = error

    def released(self) -> None:
        """One slot was read and may be filled again."""
        self._free.release()

    def close(self) -> None:
        """Stop, and give the shared memory back."""
        self._stopped.set()
        self._free.release()
        if self.is_alive():
            self.join(timeout=10)
        shutil.rmtree(self._folder, ignore_errors=True)


class TrainingRun:
    """State of one candidate's training, driven by its messages."""

    def __init__(
        self,
        process: CandidateProcess,
        settings: Settings,
        rows: Rows,
        on_event: EventSink,
        weights: Path,
    ) -> None:
        self._process, self._settings, self._rows = process, settings, rows
        self._on_event = on_event
        self._feed = Feed(rows, settings.seed)
        self._feeder: Feeder | None = None
        self._batch_rows = 0
        self._phase = "startup"
        self._entered = self._last_heard = time.monotonic()
        self._clock_started: float | None = None
        self._ended = False
        self._peak_rss, self._rss_sampled = 0, float("-inf")
        self.trained = Trained(weights)

    # Phases and their deadlines -------------------------------------------------------------

    def _enter(self, phase: str, now: float) -> None:
        self.trained.seconds[self._phase] = (
            self.trained.seconds.get(self._phase, 0.0) + now - self._entered
        )
        self._phase, self._entered = phase, now
        self._on_event("phase", {"phase": phase})

    def _deadline(self) -> float:
        settings = self._settings
        if self._clock_started is not None and settings.token_budget is None:
            overrun = OVERRUN_SHARE * settings.time_budget + OVERRUN_SECONDS
            return self._clock_started + settings.time_budget + overrun
        if self._clock_started is not None:  # a token budget: slow is allowed, stuck is not
            return self._last_heard + settings.warmup_timeout
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
            message = f"{self._phase} took longer than the {seconds:.0f} s it is allowed"
        return TrainingFailed(self._phase, "timeout", message)

    # Messages -------------------------------------------------------------------------------

    def drive(self) -> Trained:
        """Serve the candidate until its weights are here. Raises TrainingFailed."""
        self._on_event("phase", {"phase": "startup"})
        try:
            while True:
                message = self._next_message()
                if message is not None and self._handle(message):
                    return self.trained
        finally:
            if self._feeder is not None:
                self._feeder.close()

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
        if self._process.log_path.stat().st_size > MAX_LOG_BYTES:
            raise TrainingFailed(self._phase, "exception", "the candidate floods its log")
        try:
            return self._process.receive(SLICE)
        except TimedOut:
            return None
        except ProcessGone as gone:
            kind = "killed" if gone.returncode < 0 else "exit"
            raise TrainingFailed(self._phase, kind, str(gone)) from gone
        except ProtocolError as error:
            raise TrainingFailed(self._phase, "invalid_output", str(error)) from error

    def _handle(self, message: dict[str, Any]) -> bool:
        kind, now = message["kind"], float(message["received_at"])
        self._last_heard = now
        if kind == "failed":
            raise TrainingFailed(
                str(message.get("phase")), str(message.get("failure")), str(message.get("message"))
            )
        if kind == "hello":
            self.trained.hello = message
            self._enter("build", now)
        elif kind == "built":
            self.trained.built = message
            self._enter("warmup", now)
        elif kind == "open" and self._phase in ("warmup", "training"):
            self._open(message)
        elif kind == "released":
            self._released(now)
        elif kind == "progress" and self._phase == "training":
            self._progress(message, now)
        elif kind == "weights":
            self._finish(message, now)
            return True
        elif kind != "warm":
            raise TrainingFailed(
                self._phase, "invalid_output", f"unexpected {kind!r} during {self._phase}"
            )
        return False

    def _open(self, message: dict[str, Any]) -> None:
        """The candidate asks for batches of some size: pack some, then start the clock."""
        rows = message.get("rows")
        if not isinstance(rows, int) or not 1 <= rows <= 65536:
            raise TrainingFailed(self._phase, "invalid_output", f"batches of {rows!r} rows")
        if self._feeder is not None:
            self._feeder.close()
        self._batch_rows = rows
        self._feeder = Feeder(self._process, self._feed, rows, self._settings.max_seq_len + 1)
        self._process.send("opened", **self._feeder.announcement)
        if self._clock_started is None:
            self._clock_started = time.monotonic()
            self._enter("training", self._clock_started)
        self._feeder.start()

    def _released(self, now: float) -> None:
        if self._feeder is None:
            raise TrainingFailed(self._phase, "invalid_output", "a batch that was never handed out")
        self.trained.tokens += self._batch_rows * self._settings.max_seq_len
        self._feeder.released()

    def _end_when_spent(self, now: float) -> None:
        if self._clock_started is None or self._ended:
            return
        budget = self._settings.token_budget
        if budget is not None:
            spent = self.trained.tokens >= budget
        else:
            spent = now - self._clock_started >= self._settings.time_budget
        if spent:
            self._ended = True
            self._process.send("end")

    def _progress(self, message: dict[str, Any], now: float) -> None:
        elapsed = now - (self._clock_started or now)
        rate = self.trained.tokens / elapsed if elapsed > 0 else 0.0
        flops = float(self.trained.built.get("flops_per_token") or 0.0)
        peak = self.trained.hello.get("peak_flops") or self.trained.hello.get("measured_peak_flops")
        loss = message.get("loss")
        self._on_event(
            "progress",
            {
                "step": message.get("step"),
                "loss": loss if isinstance(loss, float) else None,
                "tokens": self.trained.tokens,
                "tokens_per_second": rate,
                "mfu": rate * flops / peak if peak else None,
                "elapsed": elapsed,
                "budget": self._settings.time_budget,
                "token_budget": self._settings.token_budget,
            },
        )

    def _finish(self, message: dict[str, Any], now: float) -> None:
        if self._clock_started is None:
            raise TrainingFailed(
                "training", "no_training", "train() returned without asking run.batches() for any"
            )
        # Killed before the file is read, so that nothing improves it after the clock stopped.
        self._process.kill()
        self._enter("scoring", now)
        if not self.trained.weights.is_file():
            raise TrainingFailed("training", "invalid_output", "the weights never arrived")
        self.trained.peak_memory_mb = float(message.get("peak_memory_mb") or 0.0)
        if "host" in self.trained.hello["hardware"]["features"]:
            # Where the model lives in main memory, its own word can be checked from outside.
            seen = self._peak_rss / 2**20
            self.trained.peak_memory_mb = max(self.trained.peak_memory_mb, seen)
        self.trained.steps = int(message.get("steps") or 0)


def train_candidate(
    process: CandidateProcess,
    configuration: Mapping[str, Any],
    settings: Settings,
    rows: Rows,
    on_event: EventSink,
) -> Trained:
    """Train the candidate in `process`. Raises TrainingFailed with phase, kind and message."""
    budget: dict[str, float] = {"seconds": settings.time_budget}
    if settings.token_budget is not None:
        budget = {"tokens": float(settings.token_budget)}
    process.send(
        "configure",
        **configuration,
        budget=budget,
        warmup_seconds=settings.warmup_timeout / 2,
    )
    weights = Path(str(configuration["weights"]))
    return TrainingRun(process, settings, rows, on_event, weights).drive()

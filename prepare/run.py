"""What `train(model, run)` is given: batches until the budget is spent, progress, a log.

This runs inside the candidate process, so nothing here is trusted: the harness keeps its own
clock, its own count of tokens and its own score.

Where several devices train one model, `train` runs once for each, and a batch of n rows is shared
out: each gets n / devices of them. Here is the leader's side, see `prepare.ranks` for the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prepare.channel import Channel, ChannelClosed, shared_array

WARMUP_LOGS = 2
WARMUP_MAX_BATCHES = 512
LOG_INTERVAL = 0.2


@dataclass(frozen=True)
class Spec:
    """What a model must fit: `vocab_size` tokens, contexts of up to `max_seq_len`."""

    vocab_size: int
    max_seq_len: int


class Run:
    """The harness as the candidate sees it.

    `batches(n)` yields `(x, y)`: int64 tensors of shape (n, max_seq_len) on the device, y being
    the token after each of x; of several devices each gets its share of the n rows. `progress` is
    the share of the budget that is spent, 0 to 1 (with several devices as of the batch's
    beginning, so that all see the same).
    """

    def __init__(self, spec: Spec, seed: int) -> None:
        self.spec = spec
        self.seed = seed

    @property
    def progress(self) -> float:
        raise NotImplementedError

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        raise NotImplementedError

    def log(self, step: int, loss: Any, **more: Any) -> None:
        raise NotImplementedError


class Crew:
    """The other devices that train with this one, as the first of them sees them: here, none."""

    size = 1

    def batch(self, **fields: Any) -> None:
        """Tell the others of a batch: `rows`, `progress` and where it lies."""

    def wait_taken(self) -> None:
        """Wait until the others have copied their rows."""

    def stop(self, progress: float) -> None:
        """Tell the others that the batches end here."""

    def peak_memory_mb(self) -> float:
        """The highest of the others' peaks, when they are done."""
        return 0.0


def check_batch_size(value: Any, devices: int) -> int:
    """The number of rows asked for. Raises ValueError unless each device gets as many."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"run.batches() needs a whole number of rows, at least 1, not {value!r}")
    if value % devices:
        raise ValueError(
            f"run.batches({value}): {devices} devices share the rows, so their number must be a "
            f"multiple of {devices}"
        )
    return value


def random_rows(random: np.random.Generator, spec: Spec, rows: int) -> np.ndarray:
    """Rows of random tokens (rows, max_seq_len + 1), to warm up on."""
    return random.integers(spec.vocab_size, size=(rows, spec.max_seq_len + 1))


def to_device(rows: np.ndarray) -> tuple[Any, Any]:
    """Inputs and targets of rows (n, T + 1), as tensors."""
    from backends import runtime

    return runtime.from_numpy(rows[:, :-1]), runtime.from_numpy(rows[:, 1:])


class WarmupRun(Run):
    """Random tokens for a few steps, so that everything is compiled before the clock starts."""

    def __init__(self, spec: Spec, seed: int, seconds: float, crew: Crew | None = None) -> None:
        super().__init__(spec, seed)
        self._crew = crew or Crew()
        self._logs = 0
        self._deadline = time.monotonic() + seconds
        self._random = np.random.default_rng(seed)

    @property
    def progress(self) -> float:
        return 0.0

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        rows = check_batch_size(device_batch_size, self._crew.size)
        for _ in range(WARMUP_MAX_BATCHES):
            if self._logs >= WARMUP_LOGS or time.monotonic() > self._deadline:
                break
            self._crew.batch(rows=rows, progress=0.0)
            yield to_device(random_rows(self._random, self.spec, rows // self._crew.size))
        self._crew.stop(0.0)

    def log(self, step: int, loss: Any, **more: Any) -> None:
        self._logs += 1


class TimedRun(Run):
    """The real thing: batches from the harness through a ring in shared memory."""

    def __init__(
        self,
        spec: Spec,
        seed: int,
        channel: Channel,
        budget: dict[str, float],
        crew: Crew | None = None,
    ) -> None:
        super().__init__(spec, seed)
        self._channel = channel
        self._crew = crew or Crew()
        self._agreed = 0.0
        self._seconds = budget.get("seconds")
        self._tokens = budget.get("tokens")
        self._consumed = 0
        self._started: float | None = None
        self._last_log = float("-inf")
        self.last_loss: float | None = None
        self.steps = 0

    @property
    def progress(self) -> float:
        return self._agreed if self._crew.size > 1 else self._spent()

    def _spent(self) -> float:
        if self._tokens is not None:
            return min(1.0, self._consumed / self._tokens)
        if self._started is None or self._seconds is None:
            return 0.0
        return min(1.0, (time.monotonic() - self._started) / self._seconds)

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        rows = check_batch_size(device_batch_size, self._crew.size)
        yield from self._until_spent(rows)
        self._agreed = self._spent()
        self._crew.stop(self._agreed)

    def _until_spent(self, rows: int) -> Iterator[tuple[Any, Any]]:
        if self._spent() >= 1.0:
            return
        self._channel.send("open", rows=rows)
        ring: np.ndarray | None = None
        place: dict[str, Any] = {}
        slowest = 0.0
        while True:
            message = self._channel.receive()
            if message["kind"] == "end":
                return
            if message["kind"] == "opened":
                place = {name: message[name] for name in ("ring", "shape", "dtype")}
                ring = shared_array(message["ring"], tuple(message["shape"]), message["dtype"])
                continue
            if message["kind"] != "slot":
                raise ChannelClosed(f"unexpected {message['kind']!r} while reading batches")
            if ring is None:  # a slot of the ring of an earlier, smaller or larger batch size
                continue
            now = time.monotonic()
            self._started = now if self._started is None else self._started
            self._agreed = self._spent()
            self._crew.batch(slot=message["slot"], rows=rows, progress=self._agreed, **place)
            batch = to_device(ring[message["slot"], : rows // self._crew.size])
            self._crew.wait_taken()
            self._channel.send("released", slot=message["slot"])
            yield batch
            self._consumed += rows * self.spec.max_seq_len
            # One micro-batch may take seconds on a slow device: don't begin one that can't end.
            slowest = max(slowest * 0.9, time.monotonic() - now)
            if self._seconds is not None and self._spent() + slowest / self._seconds > 1.0:
                return
            if self._spent() >= 1.0:
                return

    def log(self, step: int, loss: Any, **more: Any) -> None:
        """Report an optimizer step; reading the loss waits for the device, as it must."""
        value = float(loss)
        self.last_loss = value
        self.steps += 1
        now = time.monotonic()
        if now - self._last_log < LOG_INTERVAL:
            return
        self._last_log = now
        numbers = {name: float(item) for name, item in more.items() if _is_number(item)}
        self._channel.send("progress", step=int(step), loss=value, more=numbers)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True

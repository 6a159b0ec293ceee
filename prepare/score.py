"""val_bpb by question and answer: rows of tokens go to a candidate process, logits come back,
and the arithmetic is done here.

    val_bpb = total nats / (ln 2 * total bytes)

over a fixed validation text in which every byte counts exactly once, whatever the batch size or
the vocabulary. No code of the candidate runs in the process that knows the targets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from prepare.cache import explained
from prepare.channel import DTYPE_BYTES, SharedFile
from prepare.isolation import Access
from prepare.messages import Touched, failed_report
from prepare.process import CandidateProcess, TimedOut

# Eager forward passes of a small model on two cores: 15,500 tokens/s at 8 MB to 32 MB, 13,300 at
# 64, where the activations leave the cache.
ANSWER_BYTES = 16 * 1024 * 1024
ARITHMETIC_CHUNK = 256  # rows of logits turned into probabilities at a time: stays in cache


class InvalidAnswer(Exception):
    """The candidate's answers are no logits, or not those of a causal model.

    `kind` is one of invalid_output, not_finite, causality, batch_dependence, nondeterminism,
    implausible, overrun.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Score:
    """What the arithmetic found. `row_nats` and `row_bytes` are float64 and int64 per row."""

    val_bpb: float
    nats: float
    bytes: int
    tokens: int
    row_nats: np.ndarray
    row_bytes: np.ndarray


def rows_per_question(length: int, vocab_size: int) -> int:
    """How many rows of `length` tokens fit one answer buffer, in float32 at worst."""
    return max(1, ANSWER_BYTES // (length * vocab_size * 4))


def decode_logits(raw: np.ndarray, dtype: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Bytes from shared memory as logits: float32 or float16, or bfloat16's bits in uint16.

    Raises InvalidAnswer for another dtype or the wrong number of bytes.
    """
    width = DTYPE_BYTES.get(dtype)
    if width is None:
        allowed = ", ".join(DTYPE_BYTES)
        raise InvalidAnswer("invalid_output", f"logits of dtype {dtype}; allowed are {allowed}")
    if raw.size != width * math.prod(shape):
        raise InvalidAnswer(
            "invalid_output", f"{raw.size} bytes of {dtype} logits for the shape {shape}"
        )
    storage = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
    return raw.view(storage).reshape(shape)


def widen(logits: np.ndarray) -> np.ndarray:
    """Transported logits as float32 (a copy); uint16 holds bfloat16's upper half of a float32."""
    if logits.dtype == np.uint16:
        return (logits.astype(np.uint32) << 16).view(np.float32)
    return np.array(logits, dtype=np.float32)


def target_nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy in nats of each target under the softmax of its logits.

    Args:
        logits: (N, V) as transported. targets: (N,) integers below V.

    Returns: (N,) float64.

    Raises InvalidAnswer if a logit is NaN or +inf, or a whole row is -inf.
    """
    nats = np.empty(len(targets), dtype=np.float64)
    for start in range(0, len(targets), ARITHMETIC_CHUNK):
        block = widen(logits[start : start + ARITHMETIC_CHUNK])
        peak = block.max(axis=1, keepdims=True)
        if not np.isfinite(peak).all():
            raise InvalidAnswer("not_finite", "the logits hold NaN or infinite values")
        block -= peak
        wanted = targets[start : start + ARITHMETIC_CHUNK].astype(np.int64)
        chosen = np.take_along_axis(block, wanted[:, None], axis=1)[:, 0].astype(np.float64)
        np.exp(block, out=block)
        nats[start : start + ARITHMETIC_CHUNK] = (
            np.log(block.sum(axis=1).astype(np.float64)) - chosen
        )
    if not np.isfinite(nats).all():
        raise InvalidAnswer("not_finite", "a target was given probability 0")
    return nats


class Answerer:
    """A candidate process that answers rows of tokens with logits, two questions in flight.

    with Answerer(run_dir, configuration, environment, timeout) as answerer:
        answerer.configure()
        answerer.load(startup, seconds)
        for logits in answerer.ask(questions): ...
    """

    def __init__(
        self,
        run_dir: Path,
        configuration: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        name: str,
        access: Access,
        touched: list[Touched],
        max_rows: int,
        timeout: float,
    ) -> None:
        """Start it. name: of its log and folder. touched: gets what the audit hook reports.

        timeout: seconds to answer all questions."""
        spec = configuration["spec"]
        self._vocab_size, length = int(spec["vocab_size"]), int(spec["max_seq_len"])
        self._answer_bytes = max_rows * length * self._vocab_size * 4
        self._question_tokens = max_rows * length
        self._timeout = timeout
        self._first_answer_by = float("inf")
        self._questions = SharedFile(2 * self._question_tokens * 4)
        self._answers = SharedFile(2 * self._answer_bytes)
        weights = Path(str(configuration["weights"]))
        self._process = CandidateProcess(
            run_dir,
            "answer",
            environment,
            name=name,
            access=replace(access, readable=(*access.readable, weights)),
            shared=(self._questions, self._answers),
            touched=touched,
        )
        self._deadline = time.monotonic() + timeout
        self._configuration = configuration

    def configure(self) -> None:
        """Say what is to be loaded. The process loads the framework meanwhile."""
        self._process.configure(
            **self._configuration,
            questions=self._questions.address,
            answers=self._answers.address,
            shape=[2, self._question_tokens],
            answer_bytes=self._answer_bytes,
        )

    def load(self, startup: float, seconds: float) -> None:
        """Let the candidate's code load the weights. Raises what `_receive` raises.

        startup: seconds for the framework. seconds: from then to the first answer, which is where
        a candidate would have to go on learning: later, its answers would differ from those of
        the process that is asked afterwards.
        """
        self._deadline = time.monotonic() + startup
        self._receive("hello")
        self._first_answer_by = time.monotonic() + seconds
        self._deadline = time.monotonic() + self._timeout
        self._process.send("load")
        self._receive_first("ready")

    def _receive_first(self, kind: str) -> dict[str, Any]:
        """As `_receive`, until the time for the first answer is over. Raises InvalidAnswer then."""
        deadline = self._deadline
        self._deadline = min(deadline, self._first_answer_by)
        try:
            return self._receive(kind)
        except TimedOut:
            raise InvalidAnswer(
                "overrun",
                "no answer in the time that loading the weights can take: it may not train on, "
                "nor compile for longer than the warm-up did",
            ) from None
        finally:
            self._deadline = deadline

    def _receive(self, kind: str) -> dict[str, Any]:
        message = self._process.receive(self._deadline - time.monotonic())
        if message["kind"] == "failed":
            raise CandidateFailed(message)
        if message["kind"] != kind:
            raise InvalidAnswer("invalid_output", f"expected {kind!r}, got {message['kind']!r}")
        return message

    def ask(self, questions: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Answers in order: for each (n, L) block of tokens, (n, L, V) logits as transported.

        An answer is a copy of what stood in shared memory when the candidate said it was done.
        """
        sent = 0
        for index, tokens in enumerate(questions):
            while sent < min(index + 2, len(questions)):
                self._send_question(sent % 2, questions[sent])
                sent += 1
            message = self._receive("answered") if index else self._receive_first("answered")
            slot = index % 2
            size = message.get("bytes")
            if message.get("slot") != slot or not isinstance(size, int):
                raise InvalidAnswer("invalid_output", "an answer to another question")
            size = max(0, min(size, self._answer_bytes))
            raw = self._answers.read(slot * self._answer_bytes, size)
            shape = (tokens.shape[0], tokens.shape[1], self._vocab_size)
            yield decode_logits(raw, str(message.get("dtype")), shape)

    def _send_question(self, slot: int, tokens: np.ndarray) -> None:
        rows, length = tokens.shape
        with explained(Path("shared memory")):
            self._questions.write(slot * self._question_tokens * 4, tokens.astype(np.int32))
        self._process.send("ask", slot=slot, rows=rows, length=length)

    @property
    def log_tail(self) -> str:
        return self._process.log_tail()

    def __enter__(self) -> Answerer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.__exit__(kind, error, trace)
        self._questions.close()
        self._answers.close()


class CandidateFailed(Exception):
    """The candidate process reported an exception: `phase`, `failure` and `message`."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        super().__init__("the candidate process reported an exception")
        self.phase, self.failure, self.message = failed_report(dict(report))


class Tally:
    """Adds up nats and bytes row by row, so that each row counts once and only once."""

    def __init__(self, rows: np.ndarray, token_bytes: np.ndarray) -> None:
        """rows: (N, T+1) tokens. token_bytes: (V,) bytes per token, 0 for special tokens."""
        self._targets = rows[:, 1:]
        self._bytes = token_bytes[self._targets]
        self._row_nats = np.full(len(rows), np.nan)
        # (N, T): per target, NaN where nothing counts.
        self.nats = np.full(self._targets.shape, np.nan)

    def add(self, indices: np.ndarray, logits: np.ndarray) -> None:
        """Count rows `indices` (n,) by their logits (n, T, V)."""
        for index, row_logits in zip(indices, logits, strict=True):
            if not math.isnan(self._row_nats[index]):
                raise ValueError(f"row {index} was counted before")
            counted = self._bytes[index] > 0
            # Special tokens have no bytes and are not asked for: a model may rule them out.
            nats = target_nats(row_logits[counted], self._targets[index][counted])
            self._row_nats[index] = nats.sum()
            self.nats[index, counted] = nats

    def score(self) -> Score:
        """The total. Raises ValueError if a row was never answered."""
        if np.isnan(self._row_nats).any():
            raise ValueError("some rows were never answered")
        row_bytes = self._bytes.sum(axis=1, dtype=np.int64)
        nats, total = math.fsum(self._row_nats), int(row_bytes.sum())
        return Score(
            val_bpb=nats / (math.log(2) * total),
            nats=nats,
            bytes=total,
            tokens=int((self._bytes > 0).sum()),
            row_nats=self._row_nats.copy(),
            row_bytes=row_bytes,
        )

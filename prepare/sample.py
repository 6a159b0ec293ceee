"""Text from a candidate's weights: its process says what may come next, the harness draws.

    for piece in write_text(script, tokenizer, 512, weights, prompt="Once upon"):
        print(piece, end="")

The candidate's code runs as in a trial: in a process of its own, in the sandbox it is given.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prepare.channel import ProtocolError
from prepare.errors import CandidateError, UsageError
from prepare.isolation import Sandbox, access_for
from prepare.messages import failed_report
from prepare.process import CandidateProcess, CandidateStopped, ProcessGone, TimedOut
from prepare.tokenizer import Tokenizer

# Contexts are padded to a multiple of this: what comes later has no effect on a causal model, and
# a kernel that is built per length is built a few times only.
LENGTHS = 64
STARTUP_SECONDS, ANSWER_SECONDS = 300.0, 120.0
_ENDS = (ProcessGone, TimedOut, CandidateStopped, ProtocolError)


@dataclass(frozen=True)
class Drawing:
    """How the next token is drawn. temperature 0 takes the likeliest; top_k: of so many only."""

    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature {self.temperature} is not possible", "use 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k {self.top_k} is not possible", "use 1 or more")

    def draw(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """An id by its logits (V,)."""
        logits = logits.astype(np.float64)
        if self.top_k is not None and self.top_k < len(logits):
            least = np.partition(logits, -self.top_k)[-self.top_k]
            logits = np.where(logits < least, -np.inf, logits)
        # The Gumbel trick: the largest of noisy logits is a draw from their softmax.
        return int(np.argmax(logits + random.gumbel(size=logits.shape) * self.temperature))


def write_text(
    script: Path,
    tokenizer: Tokenizer,
    max_seq_len: int,
    weights: Path,
    *,
    prompt: str = "",
    tokens: int = 200,
    drawing: Drawing = Drawing(),
    backend: str | None = None,
    sandbox: Sandbox | None = None,
    hidden: tuple[Path, ...] = (),
    seconds: float = math.inf,
) -> Iterator[str]:
    """What the model writes after the prompt, as it comes, until a document ends or `tokens` are
    out.

    Args:
        script: the train module that `weights` belong to. max_seq_len: the context it was built
            for; of a longer text it sees the end. hidden: folders that are none of its business,
            beside those that no candidate sees. seconds: then the text ends where it is.

    Raises UsageError for a prompt that is no text, CandidateError if the candidate process fails.
    """
    try:
        told = [tokenizer.bos, *(int(i) for i in tokenizer.encode(prompt))]
    except UnicodeEncodeError as error:  # how Python takes arguments that are no UTF-8
        raise UsageError("the prompt is no text", "write it in UTF-8") from error
    access = access_for(script.resolve(), sandbox, hidden)
    access = replace(access, readable=(*access.readable, weights.resolve()))
    environment = {"AUTORESEARCH_BACKEND": backend} if backend else {}
    if "AUTORESEARCH_COMPILE" not in os.environ:
        environment["AUTORESEARCH_COMPILE"] = "0"  # takes longer than a text does
    ends_at = time.monotonic() + seconds
    random = np.random.default_rng(drawing.seed)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with (
        tempfile.TemporaryDirectory(prefix="autoresearch-sample-") as folder,
        CandidateProcess(Path(folder), "sample", environment, access=access) as process,
    ):
        process.configure(
            script=str(script.resolve()),
            seed=0,
            spec={"vocab_size": tokenizer.vocab_size, "max_seq_len": max_seq_len},
            weights=str(weights.resolve()),
        )
        _expect(process, "ready", min(STARTUP_SECONDS, seconds))
        for _ in range(tokens):
            left = ends_at - time.monotonic()
            if left <= 0:
                break
            process.send("ask", **_question(told, tokenizer, max_seq_len))
            logits = _logits(_expect(process, "logits", min(ANSWER_SECONDS, left)), tokenizer)
            token = drawing.draw(logits, random)
            if token == tokenizer.bos:
                break
            told.append(token)
            piece = decoder.decode(tokenizer.decode_bytes([token]))
            if piece:
                yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def _question(told: list[int], tokenizer: Tokenizer, max_seq_len: int) -> dict[str, Any]:
    """What may come after `told`, as the candidate process is asked."""
    context = told[-max_seq_len:]
    length = min(max_seq_len, -(-len(context) // LENGTHS) * LENGTHS)
    padded = context + [tokenizer.bos] * (length - len(context))
    return {"tokens": padded, "at": len(context) - 1}


def _logits(message: Mapping[str, Any], tokenizer: Tokenizer) -> np.ndarray:
    """Logits (V,) float32 of an answer."""
    try:
        raw = base64.b64decode(message["data"], validate=True)
        logits = np.frombuffer(raw, np.float32)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CandidateError("no text was written: an answer that is no logits") from error
    if logits.shape != (tokenizer.vocab_size,) or not np.isfinite(logits.max()):
        raise CandidateError("no text was written: the logits are too few, NaN or infinite")
    return logits


def _expect(process: CandidateProcess, kind: str, seconds: float) -> Mapping[str, Any]:
    try:
        message = process.receive(seconds)
    except _ENDS as error:
        why = str(error) or f"no answer in {seconds:.0f} s"
        raise CandidateError(f"no text was written: {why}", process.log_tail()) from error
    if message["kind"] == "failed":
        _, _, text = failed_report(message)
        raise CandidateError(f"no text was written: {text}", "train.py or its weights are at fault")
    if message["kind"] != kind:
        raise CandidateError(f"no text was written: {message['kind']!r} came for {kind!r}")
    return message

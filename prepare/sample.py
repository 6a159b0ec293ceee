"""Text from a candidate's weights, written in a process of its own."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from prepare.channel import ProtocolError
from prepare.dataset import prepare_dataset
from prepare.errors import CandidateError
from prepare.isolation import Sandbox, access_for, text_folders
from prepare.process import CandidateProcess, CandidateStopped, ProcessGone, TimedOut
from prepare.settings import Settings


def sample_text(
    script: Path,
    settings: Settings,
    weights: Path,
    *,
    prompt: str = "",
    tokens: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    backend: str | None = None,
    sandbox: Sandbox | None = None,
) -> str:
    """The prompt and what the model writes after it, until a document ends or `tokens` are out.

    Raises CandidateError if the candidate process fails.
    """
    tokenizer = prepare_dataset(settings).tokenizer
    start = [tokenizer.bos, *(int(i) for i in tokenizer.encode_batch([prompt])[0])]
    environment = {"AUTORESEARCH_BACKEND": backend} if backend else {}
    access = access_for(script.resolve(), sandbox, text_folders(settings))
    access = replace(access, readable=(*access.readable, weights.resolve()))
    with (
        tempfile.TemporaryDirectory(prefix="autoresearch-sample-") as folder,
        CandidateProcess(Path(folder), "sample", environment, access=access) as process,
    ):
        process.configure(
            script=str(script.resolve()),
            seed=seed,
            spec={"vocab_size": tokenizer.vocab_size, "max_seq_len": settings.max_seq_len},
            weights=str(weights.resolve()),
            tokens=start,
            count=tokens,
            stop=tokenizer.bos,
            temperature=temperature,
        )
        try:
            message = process.receive(settings.score_timeout)
        except (ProcessGone, TimedOut, CandidateStopped, ProtocolError) as error:
            raise CandidateError(f"no text was written: {error}", process.log_tail()) from error
    if message["kind"] != "sampled":
        raise CandidateError(f"no text was written: {message.get('message')}", "see the log")
    return tokenizer.decode([int(i) for i in message["tokens"][1:]])

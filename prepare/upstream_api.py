"""What scripts in upstream's style import from `prepare`: same names, same meaning, torch arrays.

    from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb

The settings come from the harness, or from `autoresearch.toml` in the working directory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from prepare.dataset import Dataset, prepare_dataset
from prepare.feed import Feed
from prepare.settings import Settings
from prepare.upstream import SETTINGS_VARIABLE


@cache
def _settings() -> Settings:
    given = os.environ.get(SETTINGS_VARIABLE)
    return Settings.model_validate(json.loads(given)) if given else Settings.load(Path.cwd())


@cache
def _dataset() -> Dataset:
    return prepare_dataset(_settings())


class Tokenizer:
    """Upstream's tokenizer interface over ours."""

    @classmethod
    def from_directory(cls) -> Tokenizer:
        """The tokenizer of this workspace."""
        return cls()

    def get_vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return _dataset().tokenizer.vocab_size

    def get_bos_token_id(self) -> int:
        """Id of the token that begins a document."""
        return _dataset().tokenizer.bos

    def encode(self, text: str | list[str], prepend: int | None = None) -> list[Any]:
        """Token ids of a text, or of each text of a list, `prepend` in front if given."""
        texts = [text] if isinstance(text, str) else text
        head = [] if prepend is None else [prepend]
        rows = [head + ids.tolist() for ids in _dataset().tokenizer.encode_batch(texts)]
        return rows[0] if isinstance(text, str) else rows

    def decode(self, ids: list[int]) -> str:
        """The text of some token ids."""
        return _dataset().tokenizer.decode(ids)


def make_dataloader(
    tokenizer: Tokenizer, B: int, T: int, split: str
) -> Iterator[tuple[Any, Any, int]]:
    """Endless `(inputs, targets, epoch)`: int64 tensors of shape (B, T) on the runtime's device.

    Raises ValueError for a T other than MAX_SEQ_LEN: rows are packed for one length.
    """
    if _settings().max_seq_len != T:
        raise ValueError(f"rows are packed for T = {_settings().max_seq_len}, not {T}")
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', not {split!r}")
    return _batches(B, T, split)


def _batches(B: int, T: int, split: str) -> Iterator[tuple[Any, Any, int]]:
    from backends import runtime

    feed = Feed(getattr(_dataset(), split), _settings().seed)
    buffer = np.empty((B, T + 1), dtype=feed.rows.dtype)
    while True:
        epoch = feed.fill(buffer)
        yield runtime.from_numpy(buffer[:, :-1]), runtime.from_numpy(buffer[:, 1:]), epoch


def evaluate_bpb(model: Any, tokenizer: Tokenizer, batch_size: int) -> float:
    """Bits per byte by the model's own loss, `model(x, y, reduction="none")`: (B*T,) nats.

    Each validation byte counts once; unlike the harness's score this trusts the model.
    """
    from backends import runtime, torch

    dataset = _dataset()
    rows = dataset.val.read_all()
    token_bytes = dataset.tokenizer.token_bytes
    nats, total = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            block = rows[start : start + batch_size]
            x, y = runtime.from_numpy(block[:, :-1]), runtime.from_numpy(block[:, 1:])
            losses = runtime.to_numpy(model(x, y, reduction="none")).reshape(-1)
            sizes = token_bytes[block[:, 1:].reshape(-1)]
            nats += float(losses[sizes > 0].sum(dtype=np.float64))
            total += int(sizes.sum())
    return nats / (math.log(2) * total)


def __getattr__(name: str) -> Any:
    if name == "MAX_SEQ_LEN":
        return _settings().max_seq_len
    if name == "TIME_BUDGET":
        return _settings().time_budget
    raise AttributeError(f"prepare has no {name!r}")

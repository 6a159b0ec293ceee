"""Where a search may take train.py's constants, and which sets of them can't work.

    proposer = SearchProposer(HINTS, validity(settings.max_seq_len), seed=settings.seed)

Constants that the file gained since are searched by their scale (engine.proposers.space).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autoresearch.engine.proposers.space import Choices, Fixed, Hint, Range

_LEARNING_RATE = Range(1e-5, 10.0)

HINTS: Mapping[str, Hint] = {
    "DEPTH": Range(1, 48),
    "ASPECT_RATIO": Range(8, 256, powers=True),
    "HEAD_DIM": Range(16, 256, powers=True),
    "HEADS_PER_KV_HEAD": Range(1, 8, powers=True),
    "WINDOW_PATTERN": Choices(("L", "SL", "SSL", "SSSL", "SSSSSL", "S")),
    "TOTAL_BATCH_SIZE": Range(2**8, 2**22, powers=True),
    "DEVICE_BATCH_SIZE": Range(1, 2**10, powers=True),
    "EMBEDDING_LR": _LEARNING_RATE,
    "UNEMBEDDING_LR": _LEARNING_RATE,
    "MATRIX_LR": _LEARNING_RATE,
    "SCALAR_LR": _LEARNING_RATE,
    "WEIGHT_DECAY": Range(0.0, 1.0),
    "ADAM_BETAS": Choices(
        ((0.8, 0.95), (0.65, 0.95), (0.9, 0.95), (0.8, 0.98), (0.9, 0.98), (0.9, 0.99))
    ),
    "WARMUP_RATIO": Range(0.0, 0.3),
    "WARMDOWN_RATIO": Range(0.0, 1.0),
    "FINAL_LR_FRAC": Range(0.0, 0.3),
    "SOFTCAP": Range(5.0, 60.0),
    "ROPE_BASE": Range(500.0, 500_000.0),
    "GATE_CHANNELS": Range(4, 128, powers=True),
    "DIVERGED_LOSS": Fixed(),  # a guard, no hyperparameter
    "POLAR_EXPRESS": Fixed(),  # coefficients of a published iteration
}


def validity(max_seq_len: int, devices: int = 1) -> Callable[[Mapping[str, Any]], str | None]:
    """A check of constants for this context length: None, or why train.py would refuse them.

    devices: how many share the rows of a batch. A constant that the file has lost is not checked.
    """

    def check(constants: Mapping[str, Any]) -> str | None:
        return (
            _batch(constants, max_seq_len, devices)
            or _heads(constants)
            or _at_most_one(constants, "WARMUP_RATIO", "WARMDOWN_RATIO")
        )

    return check


def _batch(constants: Mapping[str, Any], max_seq_len: int, devices: int) -> str | None:
    total, rows = constants.get("TOTAL_BATCH_SIZE"), constants.get("DEVICE_BATCH_SIZE")
    if rows is not None and rows % devices:
        return f"DEVICE_BATCH_SIZE {rows} can't be shared out evenly over {devices} devices"
    if total is None or rows is None or total % (rows * max_seq_len) == 0:
        return None
    return f"TOTAL_BATCH_SIZE {total} is no multiple of {rows} rows of {max_seq_len} tokens"


def _heads(constants: Mapping[str, Any]) -> str | None:
    """Heads divide into their groups; width covers a head and the value embeddings' gate."""
    names = ("DEPTH", "ASPECT_RATIO", "HEAD_DIM")
    if any(name not in constants for name in names):
        return None
    depth, aspect, head_dim = (constants[name] for name in names)
    heads = -(-depth * aspect // head_dim)
    group = constants.get("HEADS_PER_KV_HEAD", 1)
    if heads % group:
        return f"{heads} query heads cannot share key/value heads in groups of {group}"
    if constants.get("GATE_CHANNELS", 0) > heads * head_dim:
        return f"GATE_CHANNELS is more than the {heads * head_dim} channels there are"
    return None


def _at_most_one(constants: Mapping[str, Any], *names: str) -> str | None:
    total = sum(constants.get(name, 0.0) for name in names)
    return f"{' + '.join(names)} is {total:g}, more than the whole budget" if total > 1 else None

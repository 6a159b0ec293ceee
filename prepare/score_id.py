"""Which scores may be compared: those of one score id."""

from __future__ import annotations

import hashlib
import json

from prepare.dataset import Dataset
from prepare.settings import Settings

# Part of every score id: raise it when the same model would get another number.
HARNESS_VERSION = 1


def score_id(settings: Settings, dataset: Dataset, hardware_id: str, shared_by: int = 1) -> str:
    """Hash of all that must agree before two numbers may be compared.

    shared_by: runs that share the device at the same time; each has the less of it.
    """
    shared = f" shared by {shared_by}" if shared_by > 1 else ""
    together = f" times {settings.devices}" if settings.devices > 1 else ""
    parts = {
        "harness": HARNESS_VERSION,
        "text": dataset.fingerprint,
        "max_seq_len": settings.max_seq_len,
        "time_budget": settings.time_budget,
        "token_budget": settings.token_budget,
        "hardware": hardware_id + together + shared,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

"""The seed train.py with a model that trains in a moment, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

from autoresearch.engine.constants import apply_constants

TINY = {"DEPTH": 1, "ASPECT_RATIO": 32, "HEAD_DIM": 16}


def shrink(folder: Path) -> None:
    """Give the train.py of a workspace the sizes in `TINY`."""
    path = folder / "train.py"
    path.write_text(apply_constants(path.read_text(encoding="utf-8"), TINY), encoding="utf-8")

"""Keep the machine awake while a study runs: a laptop that sleeps measures nothing.

    with awake() as problem:      # "" or why it may fall asleep

Uses wakepy (`pip install 'autoresearch[awake]'`) where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

MISSING = "wakepy is not installed: pip install 'autoresearch[awake]'"


@contextmanager
def awake() -> Iterator[str]:
    """Ask the system not to sleep; gives "" or why it can't be asked."""
    if importlib.util.find_spec("wakepy") is None:
        yield MISSING
        return
    keep = importlib.import_module("wakepy").keep
    with keep.running(on_fail="pass") as mode:
        yield "" if mode.active else "no way was found on this system (a server rarely sleeps)"

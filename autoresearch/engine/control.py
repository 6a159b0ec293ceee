"""What someone outside asks of a loop that runs: to pause, to go on, to stop after this trial.

    control = Control(folder / "control.json")
    control.ask(PAUSE)        # whoever watches; the loop sees it before its next trial
    control.asked()           # PAUSE, STOP or "" to go on
    control.clear()           # the loop, when it begins

A wish is for the loop under way: one that was left for an earlier loop is forgotten. Nothing is
lost where the file can't be read: the loop goes on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

PAUSE, STOP, GO_ON = "pause", "stop", ""
WISHES = (PAUSE, STOP, GO_ON)


@dataclass(frozen=True)
class Control:
    """The wish in one file; without a file there is none, and none can be asked."""

    path: Path | None = None

    def asked(self) -> str:
        """What is asked for now; "" for nothing, or nothing that is known."""
        if self.path is None:
            return GO_ON
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return GO_ON
        wish = found.get("wish") if isinstance(found, dict) else None
        return wish if wish in WISHES else GO_ON

    def ask(self, wish: str) -> None:
        """Ask, instead of what was asked before. Raises OSError, ValueError for another wish."""
        if wish not in WISHES or self.path is None:
            raise ValueError(f"{wish!r} is none of {WISHES}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(json.dumps({"wish": wish}), encoding="utf-8")
        os.replace(fresh, self.path)

    def clear(self) -> None:
        """Forget what was asked. Raises OSError."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

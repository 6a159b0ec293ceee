"""What a loop of this process shows of itself on a terminal, below the lines that it says.

    with LiveRun(console, folder) as live:
        live("phase", {"phase": "looking at the hardware"})      # a bar
        live("begin", {...})                                     # from here on the study

The study is drawn from the same document as `status --watch`, made of files alone, once a second:
nothing of it is in the way of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.console import LiveProgress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from autoresearch.standing import Look

BEGINS = ("begin", "trial")  # events that say that there is a study to draw
LEAST_WIDTH, LEAST_HEIGHT = 40, 12  # of a terminal; a smaller one has the bar alone


class LiveRun:
    """A bar until the study begins, then the study. An Event."""

    def __init__(self, console: Console, folder: Path | None = None) -> None:
        self._console, self._folder = console, folder
        self._bar: LiveProgress | None = LiveProgress(console)
        self._live: Live | None = None
        self._look: Look | None = None
        self._last: RenderableType = ""

    def __enter__(self) -> LiveRun:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)
        if self._live is not None:
            self._live.stop()

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        """One event of the loop, or of what comes before it."""
        if name in BEGINS:
            self._begin()
        elif self._bar is not None:
            self._bar(name, data)

    def _begin(self) -> None:
        """Draw the study from now on, where there is one and room for it."""
        size = self._console.size
        fits = size.width >= LEAST_WIDTH and size.height >= LEAST_HEIGHT
        if self._live is not None or self._folder is None or not fits:
            return
        from rich.live import Live

        from autoresearch.standing import Look

        self._look = Look(self._folder)
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        self._live = Live(
            console=self._console,
            get_renderable=self.picture,
            refresh_per_second=1,
            transient=True,
            vertical_overflow="crop",
        )
        self._live.start()

    def picture(self) -> RenderableType:
        """The study as it is now; the last picture of it while its files can't be read."""
        from autoresearch.engine.errors import EngineError
        from autoresearch.live import below
        from prepare.errors import PrepareError

        if self._look is not None:
            try:
                document: Mapping[str, Any] = self._look()
                self._last = below(document, self._console)
            except (EngineError, PrepareError, OSError):
                pass  # whoever works on them is told; a picture of them isn't worth a night
        return self._last

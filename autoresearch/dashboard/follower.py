"""One reader of a study for all who watch it: documents, and events that none misses.

    follower = Follower(folder)
    await follower.refresh()                    # read what is new, unless that was just done
    follower.standing, follower.story           # see `standing` and `report.story`
    async for event in follower.events(after):  # until `close`; a None where nothing happened

An event's id is its record's place in the ledger (behind a mark of the ledger itself), and every
listener has its own place: whoever comes back with the id it saw last gets all that followed, in
order. The files are read in a thread, only what is new, without the writer's lock, and only while
somebody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.errors import EngineError
from autoresearch.engine.state import State
from autoresearch.opening import AnyStudy
from autoresearch.report.story import Story
from autoresearch.standing import Look
from prepare.errors import PrepareError

EVERY = 0.5  # seconds between two looks at the files
EMPTY = "0"  # the mark of a ledger without a record


@dataclass(frozen=True)
class Event:
    """name: trial, record, reset (another ledger), standing or problem.

    id: only of what is in the ledger; the rest says how things are now.
    """

    name: str
    data: Any
    id: str = ""


class Follower:
    """Follows the study of one folder. Raises what opening it can raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._look = Look(folder)
        self._story = Story(self._look.study)
        self.standing: dict[str, Any] = {}
        self.story: dict[str, Any] = {}
        self.problem: dict[str, str] | None = None  # why the study can't be read at the moment
        # The ledger's mark and an event per record: one value, as it is written in a thread.
        self._log: tuple[str, list[Event]] = EMPTY, []
        self._trials = 0  # of them in the log
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def study(self) -> AnyStudy:
        """The study, as it was opened last."""
        return self._look.study

    @property
    def state(self) -> State:
        """Its state after what was read."""
        return self._look.state

    @property
    def head(self) -> str:
        """The id of the latest event: who asks for what comes after it misses nothing."""
        mark, log = self._log
        return f"{mark}-{len(log)}"

    def close(self) -> None:
        """End all listening."""
        self._closed = True

    def expire(self) -> None:
        """Something was just changed here: the next look is a fresh one."""
        self._read_at = float("-inf")

    async def refresh(self) -> None:
        """Read what is new unless that was done a moment ago."""
        if self._reading is None or self._reading.done():
            if time.monotonic() - self._read_at < EVERY:
                return
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        # Who waits may go away, and the thread would still read: a second must not begin then.
        await asyncio.shield(self._reading)

    def _read(self) -> None:
        try:
            standing = self._look()
            if self._story.study is not self._look.study:
                self._story = Story(self._look.study)
            story = self._story()
            # Pages take a story as the sign that all is read: it comes last.
            self.standing, self.story = standing, story
            self._write_log(self.story["trials"])
        except (EngineError, PrepareError, OSError) as error:
            message = str(getattr(error, "message", error))
            self.problem = {"message": message, "hint": str(getattr(error, "hint", ""))}
        else:
            self.problem = None
        self._read_at = time.monotonic()

    def _write_log(self, rows: list[dict[str, Any]]) -> None:
        """An event per record; all anew where another ledger stands in the place of the one."""
        records = self._look.study.ledger.records()
        mark, log = self._log
        now = str(records[0]["hash"])[:12] if records else EMPTY
        if now != mark or len(records) < len(log):
            self._trials, self._log = 0, (now, [])
            mark, log = self._log
        for number, record in enumerate(records[len(log) :], len(log) + 1):
            event = Event("record", {"kind": record["kind"]}, f"{mark}-{number}")
            if record["kind"] == "trial":
                if self._trials == len(rows):
                    return  # written since the story was told: the next look has it
                event = Event("trial", rows[self._trials], event.id)
                self._trials += 1
            log.append(event)

    async def events(self, after: str) -> AsyncIterator[Event | None]:
        """All that the ledger gained after this id, then what happens from now on.

        After each look at the files comes a None at least. Another ledger's id gives a `reset`.
        """
        known, _, number = after.partition("-")
        place = int(number) if number.isdecimal() else 0
        told: dict[str, Any] = {}
        while not self._closed:
            await self.refresh()
            mark, log = self._log
            if known != mark or place > len(log):
                known, place = mark, len(log)
                yield Event("reset", {}, self.head)
            for event in log[place:]:
                place += 1
                yield event
            for name, data in (("problem", self.problem), ("standing", self.standing or None)):
                news: Any = data
                if name == "standing" and data and not data["running"]:
                    news = {**data, "at": None}  # where nothing runs, the time alone is no news
                if told.get(name) != news:
                    told[name] = news
                    yield Event(name, data)
            yield None
            await asyncio.sleep(EVERY)

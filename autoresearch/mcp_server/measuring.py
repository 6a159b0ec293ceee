"""One trial, measured by `autoresearch trial --edit -` in a process of its own.

    result = await measure(folder, Submission(idea, on, edit), tell)

The same checks and the same policy as for everybody, and nothing that a candidate or a framework
prints can reach the protocol's stream. Cancelled, the process is asked to stop and drops the trial
as Ctrl-C does; a process that outlives its server ends at its next word to nobody. Either way the
ledger has the trial whole or not at all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from autoresearch.console import describe
from autoresearch.engine.holder import Holder
from autoresearch.engine.proposers.text import clean, last_lines, one_line
from autoresearch.study import LEDGER_NAME

COMMAND = (sys.executable, "-m", "autoresearch.cli")
ENDS_IN = 20.0  # seconds that a trial has to drop itself; then it is killed
ASKED_AGAIN = 2.0  # seconds between two looks while another process measures
MOST_LINE = 16_000_000  # bytes of one line of JSON: a trial's record with its curves
BUSY = "LedgerBusy"
Tell = Callable[[str], Awaitable[None]]


class NotMeasured(Exception):
    """There is no result; the words say why, and what to do."""


@dataclass(frozen=True)
class Submission:
    """An idea, the champion that its edit was made on, the edit, and the effect it should have."""

    idea: str
    on: int
    edit: str
    predicted: float | None = None

    def arguments(self, folder: Path) -> list[str]:
        """The command's, but for the edit, which goes to its standard input."""
        idea = clean(self.idea)  # no argument may hold a NUL or half of a surrogate pair
        given = ["trial", f"--message={idea}", "--edit=-", f"--on={self.on}", "--json"]
        given += [] if self.predicted is None else [f"--predict={self.predicted!r}"]
        return [*given, f"--dir={folder}"]


async def measure(
    folder: Path, submission: Submission, tell: Tell, wait: float = 0.0
) -> dict[str, Any]:
    """The result document of `autoresearch trial`. Raises NotMeasured.

    wait: seconds to wait for another process that is measuring. tell: is told what goes on.
    """
    ends = time.monotonic() + wait
    while True:
        result = await _run(folder, submission, tell)
        error = result.get("error")
        if not error:
            return result
        if error.get("type") != BUSY or time.monotonic() >= ends:
            hint = str(error.get("hint", ""))
            if error.get("type") == BUSY:
                hint = "one trial at a time: wait until `status` says that nothing runs"
            raise NotMeasured(". ".join(filter(None, (_words(error["message"]), hint))))
        await tell("waiting: another process is measuring")
        writing = True
        while writing and time.monotonic() < ends:
            await anyio.sleep(min(ASKED_AGAIN, max(0.1, ends - time.monotonic())))
            # Each try is a Python that starts, which takes time from the trial that is measured.
            writing = _written(folder)


def _written(folder: Path) -> bool:
    """Whether a process of this machine says that it writes the ledger, and lives."""
    holder = Holder.read(folder / f"{LEDGER_NAME}.holder")
    return holder is not None and holder.alive() is True


def _words(message: str) -> str:
    """A message without the command line of whoever writes: only its beginning is an agent's."""
    return message.partition(" by process ")[0] + (
        " by another process" if " by process " in message else ""
    )


async def _run(folder: Path, submission: Submission, tell: Tell) -> dict[str, Any]:
    """Start the command and follow it; its last document, or its error's."""
    process = await anyio.open_process(
        [*COMMAND, *submission.arguments(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
    )
    said = bytearray()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_keep_end, process, said)
            assert process.stdin is not None
            try:
                await process.stdin.send(submission.edit.encode("utf-8", "surrogatepass"))
                await process.stdin.aclose()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # it refused before it read: its answer says why
            result = await _follow(process, tell)
        await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if result is None:
        tail = last_lines(said.decode("utf-8", "replace"), 12, 2_000)
        raise NotMeasured(f"the trial's process ended with exit code {process.returncode}: {tail}")
    return result


async def _follow(process: anyio.abc.Process, tell: Tell) -> dict[str, Any] | None:
    """Tell what the lines of events say; the result's document, None if none came."""
    assert process.stdout is not None
    lines, whole, result = BufferedByteReceiveStream(process.stdout), b"", None
    while True:
        try:
            line = await lines.receive_until(b"\n", MOST_LINE)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            break
        document = _json(line)
        if document is None or "event" not in document:
            whole += line + b"\n"  # an error before the first event is printed over several lines
            continue
        if document["event"] == "result":
            result = document
        elif words := words_of(document):
            await tell(words)
    whole += lines.buffer
    return result or _json(whole)


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def words_of(event: Mapping[str, Any]) -> str:
    """One event of the loop in a few words, "" where there is nothing to say."""
    name = event["event"]
    if name == "trial":
        which = "the baseline first" if event.get("id") == 0 else f"trial {event.get('id')}"
        return f"measuring {which}"
    if name == "run":
        return f"trial {event.get('id')}: {event.get('label')}, seed {event.get('seed')}"
    if name == "phase":
        return str(event.get("phase", ""))
    if name == "warning":
        return one_line(f"warning: {event.get('message', '')}")
    if name == "decided":
        trial = event.get("trial", {})
        return one_line(f"trial {trial.get('id')}: {trial.get('status')}: {trial.get('reason')}")
    return describe(event)


async def _keep_end(process: anyio.abc.Process, said: bytearray) -> None:
    """Take what it says on standard error, for when it dies without an answer."""
    assert process.stderr is not None
    async for part in process.stderr:
        said += part
        del said[:-8_000]


async def _end(process: anyio.abc.Process) -> None:
    """See that the process is gone: asked as Ctrl-C would, killed if that doesn't help."""
    if process.returncode is None:
        # On Windows that is a kill; what was under way is then dropped by whoever comes next.
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(ENDS_IN):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    await process.aclose()

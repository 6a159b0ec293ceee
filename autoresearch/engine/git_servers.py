"""Processes of git that stay: asked many things without being started for each.

    servers = Servers(start)                     # start(arguments) -> subprocess.Popen
    servers.look("refs/heads/main^{commit}")     # ("2f0c...", "commit", 231), or None
    servers.content("2f0c...")                   # bytes, or None
    servers.diff(["-r", "-p"], tree, other_tree) # what `diff-tree` says of the two
    servers.move({"refs/x/7": (commit, None)})   # refs made or moved
    servers.close()

What a name stands for is looked up anew for each question, as a git that was just started would.
One that died is started again, once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TypeVar

T = TypeVar("T")

Start = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]

_LOOK = ("cat-file", "--batch-check")
_CONTENT = ("cat-file", "--batch")
_MOVE = ("update-ref", "-m", "autoresearch", "--stdin")
_DIFF = ("diff-tree", "--stdin")
_ENDS_IN = 1.0  # seconds that one gets to end once it has nothing more to read


def locks_nothing(command: Sequence[str]) -> bool:
    """Is this the command line of a process like these? It waits, and never writes an index."""
    words = set(command)
    return any({each[0], each[-1]} <= words for each in (_LOOK, _CONTENT, _MOVE, _DIFF))


class Died(Exception):
    """A process ended amid an answer."""


class Servers:
    """The processes of one repository, started when they are first needed."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._running: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._owner = os.getpid()
        weakref.finalize(self, _end_all, self._running)

    def close(self) -> None:
        """End them; the next question starts them again."""
        with self._lock:
            _end_all(self._running)

    def look(self, name: str) -> tuple[str, str, int] | None:
        """Id, kind and size of the object that a name stands for; None for no such thing."""
        return self._asked(_LOOK, name, _head)

    def content(self, name: str) -> bytes | None:
        """An object's bytes; None for no such thing."""

        def read(out: IO[bytes]) -> bytes | None:
            head = _head(out)
            if head is None:
                return None
            data = _exactly(out, head[2] + 1)
            return data[:-1]

        return self._asked(_CONTENT, name, read)

    def diff(self, options: Sequence[str], old: str, new: str) -> bytes:
        """What `diff-tree` says of two trees, each named by its id."""
        marker = f"end of {old} {new}".encode()  # what is no id is echoed, and flushed

        def read(out: IO[bytes]) -> bytes:
            lines: list[bytes] = []
            while True:
                line = out.readline()
                if not line:
                    raise Died
                if line.rstrip(b"\n") == marker:
                    return b"".join(lines[1:])  # the first says which trees these are
                lines.append(line)

        return self._asked((*_DIFF, *options), f"{old} {new}\n{marker.decode()}", read)

    def move(self, moves: Mapping[str, tuple[str, str | None]]) -> None:
        """Move refs to a commit each, from another where that is given: all, or none. Raises Died
        if git wouldn't: it says why only when it is asked in a process of its own."""
        updates = (
            f"update {ref} {new}{f' {old}' if old else ''}" for ref, (new, old) in moves.items()
        )
        steps = ("start", *updates, "prepare", "commit")

        def read(out: IO[bytes]) -> None:
            for word in (b"start", b"prepare", b"commit"):
                if out.readline() != word + b": ok\n":
                    raise Died

        self._asked(_MOVE, "\n".join(steps), read, tries=1)

    def _asked(
        self,
        command: tuple[str, ...],
        words: str,
        read: Callable[[IO[bytes]], T],
        tries: int = 2,
    ) -> T:
        if self._owner != os.getpid():  # a fork: the processes are another's
            self._owner, self._running = os.getpid(), {}
        with self._lock:
            for attempt in range(tries):
                process = self._running.get(command)
                if process is None:
                    process = self._running[command] = self._start(command)
                assert process.stdin is not None and process.stdout is not None
                try:
                    process.stdin.write(words.encode("utf-8", "surrogateescape") + b"\n")
                    process.stdin.flush()
                    return read(process.stdout)
                except (OSError, Died) as error:
                    self._running.pop(command, None)
                    _end(process)
                    if attempt == tries - 1:
                        raise Died(f"git {command[0]} ended amid an answer") from error
                except BaseException:  # Ctrl-C amid an answer: what follows of it is lost
                    self._running.pop(command, None)
                    _end(process)
                    raise
        raise AssertionError("unreachable")


def _head(out: IO[bytes]) -> tuple[str, str, int] | None:
    """`ID KIND SIZE`, or a line that says what is wrong."""
    line = out.readline()
    if not line:
        raise Died
    words = line.split()
    if len(words) != 3 or not words[2].isdigit():
        return None
    return words[0].decode(), words[1].decode(), int(words[2])


def _exactly(out: IO[bytes], count: int) -> bytes:
    data = out.read(count)
    if len(data) < count:
        raise Died
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a process end by itself: it has nothing more to read."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(_ENDS_IN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_all(running: dict[tuple[str, ...], subprocess.Popen[bytes]]) -> None:
    while running:
        _end(running.popitem()[1])

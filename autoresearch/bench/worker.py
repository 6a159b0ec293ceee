"""Processes that measure: each holds one variant ready, and works only when it is asked to.

    with Worker("training", job, environment) as worker:    # ready: compiled and warm
        worker.ready["flops_per_token"]
        worker.ask(steps=4)["seconds"]

Compiled code, thread pools and peaks of memory of one variant then don't touch another's. What a
process does is `serve(channel, job)` of a module here, in `python -m autoresearch.bench.worker
MODULE`; it says `ready` when it is warm and answers each `ask` with a `done`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from autoresearch.console import OnEvent
from prepare.channel import Channel, ChannelClosed
from prepare.errors import CandidateError
from prepare.process import child_environment, kill_tree


class WorkerFailed(CandidateError):
    """A measured variant came to nothing; the message says of what."""


class Worker:
    """The side that asks."""

    def __init__(
        self, module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self._module, self._job, self._environment = module, dict(job), environment or {}

    def __enter__(self) -> Worker:
        """Starts the process and waits until it is ready. Raises WorkerFailed."""
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autoresearch.bench.worker", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=child_environment(self._environment),
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)  # type: ignore[arg-type]
        try:
            self.ready = self._answer("job", job=self._job)
        except BaseException:
            self.__exit__()
            raise
        return self

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request. Raises WorkerFailed."""
        return self._answer("ask", **request)

    def _answer(self, kind: str, **fields: Any) -> dict[str, Any]:
        try:
            self._channel.send(kind, **fields)
            answer = self._channel.receive()
        except ChannelClosed as closed:
            status = self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
            message = ": ".join((f"a measuring process ended with status {status}", *said))
            raise WorkerFailed(message) from closed
        if answer["kind"] == "failed":
            raise WorkerFailed(answer["message"])
        return answer

    def __exit__(self, *_: object) -> None:
        kill_tree(self._process.pid)  # compilers have processes of their own
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


def start_all(
    stack: contextlib.ExitStack,
    workers: Mapping[str, Worker],
    needed: str,
    on_event: OnEvent,
    subject: str,
) -> tuple[dict[str, Worker], dict[str, str]]:
    """Those that start, one after the other, and why others don't. Raises WorkerFailed for the
    one that is needed.
    """
    started: dict[str, Worker] = {}
    failures: dict[str, str] = {}
    for name, worker in workers.items():
        on_event("phase", {"phase": f"{subject}: {name} warms up"})
        try:
            started[name] = stack.enter_context(worker)
        except WorkerFailed as failed:
            if name == needed:
                raise
            failures[name] = failed.message
    return started, failures


def main(module: str) -> None:
    """Take the channel off standard input and output, and serve. What is printed goes to stderr."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    channel = Channel(reader, writer)
    serve = importlib.import_module(f"autoresearch.bench.{module}").serve
    try:
        serve(channel, channel.receive()["job"])
    except ChannelClosed:
        return  # asked enough
    except Exception as error:  # noqa: BLE001 - told with its type to who asked
        channel.send("failed", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])

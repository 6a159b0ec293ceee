"""Messages to whoever sleeps: a webhook or a command, when something is kept, stops or goes wrong.

    [notify]
    webhook = "env:AUTORESEARCH_WEBHOOK"     # or "file:~/.config/autoresearch/webhook"
    format = "slack"                         # json, slack, discord or text
    command = "notify-send autoresearch"     # gets the message as JSON on standard input
    on = ["keep", "stop", "trouble", "summary"]
    morning = "07:30"                        # local time of a summary, beside the one at the end

A task file has the same in a table `notify`. An address may be a secret, and these files are
committed and copied to whoever proposes: so the address stands elsewhere, and a variable that holds
it is taken out of the environment that other programs inherit. Nothing here holds the loop up or
ends it.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from autoresearch.background import Background, Undone, joined, tell
from autoresearch.engine.proposers.text import clean, one_line
from autoresearch.engine.task import Part
from autoresearch.engine.trial import Trial, TrialStatus
from prepare.errors import PrepareError, UsageError

if TYPE_CHECKING:
    from autoresearch.opening import AnyStudy

TIMEOUT = 10.0  # seconds for one attempt
COMMAND_SECONDS = 30.0
WAITS = (1.0, 4.0)  # seconds before another attempt
WORDS = 300  # characters of an idea or a reason
LOCAL = ("127.0.0.1", "localhost", "::1")
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
Kind = Literal["keep", "stop", "trouble", "summary"]


class Notify(Part):
    """The table `[notify]` of autoresearch.toml, and `notify` of a task file."""

    webhook: str | None = Field(None, description="env:NAME or file:PATH: where the address is")
    format: Literal["json", "slack", "discord", "text"] = Field("json", description="of its body")
    command: tuple[str, ...] = Field((), description="a program and its words")
    on: tuple[Kind, ...] = Field(("keep", "stop", "trouble", "summary"), description="what for")
    morning: str | None = Field(
        None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="local time of a summary"
    )

    @field_validator("webhook")
    @classmethod
    def _elsewhere(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("env:", "file:")) or _host(value) in LOCAL:
            return value
        raise PydanticCustomError(
            "address",
            "an address may be a secret, and this file is committed and copied to whoever "
            "proposes: write env:NAME or file:PATH, and the address there",
        )

    @field_validator("command", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @property
    def wanted(self) -> bool:
        """Is there anybody to tell?"""
        return bool(self.webhook or self.command)


def find_address(webhook: str, root: Path) -> str:
    """The address that a setting names. Raises UsageError, which never repeats it.

    A variable is removed from the environment: what is started from now on doesn't inherit it.
    """
    kind, _, name = webhook.partition(":")
    if kind == "env":
        address = os.environ.pop(name, "")
        where = f"the variable {name}"
    elif kind == "file":
        where = f"the file {name}"
        try:
            address = (root / Path(name).expanduser()).read_text(encoding="utf-8")
        except (OSError, RuntimeError, ValueError) as error:  # no home, no UTF-8
            raise UsageError(
                f"[notify] {where} can't be read", "write the address there"
            ) from error
    else:
        address, where = webhook, "webhook"
    address = address.strip()
    if not address:
        raise UsageError(f"[notify] {where} holds no address", "set it, or name another")
    if not _host(address):
        raise UsageError(f"[notify] {where} holds no http address", "begin it with https://")
    return address


def _host(address: str) -> str:
    """The host that an http address names, "" where it is none."""
    try:
        parts = urlsplit(address)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:  # whose text repeats it
        return ""


# -- what is said --------------------------------------------------------------------------------


def message(kind: str, tag: str, text: str, **facts: Any) -> dict[str, Any]:
    """One message, as JSON values."""
    at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "event": kind,
        "study": tag,
        "host": socket.gethostname(),
        "at": at,
        "text": f"{tag}: {one_line(text, 4 * WORDS)}",
        **facts,
    }


def kept_text(trial: Trial, metric: str) -> str:
    """`trial 7 is kept, val_bpb 1.234567 (-0.0123): DEPTH: 8 -> 6`."""
    score = "" if trial.score is None else f", {metric} {trial.score:.6f}"
    effect = "" if trial.delta is None else f" ({trial.delta:+.4f})"
    return f"trial {trial.id} is kept{score}{effect}: {one_line(trial.description, WORDS)}"


def summary_text(study: AnyStudy) -> str:
    """How many were tried and kept, and which is best."""
    from autoresearch.narration import verdict
    from autoresearch.standing import counts
    from autoresearch.study import lineage

    state = study.state
    kept = lineage(state)
    if not kept:
        return "no trial yet"
    tried = ", ".join(f"{n} {name}" for name, n in counts(state).items()) or "no trial yet"
    return f"{tried}. {verdict(study.task.objective.metric, kept)}"


def body(format: str, said: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a request and its content type. Ideas are others' words: they mention nobody."""
    text = str(said["text"])
    if format == "text":
        return text.encode(), "text/plain; charset=utf-8"
    document: Mapping[str, Any] = said
    if format == "slack":
        document = {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    elif format == "discord":
        document = {"content": text[:1900], "allowed_mentions": {"parse": []}}
    return json.dumps(document).encode(), "application/json"


# -- saying it -----------------------------------------------------------------------------------


@dataclass
class Messenger:
    """Delivers messages in the background, each to the webhook and to the command."""

    settings: Notify
    root: Path
    address: str | None
    background: Background
    waits: tuple[float, ...] = WAITS

    def send(self, said: Mapping[str, Any]) -> None:
        """Deliver it soon."""
        if self.address is not None:
            self.background.put(lambda: self._post(said))
        if self.settings.command:
            self.background.put(lambda: self._run(said))

    def _post(self, said: Mapping[str, Any]) -> None:
        import httpx

        content, content_type = body(self.settings.format, said)
        address, problem = str(self.address), ""
        for wait in (0.0, *self.waits):
            if self.background.closing.wait(wait):
                problem = problem or "it ended before"
                break
            try:
                with _unlogged(self.background.thread_id):
                    answer = httpx.post(
                        address,
                        content=content,
                        headers={"Content-Type": content_type},
                        timeout=TIMEOUT,
                        trust_env=_host(address) not in LOCAL,
                    )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = type(error).__name__  # its text may hold the address
                continue
            if answer.is_success:
                return
            problem = f"the server says {answer.status_code}"
            if answer.status_code not in _AGAIN:
                break
        raise Undone(f"the webhook was not told of a {said['event']}: {problem}")

    def _run(self, said: Mapping[str, Any]) -> None:
        from autoresearch.engine.proposers.process import run_program

        words = self.settings.command
        try:
            done = run_program(
                words,
                cwd=self.root,
                env=dict(os.environ),
                stdin=json.dumps(said).encode() + b"\n",
                seconds=COMMAND_SECONDS,
            )
        except OSError as error:
            raise Undone(f"{words[0]!r} can't be run: {type(error).__name__}") from error
        if done.stopped or done.returncode:
            how = done.stopped or f"exit status {done.returncode}"
            raise Undone(f"{words[0]!r} failed: {how}")


@contextmanager
def _unlogged(thread: int | None) -> Iterator[None]:
    """Whatever logging is set up: httpx names the whole address in its lines."""

    def filter(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("httpx")
    logger.addFilter(filter)
    try:
        yield
    finally:
        logger.removeFilter(filter)


class Notifier:
    """Turns the events of a loop into messages."""

    def __init__(
        self,
        settings: Notify,
        study: AnyStudy,
        messenger: Messenger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._study, self._messenger = settings, study, messenger
        self._clock = clock
        self._morning = next_morning(settings.morning, clock())

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        """One event of the loop."""
        if name == "decided":
            trial = Trial.from_dict(data["trial"])
            if trial.status is TrialStatus.KEEP and trial.parent is not None:
                text = kept_text(trial, self._study.task.objective.metric)
                self._say("keep", text, trial=_short(trial))
        elif name == "pause":
            seconds, reason = float(data["seconds"]), str(data["reason"])
            self._say("trouble", f"paused for {seconds:.0f} s: {reason}", seconds=seconds)
        if self._morning is not None and self._clock() >= self._morning:
            self._morning = next_morning(self._settings.morning, self._clock())
            self._say("summary", summary_text(self._study), **self._standing())

    def ended(self, reason: str, trouble: bool = False) -> None:
        """The run is over."""
        if trouble:
            self._say("trouble", f"stopped: {reason}", reason=clean(reason))
        summary = summary_text(self._study)
        facts = {"reason": clean(reason), **self._standing()}
        self._say("stop", f"ended: {reason}. {summary}", **facts)

    def _say(self, kind: Kind, text: str, **facts: Any) -> None:
        if kind in self._settings.on:
            self._messenger.send(message(kind, self._study.tag, text, **facts))

    def _standing(self) -> dict[str, Any]:
        from autoresearch.standing import recorded

        found = recorded(self._study, self._study.state)
        found.pop("recent", None)
        (found.get("champion") or {}).pop("curve", None)
        return {"standing": found}


def _short(trial: Trial) -> dict[str, Any]:
    names = ("id", "score", "delta", "confidence", "commit")
    return {
        **{name: getattr(trial, name) for name in names},
        "status": str(trial.status),
        "idea": one_line(trial.description, WORDS),
    }


def next_morning(at: str | None, now: float) -> float | None:
    """When it is `at` (HH:MM, local time) next, in seconds since the epoch."""
    if at is None:
        return None
    hour, minute = map(int, at.split(":"))
    today = datetime.datetime.fromtimestamp(now).replace(
        hour=hour, minute=minute, second=0, microsecond=0
    )
    days = (today + datetime.timedelta(days=n) for n in range(2))
    return next(day.timestamp() for day in days if day.timestamp() > now)


@contextmanager
def notifying(study: AnyStudy) -> Iterator[Callable[[str], None]]:
    """Tell of what happens inside; give what is yielded the reason why the run ended.

    Raises UsageError for settings that don't fit, before anything is done. An error that ends the
    run is told, and goes on. Warnings of undelivered messages go to `study.on_event`.
    """
    settings, home = study.notify, study.home
    if not settings.wanted:
        yield lambda reason: None
        return
    address = find_address(settings.webhook, home) if settings.webhook else None
    background = Background("notify")
    notifier = Notifier(settings, study, Messenger(settings, home, address, background))
    usual = study.on_event
    study.on_event = joined(usual, notifier.take, background)

    def ended(reason: str, trouble: bool = False) -> None:
        try:
            notifier.ended(reason, trouble)
        except Exception as error:  # noqa: BLE001 - the ledger may be damaged; told, and no end
            background.trouble(f"{type(error).__name__} at the end")

    try:
        yield ended
    except BaseException as error:
        ended(reason_of(error), trouble=not isinstance(error, KeyboardInterrupt))
        raise
    finally:
        background.close()
        study.on_event = usual
        tell(usual, background)


def reason_of(error: BaseException) -> str:
    """Why something ended, in a line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, PrepareError):
        return error.message
    return f"{type(error).__name__}: {error}"

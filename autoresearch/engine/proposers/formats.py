"""What coding agents print when they are done, read into one Report. Nothing of it is trusted.

A parser takes the program's output and the private folder, and says what it finds; a field that
is missing or of another type is None. Tokens read from a cache count as tokens in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.engine.proposers.process import Finished
from autoresearch.engine.proposers.text import number, one_line


@dataclass(frozen=True)
class Report:
    """What an agent said: its last message, an error in its own words, what it used."""

    message: str = ""
    error: str = ""
    dollars: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of an output: one document, an array, or one object per line."""
    whole = _document(text)
    if isinstance(whole, Mapping):
        yield whole
    elif isinstance(whole, list):
        yield from (item for item in whole if isinstance(item, Mapping))
    else:
        for line in text.splitlines():
            if line.lstrip().startswith("{"):
                try:
                    item = json.loads(line)
                except ValueError:
                    continue  # cut by the bound on output, or no JSON after all
                if isinstance(item, Mapping):
                    yield item


def _document(text: str) -> Any:
    """The text as one JSON document, lines before and after it left out; None if it is none."""
    for opening, closing in ("[]", "{}"):
        start = 0 if text.startswith(opening) else text.find(f"\n{opening}") + 1
        end = text.rfind(closing) + 1
        if text[start : start + 1] == opening and end > start:
            try:
                return json.loads(text[start:end])
            except ValueError:
                continue
    return None


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _sum(*values: Any) -> int | None:
    """The sum of the numbers among these, None when there is none or one is negative."""
    known = [item for item in (number(value) for value in values) if item is not None]
    return int(sum(known)) if known and min(known) >= 0 else None


def _error(value: Any) -> str:
    """A message out of an error that may be text or a table."""
    if isinstance(value, Mapping):
        inner = value.get("message") or _table(value.get("data")).get("message")
        return one_line(_text(inner) or _text(value.get("name")) or json.dumps(value), 300)
    return one_line(_text(value), 300)


def result_object(done: Finished, private: Path) -> Report:
    """claude, qwen, cursor: the object of type "result", with result, is_error, usage, cost."""
    for item in reversed(list(_objects(done.stdout))):
        if item.get("type") != "result":
            continue
        usage = _table(item.get("usage"))
        message = _text(item.get("result"))
        failed = item.get("is_error") is True or str(item.get("subtype", "")).startswith("error")
        reason = _error(item.get("error")) or one_line(message, 300) or _text(item.get("subtype"))
        return Report(
            message=message,
            error=reason or "an error without a message" if failed else "",
            dollars=_dollars(item.get("total_cost_usd")),
            tokens_in=_sum(
                usage.get("input_tokens", usage.get("inputTokens")),
                usage.get("cache_creation_input_tokens", usage.get("cacheWriteTokens")),
                usage.get("cache_read_input_tokens", usage.get("cacheReadTokens")),
            ),
            tokens_out=_sum(usage.get("output_tokens", usage.get("outputTokens"))),
        )
    return Report(message=done.stdout[-4_000:])


def codex_events(done: Finished, private: Path) -> Report:
    """codex: events per line; usage in turn.completed; the last message also in last.txt."""
    message, error = "", ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    for event in _objects(done.stdout):
        kind, item = event.get("type"), _table(event.get("item"))
        if kind == "item.completed" and item.get("type") == "agent_message":
            message = _text(item.get("text"))
        elif kind == "turn.completed":
            usage = _table(event.get("usage"))  # cached_input_tokens are among input_tokens
            tokens_in = _sum(tokens_in, usage.get("input_tokens"))
            tokens_out = _sum(tokens_out, usage.get("output_tokens"))
        elif kind == "turn.failed":
            error = _error(event.get("error")) or "the turn failed"
        elif kind == "error" and not error:
            error = _error(event.get("message"))
    last = private / "last.txt"
    if not message and last.is_file():
        message = last.read_text(encoding="utf-8", errors="replace")[:20_000]
    return Report(message, error, None, tokens_in, tokens_out)


def gemini_object(done: Finished, private: Path) -> Report:
    """gemini: one object with response, stats.models.*.tokens and error."""
    # It prints the object to stdout, and an error to stderr behind its log lines.
    for item in reversed([*_objects(done.stderr), *_objects(done.stdout)]):
        if not item.keys() & {"response", "stats", "error"}:
            continue
        models = _table(_table(item.get("stats")).get("models")).values()
        tokens = [_table(_table(model).get("tokens")) for model in models]
        return Report(
            message=_text(item.get("response")),
            error=_error(item.get("error")),
            tokens_in=_sum(*(entry.get("prompt") for entry in tokens)),
            tokens_out=_sum(*(t.get(key) for t in tokens for key in ("candidates", "thoughts"))),
        )
    return Report(message=done.stdout[-4_000:])


def opencode_events(done: Finished, private: Path) -> Report:
    """opencode: events per line; cost and tokens in every step_finish."""
    message, error = "", ""
    dollars: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    for event in _objects(done.stdout):
        part = _table(event.get("part"))
        if event.get("type") == "text":
            message = _text(part.get("text")) or message
        elif event.get("type") == "error":
            error = _error(event.get("error"))
        elif event.get("type") == "step_finish":
            tokens = _table(part.get("tokens"))
            cache = _table(tokens.get("cache"))
            cost = _dollars(part.get("cost"))
            dollars = cost if dollars is None else dollars + (cost or 0.0)
            tokens_in = _sum(tokens_in, tokens.get("input"), cache.get("read"), cache.get("write"))
            tokens_out = _sum(tokens_out, tokens.get("output"), tokens.get("reasoning"))
    # A model that opencode has no price for is said to cost 0.
    return Report(message, error, dollars or None, tokens_in, tokens_out)


_AIDER = re.compile(
    r"Tokens: ([\d.,]+)([kKmM]?) sent,(?: [\d.,]+[kKmM]? cache \w+,)* ([\d.,]+)([kKmM]?) received\."
    r"(?: Cost: \$[\d.]+ message, \$([\d.]+) session\.)?"
)


def aider_text(done: Finished, private: Path) -> Report:
    """aider: lines "Tokens: 2.3k sent, 120 received. Cost: $0.01 message, $0.02 session."."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    dollars: float | None = None
    for sent, unit, received, its_unit, session in _AIDER.findall(done.stdout):
        tokens_in = _sum(tokens_in, _count(sent, unit))
        tokens_out = _sum(tokens_out, _count(received, its_unit))
        dollars = float(session) if session else dollars
    return Report(done.stdout[-20_000:], "", dollars, tokens_in, tokens_out)


def _count(digits: str, unit: str) -> float:
    return float(digits.replace(",", "")) * {"": 1, "k": 1e3, "m": 1e6}[unit.lower()]


def plain_text(done: Finished, private: Path) -> Report:
    """goose: text alone; it says nothing of tokens or money."""
    return Report(message=done.stdout[-20_000:])


def _dollars(value: Any) -> float | None:
    result = number(value)
    return result if result is not None and result >= 0 else None

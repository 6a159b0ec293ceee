"""What a proposer is told of the past: bounded in size, and nothing in it is an instruction.

    digest = Digest.from_records(ledger.records(), metric="val_bpb", direction="minimize")
    digest.markdown()      # for a prompt
    digest.to_dict()       # for a program, as JSON

It holds the champion's lineage, what was tried with its effect and confidence, predicted against
actual effects, directions that seem exhausted, and the latest failures. What candidates printed
stands between random marks (see text.Fence); descriptions are cut to one clean line.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.engine.proposers.text import Fence, last_lines, number, one_line

MAX_CHARS = 12_000  # about 3,000 tokens
EXHAUSTED_AFTER = 4  # measured tries of one area since it last helped
IN_FLIGHT = 40  # trials under way that are named, the latest
RESTORED = 5  # latest times that an earlier champion was brought back
FAILURES = 3  # latest ones shown with their log
LOG_CHARS = 1_500  # per failure
FAILED = ("crash", "rejected")
MEASURED = ("keep", "discard", "pruned")
_CONSTANT = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b[A-Z]{4,}\b")

Areas = Callable[[Mapping[str, Any]], Sequence[str]]


def named_constants(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Upper-case names in a trial's description: the constants that it says it changed."""
    return tuple(dict.fromkeys(_CONSTANT.findall(str(record.get("description") or ""))))


@dataclass(frozen=True)
class Entry:
    """One trial in a line. Effects are candidate minus champion, in units of the metric."""

    id: int
    status: str
    description: str
    score: float | None
    delta: float | None
    confidence: float | None
    predicted: float | None
    reason: str
    start: int | None = None  # the trial whose program was edited, where not the champion's

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Entry:
        """From a ledger record of kind "trial"."""
        status = record.get("status")
        return cls(
            id=int(record["id"]),
            status=str(getattr(status, "value", status)).lower(),
            description=one_line(str(record.get("description") or "no description")),
            score=number(record.get("score")),
            delta=number(record.get("delta")),
            confidence=number(record.get("confidence")),
            predicted=number(record.get("predicted")),
            reason=one_line(str(record.get("reason") or ""), 120),
            start=record.get("start"),
        )

    def line(self) -> str:
        """`#12 discard +0.0031 (confidence 0.97, predicted -0.0040): idea [reason]`."""
        parts = [f"#{self.id} {self.status}"]
        if self.delta is not None:
            parts.append(f"{self.delta:+.4g}")
        more = []
        if self.confidence is not None:
            more.append(f"confidence {self.confidence:.2f}")
        if self.predicted is not None:
            more.append(f"predicted {self.predicted:+.4g}")
        if self.start is not None:
            more.append(f"from #{self.start}'s program")
        head = " ".join(parts) + (f" ({', '.join(more)})" if more else "")
        return f"{head}: {self.description}" + (f" [{self.reason}]" if self.reason else "")


@dataclass(frozen=True)
class Exhausted:
    """An area that was tried often and has not helped since."""

    area: str
    tries: int
    best_delta: float | None


@dataclass(frozen=True)
class FailureNote:
    """A failed trial with the end of its log."""

    id: int
    description: str
    phase: str
    kind: str
    message: str
    log_tail: str


@dataclass(frozen=True)
class Digest:
    """The memory that a proposer gets. Lists are in order of time, the latest last."""

    metric: str = "score"
    direction: str = "minimize"
    champion: Entry | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    lineage: tuple[Entry, ...] = ()
    tried: tuple[Entry, ...] = ()
    exhausted: tuple[Exhausted, ...] = ()
    failures: tuple[FailureNote, ...] = ()
    bias: float | None = None  # mean of actual minus predicted effect, where both are known
    predictions: int = 0
    left_out: int = 0  # earlier tries that did not fit
    restored: tuple[str, ...] = ()  # earlier champions brought back, and why
    in_flight: tuple[str, ...] = ()  # trials under way: their numbers and descriptions
    fence: Fence = field(default_factory=Fence)

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        metric: str = "score",
        direction: str = "minimize",
        champion: int | None = None,
        in_flight: Sequence[str] = (),
        max_chars: int = MAX_CHARS,
        areas: Areas = named_constants,
        exhausted_after: int = EXHAUSTED_AFTER,
        fence: Fence | None = None,
    ) -> Digest:
        """The digest of a ledger's records, of which those of kind "trial" count.

        `champion` is the id of the trial that is champion now, the last one kept unless given.
        """
        records = list(records)
        trials = [item for item in records if item.get("kind", "trial") == "trial"]
        entries = [Entry.of(item) for item in trials]
        kept = [entry.id for entry in entries if entry.status == "keep"]
        lineage = _lineage(trials, entries, champion if champion is not None else last(kept))
        pairs = [
            entry.delta - entry.predicted
            for entry in entries
            if entry.delta is not None and entry.predicted is not None
        ]
        full = cls(
            metric=metric,
            direction=direction,
            champion=lineage[-1] if lineage else None,
            counts=dict(Counter(entry.status for entry in entries)),
            lineage=lineage,
            tried=tuple(entries),
            exhausted=_exhausted(trials, entries, direction, areas, exhausted_after),
            failures=_failures(trials, entries),
            bias=sum(pairs) / len(pairs) if pairs else None,
            predictions=len(pairs),
            restored=tuple(_restored(records))[-RESTORED:],
            in_flight=tuple(one_line(item) for item in in_flight[-IN_FLIGHT:]),
            fence=fence or Fence(),
        )
        return full.bounded(max_chars)

    def bounded(self, max_chars: int) -> Digest:
        """A digest whose markdown and JSON both have at most `max_chars` characters.

        The oldest tries go first, then logs, then the middle of the lineage, then all else.
        """
        digest = self
        while digest.size() > max_chars:
            if len(digest.tried) > 10:
                digest = digest._shorter(len(digest.tried) // 4 or 1)
            elif any(item.log_tail for item in digest.failures):
                bare = tuple(replace(item, log_tail="") for item in digest.failures[:-1])
                last_one = digest.failures[-1]
                tail = last_one.log_tail[-(len(last_one.log_tail) // 2) :] if not bare else ""
                digest = replace(
                    digest,
                    failures=(*bare, replace(last_one, log_tail=tail if len(tail) > 200 else "")),
                )
            elif len(digest.in_flight) > 10:
                digest = replace(digest, in_flight=digest.in_flight[1:])
            elif len(digest.lineage) > 3:
                digest = replace(digest, lineage=(digest.lineage[0], *digest.lineage[2:]))
            elif digest.tried:
                digest = digest._shorter(1)
            elif digest.exhausted or digest.failures or digest.restored:
                exhausted, restored = digest.exhausted[:-1], digest.restored[1:]
                digest = replace(digest, exhausted=exhausted, restored=restored, failures=())
            elif digest.in_flight:
                digest = replace(digest, in_flight=digest.in_flight[1:])
            else:
                break
        return digest

    def _shorter(self, count: int) -> Digest:
        return replace(self, tried=self.tried[count:], left_out=self.left_out + count)

    def size(self) -> int:
        """Characters of the longer of the two forms."""
        return max(len(self.markdown()), len(json.dumps(self.to_dict(), ensure_ascii=False)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready. What candidates printed stands under `untrusted_log` alone."""
        return {
            "metric": self.metric,
            "direction": self.direction,
            "champion": dict(vars(self.champion)) if self.champion else None,
            "counts": dict(self.counts),
            "lineage": [dict(vars(entry)) for entry in self.lineage],
            "tried": [dict(vars(entry)) for entry in self.tried],
            "left_out": self.left_out,
            "exhausted": [dict(vars(item)) for item in self.exhausted],
            "restored": list(self.restored),
            "in_flight": list(self.in_flight),
            "predictions": {"count": self.predictions, "mean_actual_minus_predicted": self.bias},
            "failures": [
                {
                    "id": item.id,
                    "description": item.description,
                    "phase": item.phase,
                    "kind": item.kind,
                    "untrusted_message": item.message,
                    "untrusted_log": item.log_tail,
                }
                for item in self.failures
            ],
        }

    def markdown(self) -> str:
        """For a prompt: headings, a line per trial, fenced logs."""
        better = "lower" if self.direction == "minimize" else "higher"
        parts = [
            f"# What was tried so far\n\n{self.metric}: {better} is better. An effect is the "
            f"candidate's {self.metric} minus the champion's. {self.fence.rule}"
        ]
        if not self.tried and not self.lineage:
            return parts[0] + "\n\nNothing was tried yet.\n"
        if self.in_flight:
            parts.append(
                "## Under way at this moment: propose something else\n\n"
                + self.fence.wrap("\n".join(self.in_flight))
            )
        if self.champion is not None and self.champion.score is not None:
            parts.append(f"Champion: #{self.champion.id}, {self.metric} {self.champion.score:.6g}")
        parts.append("Trials: " + ", ".join(f"{n} {name}" for name, n in self.counts.items()))
        if self.lineage:
            parts.append("## The champion's lineage\n\n" + self._lines(self.lineage))
        if self.restored:
            text = self.fence.wrap("\n".join(self.restored))
            parts.append("## Earlier champions brought back by hand\n\n" + text)
        if self.tried:
            older = f"({self.left_out} earlier ones left out)\n" if self.left_out else ""
            parts.append("## Tried\n\n" + older + self._lines(self.tried))
        if self.bias is not None:
            parts.append(
                "## Predicted against actual\n\n"
                f"Over {self.predictions} predictions the actual effect was {self.bias:+.4g} from "
                "the predicted one on average."
            )
        if self.exhausted:
            parts.append("## Exhausted directions\n\n" + self._exhausted_lines())
        if self.failures:
            parts.append("## Latest failures\n\n" + "\n\n".join(map(self._failure, self.failures)))
        return "\n\n".join(parts) + "\n"

    def _lines(self, entries: Sequence[Entry]) -> str:
        return self.fence.wrap("\n".join(entry.line() for entry in entries))

    def _exhausted_lines(self) -> str:
        lines = []
        for item in self.exhausted:
            best = "" if item.best_delta is None else f", best effect {item.best_delta:+.4g}"
            lines.append(f"{item.area}: {item.tries} tries without success{best}")
        return self.fence.wrap("\n".join(lines))

    def _failure(self, item: FailureNote) -> str:
        text = f"{item.description}\n{item.message}\n{item.log_tail}".strip()
        return f"#{item.id}: {item.kind} in {item.phase}\n{self.fence.wrap(text)}"


def last(items: Sequence[int]) -> int | None:
    """The last item, None of none."""
    return items[-1] if items else None


def _restored(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """`#2 in place of #7: it reads worse`, for each time."""
    champion: Any = None
    for record in records:
        if record.get("kind") == "champion":
            why = one_line(str(record.get("reason") or "no reason given"))
            yield f"#{record.get('trial')} in place of #{champion}: {why}"
            champion = record.get("trial")
        elif record.get("kind", "trial") == "trial" and record.get("status") == "keep":
            champion = record.get("id")


def _lineage(
    trials: Sequence[Mapping[str, Any]], entries: Sequence[Entry], champion: int | None
) -> tuple[Entry, ...]:
    """From the baseline to the champion, by each trial's parent."""
    parents = {int(item["id"]): item.get("parent") for item in trials}
    by_id = {entry.id: entry for entry in entries}
    chain: list[Entry] = []
    at = champion
    while at is not None and at in by_id and len(chain) <= len(by_id):
        chain.append(by_id[at])
        parent = parents[at]
        at = None if parent is None or int(parent) == at else int(parent)
    return tuple(reversed(chain))


def _exhausted(
    trials: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    direction: str,
    areas: Areas,
    after: int,
) -> tuple[Exhausted, ...]:
    """Areas with at least `after` measured tries since the last one that was kept."""
    since: dict[str, list[float | None]] = {}
    for record, entry in zip(trials, entries, strict=True):
        if entry.status not in MEASURED:
            continue
        for area in areas(record):
            if entry.status == "keep":
                since[area] = []
            else:
                since.setdefault(area, []).append(entry.delta)
    best = min if direction == "minimize" else max
    found = []
    for area, deltas in since.items():
        if len(deltas) >= after:
            known = [delta for delta in deltas if delta is not None]
            found.append(Exhausted(one_line(area, 60), len(deltas), best(known) if known else None))
    return tuple(sorted(found, key=lambda item: -item.tries)[:20])


def _failures(
    trials: Sequence[Mapping[str, Any]], entries: Sequence[Entry]
) -> tuple[FailureNote, ...]:
    """The latest failed trials; the failure is the first that a replicate has."""
    found = []
    for record, entry in zip(trials, entries, strict=True):
        if entry.status not in FAILED:
            continue
        failures = [item.get("failure") for item in record.get("replicates") or ()]
        failure = next((item for item in failures if item), record.get("failure") or {})
        found.append(
            FailureNote(
                id=entry.id,
                description=entry.description,
                phase=one_line(str(failure.get("phase") or entry.status), 30),
                kind=one_line(str(failure.get("kind") or "unknown"), 40),
                message=one_line(str(failure.get("message") or entry.reason), 300),
                log_tail=last_lines(str(failure.get("log_tail") or ""), 50, LOG_CHARS),
            )
        )
    return tuple(found[-FAILURES:])

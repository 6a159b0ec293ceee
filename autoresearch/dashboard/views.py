"""What the pages show, made from a study: plain values for the templates.

standing(document)        # the champion, the counts, what runs now
page_of(rows, query)      # one page of the table of trials
trial(study, state, 7)    # all that is known of one trial
lineage(story)            # the champions, today's first
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.commands import show
from autoresearch.commands.log import runs_of
from autoresearch.console import describe, left_words
from autoresearch.engine.errors import EngineError
from autoresearch.engine.proposers.text import clean
from autoresearch.engine.state import State
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.live import doing, extent, progress, spent, tried, warning_of
from autoresearch.live import standing as standing_words
from autoresearch.model_folder import WEIGHTS_NAME
from autoresearch.narration import number, sure
from autoresearch.opening import AnyStudy
from autoresearch.sampling import read_text
from prepare.runfiles import read_end

ROWS = 50  # of a page
LOG_BYTES = 40_000  # of a log's end that a page shows; the whole is a link away
WHOLE_LOG = 20_000_000
DIFF_LINES = 2_000
ORDERS = {
    "newest": "newest first",
    "oldest": "oldest first",
    "best": "best score",
    "gain": "effect",
}
STATUSES = tuple(status.value for status in TrialStatus)


def standing(document: Mapping[str, Any]) -> dict[str, Any]:
    """The study in a few words, and the trial under way."""
    champion, noise = document["champion"], document["noise"]
    done, total = progress(document)
    run = document["now"].get("run", {})
    training = document["now"].get("phase") == "training"
    facts = [("Trials", tried(document))]
    if noise is not None:
        facts.append(("Noise", f"standard deviation {noise['sd']:.2g} of one run"))
    facts.append(("Proposals", spent(document)))
    facts.append(("Budget", extent(document)))
    return {
        "metric": document["metric"],
        "champion": champion,
        "baseline": document["baseline"],
        "gain": "" if champion is None or champion["gain"] is None else f"{champion['gain']:+.4f}",
        "facts": [(name, words) for name, words in facts if words],
        "running": document["running"],
        "state": standing_words(document),
        "looping": bool(document["running"] and "loop" in document["now"]),
        "asked": document["asked"],
        "doing": doing(document) if document["running"] else [],
        "done": done,
        "total": total,
        "unit": "s" if run.get("token_budget") is None else "tokens",
        "figures": "  ".join(filter(None, (describe(run), left_words(run)))) if training else "",
        "warning": warning_of(document) if document["running"] else "",
    }


def curves(document: Mapping[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    """The losses of the run under way and, where they compare, the champion's."""
    run = document["now"].get("run", {}) if document["running"] else {}
    budget = run.get("token_budget") or run.get("budget")
    own = [[spent, loss] for spent, loss in run.get("curve") or () if loss is not None]
    champion = (document["champion"] or {}).get("curve") or []
    if not own or not budget:
        return own, []
    compares = bool(champion) and 0.9 < champion[-1][0] / budget < 1.1
    return own, champion if compares and run.get("label") != "champion" else []


# -- the table of trials -------------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """Which trials are asked for, and which page of them (from 1)."""

    page: int = 1
    status: str = ""
    words: str = ""
    order: str = "newest"

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Query:
        """From the query of an address; what isn't known counts as not given."""
        page = given.get("page", "")
        status, order = given.get("status", ""), given.get("order", "")
        return cls(
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1,
            status=status if status in STATUSES else "",
            words=given.get("words", "")[:200],
            order=order if order in ORDERS else "newest",
        )


@dataclass(frozen=True)
class Page:
    """Rows of the table, and where they stand among all that fit the query."""

    rows: list[dict[str, Any]]
    query: Query
    pages: int
    found: int
    all: int


def page_of(trials: Sequence[Mapping[str, Any]], query: Query, direction: str) -> Page:
    """The page that is asked for, or the last one."""
    words = query.words.casefold().split()
    found = [
        row
        for row in trials
        if (not query.status or row["status"] == query.status)
        and all(word in f"{row['id']} {row['idea']} {row['reason']}".casefold() for word in words)
    ]
    found = _ordered(found, query.order, direction)
    pages = max(1, math.ceil(len(found) / ROWS))
    at = min(query.page, pages)
    rows = [_row(row) for row in found[(at - 1) * ROWS : at * ROWS]]
    return Page(rows, Query(at, query.status, query.words, query.order), pages, len(found),
                len(trials))  # fmt: skip


def _ordered(rows: list[Any], order: str, direction: str) -> list[Any]:
    if order == "newest":
        return rows[::-1]
    if order == "oldest":
        return rows
    sign = (1 if direction == "minimize" else -1) if order == "best" else -1
    field = "score" if order == "best" else "gain"
    known = [row for row in rows if row[field] is not None]
    return sorted(known, key=lambda row: sign * row[field]) + [r for r in rows if r[field] is None]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "status": row["status"],
        "score": number(row["score"]),
        # Plus zero: a tiny effect is no "-0.00000".
        "effect": number(row["delta"] and round(row["delta"], 5) + 0.0, "+.5f"),
        "better": row["gain"] is not None and row["gain"] > 0,
        "sure": sure(row["confidence"]),
        "idea": row["idea"] or row["reason"],
        "reason": row["reason"],
        "when": row["finished_at"],
    }


# -- one trial -----------------------------------------------------------------------------------


def trial(study: AnyStudy, state: State, trial_id: int) -> dict[str, Any] | None:
    """One trial, or None if there is none of that number."""
    found = state.trials.get(trial_id)
    if found is None:
        return None
    known = dict(show.facts(study, found))
    known.pop("status")  # the heading says it
    isolation, _, holes = known.pop("isolation", "").partition("; not protected against ")
    failure = next((run.failure for run in found.replicates[::-1] if run.failure), None)
    ids = list(state.trials)
    return {
        "id": trial_id,
        "status": found.status.value,
        "idea": clean(found.description) or clean(found.reason),
        "reason": clean(found.reason),
        "facts": [*known.items(), ("isolation", isolation)],
        "holes": [hole for hole in holes.split("; ") if hole],
        "runs": show.run_rows(found),
        "probes": probes(found),
        "failure": clean(failure.log_tail).rstrip() if failure else "",
        "diff": diff(study, found),
        "logs": logs(study, trial_id),
        "before": max((i for i in ids if i < trial_id), default=None),
        "after": min((i for i in ids if i > trial_id), default=None),
    }


def probes(trial: Trial) -> list[list[str]]:
    """Seed, probe, rows asked, and what was found, of every run that was probed."""
    found = []
    for run in trial.replicates:
        told = run.details.get("probes")
        for name, result in (told if isinstance(told, Mapping) else {}).items():
            if isinstance(result, Mapping):
                largest = result.get("max")
                shown = f"{largest:.2g}" if isinstance(largest, float) else clean(str(largest))
                rows = clean(str(result.get("rows", "")))
            else:
                shown, rows = clean(str(result)), ""
            found.append([str(run.seed), clean(str(name)), rows, shown])
    return found


def diff(study: AnyStudy, trial: Trial) -> dict[str, Any]:
    """The edit, a kind (add, remove, place, head or "") and the text of each line."""
    try:
        text = clean(show.edit_of(study, trial)) if trial.parent is not None else ""
    except (EngineError, OSError, UnicodeDecodeError):  # git has lost it, or it is no text
        text = ""
    lines = text.rstrip("\n").split("\n") if text else []
    shown = [(_kind(line), line) for line in lines[:DIFF_LINES]]
    return {"lines": shown, "left": max(0, len(lines) - DIFF_LINES)}


def _kind(line: str) -> str:
    if line.startswith(("+++", "---", "diff ", "index ", "new file", "deleted file")):
        return "head"
    return {"+": "add", "-": "remove", "@": "place"}.get(line[:1], "")


def logs(study: AnyStudy, trial_id: int) -> list[dict[str, Any]]:
    """The logs that a trial left, those of earlier attempts last: name, end of the text, size."""
    place = study.run_folder(trial_id)
    names, earlier = runs_of(place)
    found = []
    for run in (*names, *earlier):
        for path in sorted((place / run).glob("*.log")):
            size = path.stat().st_size if path.is_file() else 0
            if size:
                text = clean(read_end(path, LOG_BYTES).decode("utf-8", "replace")).rstrip()
                found.append({"name": f"{run}/{path.name}", "text": text, "size": size})
    return found


def log_text(study: AnyStudy, trial_id: int, name: str) -> str | None:
    """A whole log by the name that `logs` gives it; None for any other name."""
    known = {item["name"] for item in logs(study, trial_id)}
    if name not in known:
        return None
    data = read_end(study.run_folder(trial_id) / name, WHOLE_LOG)
    return clean(data.decode("utf-8", "replace"))


# -- the champion --------------------------------------------------------------------------------


def lineage(story: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The champions that today's stands on, today's first, with what each brought."""
    found = []
    for step in reversed(story["lineage"]):
        span = "" if step["low"] is None else f"{step['low']:+.4f} to {step['high']:+.4f}"
        found.append(
            {
                "id": step["id"],
                "idea": step["idea"] or step["reason"],
                "score": number(step["score"]),
                "gain": number(step["gain"], "+.5f"),
                "span": span,
                "sure": sure(step["confidence"]),
                "when": step["finished_at"],
            }
        )
    return found


def kept_weights(study: AnyStudy, story: Mapping[str, Any]) -> int | None:
    """Bytes of the champion's weights, if they are kept."""
    folder = _weights(study, story)
    file = None if folder is None else folder / WEIGHTS_NAME
    return file.stat().st_size if file is not None and file.is_file() else None


def sample(study: AnyStudy, story: Mapping[str, Any]) -> dict[str, str] | None:
    """What the champion's weights wrote: after which prompt, and how it was drawn."""
    folder = _weights(study, story)
    found = {} if folder is None else read_text(folder)
    if not isinstance(found.get("text"), str):
        return None
    drawn = {"temperature": "temperature", "top_k": "top-k", "seed": "seed"}
    known = [(words, found.get(name)) for name, words in drawn.items()]
    return {
        "prompt": clean(str(found.get("prompt") or "")),
        "text": clean(found["text"]),
        "drawn": ", ".join(f"{words} {clean(str(v))}" for words, v in known if v is not None),
    }


def _weights(study: AnyStudy, story: Mapping[str, Any]) -> Path | None:
    """Where the champion's weights are kept, if they may be."""
    place = getattr(study, "weights", None)
    if place is None or not story or story["champion"] is None:
        return None
    return Path(place) / f"{story['champion']:04d}"

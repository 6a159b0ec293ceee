"""What an agent may see of a workspace, as JSON-ready documents.

    reader = Reader(folder)                       # one per server
    with reader as seen:
        document = champion(seen)

Everything comes from the workspace's own study: callers name trials by number and runs by the names
that the study lists, never by a path. Raises PrepareError and EngineError, as the commands do.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.engine.git import open_repository
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.proposers.text import Fence, clean, one_line
from autoresearch.engine.state import BASELINE
from autoresearch.engine.trial import Trial
from autoresearch.engine.workspace import Workspace
from autoresearch.pretraining import ARTIFACT
from autoresearch.study import PROGRAM_NAME, Study
from prepare.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.standing import Look

MOST_CHARS = 20_000  # of a diff or a log that an agent is given; the end of it
# Of a trial's record: what an agent can use. Runs are told in short, curves not at all.
FIELDS = (
    "id",
    "parent",
    "start",
    "combines",
    "status",
    "reason",
    "description",
    "score",
    "delta",
    "confidence",
    "predicted",
    "extra_runs",
    "mended",
    "warning",
    "metrics",
    "seconds",
    "diff_stat",
    "proposer",
    "tier",
    "backend",
    "started_at",
    "finished_at",
)


@dataclass(frozen=True)
class Seen:
    """A study, and where it stands: the document of `standing.Look`."""

    study: Study
    standing: dict[str, Any]


class Reader:
    """Keeps a study open, so that of its ledger only what is new is read and verified again.

    A server calls from several threads: one at a time gets in. What is no workspace, or has
    become none, is an error of each call.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._one = folder, threading.Lock()
        self._look: Look | None = None

    def __enter__(self) -> Seen:
        self._one.acquire()
        try:
            return self._see()
        except BaseException:
            self._look = None
            self._one.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._one.release()

    def _see(self) -> Seen:
        from autoresearch.standing import Look

        if self._look is None:
            Study.read(self._folder)  # refuses a task, and a folder that is nothing
            self._look = Look(self._folder)
        standing = self._look()
        assert isinstance(self._look.study, Study)
        return Seen(self._look.study, standing)


def status(seen: Seen) -> dict[str, Any]:
    """Where the study stands. Who is writing is told by its command's name alone."""
    from autoresearch.live import one_line_of

    document = seen.standing
    words = str(document["running"] or "").split()
    # The whole command line could hold what isn't an agent's to know.
    running = words[1] if len(words) > 1 else None
    now = {key: item for key, item in document["now"].items() if key != "at"}
    now.get("run", {}).pop("curve", None)
    champion = document["champion"] and {**document["champion"]}
    if champion:
        champion.pop("curve", None)
    in_short = one_line_of({**document, "running": running})
    return {
        "in_short": in_short,
        **document,
        "champion": champion,
        "running": running,
        "now": now,
    }


def history(seen: Seen) -> dict[str, Any]:
    """What proposers are given: the human's program and notes, and the digest of what was tried."""
    from autoresearch.engine.asking import digest_of
    from autoresearch.engine.program import Program

    study = seen.study
    digest: Digest = digest_of(study.task, study.ledger, study.state.champion)
    told = Program.parse(program_text(seen))
    return {"program": told.text, "notes": told.notes, "digest": digest.markdown()}


def champion(seen: Seen) -> dict[str, Any]:
    """The best program so far: number, score, idea, and its train.py. Before the first trial, the
    program that the study is going to begin with, as trial 0."""
    study = seen.study
    state = study.state
    best = None if state.champion is None else state.trials[state.champion]
    return {
        "trial": BASELINE if best is None else best.id,
        "measured": best is not None,
        "score": None if best is None else best.score,
        "idea": "" if best is None else one_line(best.description, 500),
        "metric": study.task.objective.metric,
        "direction": study.task.objective.direction,
        ARTIFACT: champion_text(seen),
    }


def champion_text(seen: Seen) -> str:
    """The champion's train.py, from git: what lies in the checkout may be somebody's edit."""
    study = seen.study
    git = open_repository(study.root)
    begun = git.commit_of(f"refs/heads/autoresearch/{study.tag}") is not None
    commit = Workspace.open(study.root, study.tag).champion_commit if begun else "HEAD"
    return git.run("show", f"{commit}:{ARTIFACT}").decode("utf-8", "replace")


def program_text(seen: Seen) -> str:
    """program.md as it is now; "" where there is none. Raises UsageError for a link elsewhere."""
    root = seen.study.root
    path = root / PROGRAM_NAME
    if not path.resolve().is_relative_to(root):
        raise UsageError(
            f"{PROGRAM_NAME} is a link out of the workspace", "put a file in its place"
        )
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def trial(seen: Seen, number: int) -> dict[str, Any]:
    """One trial: decision, runs in short, edit."""
    from autoresearch.commands.show import edit_of, find

    study = seen.study
    found = find(study, number)
    diff = clean(edit_of(study, found))
    return {**in_short(found), "diff": cut(diff, "the edit")}


def in_short(found: Trial) -> dict[str, Any]:
    """A trial's record without what is long: its runs by seed and score, no curves, no logs."""
    record = found.to_dict()
    document = {name: record[name] for name in FIELDS}
    for name in ("replicates", "champion_replicates"):
        document[name] = [
            {
                "seed": run["seed"],
                "score": run["score"],
                "disturbed": run["disturbed"],
                "failure": run["failure"]
                and {key: run["failure"][key] for key in ("phase", "kind", "message")},
            }
            for run in record[name]
        ]
    return document


def log(seen: Seen, number: int, run: str | None = None) -> dict[str, Any]:
    """What the program of a trial printed, its end, fenced: it is the output of unvouched code."""
    from autoresearch.commands.log import runs_of
    from autoresearch.commands.show import find
    from prepare.runfiles import read_end

    study = seen.study
    place = study.run_folder(find(study, number).id)
    names, earlier = runs_of(place)
    if run is not None and run not in (*names, *earlier):
        known = ", ".join((*names, *earlier)) or "none"
        raise UsageError(f"trial {number} has no run {run!r}", f"it has {known}")
    fence = Fence()
    logs = {}
    for name in [run] if run else names:
        for path in sorted((place / name).glob("*.log")):
            if not path.parent.resolve().is_relative_to(study.root):
                continue  # a link in a run's place
            text = clean(read_end(path, 4 * MOST_CHARS).decode("utf-8", "replace")).strip()
            if text:
                logs[f"{name}/{path.name}"] = fence.wrap(cut(text, "the log"))
    return {"trial": number, "rule": fence.rule, "logs": logs, "earlier_attempts": earlier}


def cut(text: str, what: str) -> str:
    """The end of a text that is long, and that it was cut."""
    if len(text) <= MOST_CHARS:
        return text
    return (
        f"[the first {len(text) - MOST_CHARS:,} characters of {what} are left out]\n"
        + (text[-MOST_CHARS:])
    )

"""The story of a study as one JSON-ready document: what report and dashboard show.

    story = Story(open_study(folder))
    document = story()       # again and again: takes in only what the ledger gained

    document["trials"]       a flat row per trial, see `rows`
    document["steps"]        the best so far wherever it changed, with the noise around it
    document["lineage"]      the champions that today's stands on, each effect with its interval
    document["totals"]       what it all came to and cost
    document["parts"]        the score ids that the study went through: scores compare inside one

It is read from the ledger and from files of the trials' folders, never by running anything.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from autoresearch.engine.ledger import ENVELOPE
from autoresearch.engine.noise import Noise
from autoresearch.engine.proposers.text import clean, number
from autoresearch.engine.recheck import KIND as RECHECK
from autoresearch.engine.state import BASELINE, State
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from autoresearch.narration import together
from autoresearch.opening import AnyStudy
from autoresearch.report import kinds
from autoresearch.report.effects import steps
from autoresearch.report.rows import BETWEEN, PROPOSING, STILL, Rows, finite
from autoresearch.standing import counts
from autoresearch.study import Study, lineage

DIFF_BYTES = 400_000  # of an edit that are read
NO_RUN = (PROPOSING, BETWEEN, STILL)  # phases in which nothing ran
BAND = 2.0  # standard deviations of one run on either side of the best


class Story:
    """Tells the story of one study. Raises what opening it and the ledger can raise."""

    def __init__(self, study: AnyStudy) -> None:
        self.study = study
        self._forget()

    def _forget(self) -> None:
        objective = self.study.task.objective
        self.state = State()
        self._rows = Rows(objective.direction, self._kind)
        self._taken, self._head = 0, ""
        self._empty = self._pauses = 0
        self._recheck: dict[str, Any] | None = None
        self._holdouts: dict[int, Mapping[str, Any]] = {}
        self._told: dict[str, Any] | None = None
        self._names: dict[str, str] = {}  # of machines, by hardware id
        self._machines: dict[str, dict[str, Any]] = {}

    def __call__(self) -> dict[str, Any]:
        """The document, as the ledger stands; the same object while nothing is new."""
        records = self.study.ledger.records()
        if self._taken and (
            len(records) < self._taken or records[self._taken - 1]["hash"] != self._head
        ):
            self._forget()  # another ledger stands in its place
        if self._told is None or len(records) > self._taken:
            for record in records[self._taken :]:
                self._take(record)
            self._taken = len(records)
            self._head = str(records[-1]["hash"]) if records else ""
            self._told = self._document(records)
        return self._told

    def _take(self, record: Mapping[str, Any]) -> None:
        kind = record.get("kind")
        if kind == "trial":
            fields = {name: item for name, item in record.items() if name not in ENVELOPE}
            # The curves are nine tenths of a ledger, and nothing here shows them.
            trial = Trial.from_dict({**fields, "curve": ()})
            self.state.add(trial)
            self._ran_on(trial)
            row = self._rows.take(trial)
            row["secondary"] = {n: finite(trial.metrics.get(n)) for n in self._secondary}
            return
        self.state.take(record)
        if kind == "champion":
            self._rows.restore(int(record["trial"]))
        elif kind == "no_proposal":
            self._empty += 1
        elif kind == "pause":
            self._pauses += 1
        elif kind == RECHECK:
            self._recheck = {k: v for k, v in record.items() if k not in ENVELOPE}
        elif kind == "holdout":
            self._holdouts[int(record["trial"])] = record["run"]

    @property
    def _secondary(self) -> Mapping[str, str]:
        """A task's further objectives: minimize or maximize by the name of the metric."""
        return {} if isinstance(self.study, Study) else self.study.task.secondary

    def _kind(self, trial: Trial) -> str:
        if trial.parent is None:
            return kinds.BASELINE
        if trial.combines:
            return kinds.COMBINATION
        if not isinstance(self.study, Study):
            return kinds.kind_by_size(trial.diff_stat)
        return kinds.kind_of(edit_of(self.study, trial.id), trial.description)

    def _document(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        study, state = self.study, self.state
        objective = study.task.objective
        noises = {score_id: state.noise(score_id) for score_id in self._rows.score_ids}
        champion = None if state.champion is None else state.trials[state.champion]
        header: Mapping[str, Any] = next(
            (r for r in reversed(records) if r.get("kind") == "study"), {}
        )
        rows = self._rows.rows
        kept = steps(state, noises, objective.direction)
        return {
            "tag": study.tag,
            "kind": "pretraining" if isinstance(study, Study) else "task",
            "metric": objective.metric,
            "direction": objective.direction,
            "target": objective.target,
            "description": study.task.description,
            "policy": study.task.policy.model_dump(mode="json"),
            "constraints": [str(constraint) for constraint in study.task.constraints],
            "settings": dict(header.get("settings") or study.conditions),
            "versions": dict(header.get("versions") or {}),
            "champion": None if champion is None else champion.id,
            "best": None if champion is None else finite(champion.score),
            "score_id": "" if champion is None else champion.score_id,
            "baseline": self._baseline(champion),
            "parts": _parts(self._rows, noises),
            "noise": None if champion is None else _noise(noises.get(champion.score_id)),
            "trials": list(rows),
            "steps": _levels(rows, self._rows.score_ids, noises),
            "lineage": kept,
            "machines": [dict(machine) for machine in self._machines.values()],
            **self._text(champion),
            "champion_scores": self._champion_scores(champion),
            "recheck": self._recheck,
            "secondary": dict(self._secondary),
            "front": self._front(),
            "holdouts": self._held_out(),
            "phases": [
                {"phase": phase, "status": status, "seconds": seconds}
                for (phase, status), seconds in self._rows.spent.items()
            ],
            "kinds": _by_kind(
                rows, "" if champion is None else champion.score_id, self._rows.score_ids
            ),
            "totals": self._totals(rows),
        }

    def _totals(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        state, kept = self.state, lineage(self.state)
        gain = together(kept)
        tried = [row for row in rows if row["parent"] is not None]
        better = -1.0 if self.study.task.objective.direction == "minimize" else 1.0
        asked = [row for row in tried if row["proposer"]]
        return {
            "trials": len(tried),
            "kept": max(0, len(kept) - 1),
            "counts": counts(state),
            "gain": None if gain is None else better * gain,
            "runs": sum(row["runs"] for row in rows),
            "extra_runs": sum(row["extra_runs"] for row in rows),
            "hours": rows[-1]["hours"] if rows else 0.0,
            "run_seconds": sum(
                s for (phase, _), s in self._rows.spent.items() if phase not in NO_RUN
            ),
            "still_seconds": sum(s for (name, _), s in self._rows.spent.items() if name == STILL),
            "tokens": rows[-1]["tokens_spent"] if rows else 0.0,
            "dollars": state.dollars,
            "dollars_unknown": sum(row["dollars"] is None for row in asked),
            "proposer_tokens": state.tokens,
            "tokens_unknown": sum(row["tokens_in"] is None for row in asked),
            "no_proposals": self._empty,
            "pauses": self._pauses,
            "started_at": rows[0]["started_at"] if rows else "",
            "finished_at": rows[-1]["finished_at"] if rows else "",
        }

    def _text(self, champion: Trial | None) -> dict[str, float | None]:
        """What a run of the champion's said of the text: its entropy, and how much was scored."""
        names = {"floor": "floor_bpb", "scored_bytes": "scored_bytes"}
        for run in () if champion is None else champion.replicates:
            result = self._result(champion, run)
            if champion is not None and result.get("score_id") == champion.score_id:
                return {name: number(result.get(key)) for name, key in names.items()}
        return dict.fromkeys(names)

    def _baseline(self, champion: Trial | None) -> float | None:
        """The baseline's score, where it means what the champion's means; else None."""
        first = self.state.trials.get(BASELINE)
        if champion is None or first is None:
            return None
        if first.score_id == champion.score_id:
            return finite(first.score)
        found = self.state.scores_of(BASELINE, champion.score_id).values()
        return finite(statistics.fmean(found)) if found else None

    def _champion_scores(self, champion: Trial | None) -> list[float]:
        if champion is None:
            return []
        return list(self.state.scores_of(champion.id, champion.score_id).values())

    def _ran_on(self, trial: Trial) -> None:
        """Count the trial to what its runs were made on and how."""
        run = trial.replicates[0] if trial.replicates else None
        stated = {} if run is None else run.details.get("conditions") or {}
        if run is None or not trial.tier or (run.failure is not None and not stated):
            return  # what died early knows less of where it ran
        key = json.dumps([trial.hardware_id, trial.backend, trial.tier, stated], default=str)
        facts = {
            "hardware_id": trial.hardware_id,
            "name": self._name(trial, run),
            "backend": trial.backend,
            "tier": trial.tier,
            "conditions": {k: v for k, v in stated.items() if v not in (None, "")},
        }
        machine = self._machines.setdefault(key, {**facts, "trials": 0})
        machine["trials"] += 1

    def _name(self, trial: Trial, run: Replicate) -> str:
        """What the harness called the machine: `2 x NVIDIA H100, 80 GiB`; "" where it is lost."""
        if trial.hardware_id not in self._names:
            hardware = self._result(trial, run).get("hardware")
            known = hardware if isinstance(hardware, dict) else {}
            size, name = known.get("memory_bytes"), clean(str(known.get("name") or ""))
            memory = f", {size / 2**30:.0f} GiB" if isinstance(size, (int, float)) else ""
            self._names[trial.hardware_id] = f"{name}{memory}" if name else ""
        return self._names[trial.hardware_id]

    def _result(self, trial: Trial | None, run: Replicate) -> dict[str, Any]:
        """What the harness wrote of a run; {} where that is gone, or no JSON."""
        stated = run.details.get("run_dir")
        if trial is None or not isinstance(stated, str) or not stated:
            return {}
        # The folder's name alone: a study may have been moved since.
        path = self.study.run_folder(trial.id) / PurePath(stated).name / "result.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _front(self) -> list[int]:
        if isinstance(self.study, Study) or not self._secondary:
            return []
        from autoresearch.taskfile.views import front

        objective = self.study.task.objective
        if self.state.champion is None:
            return []
        score_id = self.state.trials[self.state.champion].score_id
        same = [trial for trial in self.state.trials.values() if trial.score_id == score_id]
        names = {objective.metric: objective.direction, **self._secondary}
        return [trial.id for trial in front(same, names)]

    def _held_out(self) -> dict[str, Any]:
        found = {}
        for trial_id, run in sorted(self._holdouts.items()):
            found[str(trial_id)] = number(run.get("score"))
        return found


def story_of(study: AnyStudy) -> dict[str, Any]:
    """The document of a study, once."""
    return Story(study)()


def edit_of(study: AnyStudy, trial_id: int) -> str:
    """The edit of a trial as a unified diff, from its folder alone; "" where that has none."""
    path = study.run_folder(trial_id) / "change.diff"
    try:
        with path.open("rb") as file:
            return clean(file.read(DIFF_BYTES).decode("utf-8", "replace"))
    except OSError:  # never written, or cleaned away
        return ""


def edits(study: AnyStudy, trial_ids: Iterable[int]) -> dict[int, str]:
    """The edits of trials, by id; those that git has where a folder has none."""
    from autoresearch.engine.errors import EngineError

    found = {}
    for trial_id in trial_ids:
        text = edit_of(study, trial_id)
        if not text:
            try:
                commit = study.workspace.trial_commit(trial_id)
                text = "" if commit is None else study.workspace.diff(f"{commit}^", commit)
            except EngineError:  # a study whose repository is gone still has its ledger
                text = ""
        found[trial_id] = clean(text[:DIFF_BYTES])
    return found


def _parts(rows: Rows, noises: Mapping[str, Noise | None]) -> list[dict[str, Any]]:
    first: dict[int, int] = {}
    for row in rows.rows:
        first.setdefault(row["part"], row["id"])
    return [
        {"score_id": score_id, "first": first.get(part), "noise": _noise(noises[score_id])}
        for part, score_id in enumerate(rows.score_ids)
    ]


def _noise(noise: Noise | None) -> dict[str, float] | None:
    return None if noise is None else {"sd": noise.sd, "dof": noise.dof}


def _levels(
    rows: list[dict[str, Any]], score_ids: list[str], noises: Mapping[str, Noise | None]
) -> list[dict[str, Any]]:
    """The best score wherever it changed and at the end of each part, with the noise around it."""
    found: list[dict[str, Any]] = []
    names = (
        "id", "decision", "hours", "minutes", "tokens_spent", "part", "best", "idea", "gain",
        "confidence",
    )  # fmt: skip
    before = None
    for place, row in enumerate(rows):
        mark = row["part"], row["best"]
        ends = place == len(rows) - 1 or rows[place + 1]["part"] != row["part"]
        if row["best"] is None or (mark == before and not ends):
            continue
        noise = noises.get(score_ids[row["part"]]) if score_ids else None
        around = BAND * noise.sd if noise else 0.0
        step = {name: row[name] for name in names}
        kept = row["status"] == TrialStatus.KEEP.value
        step |= {"low": row["best"] - around, "high": row["best"] + around, "kept": kept}
        found.append(step)
        before = mark
    return found


def _by_kind(
    rows: list[dict[str, Any]], score_id: str, score_ids: list[str]
) -> list[dict[str, Any]]:
    """Tries by kind and how they ended, and the gains kept under one score id together."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["parent"] is None:
            continue
        kind = found.setdefault(row["kind"], {"kind": row["kind"], "tried": 0, "gain": None})
        kind["tried"] += 1
        kind[row["status"]] = kind.get(row["status"], 0) + 1
        same = bool(score_ids) and score_ids[row["part"]] == score_id
        if row["status"] == TrialStatus.KEEP.value and same:
            kind["gain"] = (kind["gain"] or 0.0) + (row["gain"] or 0.0)
    return sorted(found.values(), key=lambda kind: (-kind["tried"], kind["kind"]))

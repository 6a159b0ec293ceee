"""The study of a task file: ledger, private repository, loop and the user's own files.

    study = TaskStudy.read(file)                            # results, show, verify, export
    with TaskStudy.write(file, Options(frontier=3)) as study:    # run
        study.loop.run(study.mutator(), study.task.budget)

Beside the task file, or below work/tasks/NAME where work/ holds the records of another one:

    work/results.jsonl    the ledger
    work/results.tsv      upstream's five columns of it
    work/repository       git, private: the candidates' files, a branch of champions
    work/runs/NNNN        what the runs of each trial left
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autoresearch.engine.asking import digest_of
from autoresearch.engine.control import Control
from autoresearch.engine.errors import TaskError
from autoresearch.engine.executor import Executor
from autoresearch.engine.ledger import Ledger, export_tsv
from autoresearch.engine.loop import Loop
from autoresearch.engine.program import Program
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.sandbox import Tier
from autoresearch.engine.state import State
from autoresearch.engine.task import Event, Measure, MeasureRequest
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from autoresearch.engine.workspace import Workspace
from autoresearch.loop_parts import policy_of, sandbox_of
from autoresearch.notify import Notify
from autoresearch.now import Now
from autoresearch.study import (
    CONTROL_NAME,
    LEDGER_NAME,
    TSV_NAME,
    Options,
    _version,
    write_text,
)
from autoresearch.taskfile.files import PROGRAM_NAME, Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import RULES, CommandMeasure
from autoresearch.taskfile.model import TaskFile, load
from autoresearch.taskfile.mutators import WatchedProposer, mutator_of
from autoresearch.taskfile.repository import Repository, make_work_folder
from autoresearch.taskfile.tree import MainTree
from autoresearch.taskfile.workers import executor_of, refuse_sharing

HOLDOUT = "holdout"  # kind of a ledger record: a kept program's held-out score


@dataclass
class TaskStudy:
    """One study of a task file. `read` gives one to look at; inside `write` its `loop` works."""

    place: Place
    task: TaskFile
    ledger: Ledger
    on_event: Event = lambda name, data: None
    _loop: Loop | None = field(default=None, repr=False)
    _guard: Guard | None = field(default=None, repr=False)
    _tier: Tier | None = field(default=None, repr=False)
    _options: Options = field(default_factory=Options, repr=False)

    @classmethod
    def read(cls, file: Path) -> TaskStudy:
        """The study of a task file, begun or not. Raises TaskError, LedgerError."""
        place = Place.of(file)
        task = load(place.file)
        study = cls(place, task, Ledger(place.work / LEDGER_NAME))
        study._refuse_other_task()
        return study

    @classmethod
    @contextlib.contextmanager
    def write(
        cls, file: Path, options: Options | None = None, on_event: Event | None = None
    ) -> Iterator[TaskStudy]:
        """The study with its loop, as the one writer; begun with the files as they are.

        Of the options `sandbox`, `frontier`, `combine` and `workers` count: the rest a task file
        says.

        Raises TaskError, UsageError for several workers where time is measured, LedgerBusy naming
        the other writer, UncommittedChanges for artifacts that were edited since, and what opening
        can raise.
        """
        study = cls.read(file)
        if on_event is not None:
            study.on_event = on_event
        study._options = options or Options()
        refuse_sharing(study.task, study._options.workers or 1)
        study._tier = sandbox_of(study._options.sandbox)
        paths = study.place.programs(study.task)
        study._guard = Guard.of(study.place, study.task)
        make_work_folder(study.place.work)
        study.ledger.open()  # from here on nobody else moves anything here
        try:
            study._refuse_other_task()
            study._write_header()
            with study._begun(paths):
                yield study
        finally:
            study.ledger.close()

    @contextlib.contextmanager
    def _begun(self, paths: tuple[str, ...]) -> Iterator[None]:
        self.repository.begin(paths)
        workspace = Workspace.open(self.repository.root, self.tag, create=True)
        self.tree.begin(workspace.champion_commit)
        problem = self.tree.recover()
        if not problem:
            self.tree.refuse_edits()
        self.repository.bring_support(self.task, paths, workspace)
        measure = self._measure("scorer", workspace)
        executor = executor_of(measure, self._options.workers or 1)
        self._loop = self._make_loop(workspace, measure, executor)
        with executor or contextlib.nullcontext(), self._loop:
            self._follow()
            self._write_table()
            self._measure_holdouts()
            try:
                yield
                self._follow()
            finally:
                self._now.clear()

    # -- parts -----------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """Where the ledger is."""
        return self.place.work

    @property
    def home(self) -> Path:
        """The user's own folder, which its settings name files from."""
        return self.place.folder

    @property
    def notify(self) -> Notify:
        """Who is told of what."""
        return self.task.notify

    @property
    def tracker(self) -> str | None:
        """Where trials are tracked, too."""
        return self.task.tracker.name

    @property
    def git_root(self) -> Path:
        """The top of its private repository."""
        return self.repository.root

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Under which settings scores were measured."""
        task = self.task.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        shown: dict[str, Any] = {n: task[n] for n in ("runner", "scorer") if n in task}
        header = (self.ledger.records("study") or [{}])[-1]
        return {**shown, "sandbox": header.get("sandbox", "none yet")}

    @property
    def tag(self) -> str:
        """The study's name is the task's."""
        return self.task.id

    @property
    def loop(self) -> Loop:
        """The loop; only inside `write`."""
        if self._loop is None:
            raise RuntimeError("this study was opened to be read")
        return self._loop

    @property
    def guard(self) -> Guard:
        """The scorer's files; only inside `write`."""
        if self._guard is None:
            raise RuntimeError("this study was opened to be read")
        return self._guard

    @property
    def repository(self) -> Repository:
        """The private repository, made or not."""
        return Repository(self.place)

    @property
    def workspace(self) -> Workspace:
        """The study's git, the loop's own inside `write`. Raises TaskError if it has not begun."""
        return self._unwritten if self._loop is None else self._loop.workspace

    @cached_property
    def _unwritten(self) -> Workspace:
        if not self.repository.exists:
            raise TaskError(
                f"{self.place.file.name}: no study has begun",
                f"begin it with `autoresearch task run {self.place.file}`",
            )
        return Workspace.open(self.repository.root, self.tag)

    @cached_property
    def tree(self) -> MainTree:
        """The artifacts in the task's own folder."""
        from autoresearch.engine.git import open_repository

        return MainTree(self.place, self.task, open_repository(self.repository.root))

    @property
    def state(self) -> State:
        """What the ledger says now."""
        return State.of(self.ledger.records())

    @property
    def runs(self) -> Path:
        """Where runs leave their logs and outputs."""
        return self.place.work / "runs"

    def run_folder(self, trial_id: int) -> Path:
        """Where the runs of one trial are."""
        return self.runs / f"{trial_id:04d}"

    @property
    def now_file(self) -> Path:
        """Where the running loop says what it is at; see `autoresearch.now`."""
        return self.place.work / "now.json"

    @property
    def control(self) -> Control:
        """What is asked of the running loop from outside."""
        return Control(self.now_file.with_name(CONTROL_NAME))

    @cached_property
    def _now(self) -> Now:
        return Now(self.now_file)

    def digest(self) -> Digest:
        """What proposers are told of the past."""
        return digest_of(self.task, self.ledger, self.state.champion)

    def mutator(self) -> WatchedProposer:
        """Who proposes; only inside `write`. Raises ProposerError."""
        assert self._tier is not None
        return mutator_of(self.task, self.guard, self._tier)

    def holdouts(self) -> dict[int, dict[str, Any]]:
        """The record of the held-out score by trial, of those that were measured."""
        return {int(record["trial"]): record for record in self.ledger.records(HOLDOUT)}

    # -- beginning -------------------------------------------------------------------------------

    def _refuse_other_task(self) -> None:
        """One folder takes the records of one task."""
        for record in self.ledger.records("study")[-1:]:
            if record.get("tag") != self.tag:
                raise TaskError(
                    f"{self.place.work} holds the records of the task {record.get('tag')!r}, not "
                    f"of {self.tag!r}",
                    f"begin anew: mv {self.place.work} {self.place.work}.{record.get('tag')}",
                )

    def _make_loop(self, workspace: Workspace, measure: Measure, executor: Executor | None) -> Loop:
        return Loop(
            self.task,
            workspace,
            self.ledger,
            measure,
            policy_of(self.task.policy),
            runs=self.runs,
            rules=RULES,
            program=self._program,
            on_event=self._event,
            frontier=self._options.frontier,
            combine=self._options.combine,
            control=self.control,
            executor=executor,
        )

    def _program(self) -> Program:
        """program.md beside the task file; where it has no text but notes, the description."""
        program = Program.read(self.place.folder / PROGRAM_NAME)
        return replace(program, text=program.text or self.task.description)

    def _measure(self, role: str, workspace: Workspace) -> CommandMeasure:
        assert self._tier is not None
        support = self.repository.support_digest(self.task, workspace.champion_commit)
        score_id = score_id_of(self.task, role, self.guard.digests[role], support)
        measure = CommandMeasure(self.task, self.guard, self._tier, score_id, role)
        return measure.remember(run for trial in self.ledger.trials() for run in trial.replicates)

    def _write_header(self) -> None:
        """Say in the ledger under which settings the study goes on, where they are new."""
        assert self._tier is not None
        inputs = self.guard.inputs.summary()
        facts = {
            "kind": "study",
            "tag": self.tag,
            "file": self.place.file.name,
            "task": self.task.model_dump(mode="json", exclude={"notify", "tracker"}),
            "inputs": inputs,
            "sandbox": self._tier.name,
            "versions": {"autoresearch": _version(), "python": sys.version.split()[0]},
        }
        last = (self.ledger.records("study") or [{}])[-1]
        old = last.get("inputs", {})
        changed = [path for path in sorted({*old, *inputs}) if old.get(path) != inputs.get(path)]
        if last and changed:
            names = ", ".join(changed)
            text = f"inputs changed since the last run: {names}; the champion is measured anew"
            self.on_event("warning", {"message": text})
        if {name: last.get(name) for name in facts} != facts:
            at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            self.ledger.append({**facts, "at": at})

    # -- after a decision ------------------------------------------------------------------------

    def _event(self, name: str, data: Mapping[str, Any]) -> None:
        self._now.take(name, data)
        self.on_event(name, data)
        if name != "decided":
            return
        self._write_table()
        trial = Trial.from_dict(data["trial"])
        if trial.status is TrialStatus.KEEP:
            self._follow(str(trial.commit))
            self._measure_holdout(trial)

    def _write_table(self) -> None:
        write_text(self.root / TSV_NAME, export_tsv(self.ledger.trials()))

    def _follow(self, commit: str | None = None) -> None:
        """Let the user's own files be the champion's. An edit of theirs is left, and told."""
        reason = self.tree.follow(commit or self.loop.workspace.champion_commit)
        if reason:
            text = f"{reason}: the champion's files were not put there; `autoresearch export` does"
            self.on_event("warning", {"message": text})

    def _measure_holdouts(self) -> None:
        """Those that a kill left out."""
        known = self.holdouts()
        for trial in self.loop.state.trials.values():
            if trial.status is TrialStatus.KEEP and trial.id not in known:
                self._measure_holdout(trial)

    def _measure_holdout(self, trial: Trial) -> None:
        """Score a kept program with the held-out scorer, and record it. It decides nothing."""
        if self.task.holdout is None:
            return
        workspace = self.loop.workspace
        folder = workspace.program(str(trial.commit), trial.id, HOLDOUT)
        run_dir = self.run_folder(trial.id) / HOLDOUT
        shutil.rmtree(run_dir, ignore_errors=True)
        # Beside other runs it is passed over: what it is at would be taken for what they are at.
        told = _ignore if self.loop.in_flight else self._now.take
        try:
            measure = self._measure(HOLDOUT, workspace)
            run: Replicate = measure(MeasureRequest(folder, 0, run_dir, told))
        finally:
            workspace.drop(folder)
        record = {"kind": HOLDOUT, "trial": trial.id, "run": run.to_dict()}
        self.ledger.append(record)
        self.on_event(HOLDOUT, record)


def _ignore(name: str, data: Mapping[str, Any]) -> None:
    """Takes an event and does nothing."""


def score_id_of(task: TaskFile, role: str, files: str, support: str) -> str:
    """Names all that a score depends on beside the artifacts. Scores of two ids aren't compared."""
    scorer = task.holdout if role == HOLDOUT else task.scorer
    assert scorer is not None
    facts = {
        "objective": [task.objective.metric, task.objective.direction],
        "runner": None if task.runner is None else task.runner.model_dump(mode="json"),
        "scorer": scorer.model_dump(mode="json", exclude={"timed"}),
        "files": files,
        "support": support,
        "machine": [platform.system(), platform.machine(), os.cpu_count()],
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

"""The study of a workspace: its settings, task, git, ledger and loop, opened from one folder.

    study = Study.read(folder)                      # status, results, show, verify, export
    with Study.write(folder, Options(tag="mar5")) as study:      # run, trial, undo
        study.loop.run(study.proposer("search", {}), Budget(hours=8))

A workspace holds one study at a time. `results.jsonl` is its ledger, `results.tsv` upstream's five
columns of it, `.autoresearch/runs/TAG` what its runs left.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from autoresearch.engine.control import Control
from autoresearch.engine.git import open_repository
from autoresearch.engine.holder import Claim
from autoresearch.engine.ledger import Ledger, export_tsv
from autoresearch.engine.loop import Loop
from autoresearch.engine.proposers import Proposer, find_proposer
from autoresearch.engine.sandbox import Tier
from autoresearch.engine.state import State
from autoresearch.engine.task import Event, Task
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.engine.workspace import OWN_FOLDER, Workspace
from autoresearch.loop_parts import make_executor, make_harness, make_loop, sandbox_of, slots_of
from autoresearch.notify import Notify
from autoresearch.now import Now
from autoresearch.pretraining import ARTIFACT
from autoresearch.sampling import champion_writes
from autoresearch.search_space import HINTS, validity
from autoresearch.settings_file import read_part
from autoresearch.task_table import read_task
from autoresearch.trackers import Tracking
from autoresearch.weights import Keeping, settle
from prepare.errors import UsageError
from prepare.settings import FILE_NAME, Settings

LEDGER_NAME = "results.jsonl"
TSV_NAME = "results.tsv"
PROGRAM_NAME = "program.md"
CONTROL_NAME = "control.json"
BRANCH_PREFIX = "autoresearch/"


@dataclass(frozen=True)
class Options:
    """How a study is driven this time; None takes what autoresearch.toml or the ledger says.

    workers: runs made at the same time, None for one per accelerator; more than accelerators only
    where they may `share_device`. engine: "local", or "ray" for the cluster at `address`, where
    devices of the kind `confirm` decide, "" for the first there is, and those of `screen`, if any,
    sort candidates out first; devices there have `memory` GiB, None for what the preset asks.
    """

    tag: str | None = None
    policy: str | None = None
    confidence: float | None = None
    prune: bool = True
    backend: str | None = None
    attention: str | None = None
    sandbox: str = "auto"
    frontier: int = 1
    combine: bool = True
    workers: int | None = 1
    share_device: bool = False
    engine: str = "local"
    address: str = ""
    confirm: str = ""
    screen: str = ""
    memory: float | None = None


@dataclass
class Study:
    """One study. `read` gives one to look at; inside `write` its `loop` works."""

    root: Path
    tag: str
    settings: Settings
    task: Task
    ledger: Ledger
    on_event: Event = lambda name, data: None
    _loop: Loop | None = field(default=None, repr=False)
    _state: State = field(default_factory=State, repr=False)
    _warned: bool = field(default=False, repr=False)
    _shared_by: int = field(default=1, repr=False)  # runs that share a device
    jail: tuple[str | None, Tier] | None = field(default=None, repr=False)  # backend, sandbox
    _taken: tuple[int, str] = (0, "")  # records in _state, and the hash of the last one

    @classmethod
    def read(cls, folder: Path, options: Options | None = None) -> Study:
        """The study that `folder` holds. Raises PrepareError and EngineError."""
        options = options or Options()
        _refuse_task(folder)
        settings = Settings.load(folder)
        root = folder.resolve()
        ledger = Ledger(root / LEDGER_NAME)
        task = read_task(root / FILE_NAME, options.policy, options.confidence)
        return cls(root, _tag(root, ledger, options.tag), settings, task, ledger)

    @classmethod
    @contextlib.contextmanager
    def write(
        cls,
        folder: Path,
        options: Options | None = None,
        on_event: Event | None = None,
        refuse_edits: bool = False,
    ) -> Iterator[Study]:
        """The study with its loop, as the one writer. A missing one begins at what is checked out.

        refuse_edits: before anything is begun, refuse artifacts that aren't committed. Raises
        LedgerBusy naming the other writer, UncommittedChanges, and what opening can raise.
        """
        options = options or Options()
        study = cls.read(folder, options)
        if on_event is not None:
            study.on_event = on_event
        if refuse_edits:
            unopened = Workspace(study.root, study.tag, open_repository(study.root))
            unopened.refuse_uncommitted(study.task)
        _ = study.keeping  # what is wrong there is told now
        sandbox, slots = sandbox_of(options.sandbox), slots_of(options, study.settings.devices)
        Workspace.open(study.root, study.tag, create=True)
        with study._claim(), contextlib.ExitStack() as open_things:
            study._refuse_lost_ledger()
            study.jail = options.backend, sandbox
            harness = make_harness(study, options, sandbox, slots)
            executor = make_executor(study, options, harness, slots, study._event)
            if executor is not None:
                open_things.enter_context(executor)
            study._loop = make_loop(study, options, harness, executor, slots, study._event)
            study._set_strange_tsv_aside()
            with study._loop:
                study._write_header(options)
                study._shared_by = slots[0].shared_by
                study._after_decision()
                study._settle_weights(sweep=True)
                try:
                    yield study
                    if executor is not None:
                        champion_writes(study)
                finally:
                    study._now.clear()

    def _claim(self) -> Claim:
        """The sole right to work on the study. A ledger is claimed too, but each worktree of a
        repository has its own, and they have the study's branch in common."""
        common = open_repository(self.root).common_folder()
        return Claim(common / f"autoresearch-{self.tag}", f"the study {self.tag}")

    def _refuse_lost_ledger(self) -> None:
        """Raises UsageError if git has trials of the study and the ledger none: beginning anew
        would drop what they left."""
        known = self.workspace.trial_commits()
        if known and not self.state.trials:
            raise UsageError(
                f"{self.ledger.path} has no trials of the study {self.tag}, and git has: "
                f"{', '.join(map(str, sorted(known)))}",
                f"bring the {LEDGER_NAME} back that they are in, or begin another: --tag NAME",
            )

    # -- parts -----------------------------------------------------------------------------------

    @property
    def loop(self) -> Loop:
        """The loop; only inside `write`."""
        if self._loop is None:
            raise RuntimeError("this study was opened to be read")
        return self._loop

    @cached_property
    def workspace(self) -> Workspace:
        """The study's git. Raises WorkspaceError if it has not begun."""
        return Workspace.open(self.root, self.tag)

    @property
    def state(self) -> State:
        """What the ledger says now. Asked again, it takes in only what is new."""
        records = self.ledger.records()
        count, head = self._taken
        if count > len(records) or (count and records[count - 1]["hash"] != head):
            self._state, count = State(), 0  # another ledger
        for record in records[count:]:
            self._state.take(record)
        self._taken = len(records), str(records[-1]["hash"]) if records else ""
        return self._state

    @property
    def home(self) -> Path:
        """The user's own folder, which its settings name files from."""
        return self.root

    @property
    def git_root(self) -> Path:
        """The top of its repository: the workspace itself."""
        return self.root

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Under which settings scores were measured."""
        return self.settings.model_dump(exclude_none=True)

    @property
    def runs(self) -> Path:
        """Where runs leave their logs, weights and curves."""
        return self.root / OWN_FOLDER / "runs" / self.tag

    def run_folder(self, trial_id: int) -> Path:
        """Where the runs of one trial are."""
        return self.runs / f"{trial_id:04d}"

    @property
    def weights(self) -> Path:
        """Where the weights of champions are kept; see `autoresearch.weights`."""
        return self.root / OWN_FOLDER / "weights" / self.tag

    @cached_property
    def keeping(self) -> Keeping:
        """Whose weights are kept. Raises UsageError."""
        return read_part(self.root / FILE_NAME, "weights", Keeping)

    @cached_property
    def notify(self) -> Notify:
        """Who is told of what. Raises UsageError."""
        return read_part(self.root / FILE_NAME, "notify", Notify)

    @cached_property
    def tracker(self) -> str | None:
        """Where trials are tracked, too. Raises UsageError."""
        return read_part(self.root / FILE_NAME, "tracker", Tracking).name

    def proposer(self, name: str, options: Mapping[str, Any]) -> Proposer:
        """The proposer of that name, `search` with what is known about train.py's constants.

        Raises ProposerError: unknown, wrongly configured, or not installed.
        """
        if name == "search":
            known: dict[str, Any] = {
                "hints": HINTS,
                "valid": validity(self.settings.max_seq_len, self.settings.devices),
                "seed": self.settings.seed,
                "direction": self.task.objective.direction,
            }
            return find_proposer(name, {**known, **options})
        proposer = find_proposer(name, options)
        check = getattr(proposer, "check", None)
        if check is not None:
            check()  # a missing program is told now, not after the baseline
        return proposer

    # -- what is written beside the ledger -------------------------------------------------------

    @property
    def program_file(self) -> Path:
        """What the human wants."""
        return self.root / PROGRAM_NAME

    @property
    def champion_file(self) -> Path:
        """The champion's train.py, for who wants to read it."""
        return self.root / OWN_FOLDER / f"champion-{self.tag}.py"

    @property
    def now_file(self) -> Path:
        """Where the running loop says what it is at; see `autoresearch.now`."""
        return self.root / OWN_FOLDER / "now.json"

    @property
    def control(self) -> Control:
        """What is asked of the running loop from outside."""
        return Control(self.now_file.with_name(CONTROL_NAME))

    @cached_property
    def _now(self) -> Now:
        return Now(self.now_file)

    def _event(self, name: str, data: Mapping[str, Any]) -> None:
        self._now.take(name, data)
        if name == "begin":
            self._note_sharing()
        if name == "decided":
            self._after_decision()
            if data["trial"]["status"] == TrialStatus.KEEP.value:
                self._settle_weights()
                if self.loop.executor is None:  # with several runs at once one is being timed
                    self._now.take("phase", {"phase": "having the champion write a text"})
                    champion_writes(self)
        self.on_event(name, data)
        if name in ("begin", "decided"):
            self._warn_of_constraints()

    def _note_sharing(self) -> None:
        """Say in the ledger how many runs share a device from now on, where that is new."""
        if self._shared_by > 1 and self.settings.token_budget is None and self._by_time():
            text = "runs share this device by time: one whose neighbour is idle or loading gets "
            text += "more of it, and a better score. `token_budget` in autoresearch.toml, in place "
            text += "of `time_budget`, makes scores that don't depend on it"
            self.on_event("warning", {"message": text})
        before = ([1] + [int(r["shared_by"]) for r in self.ledger.records("sharing")])[-1]
        if before == self._shared_by:
            return
        if self.state.trials:
            text = f"{self._shared_by} at once on a device, not {before} as before: scores mean "
            text += "something else, so the champion is measured anew"
            self.on_event("warning", {"message": text})
        self.ledger.append({"kind": "sharing", "shared_by": self._shared_by, "at": _utc()})

    def _by_time(self) -> bool:
        """Do those who share the device take turns on it? Of a processor each has its own cores."""
        import backends

        backend = None if self.jail is None else self.jail[0]
        return backends.detected(backend).backend != "cpu"

    def _warn_of_constraints(self) -> None:
        """Once: a bound that the baseline breaks itself refuses everything that doesn't mend it."""
        metrics = self.state.baseline_metrics
        broken = self.task.broken_constraint(metrics, metrics) if metrics else ""
        if broken and not self._warned:
            text = f"the baseline itself breaks a constraint: {broken}"
            self.on_event("warning", {"message": text})
            self._warned = True

    def _after_decision(self) -> None:
        """Derive what others read: upstream's table, and the champion's train.py."""
        write_text(self.root / TSV_NAME, export_tsv(self.state.trials.values()))
        source = self.workspace.read(self.workspace.champion_commit, ARTIFACT)
        write_text(self.champion_file, source.decode("utf-8", "replace"))

    def _settle_weights(self, sweep: bool = False) -> None:
        for problem in settle(self, sweep):
            self.on_event("warning", {"message": problem})

    def _set_strange_tsv_aside(self) -> None:
        """An agent that keeps upstream's table by itself must not lose it to ours."""
        table = self.root / TSV_NAME
        if table.is_file() and not self.ledger.path.exists():
            os.replace(table, table.with_name(f"{TSV_NAME}.before-{self.tag}"))

    def _write_header(self, options: Options) -> None:
        """Say in the ledger under which settings the study goes on, where they are new."""
        now = self.settings.model_dump(mode="json")
        facts = {
            "kind": "study",
            "tag": self.tag,
            "task": self.task.model_dump(mode="json"),
            "settings": now,
            "prune": options.prune,
            "sandbox": options.sandbox,
            "versions": {
                "autoresearch": _version(),
                "python": sys.version.split()[0],
            },
        }
        last = (self.ledger.records("study") or [{}])[-1]
        # A setting that is newer than the ledger had its default.
        usual = Settings.model_validate({}).model_dump(mode="json")
        before = {**usual, **last.get("settings", now)}
        keys = [key for key in now if now[key] != before.get(key)]
        if keys:
            other = ", ".join(f"{key} {before.get(key)} -> {now[key]}" for key in keys)
            text = f"other settings than before: {other}; the champion is measured by them, too"
            self.on_event("warning", {"message": text})
        if {name: last.get(name) for name in facts} != facts:
            self.ledger.append({**facts, "at": _utc()})


def _refuse_task(folder: Path) -> None:
    """Raises UsageError where a task file lies, and no workspace."""
    from autoresearch.opening import go_on, task_of

    if task_of(folder) is not None:
        raise UsageError(f"{folder} is a task's and no workspace", f"take `{go_on(folder)}`")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    os.replace(fresh, path)


def champions(records: list[dict[str, Any]]) -> list[int]:
    """Ids of the trials that were champion, in order; one brought back stands there again."""
    found = []
    for record in records:
        if record.get("kind") == "trial" and record.get("status") == TrialStatus.KEEP.value:
            found.append(int(record["id"]))
        elif record.get("kind") == "champion":
            found.append(int(record["trial"]))
    return found


def lineage(state: State) -> list[Trial]:
    """The champion and the champions that it stands on, the baseline first."""
    found: list[Trial] = []
    at = state.champion
    while at is not None and at in state.trials and all(t.id != at for t in found):
        found.append(state.trials[at])
        at = state.trials[at].parent
    return found[::-1]


def _tag(root: Path, ledger: Ledger, given: str | None) -> str:
    """The study's name: the ledger's, else the one given, the branch's, or today's."""
    headers = ledger.records("study")
    if headers:
        tag = str(headers[-1]["tag"])
        if given is not None and given != tag:
            raise UsageError(
                f"{ledger.path.name} holds the study {tag!r}, not {given!r}",
                f"go on without --tag, or begin anew: mv {LEDGER_NAME} {LEDGER_NAME}.{tag}",
            )
        return tag
    if given is not None:
        return given
    branch = current_branch(root)
    if branch.startswith(BRANCH_PREFIX):
        return branch.removeprefix(BRANCH_PREFIX)
    today = datetime.date.today()
    return f"{today:%b}{today.day}".lower()


def current_branch(root: Path) -> str:
    """The branch that is checked out, "" where there is none. Raises WorkspaceError."""
    ref = open_repository(root).maybe("symbolic-ref", "--quiet", "HEAD") or ""
    return ref.removeprefix("refs/heads/")


def _version() -> str:
    try:
        return metadata.version("autoresearch")
    except metadata.PackageNotFoundError:
        return "not installed"


def _utc() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

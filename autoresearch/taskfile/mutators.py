"""Who edits the artifacts of a task: one of the engine's proposers, watched.

proposer = mutator_of(task, guard, tier)      # raises ProposerError
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoresearch.engine.constants import constants_of
from autoresearch.engine.proposers.base import (
    REFUSED,
    Proposal,
    ProposalRequest,
    Proposer,
    ProposerOptions,
    find_proposer,
)
from autoresearch.engine.sandbox import Tier
from autoresearch.engine.trial import Trial
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import TAMPERED
from autoresearch.taskfile.model import Mutator, TaskFile
from autoresearch.taskfile.score import PHASE


@dataclass
class WatchedProposer:
    """A proposer with the task's deadline, who isn't asked to mend what isn't its own fault."""

    inner: Proposer
    guard: Guard
    seconds: float
    name: str = field(init=False)
    _proposed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.name = self.inner.name

    def propose(self, request: ProposalRequest) -> Proposal:
        """As the inner proposer; the scorer's crash is none of a candidate's to mend."""
        failure = request.failure
        if failure is not None and failure.phase == PHASE:
            text = "the scorer failed, not the edit"
            return Proposal("", problem=text, problem_kind=REFUSED)
        proposal = self.inner.propose(replace(request, seconds=self.seconds))
        if proposal.problem:
            changed = self.guard.tampered()
            if changed:
                text = f"{proposal.problem}; meanwhile {changed} changed on disk ({TAMPERED})"
                return replace(proposal, problem=text)
            return proposal
        self._proposed = True
        changed = self.guard.changes()
        if changed:  # the record says it, also of an edit that is refused before it is measured
            text = f"{proposal.description} [meanwhile {changed} changed on disk: {TAMPERED}]"
            return replace(proposal, description=text)
        return proposal

    def observe(self, trial: Trial) -> None:
        """As the inner proposer; what changed on disk until now is no later edit's doing."""
        if self._proposed:
            self._proposed = False
            self.guard.tampered()
        self.inner.observe(trial)


def mutator_of(task: TaskFile, guard: Guard, tier: Tier) -> WatchedProposer:
    """The proposer that a task names. Raises ProposerError: missing, or wrong options."""
    mutator = task.mutator
    inner = find_proposer(mutator.name or mutator.type, _options(mutator, task, tier))
    if mutator.type == "search":
        _refuse_unsearchable(task, guard.place)
    check = getattr(inner, "check", None)
    if check is not None:
        check()  # a missing program is told now, not after the baseline
    return WatchedProposer(inner, guard, mutator.timeout_seconds)


def _refuse_unsearchable(task: TaskFile, place: Place) -> None:
    """Raises ProposerOptions where `search` has nothing to vary, before anything is measured."""
    sources = [p for p in place.programs(task) if task.artifacts.match(p) and p.endswith(".py")]
    if any(_constants(place.folder / path) for path in sources):
        return
    raise ProposerOptions(
        f"{place.file.name}: mutator: search has nothing to vary: no artifact is a Python file "
        "with upper-case constants",
        "write what may vary as lines like `LEVEL = 6`, or let a command or an agent propose",
    )


def _constants(path: Path) -> bool:
    try:
        return bool(constants_of(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError):
        return True  # what is wrong with it is told when it is run


def _options(mutator: Mutator, task: TaskFile, tier: Tier) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if mutator.type == "command":
        own = {"command": mutator.command, "cwd": mutator.cwd, "network": mutator.network}
        own["tier"] = tier if mutator.sandbox else None
    if mutator.type == "search":
        own = {"direction": task.objective.direction}
    if mutator.type in ("command", "agent"):
        own["pass_env"] = mutator.pass_env
    return {**own, **mutator.options}

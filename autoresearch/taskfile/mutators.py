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
from autoresearch.taskfile.measure import TAMPERED, tampered
from autoresearch.taskfile.model import Mutator, TaskFile
from autoresearch.taskfile.score import PHASE


@dataclass
class WatchedProposer:
    """A proposer with the task's deadline, who isn't asked to mend what isn't its own fault.

    An edit is rejected if the scorer's files changed on disk while it was made. Several are made at
    the same time where the inner proposer may be asked so.
    """

    inner: Proposer
    guard: Guard
    seconds: float
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.inner.name

    @property
    def instant(self) -> bool:
        """Does the inner proposer answer in a moment?"""
        return bool(getattr(self.inner, "instant", False))

    @property
    def reentrant(self) -> bool:
        """May the inner proposer be asked in several threads at the same time?"""
        return bool(getattr(self.inner, "reentrant", False))

    def propose(self, request: ProposalRequest) -> Proposal:
        """As the inner proposer; the scorer's crash is none of a candidate's to mend."""
        failure = request.failure
        if failure is not None and failure.phase == PHASE:
            text = "the scorer failed, not the edit"
            return Proposal("", problem=text, problem_kind=REFUSED)
        with self.guard.changes.watched() as meanwhile:
            proposal = self.inner.propose(replace(request, seconds=self.seconds))
            changed = meanwhile()
        if not changed:
            return proposal
        if proposal.problem:
            text = f"{proposal.problem}; meanwhile {changed} changed on disk ({TAMPERED})"
            return replace(proposal, problem=text)
        broken = tampered(changed, "while the candidate was made")
        return replace(proposal, broke_rule=f"{broken.phase}: {broken.kind}: {broken.message}")

    def observe(self, trial: Trial) -> None:
        """As the inner proposer."""
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

"""The user's own checkout as a proposal: what `autoresearch trial` measures.

tag = study_of(root, study)             # switches to the study's branch where that is safe
change = working_edit(study)            # the edit of train.py that lies there
outcome = study.loop.trial(CheckoutEdit(change, "another learning rate"))
left = put_back(study, change)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoresearch.engine.change import Change
from autoresearch.engine.errors import Rejected
from autoresearch.engine.git import open_repository
from autoresearch.engine.proposers.base import REFUSED, UNKNOWN_COST, Proposal
from autoresearch.engine.trial import Failure
from autoresearch.study import BRANCH_PREFIX, PROGRAM_NAME, Study, current_branch
from prepare.errors import UsageError

PROPOSER = "checkout"


@dataclass(frozen=True)
class CheckoutEdit:
    """Copies an edit that was made in the checkout into a trial's scratch folder. Mends nothing."""

    change: Change
    description: str
    predicted: float | None = None
    proposer: str = PROPOSER

    def __call__(self, scratch: Path, failure: Failure | None, attempt: int) -> Proposal:
        """Write the edited artifacts; a failed edit goes back to whoever made it."""
        if attempt:
            return Proposal(self.description, problem="not mended here", problem_kind=REFUSED)
        for file in self.change.files:
            place = scratch / file.path
            if file.new is None:
                place.unlink(missing_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.new)
        details = {"proposer": self.proposer}
        return Proposal(self.description, self.predicted, UNKNOWN_COST, details=details)


def switch_to_study(study: Study) -> str:
    """Check the study's branch out, keeping what is edited; says what was done, or "".

    Called by the study's writer: what another one works on isn't switched to. Raises UsageError
    when the edit was made on something else than the champion.
    """
    branch = f"{BRANCH_PREFIX}{study.tag}"
    if current_branch(study.root) == branch:
        return ""
    git = open_repository(study.root)
    there = git.commit_of(f"refs/heads/{branch}")
    if there != git.commit_of("HEAD") and git.maybe("status", "--porcelain", "-uno"):
        raise UsageError(
            f"the study is on {branch}, and what is edited here is based on another commit",
            f"git stash && git switch {branch} && git stash pop",
        )
    git("switch", "--quiet", branch)
    if not study.state.trials:
        return f"the study {study.tag} begins here, on a branch of its own: {branch}"
    return f"switched to {branch}"


def working_edit(study: Study) -> Change:
    """The edit of artifacts in the checkout. Raises Rejected when other tracked files differ.

    program.md may: it is the human's, and what is measured is the commit with the edit alone.
    """
    change = study.workspace.collect_checkout(study.task)
    others = [item for item in change.outside if item.how != "new" and item.path != PROGRAM_NAME]
    if others:
        raise Rejected(
            "not-an-artifact",
            f"{', '.join(map(str, others))}: only {', '.join(study.task.artifacts.include)} may "
            "be changed",
            "take that change back, or, if you are the human here, commit it",
        )
    return change


def put_back(study: Study, change: Change) -> tuple[str, ...]:
    """Bring the checkout back to the champion; what was edited on meanwhile is left, and named."""
    return study.workspace.revert_checkout(change)

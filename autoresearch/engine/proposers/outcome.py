"""What came of a program that was to propose: judged by the diff it left, nothing else."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from autoresearch.engine.proposers.base import (
    CANCELLED,
    FAILED,
    FLOOD,
    NO_EDIT,
    TIMEOUT,
    UNKNOWN_COST,
    Proposal,
    ProposalRequest,
    changed_files,
    snapshot,
    touches,
)
from autoresearch.engine.proposers.process import Finished
from autoresearch.engine.proposers.text import last_lines, one_line
from autoresearch.engine.trial import Cost

_STOPPED = {"deadline": TIMEOUT, "output": FLOOD, "cancelled": CANCELLED}


def judge(
    request: ProposalRequest,
    before: Mapping[str, str],
    done: Finished,
    *,
    description: str,
    predicted: float | None,
    cost: Cost = UNKNOWN_COST,
    name: str = "the program",
    failure: str = "",
    exits: Mapping[int, str] | None = None,
    message: str = "",
) -> Proposal:
    """The proposal of a program that ended.

    One that we had to stop proposes nothing: its edit may be half done. One that ended by itself
    has proposed what it edited, whatever its exit code; without an edit, `failure` (what it said),
    its exit code (`exits` knows some) or the lack of an edit is the problem. `message` is what it
    said at last: it stands for the output where that is a stream of events.
    """
    changed = changed_files(before, snapshot(request.folder))
    edited = touches(changed, request.artifacts)
    kind, problem = "", ""
    if done.stopped:
        kind = _STOPPED[done.stopped]
        problem = {
            TIMEOUT: f"{name} was not done after {request.seconds:.0f} s",
            FLOOD: f"{name} printed without end",
            CANCELLED: f"{name} was stopped on request",
        }[kind]
    elif done.returncode < 0:
        kind, problem = FAILED, f"{name} died of {_signal(-done.returncode)}"
    elif not edited:
        reason = failure or _exit(done.returncode, exits or {})
        kind = FAILED if reason else NO_EDIT
        others = f"; it changed {', '.join(changed[:3])} instead" if changed else ""
        problem = f"{name} {reason}{others}" if reason else f"{name} left no edit{others}"
    return Proposal(
        description=one_line(description, 300) or _summary(request, changed),
        predicted=predicted,
        cost=cost,
        log_tail=last_lines(message) if message and not problem else done.tail,
        problem=one_line(problem, 400),
        problem_kind=kind,
        seconds=done.seconds,
        changed=changed,
        details={"returncode": done.returncode, "left_over": done.left_over},
    )


def _exit(code: int, exits: Mapping[int, str]) -> str:
    if code == 0:
        return ""
    meaning = f" ({exits[code]})" if code in exits else ""
    return f"exited with status {code}{meaning} and left no edit"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _summary(request: ProposalRequest, changed: tuple[str, ...]) -> str:
    """A description for an edit that its author left without one."""
    inside = [path for path in changed if touches([path], request.artifacts)]
    return f"edit of {', '.join(inside[:3])}, not described" if inside else ""

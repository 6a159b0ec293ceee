"""The prompt of one proposal: what to do, the human's program, what was tried, what failed."""

from __future__ import annotations

from autoresearch.engine.proposers.base import CONFLICT, ProposalRequest
from autoresearch.engine.proposers.text import Fence, last_lines, one_line

PROGRAM_CHARS = 60_000  # of the human's text; a longer one is cut and the cut is said

_REPORT = (
    "End your answer with one line of JSON that says what you changed and which effect on "
    '{metric} you expect, for example {{"description": "halve MATRIX_LR", "predicted": -0.004}}'
)

_START = (
    "Here {artifacts} are those of trial {start}, an earlier champion, not of the present one: a "
    "better program may be reached from there. Your edit is measured against the present champion."
)

_AGENT = (
    "Make one experiment: one idea that may improve {metric} ({better} is better). Edit "
    "{artifacts} in the current folder, nothing else; other edits are thrown away. Keep the edit "
    "small enough that its effect can be told. Don't run, install or commit anything and don't "
    "ask questions: a harness measures your edit when you are done, and keeps or drops it. Where "
    "the program below speaks of running, committing or looping, the harness does that for you."
)


def instructions(request: ProposalRequest, task: str = _AGENT) -> str:
    """The whole prompt; `task` is a template with {metric}, {better} and {artifacts}."""
    digest = request.digest
    words = {
        "metric": digest.metric,
        "better": "lower" if digest.direction == "minimize" else "higher",
        "artifacts": ", ".join(request.artifacts),
    }
    parts = [task.format(**words)]
    if request.start is not None:
        parts.append(_START.format(**words, start=request.start))
    if request.failure is not None:
        parts.append(_mending(request))
    parts.append(_REPORT.format(**words))
    program = request.program.strip()
    if len(program) > PROGRAM_CHARS:
        program = program[:PROGRAM_CHARS] + "\n[cut here: program.md goes on]"
    if program:
        # The copy in the folder is the commit's.
        parts.append("# The human's program (program.md as it is now)\n\n" + program)
    if request.notes.strip():
        parts.append(
            "# The human's notes, which win over everything else\n\n"
            + request.notes.strip()[:PROGRAM_CHARS]
        )
    parts.append(digest.markdown())
    parts.append("Make your one edit now.")
    return "\n\n".join(parts) + "\n"


def _mending(request: ProposalRequest) -> str:
    """What went wrong with the edit that is in the folder; the log is fenced as data."""
    failure = request.failure
    if failure is None:
        raise ValueError("there is no failure to mend")
    fence: Fence = request.digest.fence
    if failure.kind == CONFLICT:
        log = fence.wrap(failure.log_tail)
        return (
            "Your last edit was made on an earlier champion, and doesn't merge with the edits of "
            "the present one, whose files are in the current folder. Make your idea work there, in "
            f"place of what you did or beside it. {fence.rule} This was your edit:\n\n{log}"
        )
    log = fence.wrap(f"{failure.message}\n{last_lines(failure.log_tail)}".strip())
    return (
        f"Your last edit is in place and failed: {one_line(failure.kind, 40)} in "
        f"{one_line(failure.phase, 40)} (attempt {request.attempt} of mending it). Mend it with a "
        "small further edit, or take the idea back and leave what works. "
        f"{fence.rule} This is what it printed:\n\n{log}"
    )

"""An edit that is handed in rather than made in the checkout: `autoresearch trial --edit FILE`.

    change = submitted_edit(study, data, on=7)      # a whole train.py, a patch, or blocks
    outcome = study.loop.trial(CheckoutEdit(change, "another learning rate"))

The checkout is neither read nor written.
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.engine.change import Change
from autoresearch.engine.errors import GitFailed, Rejected
from autoresearch.engine.git import Git
from autoresearch.engine.proposers.blocks import SEARCH, InvalidBlocks, apply_blocks, parse_blocks
from autoresearch.engine.state import BASELINE
from autoresearch.pretraining import ARTIFACT
from autoresearch.study import Study
from prepare.errors import UsageError

# How a unified diff begins, and no program that somebody would write.
_PATCH = (b"diff --git ", b"--- ", b"Index: ")


def submitted_edit(study: Study, data: bytes, on: int | None = None) -> Change:
    """What `data` makes of the champion's train.py; called by the study's writer.

    data: the whole new train.py, a unified diff, or search/replace blocks (see
    `engine.proposers.blocks`). on: the trial that was champion when the edit was made. Raises
    UsageError when another is by now, when the patch doesn't fit or changes nothing, Rejected when
    it touches other files.
    """
    refuse_moved(study, on)
    scratch = study.workspace.scratch(study.state.next_id, "submitted")
    try:
        place(scratch, data)
        change = study.workspace.collect(scratch, study.task)
    finally:
        study.workspace.drop(scratch)
    if change.outside:
        touched = ", ".join(map(str, change.outside[:5]))
        raise Rejected("not-an-artifact", f"{touched}: only {ARTIFACT} may be changed")
    if change.empty:
        raise UsageError(f"nothing was edited: that is the champion's {ARTIFACT}", "edit it first")
    return change


def refuse_moved(study: Study, on: int | None) -> None:
    """Raises UsageError if the champion isn't trial `on`: a whole text would undo what came since.

    Before the first trial the champion counts as trial 0, which the baseline is going to be.
    """
    champion = BASELINE if study.state.champion is None else study.state.champion
    if on is not None and on != champion:
        raise UsageError(
            f"the edit was made on trial {on}, and the champion is trial {champion} by now",
            "read the champion's train.py again, and make the edit on that",
        )


def place(scratch: Path, data: bytes) -> None:
    """Put the edit into a folder that holds the champion. Raises UsageError."""
    target = scratch / ARTIFACT
    if data.lstrip().startswith(_PATCH):
        try:
            Git(scratch)("apply", "--recount", "--whitespace=nowarn", "-", data=_whole(data))
        except GitFailed as error:
            raise UsageError(
                f"the patch doesn't fit the champion's {ARTIFACT}: {error.message}",
                f"make it again on the champion's {ARTIFACT}, with --- a/{ARTIFACT} and "
                f"+++ b/{ARTIFACT}, or hand in the whole file",
            ) from error
    elif any(line.strip() == SEARCH.encode() for line in data.splitlines()):
        try:
            blocks = parse_blocks(data.decode("utf-8"), (ARTIFACT,))
            text = target.read_bytes().decode("utf-8")
            target.write_bytes(apply_blocks({ARTIFACT: text}, blocks)[ARTIFACT].encode("utf-8"))
        except (InvalidBlocks, UnicodeDecodeError) as error:
            raise UsageError(
                f"the blocks can't be applied: {error}",
                f"take the text to search from the champion's {ARTIFACT}, letter by letter",
            ) from error
    else:
        target.write_bytes(data)


def _whole(patch: bytes) -> bytes:
    """A patch whose last line ends: without that git calls it corrupt."""
    patch = patch.lstrip().replace(b"\r\n", b"\n")
    return patch if patch.endswith(b"\n") else patch + b"\n"

"""What judging asks for on its way: runs to be made, an edit to be mended.

Judging a trial takes hours at times, and many are judged at once in one thread. So it is a
generator: it yields what it needs next, is put aside, and is sent what came of it.

    def judged() -> Steps[float]:
        runs = yield from made(Wanted(folder, 7, seed=0, label="candidate"))
        return runs[0].score

`engine/flight.py` drives many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from autoresearch.engine.proposers.base import Proposal
from autoresearch.engine.task import Curve
from autoresearch.engine.trial import Failure, Replicate

T = TypeVar("T")

# Leaves an edit in the folder. Called again with the failure to mend it, and the attempt's number.
Edit = Callable[[Path, "Failure | None", int], Proposal]


@dataclass(frozen=True)
class Wanted:
    """One run of the program in `folder`, for trial `number`, on a kind of device.

    With `champion_curves` a run that can't catch up with them may be stopped early. program: the
    commit that is run, where what comes of it is for other trials, too.
    """

    folder: Path
    number: int
    seed: int
    label: str
    champion_curves: tuple[Curve, ...] = ()
    kind: str = ""
    program: str = ""


def _never(place: int, run: Replicate) -> bool:
    return False


@dataclass(frozen=True)
class Batch:
    """Runs that may be made at the same time.

    enough: whether those behind the run in this place are of no use any more after what came of
    it. They are ended then, and what is sent ends with that run.
    """

    wanted: tuple[Wanted, ...]
    enough: Callable[[int, Replicate], bool] = _never


@dataclass(frozen=True)
class Ask:
    """The edit in `scratch` failed: whoever made it may mend it. A Proposal is sent."""

    edit: Edit
    scratch: Path
    failure: Failure
    attempt: int


@dataclass(frozen=True)
class Turn:
    """Wait until few others have the turn, and have it until the end, or until something is asked.

    Of those that wait the one with the greatest gain is next.
    """

    gain: float


Steps: TypeAlias = Generator["Batch | Ask | Turn", Any, T]


def made(
    wanted: Sequence[Wanted], enough: Callable[[int, Replicate], bool] = _never
) -> Steps[list[Replicate]]:
    """What came of these runs, in their order."""
    runs: list[Replicate] = yield Batch(tuple(wanted), enough)
    return runs


def in_turn(gain: float) -> Steps[None]:
    """Go on when it is this one's turn."""
    yield Turn(gain)


def asked(edit: Edit, scratch: Path, failure: Failure, attempt: int) -> Steps[Proposal]:
    """What came of asking for a repair."""
    proposal: Proposal = yield Ask(edit, scratch, failure, attempt)
    return proposal

"""The first trial of a study: its program as it stands, on several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.executor import LOST
from autoresearch.engine.measuring import measured
from autoresearch.engine.state import BASELINE
from autoresearch.engine.steps import Steps, Wanted, made
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus

if TYPE_CHECKING:
    from autoresearch.engine.judging import Judge

LOST_RETRIES = 2  # how often runs that were lost are made again: the study begins with them


def baseline(judge: Judge, least: int = 0) -> Steps[Trial]:
    """Measure it, on every kind of device that candidates are measured on.

    least: so many seeds at least, where the policy asks for fewer. Raises StudyStopped if it fails.
    """
    seeds = range(max(judge.task.policy.noise_seeds, least))
    commit = judge.workspace.champion_commit
    with judge.program(commit, BASELINE, "baseline") as program:
        wanted = [
            Wanted(program, BASELINE, seed, stage.own[0], kind=stage.kind)
            for stage in filter(None, (judge.screen, judge.confirm))
            for seed in seeds
        ]
        got = yield from _found(wanted)
    failure = next((run.failure for run in reversed(got) if run.failure), None)
    if failure is not None:
        raise _stopped(failure)
    runs = tuple(got[-len(seeds) :])
    calm = [run for run in runs if not run.disturbed]
    reason = f"baseline, measured on {len(runs)} seeds"
    if len(calm) < len(runs):
        disturbed = next(run.disturbed for run in runs if run.disturbed)
        reason += f", {len(runs) - len(calm)} of them disturbed: {disturbed}"
    trial = Trial(
        id=BASELINE,
        parent=None,
        status=TrialStatus.KEEP,
        reason=reason,
        description="baseline",
        commit=commit,
        diff_hash=judge.workspace.champion_hash(judge.task),
        replicates=runs,
        screening=tuple(got[: -len(seeds)]),
    )
    return measured(trial, calm or runs)


def _found(wanted: Sequence[Wanted]) -> Steps[list[Replicate]]:
    """What came of these runs, up to a failure of the program; those that are lost are repeated."""
    got: dict[int, Replicate] = {}
    left = list(range(len(wanted)))
    for _ in range(1 + LOST_RETRIES):
        runs = yield from made([wanted[place] for place in left], lambda _, run: _fails(run))
        got.update(zip(left, runs, strict=False))  # it ends with what fails
        if _fails(runs[-1]):
            break
        left = [place for place in left if got[place].failure is not None]
        if not left:
            break
    return [got[place] for place in sorted(got)]


def _fails(run: Replicate) -> bool:
    """Does the program fail, as far as is known?"""
    return run.failure is not None and run.failure.kind != LOST


def _stopped(failure: Failure) -> StudyStopped:
    if failure.kind == LOST:
        return StudyStopped(
            f"the baseline's run was lost: {failure.message}",
            "see that the devices stay up, and start again",
        )
    return StudyStopped(
        f"the program fails before anything was changed: {failure.phase}: {failure.message}",
        "mend it, see that `autoresearch train` gives a score, and start again",
    )

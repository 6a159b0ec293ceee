"""The demo's last part: `search` improves train.py in a workspace, as `run` does, but in a minute.

    folder = search_workspace(place / "search", "cpu")
    report = run_search(folder, "cpu", None, 100.0, on_event, stopping)

Nothing here is special to the demo but sizes: the workspace is `init`'s, loop, harness, policy and
pruning are those of `autoresearch run`, and the same commands show what they leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.demo import eager
from autoresearch.engine.proposers.space import Hint, Range
from autoresearch.search_space import HINTS
from prepare.settings import FILE_NAME

if TYPE_CHECKING:
    from autoresearch.engine.loop import Loop
    from autoresearch.engine.task import Event
    from autoresearch.engine.trial import Trial

TAG = "demo"
# A run of 5 s took 10.4 s on two nearly idle cores: start-up 1.6, warm-up 0.8, training, scoring
# 2.9. So a search of 110 s has room for about twelve runs of 4 s, the baseline's three among them.
RUN_SECONDS = 4.0
EVAL_BYTES = 20_000
# No trial begins after this many seconds, and no run once as many more are over: a promising trial
# may take six runs. What is cut off is dropped, as if Ctrl-C had been pressed twice.
SEARCH_SECONDS = 110.0
GRACE_SECONDS = 20.0

# What is searched, and how far. From the preset's constants, two seeds each unless said, on two
# cores that others used too: hence with 30,000 tokens, which are 5 s of the two cores alone.
#     as they are                      1.85, standard deviation 0.03 over 5 seeds
#     MATRIX_LR halved, doubled        +0.03, -0.02
#     UNEMBEDDING_LR halved, tripled   +0.17, -0.02
#     TOTAL_BATCH_SIZE doubled         +0.14
#     DEPTH 2 (which halves the width) 69,000 tokens in 5 s, one seed: -0.24
#     DEPTH 8 (which doubles it)       a few steps in 5 s, and a loss that hardly fell
# The preset is set for 40 s: that a smaller model learns more in 4 s is a real finding, far above
# the noise, and about half of all draws go the other way. Batches aren't searched: the preset's is
# one forward pass, which TOTAL_BATCH_SIZE alone can only exceed. The ranges of the sizes end where
# a step would last as long as the run.
SEARCHED: Mapping[str, Hint] = {
    "DEPTH": Range(1, 6),
    "ASPECT_RATIO": Range(16, 64, powers=True),
    "MATRIX_LR": HINTS["MATRIX_LR"],
    "UNEMBEDDING_LR": HINTS["UNEMBEDDING_LR"],
}


@dataclass(frozen=True)
class SearchReport:
    """What the search did: its trials as the ledger has them, and what they mean in two sentences.

    before: trials that were there already. noise: standard deviation of one run's val_bpb, None
    before it is known. gain: what the kept trials came to together, negative is better.
    """

    folder: str
    backend: str
    reason: str
    before: int
    trials: tuple[Trial, ...]
    champion: int | None
    noise: float | None
    gain: float
    seconds: float
    meaning: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        own = {name: value for name, value in vars(self).items() if name != "trials"}
        return {**own, "trials": [trial.to_dict() for trial in self.trials]}


class _TimeIsUp(Exception):
    """Raised when another run would begin too late. Never leaves here."""


def search_workspace(folder: Path, backend: str) -> tuple[Path, bool]:
    """The workspace in `folder`, made as `init` does if there is none; and whether it was there.

    Raises UsageError for a folder that holds something else, MissingTool without git.
    """
    from autoresearch.workspace import new_workspace

    if (folder / FILE_NAME).is_file():
        return folder, True
    settings = {"time_budget": RUN_SECONDS, "eval_bytes": EVAL_BYTES}
    new_workspace(folder, "demo", backend=backend, force=True, settings=settings)
    return folder, False


def run_search(
    folder: Path,
    backend: str,
    trials: int | None,
    seconds: float | None,
    on_event: Event,
    stopping: Callable[[Loop], AbstractContextManager[None]],
) -> SearchReport:
    """Search in a workspace until `trials` more are done or `seconds` are over; None is no limit.

    stopping: what Ctrl-C does meanwhile. Raises PrepareError and EngineError like `run`.
    """
    from autoresearch.awake import awake
    from autoresearch.engine.task import Budget
    from autoresearch.narration import together
    from autoresearch.study import Options, Study, lineage

    began = time.monotonic()
    limits = {"trials": trials, "hours": None if seconds is None else seconds / 3600}
    options = Options(tag=TAG, backend=backend)
    watched = on_event if seconds is None else _until(began + seconds + GRACE_SECONDS, on_event)
    with eager(backend), Study.write(folder, options, watched, True) as study, awake():
        before = len(study.state.trials)
        proposer = study.proposer("search", {"hints": SEARCHED, "only": list(SEARCHED)})
        with stopping(study.loop):
            try:
                reason = study.loop.run(proposer, Budget.model_validate(limits))
                if seconds is not None and not study.loop.stop_asked:
                    reason = f"its {seconds:.0f} seconds are over"  # not in hours, as a budget is
            except _TimeIsUp:
                reason = "its time is over; the trial under way was dropped"
        state = study.state
    found = tuple(state.trials.values())
    noise = state.noise(found[0].score_id) if found else None
    return SearchReport(
        folder=str(folder),
        backend=backend,
        reason=reason,
        before=before,
        trials=found,
        champion=state.champion,
        noise=None if noise is None else noise.sd,
        gain=together(lineage(state)) or 0.0,
        seconds=time.monotonic() - began,
        meaning=meaning(found, None if noise is None else noise.sd, lineage(state)),
    )


def _until(moment: float, on_event: Event) -> Event:
    """Events go on to `on_event`, but no run begins after a moment of the monotonic clock."""

    def watched(name: str, data: Mapping[str, Any]) -> None:
        if name == "run" and time.monotonic() > moment:
            raise _TimeIsUp
        on_event(name, data)

    return watched


def meaning(trials: tuple[Trial, ...], noise: float | None, kept: list[Trial]) -> str:
    """What the trials say, for somebody who sees such a table for the first time."""
    from autoresearch.engine.trial import TrialStatus
    from autoresearch.narration import together

    if not trials:
        return (
            "Not even the baseline was measured in this time, so nothing was tried: this machine "
            "is slow, or busy with other programs. Run the demo again when it has less to do, or "
            "with --trials 3, which has no deadline."
        )
    tried, champions = [t for t in trials if t.parent is not None], len(kept) - 1
    by_luck = "?" if noise is None else f"{noise:.3f}"
    said = (
        f"The same train.py scores differently from seed to seed, here by {by_luck} (standard "
        "deviation), so an idea is kept only when repeated runs show a gain that luck doesn't "
        "explain, and one that is plainly worse is dropped after a single run. "
    )
    if champions:
        said += (
            f"Of {_ideas(len(tried))} {champions} passed: in the same {RUN_SECONDS:.0f} seconds "
            f"of training val_bpb ends {abs(together(kept) or 0.0):.2f} lower than where it began."
        )
    elif tried:
        said += f"Of {_ideas(len(tried))} none passed: most don't, so a real study runs all night."
    else:
        said += "There was time for the baseline alone, and no idea was tried."
    noisy = sum(t.status is TrialStatus.NOISY for t in tried)
    if noisy or any(run.disturbed for run in trials[0].replicates):
        who = f"{_ideas(noisy)} (`noisy`) and perhaps the baseline" if noisy else "The baseline"
        said += (
            f" {who} ran while other programs kept this machine busy: nothing can be concluded "
            "from those runs; close what you can and run the demo again, it goes on from here."
        )
    return said


def _ideas(count: int) -> str:
    return "1 idea" if count == 1 else f"{count} ideas"

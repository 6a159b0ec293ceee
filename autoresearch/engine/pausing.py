"""When a study waits, and for how long: whoever gave nothing gets ever more time.

    seconds = backoff(times)              # 5, 10, 20 ... 900
    why = crashing(state, trial)          # "" while nothing is wrong

What is wrong in the night may be right before the morning: a network that is down, a limit that is
reached, a device that another program filled. Trying again at once would spend the night on it.
"""

from __future__ import annotations

from autoresearch.engine.state import State
from autoresearch.engine.trial import Failure, Trial

SAME_CRASHES = 3  # in a row: then the champion must show that the machine still works
MOST_TIMES = 12  # in a row, about an hour and a half: then it is given up where no hours are given
BACKOFF_SECONDS = 5.0  # doubled from one time to the next
MAX_BACKOFF_SECONDS = 900.0  # a limit of so many requests an hour may need some of these


def backoff(times: int) -> float:
    """Seconds to wait when something went wrong `times` times in a row."""
    return min(BACKOFF_SECONDS * 2.0 ** (min(times, 20) - 1), MAX_BACKOFF_SECONDS)


def crashing(state: State, trial: Trial) -> str:
    """Why the champion should be run before the next proposal: `trial` was the latest. Or ""."""
    failed = next((run.failure for run in trial.champion_replicates if run.failure), None)
    if failed is not None:
        return champion_fails(failed)
    kind, count = state.crashes_in_a_row()
    return f"{count} crashes in a row ({kind})" if count and count % SAME_CRASHES == 0 else ""


def champion_fails(failure: Failure) -> str:
    """`the champion, which ran before, fails: training: out of memory`."""
    return f"the champion, which ran before, fails: {failure.phase}: {failure.message}"

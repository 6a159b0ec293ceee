"""`python -m prepare train.py`: one experiment, printed in upstream's form. See `--help`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import backends
from backends.errors import BackendError
from prepare.errors import CandidateError, PrepareError
from prepare.experiment import run_experiment
from prepare.outcome import Failure, format_summary
from prepare.settings import Settings


class _Lines:
    """Progress as occasional plain lines on standard error."""

    def __init__(self, every: float) -> None:
        self._every, self._last = every, float("-inf")

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        if name == "phase":
            print(f"{data['phase']} ...", file=sys.stderr)
        elif name == "warning":
            print(f"warning: {data['message']}", file=sys.stderr)
        elif name == "progress" and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            loss = "-" if data["loss"] is None else f"{data['loss']:.4f}"
            print(
                f"step {data['step']:05d} | loss {loss} | {data['tokens_per_second']:,.0f} tok/s"
                f" | {data['elapsed']:.0f} of {data['budget']:.0f} s",
                file=sys.stderr,
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment and return the exit code: 0, 2 usage, 3 data, 4 machine, 5 candidate."""
    parser = argparse.ArgumentParser(
        prog="python -m prepare",
        description="Train and score a train module with the settings of its workspace.",
    )
    parser.add_argument("script", type=Path, help="the train module")
    parser.add_argument("--seconds", type=float, help="time budget, instead of the workspace's")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.load(options.script.resolve().parent)
        if options.seconds is not None:
            settings = settings.model_copy(update={"time_budget": options.seconds})
        # Here, where a backend that isn't there is said plainly, and where the speed probes of a
        # first run don't count as the candidate's start-up.
        backends.select()
        outcome = run_experiment(options.script, settings, on_event=_Lines(every=5.0))
    except (PrepareError, BackendError) as error:
        print(f"Error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if isinstance(outcome, Failure):
        if outcome.log_tail:
            print(outcome.log_tail, file=sys.stderr)
        print(f"Error: {outcome.phase}: {outcome.kind}: {outcome.message}", file=sys.stderr)
        return CandidateError.exit_code
    print(format_summary(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())

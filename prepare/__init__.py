"""Data and the metric: frozen for the agent.

A train module ends with

    if __name__ == "__main__":
        prepare.experiment(build_model, train)

Scripts in upstream's style import `MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader,
evaluate_bpb` from here; those names load when they are asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["experiment"]


def experiment(build_model: Callable[..., Any], train: Callable[..., Any]) -> NoReturn:
    """Run one experiment with the script that calls this, print the summary, and exit.

    The harness is started as a process of its own: this one has run the candidate's code, so it
    must neither keep the clock nor know the validation text. The functions are found again by
    name, in candidate processes.
    """
    script = Path(sys.modules["__main__"].__file__ or "train.py").resolve()
    from prepare.process import child_environment

    command = [sys.executable, "-m", "prepare", str(script), *sys.argv[1:]]
    try:
        sys.exit(subprocess.call(command, env=child_environment({})))
    except KeyboardInterrupt:
        sys.exit(130)


def __getattr__(name: str) -> Any:
    from prepare.upstream import NAMES

    if name in NAMES:
        from prepare import upstream_api

        return getattr(upstream_api, name)
    raise AttributeError(f"module 'prepare' has no attribute {name!r}")

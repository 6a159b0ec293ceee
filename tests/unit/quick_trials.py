"""A harness that takes no time, for tests of what drives trials: val_bpb falls towards one value.

`python quick_trials.py ARGUMENTS` is `autoresearch ARGUMENTS` with it. A program that names `slow`
takes a minute, and says so on the way; one that names `crash` fails.
"""

import random
import sys
import time
from types import SimpleNamespace

from autoresearch.engine.constants import constants_of
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.pretraining import Pretraining

SEED = """import prepare

MATRIX_LR = 0.04
DEPTH = 4
"""


def measure(self: Pretraining, request: MeasureRequest) -> Replicate:
    """|MATRIX_LR - 0.08| above 1, with a little noise by the seed."""
    request.run_dir.mkdir(parents=True)
    (request.run_dir / "train.log").write_text("hello \x1b[2J from the candidate\n")
    source = (request.folder / "train.py").read_text(encoding="utf-8")
    if "crash" in source:
        failure = Failure("training", "exception", "it broke", "Traceback ...\nIt broke")
        return Replicate(request.seed, None, failure=failure)
    request.on_event("phase", {"phase": "training"})
    for second in range(600 if "slow" in source else 0):
        loss = 5.0 - second / 200
        progress = {"step": second, "loss": loss, "elapsed": second / 10, "budget": 60.0}
        request.on_event("progress", {**progress, "tokens_per_second": 1000.0})
        time.sleep(0.1)
    value = constants_of(source)["MATRIX_LR"]
    score = 1 + abs(value - 0.08) + random.Random(f"{request.seed} {value}").gauss(0, 1e-4)
    return Replicate(
        request.seed,
        score,
        metrics={"tokens_per_second": 1000.0},
        score_id="id",
        details={"tier": "none", "backend": "cpu", "curve": [[0.0, 3.0], [1.0, score]]},
    )


if __name__ == "__main__":
    import backends
    from autoresearch import cli

    Pretraining.measure = measure  # type: ignore[method-assign]
    backends.make_ready = lambda requested=None: None  # type: ignore[assignment]
    backends.detected = lambda requested=None: SimpleNamespace(backend="cpu", name="Some CPU")  # type: ignore
    cli.main(sys.argv[1:])

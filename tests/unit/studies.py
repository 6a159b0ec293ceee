"""A study for tests of the loop: real git and a real ledger, and a score that a file states."""

import random

from autoresearch.engine.loop import Loop
from autoresearch.engine.proposers.base import EXHAUSTED, NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import Budget, MeasureRequest, Task
from autoresearch.engine.trial import Failure, Replicate, Trial

TASK = Task.parse(
    {
        "id": "number",
        "artifacts": {"include": ["value.py"]},
        "objective": {"metric": "score", "direction": "minimize"},
        "constraints": ["memory <= 2 * baseline.memory"],
    }
)
NOISE = 0.01


def measure(request: MeasureRequest) -> Replicate:
    """The value in the file, plus noise that the seed and the value decide."""
    text = (request.folder / "value.py").read_text()
    space: dict[str, object] = {}
    exec(text, space)
    if "crash" in space:
        failure = Failure("training", str(space["crash"]), "it broke", "Traceback ...")
        return Replicate(request.seed, None, failure=failure)
    value = float(space["VALUE"])  # type: ignore[arg-type]
    noise = random.Random(f"{request.seed} {value}").gauss(0, NOISE)
    return Replicate(
        request.seed,
        value + noise,
        metrics={"memory": float(space.get("MEMORY", 1.0))},  # type: ignore[arg-type]
        seconds={"training": 1.0},
        disturbed=str(space.get("DISTURBED", "")),
        score_id="same",
        details={"tier": "none", "curve": [[0.0, 2.0], [1.0, value]]},
    )


class Script:
    """A proposer that writes the given programs, one after the other."""

    name = "script"

    def __init__(self, *programs: str | Proposal) -> None:
        self.programs = list(programs)
        self.requests: list[ProposalRequest] = []
        self.observed: list[Trial] = []

    def propose(self, request: ProposalRequest) -> Proposal:
        self.requests.append(request)
        if not self.programs:
            return Proposal("", problem="no more ideas", problem_kind=EXHAUSTED)
        program = self.programs.pop(0)
        if isinstance(program, Proposal):
            return program
        (request.folder / "value.py").write_text(program)
        first = program.splitlines()[0]
        return Proposal(f"write {first}", predicted=-0.1, cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        self.observed.append(trial)


def run(loop: Loop, *programs: str | Proposal) -> tuple[Script, list[Trial]]:
    proposer = Script(*programs)
    with loop:
        loop.run(proposer, Budget())
    return proposer, loop.ledger.trials()

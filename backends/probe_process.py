"""Runs the variants of open questions, forward and backward, and reports each as a line of JSON.

    python -m backends.probe_process < request.json

`backends.speed` starts it: in a process of its own, since a kernel that was built for another GPU
can take its process, or the process' whole CUDA context, with it. Before a variant is launched for
the first time a line says so; if the process dies then, that variant is to blame.

Request: hardware (Hardware.to_dict), questions, shape (policy.probe_shape), dtype (or null), and
figures known so far. Answers: {"start": [item, variant]}, then {"figure": {...}} for each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from backends.hardware import Hardware
from backends.policy import Figure, Question, compile_options, fastest

RESTART = 75  # exit status: the device is unusable in this process, the rest needs another
QUESTION_SECONDS = 2.0  # of timed runs per question, all variants together
MOST_ROUNDS = 20
FEWEST_ROUNDS = 5  # on a busy machine, within PATIENCE times the seconds above
PATIENCE = 3.0

Step = Callable[[], Any]  # one forward and backward pass, finished when it returns


@dataclass
class Request:
    """What to measure. `dtype` and `compile` are what was asked for, if anything was."""

    hardware: Hardware
    questions: tuple[Question, ...]
    shape: Mapping[str, int]
    dtype: str | None = None
    known: list[Figure] = field(default_factory=list)
    compile: bool | None = None

    @classmethod
    def read(cls, text: str) -> Request:
        """From its JSON."""
        values = json.loads(text)
        return cls(
            Hardware.from_dict(values["hardware"]),
            tuple(Question(q["item"], tuple(q["variants"])) for q in values["questions"]),
            values["shape"],
            values["dtype"],
            [Figure(**figure) for figure in values["known"]],
            values["compile"],
        )

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(
            {
                "hardware": self.hardware.to_dict(),
                "questions": [asdict(question) for question in self.questions],
                "shape": dict(self.shape),
                "dtype": self.dtype,
                "known": [asdict(figure) for figure in self.known],
                "compile": self.compile,
            }
        )

    def failed(self, item: str) -> set[str]:
        """Variants of an item that are known to fail."""
        return {f.variant for f in self.known if f.item == item and f.seconds is None}

    def compute_dtype(self, options: Sequence[str]) -> str:
        """The type to compare the other items in: asked for, or the quickest found so far."""
        return self.dtype or self._winner("dtype", options)

    def compiles(self) -> bool:
        """Whether the other items are compared compiled: what training will do, as known so far."""
        if self.compile is not None:
            return self.compile
        return self._winner("compile", compile_options(self.hardware)[0]) == "compiled"

    def _winner(self, item: str, options: Sequence[str]) -> str:
        """The quickest option of an item, the first where nothing is known."""
        mine = {f.variant: f for f in self.known if f.item == item}
        return fastest(item, tuple(options), mine)[0] if mine else options[0]


def main() -> int:
    """Answer the request on stdin. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = Request.read(sys.stdin.read())
    if request.hardware.framework == "mlx":
        from backends.probe_mlx import Probes
    else:
        from backends.probe_torch import Probes  # type: ignore[assignment]
    probes = Probes(request.hardware, request.shape)
    for question in request.questions:
        if not answer(request, question, probes, answers):
            return RESTART
    return 0


def answer(request: Request, question: Question, probes: Any, answers: TextIO) -> bool:
    """Launch and time one question's variants; False if the device is unusable afterwards."""
    dtype = request.compute_dtype(probes.dtypes)
    steps: dict[str, Step] = {}
    for variant in question.variants:
        if variant in request.failed(question.item):
            continue
        say(answers, {"start": [question.item, variant]})
        try:
            step = probes.step(question.item, variant, dtype, request.compiles())
            step()
            steps[variant] = step
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the variant's reason
            report(request, answers, Figure(question.item, variant, None, one_line(error)))
            if not probes.alive():
                return False
    for variant, seconds in interleaved(steps).items():
        report(request, answers, Figure(question.item, variant, seconds))
    return True


def interleaved(
    steps: Mapping[str, Step],
    budget: float = QUESTION_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds per step, all variants in turn, so that a disturbance hits them alike.

    The lower quartile: what disturbs only ever adds, and often to most of the rounds. No round
    begins after `budget` seconds if there were FEWEST_ROUNDS, nor after PATIENCE times that.
    """
    times: dict[str, list[float]] = {variant: [] for variant in steps}
    begin = clock()
    for done in range(MOST_ROUNDS if steps else 0):
        patience = budget if done >= FEWEST_ROUNDS else PATIENCE * budget
        if done and clock() - begin > patience:
            break
        for variant, step in steps.items():
            start = clock()
            step()
            times[variant].append(clock() - start)
    return {variant: sorted(taken)[len(taken) // 4] for variant, taken in times.items()}


def report(request: Request, answers: TextIO, figure: Figure) -> None:
    """Remember a figure and send it."""
    request.known.append(figure)
    say(answers, {"figure": asdict(figure)})


def say(answers: TextIO, message: Mapping[str, Any]) -> None:
    """One line, sent at once: the next thing to happen may be the end of this process."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def one_line(error: BaseException) -> str:
    """A failure in one line: its type and the first line of its text."""
    reason = getattr(error, "reason", None)  # of AttentionUnavailable
    text = str(reason or error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())

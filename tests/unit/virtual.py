"""Devices that take no time: runs end in the order of the durations that a test gives them."""

import heapq
from collections.abc import Callable, Mapping

from autoresearch.engine.executor import BEGUN, Done, Executor
from autoresearch.engine.proposers.base import EXHAUSTED, NO_COST, Proposal, ProposalRequest
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate, Trial

KNOBS = 24
TABLE = "".join(f"P{k} = 0.0\n\n" for k in range(KNOBS))
PROGRAM = TABLE + "VALUE = 1.0 + " + " + ".join(f"P{k}" for k in range(KNOBS)) + "\n"


class Virtual(Executor):
    """Some slots of some kinds, and a clock of its own.

    duration: seconds that a run takes, by its request and how many were submitted before.
    """

    def __init__(
        self,
        measure: Callable[[MeasureRequest, str], Replicate],
        slots: int | Mapping[str, int] = 4,
        duration: Callable[[MeasureRequest, int], float] = lambda request, number: 300.0,
    ) -> None:
        self.measure, self.duration = measure, duration
        self.now = 0.0
        self._slots = {"": slots} if isinstance(slots, int) else dict(slots)
        self._queued: list[tuple[int, MeasureRequest, str]] = []
        self._running: list[tuple[float, int, MeasureRequest, str]] = []
        self._cancelled: set[int] = set()
        self.submitted = 0
        self.requests: list[tuple[str, MeasureRequest]] = []
        self.most = 0  # runs at the same time
        self.busy = 0.0  # seconds of all slots together

    @property
    def slots(self) -> Mapping[str, int]:
        return self._slots

    def clock(self) -> float:
        return self.now

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        kind = kind or next(iter(self._slots))
        self._queued.append((self.submitted, request, kind))
        self.requests.append((kind, request))
        self.submitted += 1
        self._begin()
        return self.submitted - 1

    def _begin(self) -> None:
        for kind, slots in self._slots.items():
            free = slots - sum(entry[3] == kind for entry in self._running)
            for entry in [item for item in self._queued if item[2] == kind][: max(0, free)]:
                self._queued.remove(entry)
                number, request, _ = entry
                end = self.now + self.duration(request, number)
                self.busy += end - self.now
                heapq.heappush(self._running, (end, number, request, kind))
        self.most = max(self.most, len(self._running))

    def collect(self, timeout: float | None = None) -> list[Done]:
        if not self._running:
            return []
        end, number, request, kind = self._running[0]
        if timeout is not None and end > self.now + timeout:
            self.now += timeout
            return []
        heapq.heappop(self._running)
        self.now = max(self.now, end)
        self._begin()
        request.on_event(BEGUN, {})
        return [Done(number, self.measure(request, kind))]

    def cancel(self, ticket: int) -> None:
        self._queued = [entry for entry in self._queued if entry[0] != ticket]
        self._running = [entry for entry in self._running if entry[1] != ticket]
        heapq.heapify(self._running)
        self._begin()

    def close(self) -> None:
        self._queued, self._running = [], []


class Ideas:
    """An instant proposer that moves one knob of the program at hand: the n-th idea is
    `ideas[n]`, a knob and by how much it moves. What is in flight it leaves alone."""

    name = "ideas"
    instant = True

    def __init__(self, *ideas: tuple[int, float]) -> None:
        self.ideas = ideas
        self.requests: list[ProposalRequest] = []
        self.observed: list[Trial] = []

    def propose(self, request: ProposalRequest) -> Proposal:
        self.requests.append(request)
        if request.attempt:
            return Proposal("", cost=NO_COST, problem="not mended", problem_kind="refused")
        if request.seed >= len(self.ideas):
            return Proposal("", cost=NO_COST, problem="no more", problem_kind=EXHAUSTED)
        knob, by = self.ideas[request.seed]
        return Proposal(move(request, knob, by), cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        self.observed.append(trial)


def move(request: ProposalRequest, knob: int, by: float) -> str:
    """Move a knob of the program in a request's folder; what that is called."""
    place = request.folder / "value.py"
    lines = place.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(f"P{knob} ="):
            lines[number] = f"P{knob} = {float(line.split('=')[1]) + by!r}\n"
    place.write_text("".join(lines))
    return f"P{knob} by {by:+g}"

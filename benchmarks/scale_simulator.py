"""Studies on virtual devices: the engine's own loop, ledger and git, and runs that take no time.

    report = simulate(folder, Setting(devices=512, trials=2_000))
    report["trials_per_hour"], report["driver_seconds_per_trial"]

A virtual run ends after as long as a real one took (benchmarks/results); the score of its program
is drawn. Everything else is real: proposals are edits of a file, taken back, checked, committed,
recorded and synced, and that takes the driver its real time. The virtual clock goes on meanwhile,
so that a driver that can't keep up leaves devices idle, as it would.

What programs are truly worth is the model of benchmarks/decisions.py: few ideas help, some do
nothing, most harm, in units of sigma, the noise of one run. Effects of kept ideas add up. An idea
is a line of the program; two on one line conflict, and the later one replaces the earlier.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import heapq
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from autoresearch.engine.driving import Driver  # noqa: E402
from autoresearch.engine.executor import Done, Executor  # noqa: E402
from autoresearch.engine.ledger import Ledger  # noqa: E402
from autoresearch.engine.loop import Loop  # noqa: E402
from autoresearch.engine.policy import Confirm  # noqa: E402
from autoresearch.engine.proposers.base import NO_COST, Proposal, ProposalRequest  # noqa: E402
from autoresearch.engine.task import Budget, MeasureRequest, Task  # noqa: E402
from autoresearch.engine.trial import Replicate, Trial, TrialStatus  # noqa: E402
from autoresearch.engine.workspace import Workspace  # noqa: E402

RECORDED = ROOT / "benchmarks" / "results" / "epyc-2-cores-60s-trial.json"
SIGMA = 0.002  # of val_bpb, as was measured between seeds
START = 1.0
IDEA = re.compile(r"^IDEA_(\d+) = (\d+)$", re.M)
TASK = Task.parse(
    {
        "id": "scale",
        "artifacts": {"include": ["train.py"]},
        "objective": {"metric": "val_bpb", "direction": "minimize"},
    }
)


# -- What runs cost and give -----------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """Seconds of a run beside its training: one sample per recorded trial."""

    overheads: tuple[float, ...]

    @classmethod
    def recorded(cls, path: Path = RECORDED) -> Costs:
        """Wall time less training of the recorded trials, the loop's own steps included."""
        report = json.loads(path.read_text(encoding="utf-8"))["reports"][0]
        samples = {each["name"]: each["samples"] for each in report["figures"]}
        pairs = zip(samples["wall"], samples["training"], strict=True)
        return cls(tuple(wall - training for wall, training in pairs))

    def seconds(self, training: float, chance: random.Random) -> float:
        """Of one run."""
        return training + chance.choice(self.overheads) * chance.uniform(0.95, 1.05)


def effect(idea: int) -> float:
    """What an idea is truly worth, in sigma: 3% help by 0.5 to 4, 20% do nothing, others harm."""
    if idea == 0:
        return 0.0
    chance = random.Random(f"effect {idea}")
    kind = chance.random()
    if kind < 0.03:
        return chance.uniform(0.5, 4.0)
    return 0.0 if kind < 0.23 else -chance.expovariate(1 / 2.0)


def quality(program: str) -> float:
    """What a program is truly worth, in sigma above the baseline."""
    return sum(effect(int(idea)) for _, idea in IDEA.findall(program))


def program(lines: int, body: str = "") -> str:
    """A program of so many lines that ideas can be put on, `body` before them."""
    ideas = "\n".join(f"# idea {n}\nIDEA_{n} = 0\n#" for n in range(lines))
    return f"{body}\n{ideas}\n"


# -- Devices ---------------------------------------------------------------------------------------


class Clock:
    """Virtual seconds; `charged` real ones are added, those of the driver, times `factor`."""

    def __init__(self, factor: float = 1.0) -> None:
        self.now, self.factor = 0.0, factor
        self.charged = 0.0
        self._since = time.perf_counter()

    def __call__(self) -> float:
        return self.now

    def resume(self) -> None:
        """What follows is the driver's."""
        self._since = time.perf_counter()

    def charge(self) -> None:
        """Add what the driver took since `resume`."""
        spent = time.perf_counter() - self._since
        self.charged += spent
        self.now += spent * self.factor
        self.resume()

    def sleep(self, seconds: float) -> None:
        """The driver waits."""
        self.now += seconds


@dataclass
class Devices(Executor):
    """Virtual devices of one kind: a run takes its time on the clock alone."""

    count: int
    clock: Clock
    costs: Costs
    training: float
    busy_seconds: float = 0.0
    runs: int = 0
    _ending: list[tuple[float, int]] = field(default_factory=list)  # a heap
    _queue: collections.deque[int] = field(default_factory=collections.deque)
    _known: dict[int, tuple[float, Replicate]] = field(default_factory=dict)
    _tickets: int = 0

    @property
    def slots(self) -> Mapping[str, int]:
        """One a device."""
        return {"virtual": self.count}

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Look at the program now; its run begins when a device is free."""
        text = (request.folder / "train.py").read_text(encoding="utf-8")
        chance = random.Random(f"{hashlib.sha1(text.encode()).hexdigest()} {request.seed}")
        worth = quality(text) + chance.gauss(0.0, 1.0)
        seconds = self.costs.seconds(self.training, chance)
        self._tickets += 1
        self._known[self._tickets] = (
            seconds,
            Replicate(
                request.seed,
                START - SIGMA * worth,
                metrics={"tokens_per_second": 1e6, "peak_memory_mb": 4e4, "mfu_percent": 40.0},
                seconds={"training": self.training, "scoring": 3.6, "total": seconds},
                score_id="virtual",
                details={"tier": "none", "backend": "virtual", "hardware_id": "virtual"},
            ),
        )
        if len(self._ending) < self.count:
            self._start(self._tickets, self.clock.now)
        else:
            self._queue.append(self._tickets)
        return self._tickets

    def _start(self, ticket: int, at: float) -> None:
        heapq.heappush(self._ending, (at + self._known[ticket][0], ticket))

    def collect(self, timeout: float | None = None) -> list[Done]:
        """Let time pass until a run has ended; all that have by then."""
        self.clock.charge()
        # A millisecond at least: the least seconds would be lost in rounding, and time stand still.
        until = float("inf") if timeout is None else self.clock.now + max(timeout, 0.001)
        if self._ending and self._ending[0][0] > self.clock.now:
            self.clock.now = min(self._ending[0][0], until)
        done = []
        while self._ending and self._ending[0][0] <= self.clock.now:
            ended, ticket = heapq.heappop(self._ending)
            while self._queue and self._queue[0] not in self._known:
                self._queue.popleft()
            if self._queue:  # the device doesn't wait for the driver while runs are queued
                self._start(self._queue.popleft(), ended)
            if ticket in self._known:
                seconds, replicate = self._known.pop(ticket)
                self.busy_seconds += seconds
                self.runs += 1
                done.append(Done(ticket, replicate))
        self.clock.resume()
        return done

    def cancel(self, ticket: int) -> None:
        """A run under way holds its device until its end: virtual time is cheap."""
        self._known.pop(ticket, None)

    def close(self) -> None:
        """Forget all."""
        self._known.clear()
        self._queue.clear()
        self._ending.clear()

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ideas:
    """A proposer that has had another idea: a line of the program gets a number of its own."""

    name = "ideas"
    instant = True

    def __init__(self, lines: int, seed: int) -> None:
        self._lines, self._chance, self._next = lines, random.Random(seed), 1_000_000 * seed + 1

    def propose(self, request: ProposalRequest) -> Proposal:
        """Write it."""
        place, idea = self._chance.randrange(self._lines), self._next
        self._next += 1
        path = request.folder / "train.py"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            re.sub(rf"^IDEA_{place} = \d+$", f"IDEA_{place} = {idea}", text, flags=re.M),
            encoding="utf-8",
        )
        return Proposal(f"IDEA_{place} = {idea}", cost=NO_COST)

    def observe(self, trial: Trial) -> None:
        """It learns nothing."""


# -- A study ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A study to simulate. body: the program beside the lines for ideas. charged: whether the
    driver's own time passes on the virtual clock. goal: where the study ends."""

    devices: int
    trials: int
    lines: int = 100
    body: str = ""
    training: float = 300.0
    seed: int = 1
    charged: bool = True
    combine: bool = False
    goal: float | None = None  # so many sigma above the baseline


def simulate(folder: Path, setting: Setting) -> dict[str, Any]:
    """Run a study in `folder`, which must be empty; what it took."""
    root = folder / "study"
    root.mkdir(parents=True)
    (root / "train.py").write_text(program(setting.lines, setting.body), encoding="utf-8")
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "begin"),
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    clock = Clock(1.0 if setting.charged else 0.0)
    devices = Devices(setting.devices, clock, Costs.recorded(), setting.training)
    reached: list[tuple[float, float]] = []  # when a champion was kept, and what it is worth
    decided: list[float] = []  # when
    asked: list[float] = []  # when an edit was asked for

    def watch(name: str, data: Mapping[str, Any]) -> None:
        if name == "proposing" and not data["attempt"]:
            asked.append(clock.now)
        if name == "decided":
            decided.append(clock.now)
        if name != "decided" or data["trial"]["status"] != TrialStatus.KEEP:
            return
        text = (root / "train.py").read_bytes() if data["trial"]["id"] == 0 else None
        worth = 0.0
        if text is None:
            files = loop.workspace.artifacts(data["trial"]["commit"], TASK)
            worth = quality(files["train.py"].decode())
        reached.append((clock.now, worth))
        if setting.goal is not None and worth >= setting.goal:
            loop.stop_asked = True

    loop = Loop(
        TASK,
        Workspace.open(root, "scale", create=True),
        Ledger(root / "results.jsonl"),
        lambda request: Replicate(request.seed, None),
        Confirm(),
        runs=root / ".autoresearch" / "runs",
        on_event=watch,
        clock=clock,
        sleep=clock.sleep,
        combine=setting.combine,
        executor=devices,
    )
    with loop, devices, timed(Driver, "_step") as taking_in:
        loop.baseline()
        began = usage(clock)
        loop.run(Ideas(setting.lines, setting.seed), Budget(trials=setting.trials))
        ended = usage(clock)
    # After the last edit was asked for, devices run out of work: what is left is winners, put on
    # the champion one after the other. That says nothing of the rate.
    full = asked[-1] - began["virtual"]
    rate = sum(at <= asked[-1] for at in decided) / full * 3600 if full > 0 else None
    found = report(setting, loop, devices, began, ended, reached)
    handled = {"finished_trials_per_second": found["trials"] / max(sum(taking_in), 1e-9)}
    found["hours_after_the_last_edit"] = (ended["virtual"] - asked[-1]) / 3600
    return {"trials_per_hour": rate, **handled, **found}


@contextlib.contextmanager
def timed(owner: type, name: str) -> Iterator[list[float]]:
    """Seconds of each call of a method meanwhile.

    A driver's `_step` takes in what has ended: decides, commits, records, and waits for the disk.
    """
    method, seconds = getattr(owner, name), []

    def call(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            seconds.append(time.perf_counter() - begin)

    setattr(owner, name, call)
    try:
        yield seconds
    finally:
        setattr(owner, name, method)


def usage(clock: Clock) -> dict[str, float]:
    """Seconds so far: virtual, the driver's own, and on processors, git's included."""
    times = os.times()
    return {
        "virtual": clock.now,
        "driver": clock.charged,
        "cpu": times.user + times.system,
        "git_cpu": times.children_user + times.children_system,
    }


def report(
    setting: Setting,
    loop: Loop,
    devices: Devices,
    began: dict[str, float],
    ended: dict[str, float],
    reached: list[tuple[float, float]],
) -> dict[str, Any]:
    """What a study took, as JSON values."""
    spent = {name: ended[name] - began[name] for name in began}
    trials = [trial for trial in loop.state.trials.values() if trial.id]
    count = max(len(trials), 1)
    ledger = loop.ledger.path
    statuses = collections.Counter(str(trial.status) for trial in trials)
    problems = [str(problem) for problem in loop.ledger.verify()]
    assert not problems, problems
    return {
        "devices": setting.devices,
        "trials": len(trials),
        "runs": devices.runs,
        "statuses": dict(statuses),
        "rebased": sum(bool(trial.won_against) for trial in trials),
        "virtual_hours": spent["virtual"] / 3600,
        "driver_ms_per_trial": spent["driver"] / count * 1000,
        "driver_cpu_ms_per_trial": spent["cpu"] / count * 1000,
        "git_cpu_ms_per_trial": spent["git_cpu"] / count * 1000,
        "driver_load": spent["cpu"] / spent["virtual"],
        "trials_per_driver_second": count / max(spent["driver"], 1e-9),
        "records_per_driver_second": len(loop.ledger.records()) / max(spent["driver"], 1e-9),
        "ledger_bytes_per_trial": ledger.stat().st_size / count,
        "devices_busy": devices.busy_seconds / setting.devices / ended["virtual"],
        "improvement": reached[-1][1] if reached else 0.0,
        "reached": [[round(at, 1), round(worth, 2)] for at, worth in reached],
        "mean_runs": statistics.fmean(
            len(t.replicates) + len(t.champion_replicates) for t in trials
        )
        if trials
        else 0.0,
    }

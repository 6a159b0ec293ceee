"""Runs made on a Ray cluster, behind the one interface that the loop knows.

    with RayExecutor(spec, address="10.0.0.1:6379", tag="mar5") as ray:
        loop = Loop(..., executor=ray)

The study's process holds all that matters: a worker, a node or this process may be killed at any
moment, and a run that was lost on the way is made again elsewhere. A run that takes much longer
than the others is begun a second time where a slot is free; the first to end counts, once.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoresearch.cluster import wire
from autoresearch.cluster.connection import Connection
from autoresearch.cluster.nodes import known_kind, slots
from autoresearch.cluster.tokens import Tokens
from autoresearch.cluster.workers import BUSY, IDLE, Patience, Worker, Workers
from autoresearch.engine.executor import BEGUN, LOST, Done
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.places import Lost
from autoresearch.worker import facts_of, job_of
from prepare.errors import DataError, EnvironmentProblem, PrepareError, UsageError
from prepare.process import _SECRET
from prepare.runfiles import fresh_folder

MEASURES = "autoresearch.worker:KINDS"
PRETRAINING = "pretraining"  # the kind of measuring that needs a device
DEVICE_KIND = "device_kind"  # the detail of a run that names the kind that it was made on
SLOW_TIMES, SLOW_KNOWN = 3.0, 3  # times the median of at least so many runs
TICK = 0.5  # seconds: the longest wait before the cluster is looked at again
EARLIER = 60  # runs whose facts tell later ones what is usual
# Of this process's variables those that runs see on the nodes, too. Where things lie is each
# machine's own affair.
_PASSED_ON = ("AUTORESEARCH_", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_OWN = ("AUTORESEARCH_CACHE", "AUTORESEARCH_CANDIDATE")


@dataclass(eq=False)
class _Run:
    """A run that was submitted and hasn't ended, and who makes it: more than one if it is slow."""

    ticket: int
    request: MeasureRequest
    kind: str
    makers: list[Worker] = field(default_factory=list)
    begun: float = 0.0
    lost: Lost = field(default_factory=Lost)  # by nodes' ids
    end: dict[str, Any] = field(default_factory=dict)  # the header of its last message
    taking: deque[str] = field(default_factory=deque)  # large files on their way
    offset: int = 0


class RayExecutor:
    """See `autoresearch.engine.executor.Executor`."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        address: str = "",
        tag: str = "study",
        confirm: str = "",
        screen: str = "",
        most: int | None = None,
        devices: int = 1,
        memory: int = 0,
        tokens: Callable[[], Tokens] | None = None,
        tell: Callable[[str], None] = lambda message: None,
        earlier: Iterable[Replicate] = (),
        measures: str = MEASURES,
        environment: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        usual: Mapping[str, str] | None = None,
    ) -> None:
        """Connect; workers are started when there are runs.

        Args:
            spec: how runs are measured, see `autoresearch.worker`. confirm, screen: kinds of
                device, "" for the first there is and for none. most: workers by kind at most.
            devices: accelerators that one run takes. memory: bytes that a device must have, or a
            node without any. tokens: makes or finds what runs read, when everything else has been
            checked. tell: is told of nodes and workers that fail. earlier: runs of the study so
            far, the oldest first. usual: by kind, the id of the hardware that counts where nodes
            of that kind differ.

        Raises MissingTool, EnvironmentProblem, and UsageError for a kind that isn't there
        or is asked to do both.
        """
        self.patience = patience or Patience()
        self._spec, self._tell = dict(spec), tell
        self._cluster = Connection(address, devices=devices, memory=memory)
        try:
            nodes = self._cluster.nodes()
            self.confirm = known_kind(confirm, nodes)
            self.screen = known_kind(screen, nodes) if screen else ""
            if self.screen == self.confirm:
                raise UsageError(
                    f"devices of the kind {self.confirm!r} can't both screen and decide",
                    "name another kind with --screen or --confirm, or leave out --screen",
                )
            kinds = tuple(dict.fromkeys(filter(None, (self.confirm, self.screen))))
            text = None if tokens is None else tokens()
            if text is not None:
                self._spec["settings"] = {**self._spec["settings"], "corpus": text.corpus}
            self.workers = Workers(
                self._cluster,
                tag,
                kinds,
                most,
                measures,
                json.dumps({**passed_on(os.environ), **(environment or {})}),
                text,
                (spec.get("backend") or "") if spec["kind"] == PRETRAINING else None,
                memory,
                tell,
                self.patience,
                usual or {},
            )
        except BaseException:
            self._cluster.close()
            raise
        self._queue: deque[_Run] = deque()
        self._runs: dict[int, _Run] = {}
        self._done: list[Done] = []
        self._untold: list[_Run] = []  # begun, which is told when somebody collects
        self._tickets = 0
        self._took: dict[str, list[float]] = {}
        self._earlier: deque[dict[str, Any]] = deque(maxlen=EARLIER)
        self._versions: set[str] = set()
        for run in earlier:
            self._remember(run)

    # -- the interface ---------------------------------------------------------------------------

    @property
    def slots(self) -> Mapping[str, int]:
        """This study's share by kind, the deciding kind first; at least one, or it would wait for
        a cluster that is full, or a node that is on its way, with nothing in line."""
        self.workers.look()
        return {kind: max(1, self.workers.shares.get(kind, 0)) for kind in self.workers.kinds}

    @property
    def there(self) -> Mapping[str, int]:
        """What the cluster has by kind, whoever uses it."""
        return slots(self.workers.nodes)

    def submit(self, request: MeasureRequest, kind: str = "") -> int:
        """Queue a run. Raises ValueError for a kind that this study doesn't use."""
        kind = kind or self.confirm
        if kind not in self.workers.kinds:
            raise ValueError(f"no device of the kind {kind!r} was asked for")
        self._tickets += 1
        run = _Run(self._tickets, request, kind)
        self._runs[run.ticket] = run
        self._queue.append(run)
        self._begin()
        return run.ticket

    def collect(self, timeout: float | None = None) -> list[Done]:
        """The runs that have ended. Raises PrepareError for what no other node would do better."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._runs or self._done:
            self._begin()
            self._begin_slow_again()
            self._tell_begun()
            if self._done:
                break
            left = TICK if deadline is None else min(TICK, deadline - time.monotonic())
            for worker, message, why in self.workers.answers(max(0.0, left)):
                self._hear(worker, message, why)
            if not self._done and deadline is not None and time.monotonic() >= deadline:
                break
        done, self._done = self._done, []
        return done

    def cancel(self, ticket: int) -> None:
        """End a run."""
        run = self._runs.pop(ticket, None)
        if run is None:
            self._done = [done for done in self._done if done.ticket != ticket]
            return
        if run in self._queue:
            self._queue.remove(run)
        for worker in run.makers:
            self.workers.end(worker)

    def close(self) -> None:
        """End everything, and leave the cluster."""
        self._queue.clear()
        self._runs.clear()
        self.workers.close()
        self._cluster.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- beginning -------------------------------------------------------------------------------

    def _begin(self) -> None:
        demand: dict[str, int] = {}
        for run in self._runs.values():
            # A slow one asks for another slot.
            demand[run.kind] = demand.get(run.kind, 0) + (2 if self._slow(run) else 1)
        self.workers.tend(demand)
        for run in tuple(self._queue):
            idle = self.workers.idle(run.kind, run.lost)
            if idle:
                self._queue.remove(run)
                self._give(run, idle[0])

    def _give(self, run: _Run, worker: Worker) -> None:
        self._compare_versions(worker)
        request, spec = run.request, dict(self._spec)
        files = {f"p/{path}": data for path, data in wire.read_files(request.folder).items()}
        champion = Path(spec["warm_from"]) if spec.get("warm_from") else None
        if champion is not None:
            there = champion.is_file()
            spec["warm_from"] = champion.name if there else None
            if there:
                files[f"c/{champion.name}"] = champion.read_bytes()
        order = wire.pack({"spec": spec, "job": job_of(request, self._earlier)}, files)
        worker.state, worker.run, worker.since = BUSY, run, time.monotonic()
        worker.answer = worker.actor.begin.remote(order)
        if not run.makers:
            run.begun = worker.since
            self._untold.append(run)
        run.makers.append(worker)

    def _tell_begun(self) -> None:
        untold, self._untold = self._untold, []
        for run in untold:
            if run.ticket in self._runs:
                run.request.on_event(BEGUN, {})

    def _begin_slow_again(self) -> None:
        """Where a slot has nothing else to do: a slow node must not hold up the others."""
        if self._queue:
            return
        for run in self._runs.values():
            if not self._slow(run):
                continue
            slow = run.makers[0]
            idle = [w for w in self.workers.idle(run.kind) if w.node.id != slow.node.id]
            idle = idle or self.workers.idle(run.kind)
            if idle:
                took, usual = time.monotonic() - run.begun, self._usual(run.kind)
                self._tell(
                    f"a run on {slow.node.host} takes {took:.0f} s where {usual:.0f} s are usual: "
                    f"begun a second time on {idle[0].node.host}"
                )
                self._give(run, idle[0])

    def _slow(self, run: _Run) -> bool:
        """Made by one worker, much longer than others are, and not about to end."""
        if len(run.makers) != 1 or run.taking:
            return False
        most = max(self.patience.slow, SLOW_TIMES * self._usual(run.kind))
        return time.monotonic() - run.begun > most

    def _usual(self, kind: str) -> float:
        """Seconds that a run takes; infinite while that isn't known."""
        known = self._took.get(kind, ())
        return statistics.median(known) if len(known) >= SLOW_KNOWN else math.inf

    def _compare_versions(self, worker: Worker) -> None:
        """Say once for each node what differs there: scores may depend on it."""
        from autoresearch.cluster.actor import versions

        if worker.node.id in self._versions:
            return
        self._versions.add(worker.node.id)
        here, there = versions(), worker.about.get("versions", {})
        other = [
            f"{name} {there.get(name) or 'none'} and not {version}"
            for name, version in here.items()
            if name != "mlx" and there.get(name) != version
        ]
        if other:
            self._tell(f"the node {worker.node.host} has {', '.join(other)} as this machine")

    # -- what workers answer ---------------------------------------------------------------------

    def _hear(self, worker: Worker, message: bytes | None, why: str) -> None:
        run: _Run = worker.run
        if run.ticket not in self._runs or worker not in run.makers:
            return  # another was faster
        if message is None:
            self._lost(run, worker, why)
        elif run.taking:
            self._took_piece(run, worker, message)
        else:
            header, files = wire.unpack(message)
            for name, data in header.get("events", ()):
                if worker is run.makers[0]:  # of two that make it, one is listened to
                    run.request.on_event(name, data)
            if "problem" in header:
                self._problem(run, worker, header["problem"])
            elif "replicate" in header:
                self._take_files(run, worker, header, files)
            else:
                worker.answer = worker.actor.look.remote()

    def _take_files(
        self, run: _Run, worker: Worker, header: dict[str, Any], files: dict[str, bytes]
    ) -> None:
        """It has ended: this worker's result counts, and its files come here."""
        for other in run.makers:
            if other is not worker:
                self.workers.end(other)
        run.makers, run.end = [worker], header
        folder = fresh_folder(run.request.run_dir)
        theirs, ours = (json.dumps(str(path))[1:-1] for path in (header["run"], folder))
        for path, data in files.items():
            if path == "result.json":
                files[path] = data.replace(theirs.encode(), ours.encode())
        wire.write_files(folder, files)
        run.taking, run.offset = deque(header["large"]), 0
        if run.taking:
            worker.answer = worker.actor.take.remote(run.taking[0], 0)
        else:
            self._finish(run, worker)

    def _took_piece(self, run: _Run, worker: Worker, data: bytes) -> None:
        wire.append(run.request.run_dir, run.taking[0], run.offset, data)
        run.offset += len(data)
        if len(data) < wire.CHUNK:
            run.taking.popleft()
            run.offset = 0
        if run.taking:
            worker.answer = worker.actor.take.remote(run.taking[0], run.offset)
        else:
            self._finish(run, worker)

    def _finish(self, run: _Run, worker: Worker) -> None:
        made = Replicate.from_dict(run.end["replicate"])
        details = {**made.details, "node": worker.node.host, DEVICE_KIND: run.kind}
        if "run_dir" in details:
            details["run_dir"] = str(run.request.run_dir)
        made = replace(made, details=details)
        self._remember(made)
        took = self._took.setdefault(run.kind, [])
        took.append(time.monotonic() - run.begun)
        self.workers.praise(worker.node)
        self._free(worker)
        self._end(run, made)

    def _free(self, worker: Worker) -> None:
        worker.state, worker.run, worker.answer = IDLE, None, None
        worker.since = time.monotonic()
        if worker.leaving:
            self.workers.end(worker)

    def _end(self, run: _Run, made: Replicate) -> None:
        del self._runs[run.ticket]
        self._done.append(Done(run.ticket, made))

    def _remember(self, run: Replicate) -> None:
        facts = facts_of(run)
        if facts is not None:
            self._earlier.append(facts)

    # -- what goes wrong -------------------------------------------------------------------------

    def _lost(self, run: _Run, worker: Worker, why: str) -> None:
        """Begin it again, before those that came later, unless another still makes it."""
        run.makers.remove(worker)
        run.taking.clear()
        if run.makers:
            return
        if not run.lost.add(worker.node.id):
            text = f"no worker brought it to its end in {run.lost.times} attempts: {why}"
            failure = Failure("worker", LOST, text)
            details = {"run_dir": str(run.request.run_dir)}
            self._end(run, Replicate(run.request.seed, None, failure=failure, details=details))
            return
        self._tell(f"a run on {worker.node.host} was lost and is made again: {why}")
        self._queue.appendleft(run)

    def _problem(self, run: _Run, worker: Worker, problem: Mapping[str, Any]) -> None:
        """A node that can't measure: another may. Raises PrepareError when several say so, or the
        only one that there is."""
        self.workers.lose(worker)
        if not run.lost.too_often:
            self.workers.blame(worker.node, str(problem["message"]))
            if self.workers.usable(run.kind):
                return self._lost(run, worker, str(problem["message"]))
        self._runs.pop(run.ticket)
        kinds: dict[int, type[PrepareError]] = {2: UsageError, 3: DataError}
        kind = kinds.get(int(problem["exit_code"]), EnvironmentProblem)
        raise kind(f"on {worker.node.host}: {problem['message']}", str(problem["hint"]))


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that runs on the nodes see as well; no secrets."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_PASSED_ON) and name not in _OWN and not _SECRET.search(name)
    }

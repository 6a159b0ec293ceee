"""A study's workers on a cluster: as many as its share allows and its runs need, ready to begin.

workers.tend({"h100": 5})            # start, retire and move them, for 5 runs of that kind
for worker, message in workers.answers(timeout=1.0): ...      # None: it is lost
workers.idle("h100")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoresearch.cluster import wire
from autoresearch.cluster.connection import Connection
from autoresearch.cluster.devices import Device, Devices
from autoresearch.cluster.nodes import Driver, Node, Seat, share, slots
from autoresearch.cluster.tokens import Tokens
from autoresearch.narration import duration
from autoresearch.places import Lost, Places
from backends.hardware import GIB
from prepare.errors import EnvironmentProblem

STARTING, FETCHING, IDLE, BUSY = "starting", "fetching", "idle", "busy"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """Seconds. A test has less of it."""

    look: float = 2.0  # between two looks at the cluster
    move: float = 10.0  # a worker waits for room on its node, while another node has some
    pause: float = 5.0  # nothing is started on a node that has just lost a worker
    idle: float = 600.0  # a worker without work is ended
    silent: float = 120.0  # a worker that answers nothing is lost
    turn: float = 600.0  # slots that can't be divided between studies go round
    slow: float = 60.0  # a run takes at least this long before it is called slow
    device: float = 60.0  # a node is waited for that may have the champion's device


@dataclass(eq=False)
class Worker:
    """One slot of a node, ours. `answer` is what it was last asked for."""

    seat: Seat
    node: Node
    actor: Any
    answer: Any
    since: float
    state: str = STARTING
    leaving: bool = False  # ends when its run does
    run: Any = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Workers:
    """Those of one study. kinds: of the devices that it uses. usual: see `Devices`."""

    cluster: Connection
    tag: str
    kinds: tuple[str, ...]
    most: int | None
    measures: str  # import path of what measures, see `actor`
    environment: str
    tokens: Tokens | None
    backend: str | None  # what runs need a device of; None: they need none
    memory: int  # bytes that a device must have
    tell: Tell
    patience: Patience = Patience()
    usual: Mapping[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    shares: dict[str, int] = field(default_factory=dict)
    received: list[tuple[str, list[str]]] = field(default_factory=list)  # node, files of text
    _workers: list[Worker] = field(default_factory=list)
    _seats: list[Seat] = field(default_factory=list)  # of all studies
    _number: int = 0
    _looked: float = 0.0
    _paused: dict[str, float] = field(default_factory=dict)
    _places: Places = field(default_factory=Places)  # nodes, by their ids
    _pieces: dict[str, list[Any]] = field(default_factory=dict)
    _others: set[str] = field(default_factory=set)  # nodes whose device is in fact another kind's
    _gone: dict[str, float] = field(default_factory=dict)  # kinds of no nodes: since when

    def __post_init__(self) -> None:
        self._devices = Devices(self.usual, self.patience.device)
        self.cluster.announce(self.driver)
        self.look()

    @property
    def driver(self) -> Driver:
        """This study, as others see it."""
        return Driver(self.cluster.job, self.tag, self.kinds, self.most)

    def __iter__(self) -> Iterator[Worker]:
        return iter(tuple(self._workers))

    def idle(self, kind: str, lost: Lost | None = None) -> list[Worker]:
        """Those that could begin a run; not where it was lost while others will be free."""
        ours = [w for w in self if w.seat.kind == kind and not w.leaving]
        if lost is not None and lost.times:
            there = [w for w in ours if w.state in (IDLE, BUSY)]
            ours = lost.elsewhere(there, lambda worker: worker.node.id)
        return [w for w in ours if w.state == IDLE]

    def usable(self, kind: str) -> bool:
        """Is there a node of a kind that isn't left out?"""
        return any(node.kind == kind for node in self._usable)

    # -- how many, and where ---------------------------------------------------------------------

    def tend(self, demand: Mapping[str, int]) -> None:
        """Start and retire workers by what the cluster has and what this study needs.

        demand: runs by kind, waiting and under way. Raises EnvironmentProblem where no node of a
        kind can make runs.
        """
        self.look()
        for kind in self.kinds:
            there = self._there(kind)
            self._check_left(kind, there)
            if self._devices.asking(kind):
                self._choose(kind)
            self._retire(kind, self._count(kind) - self.shares[kind])
            self._say_gone(kind, there)
            self._move(kind)
            wanted = min(self.shares[kind], demand.get(kind, 0))
            for _ in range(wanted - self._count(kind)):
                self._start(kind)
        now = time.monotonic()
        for worker in self:
            if worker.state == IDLE and now - worker.since > self.patience.idle:
                self.end(worker)

    def _count(self, kind: str) -> int:
        return sum(w.seat.kind == kind and not w.leaving for w in self)

    def look(self) -> None:
        """See what the cluster has and what this study's share is, if it is time to."""
        now = time.monotonic()
        if self._looked and now - self._looked < self.patience.look:
            return
        self._looked = now
        self.nodes = self.cluster.nodes()
        drivers, self._seats = self.cluster.names()
        total = slots(self._usable)
        turn = int(time.time() / self.patience.turn)
        for kind in self.kinds:
            limits = {d.job: d.most for d in drivers if kind in d.kinds}
            limits[self.cluster.job] = self.most
            self.shares[kind] = share(total.get(kind, 0), limits, self.cluster.job, turn)

    @property
    def _usable(self) -> list[Node]:
        return [node for node in self.nodes if node.id not in self._places.out]

    def _there(self, kind: str) -> list[Node]:
        """The nodes of a kind and its device, those that are left out for failing included."""
        return [n for n in self.nodes if n.kind == kind and n.id not in self._others]

    def _say_gone(self, kind: str, there: Sequence[Node]) -> None:
        """Say it once when a kind's last node has gone, and when there is one again."""
        if there:
            since = self._gone.pop(kind, None)
            if since is not None:
                away = duration(time.monotonic() - since)
                self.tell(f"the cluster has a node of the kind {kind!r} again, after {away}")
        elif kind not in self._gone and not any(w.seat.kind == kind for w in self):
            self._gone[kind] = time.monotonic()
            self.tell(f"the cluster has no node of the kind {kind!r} any more: runs wait for one")

    def _check_left(self, kind: str, there: Sequence[Node]) -> None:
        if there and all(node.id in self._places.out for node in there):
            reasons = "; ".join(f"{node.host}: {self._places.out[node.id]}" for node in there)
            raise EnvironmentProblem(
                f"no node of the kind {kind!r} can make runs: {reasons}",
                "take another kind of device (--confirm, --screen), or mend what is said of these; "
                "nodes need Python as here, and what `pip install autoresearch` brings",
            )

    def _taken(self, node: Node) -> int:
        """Seats on a node: other studies' as of the last look, ours as of now."""
        others = sum(seat.node == node.id and seat.job != self.cluster.job for seat in self._seats)
        return others + sum(w.node.id == node.id for w in self)

    def _start(self, kind: str) -> None:
        now = time.monotonic()
        nodes = [
            node
            for node in self._usable
            if node.kind == kind and now >= self._paused.get(node.id, 0.0)
        ]
        if self._devices.asking(kind):  # one worker is enough to ask a node
            ours = {worker.node.id for worker in self}
            nodes = [n for n in nodes if n.id not in ours and not self._devices.met(n)]
        if not nodes:
            return
        # Where nothing is free it waits in line: others see it, and leave what isn't theirs.
        node = max(nodes, key=lambda node: (node.slots - self._taken(node)) / node.slots)
        self._number += 1
        seat = Seat(self.cluster.job, self.tag, kind, node.id, self._number)
        actor = self.cluster.start(seat, node, self.measures, self.environment)
        tokens = "" if self.tokens is None else self.tokens.dumps()
        self._workers.append(
            Worker(seat, node, actor, actor.hello.remote(tokens, self.backend), now)
        )

    def _retire(self, kind: str, surplus: int) -> None:
        """Give up so many: those that have nothing to do first, where others wait first."""
        ours = [w for w in self if w.seat.kind == kind and not w.leaving]
        ours.sort(key=lambda w: (w.state == BUSY, w.node.slots - self._taken(w.node)))
        for worker in ours[: max(0, surplus)]:
            if worker.state == BUSY:
                worker.leaving = True  # what it runs isn't thrown away
            else:
                self.end(worker)

    def _move(self, kind: str) -> None:
        """Who waits for room while there is some elsewhere is ended, to be started there."""
        now = time.monotonic()
        room = any(n.kind == kind and self._taken(n) < n.slots for n in self._usable)
        for worker in self:
            late = worker.state == STARTING and now - worker.since > self.patience.move
            full = self._taken(worker.node) > worker.node.slots
            if worker.seat.kind == kind and late and full and room:
                self.end(worker)
                return

    # -- what they say ---------------------------------------------------------------------------

    def answers(self, timeout: float) -> list[tuple[Worker, bytes | None, str]]:
        """What busy workers answered since, waiting up to `timeout` seconds for the first of it;
        None, and why, of one that is lost. Those that start are seen to here."""
        asked = {w.answer: w for w in self if w.answer is not None}
        ready = self.cluster.answered(list(asked), timeout)
        found: list[tuple[Worker, bytes | None, str]] = []
        now = time.monotonic()
        for reference, worker in asked.items():
            if reference not in ready:
                silent = worker.state == BUSY and now - worker.since > self.patience.silent
                if silent:
                    self.lose(worker)
                    found.append((worker, None, "it says nothing any more"))
                continue
            worker.since = now
            try:
                message = self.cluster.get(reference)
            except self.cluster.errors as error:
                state = worker.state
                self.lose(worker)
                if state in (STARTING, FETCHING):
                    self._failed(worker, error)
                else:
                    found.append((worker, None, reason_of(error)))
                continue
            if worker.state == BUSY:
                found.append((worker, message, ""))
            else:
                self._settle(worker, wire.unpack(message)[0])
        return found

    def _failed(self, worker: Worker, error: Exception) -> None:
        """One that didn't start. A node that died isn't to blame, it is gone from the list soon."""
        self.blame(worker.node, reason_of(error))

    def blame(self, node: Node, reason: str) -> None:
        """A node failed, which another may not: it is left out where it did so before."""
        if self._places.blame(node.id):
            self.leave_out(node, reason)

    def praise(self, node: Node) -> None:
        """A run came to its end on a node: failures that were before don't count any more."""
        self._places.praise(node.id)

    def leave_out(self, node: Node, reason: str) -> None:
        """Use a node no more."""
        if self._places.leave_out(node.id, reason):
            self.tell(f"the node {node.host} ({node.kind}) is left out: {reason}")
        for worker in self:
            if worker.node.id == node.id and worker.state != BUSY:
                self.end(worker)

    def _settle(self, worker: Worker, said: dict[str, Any]) -> None:
        """A step on the way to being idle: hello, text, done."""
        missing: Sequence[str] = said.get("missing", ())
        if worker.state == STARTING:
            worker.about = said
            if not self._fits(worker):
                return
        else:
            self.received.append((worker.node.id, list(said.get("received", ()))))
        if missing and self.tokens is not None:
            worker.state = FETCHING
            chunks = {path: self._in_store(path) for path in missing}
            worker.answer = worker.actor.receive.remote(self.tokens.dumps(), chunks)
            return
        worker.state, worker.answer = IDLE, None
        if not any(w.state == FETCHING for w in self):
            self._pieces.clear()  # Ray's store has better uses for the memory

    def _in_store(self, path: str) -> list[Any]:
        assert self.tokens is not None
        if path not in self._pieces:
            self._pieces[path] = [self.cluster.put(data) for data in self.tokens.pieces(path)]
        return self._pieces[path]

    def _fits(self, worker: Worker) -> bool:
        """Whether it has the device that its kind has. Scores of two devices aren't compared, so a
        kind of two would be a study of two."""
        hardware = worker.about["hardware"]
        if self.backend is None:
            return True
        if not hardware.get("id"):
            self.leave_out(worker.node, hardware.get("problem", "it has no device"))
            return False
        name, memory = str(hardware.get("name", "")), int(hardware.get("memory_bytes", 0))
        if memory < self.memory:
            self.leave_out(
                worker.node,
                f"its device ({name}) has {memory / GIB:.3g} GiB of memory and runs need "
                f"{self.memory / GIB:.3g}, see --memory",
            )
            return False
        here = Device(str(hardware["id"]), name)
        self._devices.meet(worker.node, here)
        chosen = self._choose(worker.seat.kind)
        if chosen is None:  # its node is used where no other has the usual device
            self.end(worker)
            return False
        if chosen.id != here.id:
            self._others.add(worker.node.id)
            self.leave_out(
                worker.node,
                f"it has another device ({here.name}) than the others of its kind ({chosen.name}); "
                "`ray start --labels autoresearch.kind=NAME` makes it a kind of its own",
            )
            return False
        return True

    def _choose(self, kind: str) -> Device | None:
        """The device that counts for a kind, as soon as that is known."""
        asking = self._devices.asking(kind)
        chosen = self._devices.of(kind, [n for n in self._usable if n.kind == kind])
        if asking and chosen is not None and self._devices.strange(kind):
            self.tell(
                f"no node of the kind {kind!r} that answers has the device that the champion was "
                f"measured on: it is measured anew on {chosen.name}"
            )
        return chosen

    # -- their end -------------------------------------------------------------------------------

    def lose(self, worker: Worker) -> None:
        """It is gone, or as good as that: its node gets a moment."""
        self._paused[worker.node.id] = time.monotonic() + self.patience.pause
        self.end(worker)

    def end(self, worker: Worker) -> None:
        """Kill it and what it runs."""
        if worker in self._workers:
            self._workers.remove(worker)
            self.cluster.end(worker.actor)

    def close(self) -> None:
        """End them all."""
        for worker in self:
            self.end(worker)


# What Ray says at length, in a few words.
_REASONS = {
    "node has died": "its node died",
    "memory": "it was killed because its node ran out of memory",
    "process has died": "its process died",
    "unavailable": "it can't be reached",
}


def reason_of(error: Exception) -> str:
    """What happened to a worker, in a line."""
    text = str(error)
    if "creation task" not in text and type(error).__name__ != "RuntimeEnvSetupError":
        name = type(error).__name__
        if name == "OutOfMemoryError":
            return _REASONS["memory"]
        for words in ("node has died", "process has died", "unavailable"):
            if words in text:
                return _REASONS[words]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line.partition(":")[0]]
    return (told or lines or [type(error).__name__])[-1][:300]

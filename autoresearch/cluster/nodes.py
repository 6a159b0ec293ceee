"""What devices a cluster has, by kind, and how many of them each study may take.

    nodes = nodes_of(ray.nodes())
    slots(nodes)                          # {"h100": 8, "cpu": 1}
    share(8, {"01": None, "02": 2}, "01", turn=0)      # 6

Nothing here asks Ray: it works on what Ray answered.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prepare.errors import UsageError

KIND_LABEL = "autoresearch.kind"  # a node's label that names its kind, whatever Ray found there
TYPE_LABEL = "ray.io/accelerator-type"
TYPE_RESOURCE = "accelerator_type:"
NAMESPACE = "autoresearch"  # all studies' actors are in it, so that they see each other
DRIVER, WORKER = "driver", "worker"


@dataclass(frozen=True)
class Node:
    """One living node: its kind of device, and how many runs it can make at the same time."""

    id: str
    host: str
    kind: str
    slots: int
    cpus: float  # what one slot takes of Ray's resources
    gpus: float
    memory: int = 0  # bytes


def nodes_of(found: Iterable[Mapping[str, Any]], devices: int = 1, memory: int = 0) -> list[Node]:
    """The living nodes that can make runs, from `ray.nodes()`, in a fixed order.

    devices: accelerators that one run takes, all of them of one node. memory: bytes that it needs
    of a node without any; an accelerator's own memory Ray doesn't know, so workers tell of it.
    """
    nodes = [_node(each, devices, memory) for each in found if each.get("Alive")]
    return sorted((node for node in nodes if node.slots), key=lambda node: (node.host, node.id))


def _node(found: Mapping[str, Any], devices: int, memory: int) -> Node:
    """A slot per accelerator or so many of them, which leaves processors to whoever needs them;
    without any the node is a slot and takes them all, since two would slow each other down. The
    memory is reserved there: others' work that Ray places by memory is not put beside it."""
    resources: Mapping[str, float] = found.get("Resources", {})
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 0.0)
    enough = cpus >= 1 and resources.get("memory", 0.0) >= memory
    slots = gpus // devices if gpus else int(enough)
    return Node(
        id=str(found["NodeID"]),
        host=str(found.get("NodeManagerHostname", "")),
        kind=_kind(found.get("Labels") or {}, resources),
        slots=slots,
        cpus=min(1.0, cpus) if gpus else cpus,
        gpus=float(devices) if gpus else 0.0,
        memory=0 if gpus else memory,
    )


def _kind(labels: Mapping[str, str], resources: Mapping[str, float]) -> str:
    if KIND_LABEL in labels:
        return labels[KIND_LABEL]
    if not resources.get("GPU"):
        return "cpu"
    types = [name.removeprefix(TYPE_RESOURCE) for name in resources if TYPE_RESOURCE in name]
    return (labels.get(TYPE_LABEL) or next(iter(sorted(types)), "gpu")).lower()


def slots(nodes: Sequence[Node]) -> dict[str, int]:
    """How many by kind: accelerators before processors, the more numerous before the others."""
    found: dict[str, int] = {}
    for node in nodes:
        found[node.kind] = found.get(node.kind, 0) + node.slots
    plain = {node.kind for node in nodes if not node.gpus}
    return dict(sorted(found.items(), key=lambda item: (item[0] in plain, -item[1], item[0])))


def known_kind(wanted: str, nodes: Sequence[Node]) -> str:
    """The kind that was asked for; "" is the first there is. Raises UsageError naming them all."""
    kinds = slots(nodes)
    if not kinds:
        hint = "see `ray status`; a node without accelerators needs the memory of --memory"
        raise UsageError("the cluster has no node that could make a run", hint)
    if not wanted:
        return next(iter(kinds))
    if wanted in kinds:
        return wanted
    close = difflib.get_close_matches(wanted.lower(), kinds, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    there = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
    raise UsageError(f"the cluster has no device of the kind {wanted!r}", f"{guess}It has {there}")


# -- what the names of actors say -------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    """A study at work, as the name of its own actor tells it. most: None for no limit."""

    job: str
    tag: str
    kinds: tuple[str, ...]
    most: int | None

    @property
    def name(self) -> str:
        """The name of its actor, which lives exactly as long as the study's process."""
        return json.dumps([DRIVER, self.job, self.tag, list(self.kinds), self.most])


@dataclass(frozen=True)
class Seat:
    """A worker of a study: on which node, for which kind, the how manieth."""

    job: str
    tag: str
    kind: str
    node: str
    number: int

    @property
    def name(self) -> str:
        """The name of its actor."""
        return json.dumps([WORKER, self.job, self.tag, self.kind, self.node, self.number])


def read_names(names: Iterable[str]) -> tuple[list[Driver], list[Seat]]:
    """Who is there, from the names of all actors in our namespace; strange names are left out."""
    drivers: list[Driver] = []
    seats: list[Seat] = []
    for name in names:
        try:
            role, job, tag, *rest = json.loads(name)
            if role == DRIVER:
                kinds, most = rest
                drivers.append(Driver(job, tag, tuple(kinds), most))
            elif role == WORKER:
                seats.append(Seat(job, tag, *rest))
        except (ValueError, TypeError):
            continue
    return drivers, seats


def usage(
    nodes: Sequence[Node], drivers: Iterable[Driver], seats: Sequence[Seat]
) -> dict[str, dict[str, Any]]:
    """By kind: devices, nodes, and under `studies` how many each study at work has or waits for."""
    found: dict[str, dict[str, Any]] = {}
    for kind, count in slots(nodes).items():
        studies = {driver.tag: 0 for driver in drivers if kind in driver.kinds}
        for seat in seats:
            if seat.kind == kind:
                studies[seat.tag] = studies.get(seat.tag, 0) + 1
        on = sum(node.kind == kind for node in nodes)
        found[kind] = {"devices": count, "nodes": on, "studies": studies}
    return found


def share(total: int, limits: Mapping[str, int | None], me: str, turn: int) -> int:
    """How many of `total` slots the study `me` may take, of those that are named in `limits`.

    All get one in turn until the slots are spent or everybody has as many as it wants (its limit).
    `turn` says who begins: it is raised as time passes, so that what can't be divided goes round.
    """
    order = sorted(limits)
    first = turn % len(order)
    order = order[first:] + order[:first]
    given = dict.fromkeys(order, 0)
    while total > 0:
        hungry = [job for job in order if given[job] < (limits[job] or total + given[job])]
        if not hungry:
            break
        for job in hungry[:total]:
            given[job] += 1
        total -= min(total, len(hungry))
    return given[me]

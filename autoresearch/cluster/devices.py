"""Which device a kind means, where nodes of the same kind have two: their scores aren't compared.

    devices = Devices({"a100": "3f2b8c..."}, wait=60.0)    # what the champion was measured on
    devices.meet(node, Device("3f2b8c...", "NVIDIA A100-SXM4-80GB"))
    devices.of("a100", nodes)      # None while a node that may have the champion's wasn't asked

Ray calls an A100 so whether it has 40 or 80 GB. The first node to answer may be another one after
each restart: the champion's device goes first, or it would be measured anew each time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoresearch.cluster.nodes import Node


@dataclass(frozen=True)
class Device:
    """What a node's worker says of its device."""

    id: str  # of its class of hardware
    name: str


@dataclass
class Devices:
    """By kind, the device that counts. usual: ids of those that the champion was measured on.

    wait: seconds after which those decide that have answered.
    """

    usual: Mapping[str, str]
    wait: float
    _chosen: dict[str, Device] = field(default_factory=dict)
    _met: dict[str, dict[str, Device]] = field(default_factory=dict)  # strange ones: kind, node
    _since: dict[str, float] = field(default_factory=dict)  # the first of them answered

    def meet(self, node: Node, device: Device) -> None:
        """A node says what it has. Without a usual device the first to answer decides."""
        if node.kind in self._chosen:
            return
        if self.usual.get(node.kind, device.id) == device.id:
            self._chosen[node.kind] = device
        else:
            self._met.setdefault(node.kind, {})[node.id] = device
            self._since.setdefault(node.kind, time.monotonic())

    def asking(self, kind: str) -> bool:
        """Are other nodes still to be asked, since those that answered have a strange device?"""
        return kind in self._met and kind not in self._chosen

    def met(self, node: Node) -> bool:
        """Has this node answered, with a strange device?"""
        return node.id in self._met.get(node.kind, {})

    def of(self, kind: str, nodes: Sequence[Node]) -> Device | None:
        """The device that counts, if that is known: where all of the kind's nodes answered, or it
        took too long, the one of the most slots."""
        met = self._met.get(kind, {})
        answered = [node for node in nodes if node.id in met]
        late = time.monotonic() - self._since.get(kind, time.monotonic()) >= self.wait
        if answered and self.asking(kind) and (late or len(answered) == len(nodes)):
            slots: Counter[Device] = Counter()
            for node in answered:
                slots[met[node.id]] += node.slots
            self._chosen[kind] = slots.most_common(1)[0][0]
        return self._chosen.get(kind)

    def strange(self, kind: str) -> bool:
        """Is the device that counts another than the usual one?"""
        chosen = self._chosen.get(kind)
        return chosen is not None and self.usual.get(kind, chosen.id) != chosen.id

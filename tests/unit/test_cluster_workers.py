"""Which nodes a study's workers stay on. The cluster is played."""

from types import SimpleNamespace

import pytest

from autoresearch.cluster import wire
from autoresearch.cluster.nodes import Node
from autoresearch.cluster.opening import asked_by
from autoresearch.cluster.workers import Workers
from prepare.errors import EnvironmentProblem

GIB = 2**30


class Played:
    """A cluster whose workers answer at once, each with its node's device."""

    job, errors = "01", ConnectionError

    def __init__(self, devices):
        self.devices = devices

    def nodes(self):
        return [Node(name, name, "rtx", 1, 1.0, 1.0) for name in sorted(self.devices)]

    def names(self):
        return [], []

    def announce(self, driver): ...

    def end(self, actor): ...

    def start(self, seat, node, kinds, environment):
        hello = wire.pack({"hardware": self.devices[node.id]}, {})
        return SimpleNamespace(hello=SimpleNamespace(remote=lambda tokens, backend: hello))

    def answered(self, references, timeout):
        return set(references)

    def get(self, reference):
        return reference


def device(gib, name="RTX 4090"):
    return {"id": name, "name": name, "memory_bytes": int(gib * GIB)}


def tended(devices, memory, told, looks=4):
    cluster = Played(devices)
    workers = Workers(cluster, "t", ("rtx",), None, "", "{}", None, "", memory, told.append)
    for _ in range(looks):
        workers.tend({"rtx": len(devices)})
        assert workers.answers(0.0) == []
    return {worker.node.id for worker in workers.idle("rtx")}


def test_a_device_with_too_little_memory_is_left_out_and_told():
    told = []
    devices = {"large": device(23.6), "small": device(11.9)}
    assert tended(devices, 20 * GIB, told) == {"large"}
    assert told == [
        "the node small (rtx) is left out: its device (RTX 4090) has 11.9 GiB of memory and runs "
        "need 20, see --memory"
    ]


def test_where_all_are_too_small_the_study_ends_with_the_reason_and_another_kind_as_way_out():
    with pytest.raises(EnvironmentProblem) as refused:
        tended({"small": device(11.9)}, 20 * GIB, [])
    assert "11.9 GiB of memory and runs need 20" in refused.value.message
    assert "--confirm" in refused.value.hint


def test_of_two_devices_under_one_name_the_second_is_left_out():
    told = []
    devices = {"a": device(24), "b": device(24, "RTX 3090")}
    assert tended(devices, 0, told) == {"a"}
    assert "another device (RTX 3090)" in told[0]


def test_a_preset_tells_the_memory_that_runs_need_and_an_unknown_one_nothing():
    assert asked_by("rtx-4090") == 20
    assert asked_by("somebody's own") == 0

"""What a cluster's devices are called, and who may take how many of them. No Ray here."""

import pytest

from autoresearch.cluster.nodes import (
    Driver,
    Seat,
    known_kind,
    nodes_of,
    read_names,
    share,
    slots,
    usage,
)
from prepare.errors import UsageError


def node(name, labels=None, alive=True, **resources):
    named = {key.replace("__", ":"): value for key, value in resources.items()}
    return {
        "NodeID": name,
        "NodeManagerHostname": name,
        "Alive": alive,
        "Resources": named,
        "Labels": labels or {},
    }


NODES = nodes_of(
    [
        node("head", CPU=8.0),
        node("a", CPU=64.0, GPU=8.0, accelerator_type__H100=1.0),
        node("b", CPU=64.0, GPU=8.0, labels={"ray.io/accelerator-type": "H100"}),
        node("c", CPU=16.0, GPU=1.0, accelerator_type__T4=1.0),
        node("d", CPU=4.0, GPU=1.0),
        node("e", CPU=16.0, GPU=1.0, labels={"autoresearch.kind": "desk"}),
        node("f", alive=False, CPU=64.0, GPU=8.0),
        node("g", memory=1e9),  # no processors to give: a head that only holds the cluster together
    ]
)


def test_kinds_are_told_by_label_then_by_accelerator_and_dead_nodes_count_for_nothing():
    assert slots(NODES) == {"h100": 16, "desk": 1, "gpu": 1, "t4": 1, "cpu": 1}
    assert next(iter(slots(NODES))) == "h100"  # the default: accelerators first, most first
    assert list(slots(NODES))[-1] == "cpu"


def test_a_slot_takes_one_accelerator_or_a_whole_node_without_any():
    taken = {n.host: (n.slots, n.gpus, n.cpus) for n in NODES}
    assert taken["a"] == (8, 1.0, 1.0)
    assert taken["head"] == (1, 0.0, 8.0)
    raw = [node("a", CPU=64.0, GPU=8.0), node("b", CPU=8.0, GPU=2.0)]
    assert [(n.host, n.slots, n.gpus) for n in nodes_of(raw, devices=4)] == [("a", 2, 4.0)]


def test_a_node_without_accelerators_has_a_slot_where_its_memory_is_enough():
    raw = [node("a", CPU=8.0, memory=8e9), node("b", CPU=8.0, memory=2e9), node("c", CPU=8.0)]
    raw.append(node("d", CPU=8.0, GPU=2.0))  # an accelerator's own memory its workers tell
    found = nodes_of(raw, memory=4_000_000_000)
    assert [(n.host, n.slots, n.memory) for n in found] == [("a", 1, 4_000_000_000), ("d", 2, 0)]


def test_a_kind_that_is_not_there_is_refused_with_those_that_are():
    assert known_kind("", NODES) == "h100"
    assert known_kind("h100", NODES) == "h100"
    with pytest.raises(UsageError) as refused:
        known_kind("H10", NODES)
    assert "did you mean 'h100'" in refused.value.hint
    assert "t4 (1)" in refused.value.hint
    with pytest.raises(UsageError):
        known_kind("", [])


def test_names_of_actors_tell_studies_and_seats_and_strangers_are_left_out():
    driver = Driver("01", 'ma"r5', ("h100", "t4"), 3)
    seat = Seat("01", 'ma"r5', "h100", "a", 7)
    strange = ["", "[]", "{}", '["worker"]', '["other", "1", "2"]', "somebody's"]
    assert read_names([driver.name, seat.name, *strange]) == ([driver], [seat])


def test_who_uses_what_is_told_by_kind():
    drivers = [Driver("01", "mar5", ("h100", "t4"), None), Driver("02", "apr1", ("h100",), 1)]
    seats = [Seat("01", "mar5", "h100", "a", 1), Seat("01", "mar5", "h100", "b", 2)]
    found = usage(NODES, drivers, seats)
    assert found["h100"] == {"devices": 16, "nodes": 2, "studies": {"mar5": 2, "apr1": 0}}
    assert found["t4"]["studies"] == {"mar5": 0} and found["cpu"]["studies"] == {}


@pytest.mark.parametrize(
    ("total", "limits", "expected"),
    [
        (8, {"a": None}, [8]),
        (8, {"a": None, "b": None}, [4, 4]),
        (8, {"a": 2, "b": None}, [2, 6]),  # what one doesn't want, the others get
        (8, {"a": 1, "b": 1}, [1, 1]),
        (7, {"a": None, "b": None, "c": None}, [3, 2, 2]),
        (1, {"a": None, "b": None}, [1, 0]),
        (0, {"a": None}, [0]),
    ],
)
def test_shares_are_equal_up_to_what_is_wanted(total, limits, expected):
    assert [share(total, limits, me, turn=0) for me in limits] == expected


def test_what_can_not_be_divided_goes_round():
    limits = {"a": None, "b": None, "c": None}
    got = {me: sum(share(7, limits, me, turn) for turn in range(3)) for me in limits}
    assert got == {"a": 7, "b": 7, "c": 7}
    alone = [[share(1, limits, me, turn) for me in limits] for turn in range(3)]
    assert alone == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

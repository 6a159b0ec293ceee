"""Which places for runs a machine has: one per accelerator, or shares where they were asked for.

The machines are made up; what is asked for them is what their owners would type.
"""

from __future__ import annotations

import os

import pytest

from autoresearch import slots
from autoresearch.slots import find_slots
from backends.facts import DeviceFacts, HostFacts, Machine, TorchFacts
from backends.hardware import GIB, Hardware
from prepare.errors import UsageError

A100 = DeviceFacts("NVIDIA A100", 80 * GIB, capability=(8, 0))
T4 = DeviceFacts("Tesla T4", 16 * GIB, capability=(7, 5))


def hardware(backend: str, count: int, features: tuple[str, ...] = ()) -> Hardware:
    """A device of a made-up machine."""
    name = {"cpu": "Some CPU", "mps": "Apple M4"}.get(backend, "Some GPU")
    return Hardware(
        backend, "acme", name, "a1", 80 * GIB, count, "1", "torch", "2.13", "Linux", features
    )


def machine(*devices: DeviceFacts) -> Machine:
    """A machine with these accelerators."""
    facts = TorchFacts("2.13", cuda="13.0", gpus=devices, xpus=devices)
    return Machine(HostFacts("Linux"), lambda: facts, lambda: "no mlx")


def test_one_slot_per_accelerator_and_each_sees_its_own():
    four = hardware("cuda", 4)
    found = find_slots(four, machine=machine(*[A100] * 4), environ={})
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1", "2", "3"]
    assert {(slot.cores, slot.shared_by) for slot in found} == {((), 1)}
    two = find_slots(four, workers=2, machine=machine(*[A100] * 4), environ={})
    assert [slot.name for slot in two] == ["cuda 0", "cuda 1"]


@pytest.mark.parametrize("given", ["2,3", " 2, 3 ", "GPU-aa,GPU-bb", "2,3,"])
def test_devices_that_the_user_left_out_are_not_used(given):
    environ = {"CUDA_VISIBLE_DEVICES": given}
    found = find_slots(hardware("cuda", 2), machine=machine(A100, A100), environ=environ)
    named = [part.strip() for part in given.split(",") if part.strip()]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == named


def test_amd_and_intel_devices_are_named_by_their_own_variables():
    environ = {"HIP_VISIBLE_DEVICES": "1,4"}
    found = find_slots(hardware("rocm", 2), machine=machine(A100, A100), environ=environ)
    assert [slot.environment["HIP_VISIBLE_DEVICES"] for slot in found] == ["1", "4"]
    # Both are understood there, and a process with two that disagree sees nothing.
    found = find_slots(
        hardware("rocm", 2), machine=machine(A100, A100), environ={"CUDA_VISIBLE_DEVICES": "6,7"}
    )
    assert {tuple(slot.environment.values()) for slot in found} == {("6", "6"), ("7", "7")}
    found = find_slots(hardware("xpu", 2), machine=machine(A100, A100), environ={})
    assert [slot.environment for slot in found] == [
        {"ZE_AFFINITY_MASK": "0"},
        {"ZE_AFFINITY_MASK": "1"},
    ]


def test_a_run_on_several_accelerators_takes_as_many_slots_worth():
    four = machine(*[A100] * 4)
    found = find_slots(hardware("cuda", 4), machine=four, environ={}, devices=2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0,1", "2,3"]
    assert [slot.name for slot in found] == ["cuda 0, cuda 1", "cuda 2, cuda 3"]
    three = find_slots(hardware("rocm", 4), machine=four, environ={}, devices=3)
    assert [slot.environment["HIP_VISIBLE_DEVICES"] for slot in three] == ["0,1,2"]
    with pytest.raises(UsageError, match="3 workers, and accelerators for 2, as a run takes 2"):
        find_slots(hardware("cuda", 4), 3, machine=four, environ={}, devices=2)
    # Too few: the harness says how many there are, so none may be hidden from it.
    few = find_slots(hardware("cuda", 4), machine=four, environ={}, devices=8)
    assert [slot.environment for slot in few] == [{}]
    assert len(find_slots(hardware("cpu", 8), environ={}, devices=2)) == 1


def test_a_device_unlike_the_first_is_left_out():
    found = find_slots(hardware("cuda", 3), machine=machine(A100, T4, A100), environ={})
    assert [slot.name for slot in found] == ["cuda 0", "cuda 2"]
    with pytest.raises(UsageError, match="3 workers, and 2 accelerators that are equal"):
        find_slots(hardware("cuda", 3), workers=3, machine=machine(A100, T4, A100), environ={})


@pytest.mark.parametrize("backend", ["cpu", "mps", "mlx"])
def test_a_processor_is_one_accelerator_and_is_shared_by_choice_alone(backend):
    one = hardware(backend, 8)
    (slot,) = find_slots(one, environ={})
    assert slot.environment == {} and slot.shared_by == 1
    with pytest.raises(UsageError, match="2 workers, and one accelerator") as raised:
        find_slots(one, workers=2, environ={})
    assert "--share-device" in raised.value.hint and "--workers 1" in raised.value.hint


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine with so many cores, all of them equal."""
    monkeypatch.setattr("backends.facts.usable_cores", lambda: 8)
    monkeypatch.setattr(slots, "_own_cores", lambda: [*range(8)])
    monkeypatch.setattr(slots, "_alike", lambda cores: True)


@pytest.mark.usefixtures("eight_cores")
def test_who_shares_a_processor_has_cores_and_threads_of_its_own():
    found = find_slots(hardware("cpu", 8), workers=3, share=True, environ={})
    assert [slot.cores for slot in found] == [(0, 1), (2, 3), (4, 5)]
    assert {slot.environment["OMP_NUM_THREADS"] for slot in found} == {"2"}
    assert {slot.shared_by for slot in found} == {3}
    fewer = find_slots(hardware("cpu", 8), 2, share=True, environ={"OMP_NUM_THREADS": "1"})
    assert {slot.environment["OMP_NUM_THREADS"] for slot in fewer} == {"1"}
    assert {slot.environment["MKL_NUM_THREADS"] for slot in fewer} == {"4"}
    with pytest.raises(UsageError, match="9 workers, and 8 cores"):
        find_slots(hardware("cpu", 8), 9, share=True, environ={})


@pytest.mark.usefixtures("eight_cores")
def test_accelerators_are_shared_equally_or_not_at_all():
    two = machine(A100, A100)
    found = find_slots(hardware("cuda", 2), workers=4, share=True, machine=two, environ={})
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "0", "1", "1"]
    assert {slot.shared_by for slot in found} == {2}
    assert len({slot.cores for slot in found}) == 4 and len({slot.name for slot in found}) == 4
    assert [slot.device for slot in found] == ["cuda 0", "cuda 0", "cuda 1", "cuda 1"]
    with pytest.raises(UsageError, match="3 workers can't share 2"):
        find_slots(hardware("cuda", 2), workers=3, share=True, machine=two, environ={})
    # Asked to share, but there is no need: nothing is shared.
    alone = find_slots(hardware("cuda", 2), workers=2, share=True, machine=two, environ={})
    assert {slot.shared_by for slot in alone} == {1}


def test_cores_of_two_speeds_are_not_dealt_out(tmp_path):
    pattern = str(tmp_path / "cpu{}")
    for core, speed in enumerate(("5000000", "5000000", "3800000")):
        (tmp_path / f"cpu{core}").write_text(speed + "\n")
    assert slots._alike([0, 1], pattern) and not slots._alike([1, 2], pattern)
    assert slots._alike([7, 8], pattern)  # a machine that doesn't tell
    assert not hasattr(os, "sched_getaffinity") or slots._own_cores()

"""Where this machine can make runs at the same time: a slot per accelerator, or shares of one.

    slots = find_slots(backends.select().hardware)                   # one per accelerator
    slots = find_slots(hardware, workers=2, share=True)              # two on the same processor
    slots[0].environment      # {"CUDA_VISIBLE_DEVICES": "0"}

What a processor, an Apple GPU or MLX runs on is one accelerator, however many cores it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prepare.errors import UsageError

if TYPE_CHECKING:
    from backends.facts import Machine
    from backends.hardware import Hardware

# By backend, the variable that says which devices a process sees, and others that mean the same.
VISIBLE = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "rocm": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "xpu": ("ZE_AFFINITY_MASK",),
}
# Where libraries are told how many threads to use; what the user has set lower stays.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FREQUENCY = "/sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"


@dataclass(frozen=True)
class Slot:
    """One place for runs: the variables that name its device, and the cores that are its own.

    cores: () for all. shared_by: slots on the same device.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    shared_by: int = 1
    shares: str = ""  # the name of the device, where it is shared

    @property
    def device(self) -> str:
        """The name of its device."""
        return self.shares or self.name


def find_slots(
    hardware: Hardware,
    workers: int | None = None,
    share: bool = False,
    machine: Machine | None = None,
    environ: Mapping[str, str] | None = None,
    devices: int = 1,
) -> list[Slot]:
    """As many slots as workers are asked for; None for one per accelerator.

    devices: how many accelerators one run takes; each slot then has as many.
    Devices that differ from the first aren't used: what is measured on them can't be compared.
    Raises UsageError for more workers than accelerators unless they may share.
    """
    environ = os.environ if environ is None else environ
    places = _grouped(_devices(hardware, machine, environ), devices)
    wanted = len(places) if workers is None else workers
    if wanted <= len(places):
        return [Slot(name, values) for name, values in places[:wanted]]
    if not share:
        raise UsageError(
            f"{wanted} workers, and {_count(len(places), hardware, devices)}",
            f"take --workers {len(places)}, or add --share-device: runs then share a device, "
            "each has less of it, and their scores are compared among themselves alone",
        )
    if wanted % len(places):
        raise UsageError(
            f"{wanted} workers can't share {len(places)} accelerators equally",
            f"take a multiple of {len(places)}: runs are compared, so each must have as much",
        )
    together = wanted // len(places)
    shares = _shares(hardware, wanted, environ)
    return [
        Slot(f"{name}, share {1 + number}", {**values, **threads}, cores, together, name)
        for (name, values), number, (cores, threads) in zip(
            [place for place in places for _ in range(together)],
            [*range(together)] * len(places),
            shares,
            strict=True,
        )
    ]


def _grouped(
    found: list[tuple[str, dict[str, str]]], number: int
) -> list[tuple[str, dict[str, str]]]:
    """So many accelerators to each place; all to one where there are fewer, or they are one."""
    if number == 1:
        return found
    starts = range(0, len(found) - number + 1, number)
    groups = [found[start : start + number] for start in starts]
    return [
        (
            ", ".join(name for name, _ in group),
            {key: ",".join(values[key] for _, values in group) for key in group[0][1]},
        )
        for group in groups
    ] or [(found[0][0], {})]


def _count(number: int, hardware: Hardware, devices: int) -> str:
    if devices > 1:
        return f"accelerators for {number}, as a run takes {devices} ({hardware.name})"
    if number > 1:
        return f"{number} accelerators that are equal ({hardware.name})"
    return f"one accelerator ({hardware.name})"


def _devices(
    hardware: Hardware, machine: Machine | None, environ: Mapping[str, str]
) -> list[tuple[str, dict[str, str]]]:
    """Name of each accelerator, and what makes it the only one that a process sees."""
    if hardware.backend not in VISIBLE:
        return [(hardware.name or hardware.backend, {})]
    variables = VISIBLE[hardware.backend]
    given = next((environ[name] for name in variables if environ.get(name)), "")
    ids = [part.strip() for part in given.split(",") if part.strip()]
    ids = ids or [str(number) for number in range(hardware.count)]
    equal = _equal_to_first(hardware, machine)
    return [
        (f"{hardware.backend} {ids[number]}", dict.fromkeys(variables, ids[number]))
        for number in equal
        if number < len(ids)
    ]


def _equal_to_first(hardware: Hardware, machine: Machine | None) -> Sequence[int]:
    """Numbers, among the devices that this process sees, of those like the first."""
    if hardware.count == 1:
        return [0]
    if machine is None:
        from backends.facts import this_machine

        machine = this_machine()
    torch = machine.torch()
    if isinstance(torch, str):
        return [0]
    devices = torch.xpus if hardware.backend == "xpu" else torch.gpus
    first = devices[0]
    return [
        number
        for number, device in enumerate(devices)
        if (device.name, device.capability, device.gfx) == (first.name, first.capability, first.gfx)
    ]


def _shares(
    hardware: Hardware, workers: int, environ: Mapping[str, str]
) -> list[tuple[tuple[int, ...], dict[str, str]]]:
    """For each of so many workers its own cores, where they can be set, and its threads."""
    from backends.facts import usable_cores

    usable = usable_cores()
    each = usable // workers
    on_cores = hardware.backend == "cpu" or hardware.has("host")
    if each < 1:
        if on_cores:
            raise UsageError(
                f"{workers} workers, and {usable} core{'' if usable == 1 else 's'}",
                f"take --workers {usable} at the most: each worker needs a core",
            )
        return [((), {})] * workers
    threads = {
        name: str(min(each, int(given) if given.isdigit() else each))
        for name in THREADS
        for given in (environ.get(name, ""),)
    }
    cores = _own_cores()
    if not _alike(cores):
        return [((), threads)] * workers
    return [(tuple(cores[at * each : (at + 1) * each]), threads) for at in range(workers)]


def _own_cores() -> list[int]:
    """The cores that this process may run on; none where they can't be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def _alike(cores: Iterable[int], pattern: str = FREQUENCY) -> bool:
    """Are all as fast, as far as that is known? Where some aren't, no worker gets the slow ones."""
    found = {
        path.read_text().strip() for core in cores if (path := Path(pattern.format(core))).is_file()
    }
    return len(found) < 2

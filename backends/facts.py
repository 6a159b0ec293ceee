"""What the machine says of itself, before anybody judges it.

    machine = this_machine()
    machine.host.system              # "Linux"
    machine.torch()                  # TorchFacts, or the reason why there are none

A fact is read, never guessed, and reading one allocates nothing on a device. Tests build a
`Machine` of their own and so have any hardware they like.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class HostFacts:
    """The computer apart from accelerators."""

    system: str  # "Linux", "Darwin", "Windows"
    release: str = ""
    machine: str = "x86_64"  # as platform.machine() spells it
    cpu_name: str = ""
    cpu_flags: frozenset[str] = frozenset()  # of the fast low-precision kind: CPU_FLAGS
    cores: int = 1  # usable by this process
    memory_bytes: int = 0  # what this process may use: the container's limit counts
    c_compiler: str = ""  # Triton builds its launchers with it
    cxx_compiler: str = ""  # torch.compile builds CPU kernels with it
    python_headers: bool = False  # Python.h: Triton's launchers include it
    driver: str = ""  # of the NVIDIA kernel module


@dataclass(frozen=True)
class DeviceFacts:
    """One accelerator, as torch describes it."""

    name: str
    memory_bytes: int
    capability: tuple[int, int] | None = None  # CUDA compute capability
    gfx: str = ""  # ROCm architecture with its flags, "gfx942:sramecc+:xnack-"
    integrated: bool = False  # shares the host's memory
    driver: str = ""


@dataclass(frozen=True)
class TorchFacts:
    """PyTorch: what it was built for and what it sees."""

    version: str
    cuda: str = ""  # CUDA version it was built with
    hip: str = ""
    xpu_built: bool = False
    mps_built: bool = False
    mps_available: bool = False
    arch_list: tuple[str, ...] = ()  # "sm_90", "compute_120", "gfx942": what it has kernels for
    gpus: tuple[DeviceFacts, ...] = ()  # CUDA or ROCm
    gpu_problem: str = ""  # why there are none though it was built for them
    xpus: tuple[DeviceFacts, ...] = ()
    cpu_flags: frozenset[str] = frozenset()
    triton: str = ""  # its version


@dataclass(frozen=True)
class MlxFacts:
    """MLX: what it runs on."""

    version: str
    device: str = "cpu"  # "metal", "cuda" or "cpu"
    name: str = ""
    architecture: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True)
class Machine:
    """Facts of one computer; a framework is asked (and imported) only when it matters."""

    host: HostFacts
    torch: Callable[[], TorchFacts | str]
    mlx: Callable[[], MlxFacts | str]


# Instructions that make bfloat16 matrix products faster than float32 ones.
CPU_FLAGS = ("avx512_bf16", "amx_bf16", "arm_bf16")


@functools.lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The computer we are on. Facts are read once per process."""
    return Machine(
        host=read_host(),
        torch=functools.lru_cache(maxsize=1)(read_torch),
        mlx=functools.lru_cache(maxsize=1)(read_mlx),
    )


def read_host() -> HostFacts:
    """Facts about the computer itself; imports no framework."""
    system = platform.system()
    name, flags = _read_cpu(system)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return HostFacts(
        system=system,
        release=platform.release(),
        machine=platform.machine(),
        cpu_name=name,
        cpu_flags=flags,
        cores=usable_cores(),
        memory_bytes=_usable_memory(),
        c_compiler=_first_program(os.environ.get("CC", ""), "gcc", "clang", "cc", "cl"),
        cxx_compiler=_first_program(
            os.environ.get("CXX", ""),
            *(("cl",) if system == "Windows" else ("g++", "clang++", "c++")),
        ),
        python_headers=headers.is_file(),
        driver=_nvidia_driver(),
    )


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPU cores this process may run on: its affinity, or its container's quota if that is less."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    if quota.is_file():
        allowed, _, period = quota.read_text().partition(" ")  # "200000 100000", or "max 100000"
        if allowed.isdigit():
            cores = min(cores, max(1, round(int(allowed) / int(period))))
    return cores


def _usable_memory() -> int:
    """Bytes of memory for this process: the machine's, or its container's if that is less."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    cgroup = Path("/sys/fs/cgroup/memory.max")
    if cgroup.is_file() and (text := cgroup.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def _first_program(*names: str) -> str:
    """The first of these programs that is on the path, as it was named."""
    return next((name for name in names if name and shutil.which(name.split()[0])), "")


def _read_cpu(system: str) -> tuple[str, frozenset[str]]:
    """Marketing name, and those of CPU_FLAGS that the processor has."""
    if system == "Linux":
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    if system == "Darwin":
        bf16 = _output("sysctl", "-n", "hw.optional.arm.FEAT_BF16") == "1"
        return _output("sysctl", "-n", "machdep.cpu.brand_string"), frozenset(
            {"arm_bf16"} if bf16 else ()
        )
    return platform.processor(), frozenset()  # torch knows the flags on Windows: see read_torch


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and CPU_FLAGS from the text of Linux's /proc/cpuinfo.

    A virtual machine may say no more than "AMD EPYC", of which one generation multiplies twice as
    fast as another: the family and model, which tell them apart, are part of such a name.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split()) & set(CPU_FLAGS)
    if "bf16" in fields.get("Features", "").split():  # ARM spells it so
        flags.add("arm_bf16")
    name = fields.get("model name", fields.get("Model", ""))
    if name and "cpu family" in fields and not re.search(r"\d", name):
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name, frozenset(flags)


def _nvidia_driver() -> str:
    """Version of the NVIDIA kernel driver, or "" where there is none."""
    path = Path("/proc/driver/nvidia/version")
    if path.is_file():
        found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", path.read_text(errors="replace"))
        return found.group(1) if found else ""
    if shutil.which("nvidia-smi"):
        listed = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return listed.splitlines()[0].strip() if listed else ""
    return ""


def _output(*command: str) -> str:
    """What a small system tool prints; "" if it is missing, fails or takes over 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def read_torch() -> TorchFacts | str:
    """What PyTorch sees, or why it can't be asked."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that doesn't load
        return f"torch is installed but fails to import: {_first_line(error)}"
    gpus, problem = _torch_gpus(torch)
    mps = torch.backends.mps
    return TorchFacts(
        version=str(torch.__version__),
        cuda=torch.version.cuda or "",
        hip=torch.version.hip or "",
        xpu_built=bool(getattr(torch.version, "xpu", None)),
        mps_built=mps.is_built(),
        mps_available=mps.is_available(),
        arch_list=tuple(torch.cuda.get_arch_list()) if gpus else (),
        gpus=gpus,
        gpu_problem=problem,
        xpus=_torch_xpus(torch),
        cpu_flags=_torch_cpu_flags(torch),
        triton=_version(
            "triton", "triton-windows", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm"
        ),
    )


def _torch_gpus(torch: Any) -> tuple[tuple[DeviceFacts, ...], str]:
    """CUDA or ROCm devices, or why there are none. Reads properties: no context is created."""
    if not (torch.version.cuda or torch.version.hip):
        return (), ""
    try:
        torch.cuda.init()  # unlike is_available, it says what is wrong
        listed = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        return (), _first_line(error)
    devices = tuple(
        DeviceFacts(
            name=device.name,
            memory_bytes=int(device.total_memory),
            capability=(device.major, device.minor) if torch.version.cuda else None,
            gfx=getattr(device, "gcnArchName", ""),
            integrated=bool(getattr(device, "is_integrated", False)),
        )
        for device in listed
    )
    return devices, "" if devices else "torch sees no GPU (is CUDA_VISIBLE_DEVICES empty?)"


def _torch_xpus(torch: Any) -> tuple[DeviceFacts, ...]:
    """Intel GPUs that torch can use."""
    if not torch.xpu.is_available():
        return ()
    listed = [torch.xpu.get_device_properties(i) for i in range(torch.xpu.device_count())]
    return tuple(
        DeviceFacts(
            name=device.name,
            memory_bytes=int(device.total_memory),
            gfx=str(getattr(device, "architecture", "")),
            driver=str(getattr(device, "driver_version", "")),
        )
        for device in listed
    )


def _torch_cpu_flags(torch: Any) -> frozenset[str]:
    """CPU_FLAGS as torch's own cpuinfo sees them: the only source on Windows."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return frozenset()
    capabilities = torch.cpu.get_capabilities()
    flags = {flag for flag in ("avx512_bf16", "amx_bf16") if capabilities.get(flag)}
    if capabilities.get("bf16"):  # as cpuinfo names it on ARM
        flags.add("arm_bf16")
    return frozenset(flags)


def read_mlx() -> MlxFacts | str:
    """What MLX runs on, or why it can't be asked."""
    if importlib.util.find_spec("mlx") is None:
        return "mlx is not installed"
    try:
        import mlx.core as mx
    except (ImportError, OSError) as error:
        return f"mlx is installed but fails to import: {_first_line(error)}"
    metal = mx.metal.is_available()
    cuda = hasattr(mx, "cuda") and mx.cuda.is_available()
    info: dict[str, Any] = mx.device_info() if hasattr(mx, "device_info") else {}
    if metal and not info:
        info = mx.metal.device_info()
    return MlxFacts(
        version=_version("mlx"),
        device="metal" if metal else "cuda" if cuda else "cpu",
        name=str(info.get("device_name", "")),
        architecture=str(info.get("architecture", "")),
        memory_bytes=int(info.get("memory_size", 0)),
    )


def _version(*distributions: str) -> str:
    """Version of the first of these distributions that is installed, or ""."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _first_line(error: BaseException) -> str:
    """One line of an error's text; its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Fake machines: the facts of computers that no test has at hand."""

from __future__ import annotations

from backends.facts import DeviceFacts, HostFacts, Machine, MlxFacts, TorchFacts

GIB = 2**30
NO_MLX = "mlx is not installed"

LINUX = HostFacts(
    system="Linux",
    release="6.8.0",
    cpu_name="Intel(R) Core(TM) i9",
    cores=16,
    memory_bytes=64 * GIB,
    c_compiler="gcc",
    cxx_compiler="g++",
    python_headers=True,
    driver="580.65.06",
)
WINDOWS = HostFacts(system="Windows", machine="AMD64", cores=16, memory_bytes=32 * GIB)
MAC = HostFacts(
    system="Darwin",
    release="24.1.0",
    machine="arm64",
    cpu_name="Apple M4 Max",
    cpu_flags=frozenset({"arm_bf16"}),
    cores=16,
    memory_bytes=64 * GIB,
    cxx_compiler="clang++",
)
CUDA_WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
ROCM_WHEEL = ("gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1201")
CPU_TORCH = TorchFacts(version="2.13.0+cpu")


def machine(
    host: HostFacts = LINUX, torch: TorchFacts | str = CPU_TORCH, mlx: MlxFacts | str = NO_MLX
) -> Machine:
    """A machine with these facts."""
    return Machine(host, lambda: torch, lambda: mlx)


def nvidia(
    name: str,
    capability: tuple[int, int],
    gib: float = 24,
    host: HostFacts = LINUX,
    triton: str = "3.5.0",
    arch_list: tuple[str, ...] = CUDA_WHEEL,
    integrated: bool = False,
) -> Machine:
    """A machine with one NVIDIA GPU."""
    gpu = DeviceFacts(name, int(gib * GIB), capability, integrated=integrated)
    torch = TorchFacts("2.13.0+cu130", cuda="13.0", arch_list=arch_list, gpus=(gpu,), triton=triton)
    return machine(host, torch)


def amd(name: str, gfx: str, gib: float = 24) -> Machine:
    """A Linux machine with one AMD GPU."""
    gpu = DeviceFacts(name, int(gib * GIB), gfx=gfx)
    torch = TorchFacts(
        "2.13.0+rocm7.1", hip="7.1.0", arch_list=ROCM_WHEEL, gpus=(gpu,), triton="3.5.0"
    )
    return machine(torch=torch)


def intel(name: str = "Intel(R) Arc(TM) B580 Graphics") -> Machine:
    """A Linux machine with an Intel GPU."""
    gpu = DeviceFacts(name, 12 * GIB)
    return machine(
        torch=TorchFacts("2.13.0+xpu", xpu_built=True, xpus=(gpu,), triton="3.5.0"),
    )


def mac(mlx: bool = True, mps: bool = True) -> Machine:
    """An Apple silicon Mac."""
    facts = MlxFacts("0.32.4", "metal", "Apple M4 Max", "applegpu_g16s", 64 * GIB)
    torch = TorchFacts("2.13.0", mps_built=True, mps_available=mps)
    return machine(MAC, torch, facts if mlx else NO_MLX)


H100 = nvidia("NVIDIA H100 80GB HBM3", (9, 0), 80)
B200 = nvidia("NVIDIA B200", (10, 0), 180)
B300 = nvidia("NVIDIA B300 SXM6 AC", (10, 3), 270)
RTX_5090 = nvidia("NVIDIA GeForce RTX 5090", (12, 0), 32)
DGX_SPARK = nvidia("NVIDIA GB10", (12, 1), 120, integrated=True)
RTX_4090 = nvidia("NVIDIA GeForce RTX 4090", (8, 9), 24)
RTX_3090 = nvidia("NVIDIA GeForce RTX 3090", (8, 6), 24)
A100 = nvidia("NVIDIA A100-SXM4-80GB", (8, 0), 80)
T4 = nvidia("Tesla T4", (7, 5), 16)
OLD_WHEEL = ("sm_60", "sm_61", "sm_70", "sm_75", "sm_80", "sm_90")
GTX_1080 = nvidia("NVIDIA GeForce GTX 1080", (6, 1), 8, arch_list=OLD_WHEEL)
V100 = nvidia("Tesla V100-SXM2-16GB", (7, 0), 16, arch_list=OLD_WHEEL)
WINDOWS_4090 = nvidia("NVIDIA GeForce RTX 4090", (8, 9), 24, host=WINDOWS, triton="")
MI300X = amd("AMD Instinct MI300X", "gfx942:sramecc+:xnack-", 192)
MI250X = amd("AMD Instinct MI250X", "gfx90a:sramecc+:xnack-", 64)
MI355X = amd("AMD Instinct MI355X", "gfx950:sramecc+:xnack-", 288)
RX_7900XTX = amd("AMD Radeon RX 7900 XTX", "gfx1100", 24)
RX_6900XT = amd("AMD Radeon RX 6900 XT", "gfx1030", 16)
RX_9070XT = amd("AMD Radeon RX 9070 XT", "gfx1201", 16)

"""The probes: one per backend, from a machine's facts to a `Hardware` or the reason why not.

    probe_cuda(machine)      # Hardware(...), or
                             # Miss("cuda", "torch 2.13.0+cpu was built without CUDA")

Features they give, for policies to ask for: bf16, fp16 (fast matrix products in these), triton,
c_compiler, cxx_compiler, python_headers (what compilation needs), unified_memory, metal, cuda,
cdna, rdna, host (it runs on the processor), and those of facts.CPU_FLAGS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from backends.facts import CPU_FLAGS, DeviceFacts, HostFacts, Machine, TorchFacts
from backends.hardware import Hardware, Miss, Probe


def probe_cuda(machine: Machine) -> Hardware | Miss:
    """NVIDIA GPUs; bf16 and fp16 mean that tensor cores multiply them."""
    torch = machine.torch()
    if machine.host.system == "Darwin":
        return Miss("cuda", "macOS has no CUDA", "use mlx or mps")
    if isinstance(torch, str):
        return Miss("cuda", torch, _INSTALL_TORCH)
    if not torch.cuda:
        return Miss("cuda", f"torch {torch.version} was built without CUDA", _INSTALL_CUDA)
    if not torch.gpus:
        return Miss(
            "cuda",
            torch.gpu_problem or "torch sees no GPU",
            "check that `nvidia-smi` lists the GPU",
        )
    device = torch.gpus[0]
    major, minor = device.capability or (0, 0)
    architecture = f"sm_{major}{minor}"
    if not cuda_kernels_fit((major, minor), torch.arch_list):
        built = " ".join(torch.arch_list)
        hint = _INSTALL_OLDER if major < 7 or (major, minor) < (7, 5) else _INSTALL_CUDA
        return Miss(
            "cuda",
            f"torch {torch.version} has no kernels for {architecture} (built for {built})",
            hint,
        )
    features = _tools(machine.host, torch)
    if (major, minor) >= (8, 0):
        features |= {"bf16"}
    if (major, minor) >= (7, 0):
        features |= {"fp16"}
    if device.integrated:
        features |= {"unified_memory"}
    return _torch_hardware(
        "cuda", "nvidia", device, architecture, machine.host, torch, features, torch.gpus
    )


def probe_rocm(machine: Machine) -> Hardware | Miss:
    """AMD GPUs. Features: cdna or rdna; bf16 and fp16 where matrix instructions have them."""
    if machine.host.system == "Darwin":
        return Miss("rocm", "macOS has no ROCm", "use mlx or mps")
    torch = machine.torch()
    if isinstance(torch, str):
        return Miss("rocm", torch, _INSTALL_TORCH)
    if not torch.hip:
        return Miss("rocm", f"torch {torch.version} was built without ROCm", _INSTALL_ROCM)
    if not torch.gpus:
        return Miss(
            "rocm", torch.gpu_problem or "torch sees no GPU", "check that `rocminfo` lists the GPU"
        )
    device = torch.gpus[0]
    architecture = device.gfx.split(":")[0]
    listed = {name.split(":")[0] for name in torch.arch_list}
    if listed and architecture not in listed:
        built = " ".join(sorted(listed))
        return Miss(
            "rocm",
            f"torch {torch.version} has no kernels for {architecture} (built for {built})",
            "a close relative's may run: HSA_OVERRIDE_GFX_VERSION=10.3.0 for gfx103x, "
            "11.0.0 for gfx110x",
        )
    features = _tools(machine.host, torch) | _amd_features(architecture)
    if device.integrated:
        features |= {"unified_memory"}
    return _torch_hardware(
        "rocm", "amd", device, architecture, machine.host, torch, features, torch.gpus
    )


def probe_xpu(machine: Machine) -> Hardware | Miss:
    """Intel GPUs, where torch has them. Whether bf16 is fast is measured: not all have XMX."""
    if machine.host.system == "Darwin":
        return Miss("xpu", "macOS has no Intel XPU", "use mlx or mps")
    torch = machine.torch()
    if isinstance(torch, str):
        return Miss("xpu", torch, _INSTALL_TORCH)
    if not torch.xpu_built:
        return Miss("xpu", f"torch {torch.version} was built without XPU", _INSTALL_XPU)
    if not torch.xpus:
        return Miss(
            "xpu", "torch sees no Intel GPU", "check that the Level Zero driver is installed"
        )
    device = torch.xpus[0]
    features = _tools(machine.host, torch) | ({"unified_memory"} if device.integrated else set())
    return _torch_hardware(
        "xpu", "intel", device, device.gfx or "xe", machine.host, torch, features, torch.xpus
    )


def probe_mlx(machine: Machine) -> Hardware | Miss:
    """MLX: Apple's fastest on Metal, for tests elsewhere; feature host without a GPU."""
    mlx = machine.mlx()
    if isinstance(mlx, str):
        return Miss("mlx", mlx, "pip install 'autoresearch[mlx]'")
    host = machine.host
    metal = mlx.device == "metal"
    features = (
        {"metal", "unified_memory"} if metal else {"cuda"} if mlx.device == "cuda" else {"host"}
    )
    return Hardware(
        backend="mlx",
        vendor="apple" if metal else "nvidia" if mlx.device == "cuda" else _cpu_vendor(host),
        name=mlx.name or host.cpu_name or host.machine,
        architecture=mlx.architecture or host.machine,
        memory_bytes=mlx.memory_bytes or host.memory_bytes,
        count=host.cores if mlx.device == "cpu" else 1,
        driver=host.release if metal else host.driver if mlx.device == "cuda" else "",
        framework="mlx",
        framework_version=mlx.version,
        os=host.system,
        features=tuple(sorted(features)),
    )


def probe_mps(machine: Machine) -> Hardware | Miss:
    """Apple GPUs through torch."""
    host = machine.host
    if host.system != "Darwin":
        return Miss("mps", f"MPS is Apple's and this is {host.system}")
    torch = machine.torch()
    if isinstance(torch, str):
        return Miss("mps", torch, _INSTALL_TORCH)
    if not torch.mps_built:
        return Miss(
            "mps",
            f"torch {torch.version} was built without MPS",
            "install an arm64 Python and torch",
        )
    if not torch.mps_available:
        return Miss(
            "mps", "torch finds no Metal device, or macOS is older than 14", "upgrade macOS"
        )
    device = DeviceFacts(host.cpu_name or "Apple GPU", host.memory_bytes, integrated=True)
    features = _tools(host, torch) | {"metal", "unified_memory"}
    return _torch_hardware("mps", "apple", device, host.machine, host, torch, features, (device,))


def probe_cpu(machine: Machine) -> Hardware | Miss:
    """The processor through torch. Features: those of CPU_FLAGS it has, host, the host's tools."""
    torch, host = machine.torch(), machine.host
    if isinstance(torch, str):
        return Miss("cpu", torch, _INSTALL_TORCH)
    fast = (host.cpu_flags | torch.cpu_flags) & set(CPU_FLAGS)
    return Hardware(
        backend="cpu",
        vendor=_cpu_vendor(host),
        name=host.cpu_name or host.machine,
        architecture=host.machine,
        memory_bytes=host.memory_bytes,
        count=host.cores,
        driver="",
        framework="torch",
        framework_version=torch.version,
        os=host.system,
        features=tuple(sorted(_tools(host, torch) | fast | {"host"})),
    )


DEFAULT_PROBES: Mapping[str, Probe] = {
    "cuda": probe_cuda,
    "rocm": probe_rocm,
    "xpu": probe_xpu,
    "mlx": probe_mlx,
    "mps": probe_mps,
    "cpu": probe_cpu,
}


def cuda_kernels_fit(capability: tuple[int, int], arch_list: tuple[str, ...]) -> bool:
    """Whether one of torch's builds runs on a compute capability.

    A cubin (sm_XY) runs on the same major and any later minor, PTX (compute_XY) on anything
    later, an architecture-specific one (sm_90a) nowhere else. CUDA C++ Programming Guide,
    "Binary Compatibility" and "PTX Compatibility". No list: nothing is known against it.
    """
    if not arch_list:
        return True
    for entry in arch_list:
        parsed = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", entry)
        if parsed is None:
            continue
        kind, major, minor, suffix = parsed[1], int(parsed[2]), int(parsed[3]), parsed[4]
        if (major, minor) == capability:
            return True
        if kind == "sm" and suffix != "a" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and not suffix and (major, minor) <= capability:
            return True
    return False


def _amd_features(architecture: str) -> set[str]:
    """Family, and the types its matrix instructions multiply fast.

    bf16 at full rate in MFMA since gfx90a (gfx908 has half the rate), WMMA since gfx11, no matrix
    instructions on gfx90x before gfx908 and on gfx10. AMD "Matrix Instruction Calculator".
    """
    if architecture.startswith("gfx9"):
        fast = {"gfx908": {"fp16"}, "gfx90a": {"bf16", "fp16"}}.get(architecture, set())
        return {"cdna"} | ({"bf16", "fp16"} if re.fullmatch(r"gfx9[45]\d", architecture) else fast)
    return {"rdna"} | ({"bf16", "fp16"} if re.fullmatch(r"gfx1[12]\d\d", architecture) else set())


def _tools(host: HostFacts, torch: TorchFacts) -> set[str]:
    """Features that compilation needs: triton, c_compiler, cxx_compiler, python_headers."""
    present = {
        "triton": torch.triton,
        "c_compiler": host.c_compiler,
        "cxx_compiler": host.cxx_compiler,
        "python_headers": host.python_headers,
    }
    return {name for name, value in present.items() if value}


def _torch_hardware(
    backend: str,
    vendor: str,
    device: DeviceFacts,
    architecture: str,
    host: HostFacts,
    torch: TorchFacts,
    features: set[str],
    devices: tuple[DeviceFacts, ...],
) -> Hardware:
    """A Hardware for an accelerator that torch drives."""
    return Hardware(
        backend=backend,
        vendor=vendor,
        name=device.name,
        architecture=architecture,
        memory_bytes=device.memory_bytes,
        count=len(devices),
        driver=_driver(backend, device, host, torch),
        framework="torch",
        framework_version=torch.version,
        os=host.system,
        features=tuple(sorted(features)),
    )


def _driver(backend: str, device: DeviceFacts, host: HostFacts, torch: TorchFacts) -> str:
    """Version of what stands between torch and the device; Apple's comes with the system."""
    return {"cuda": host.driver, "rocm": torch.hip, "mps": host.release}.get(backend, device.driver)


def _cpu_vendor(host: HostFacts) -> str:
    """Who made the processor, from its name's first word."""
    words = host.cpu_name.lower().replace("(r)", " ").split()
    known = [
        word for word in words if word in ("amd", "intel", "apple", "arm", "ampere", "qualcomm")
    ]
    return (
        known[0] if known else "arm" if host.machine.lower() in ("aarch64", "arm64") else "unknown"
    )


_INSTALL_TORCH = "pip install torch"
_INSTALL_CUDA = (
    "install a torch built for CUDA that knows this GPU: uv pip install --torch-backend=auto torch"
)
_INSTALL_OLDER = (
    "CUDA 13 dropped this generation: install a torch built with CUDA 12.6 (--torch-backend=cu126)"
)
_INSTALL_ROCM = "install a torch built for ROCm: uv pip install --torch-backend=auto torch"
_INSTALL_XPU = "install a torch built for XPU: uv pip install --torch-backend=xpu torch"

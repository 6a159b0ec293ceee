"""Which paths Python, a framework, a compiler and a GPU driver need, on this machine."""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

LINUX_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/rocm*",  # ROCm
    "/opt/intel",  # oneAPI
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",  # NixOS' GPU drivers
    "/sys",  # topology of processors and GPUs
)
# Of /etc only what linking, locales and user names need.
LINUX_ETC = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/OpenCL",
    "/etc/nvidia",
    "/etc/vulkan",
)
LINUX_GPU_DEVICES = (
    "/dev/nvidia*",
    "/dev/dri",
    "/dev/kfd",
    "/dev/dxg",
    "/dev/accel*",
)
MACOS_SYSTEM = (
    "/System",
    "/Library",
    "/usr",
    "/bin",
    "/sbin",
    "/opt/homebrew",
    "/opt/local",
    "/private/var/db/dyld",
    "/private/etc",
)


def existing(patterns: Iterable[str]) -> list[Path]:
    """The paths that match and exist, in order."""
    return [Path(match) for pattern in patterns for match in sorted(glob.glob(pattern))]


def python_paths() -> list[Path]:
    """The interpreter, its library and its site-packages, with what symbolic links lead to."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    named += [path for path in sysconfig.get_paths().values() if path]
    named += [str(Path(sys.executable).resolve().parents[1])]
    named += [path for path in sys.path if "site-packages" in path or "dist-packages" in path]
    found: list[Path] = []
    for name in named:
        path = Path(name)
        for each in (path, path.resolve()):
            if each.exists() and not is_too_wide(each):
                found.append(each)
    return outermost(found)


def library_paths() -> list[Path]:
    """Folders that LD_LIBRARY_PATH and the variables of CUDA, ROCm and conda name."""
    names = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    for variable in ("CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "ROCM_HOME", "CONDA_PREFIX"):
        names.append(os.environ.get(variable, ""))
    paths = [Path(name) for name in names if name and os.path.isabs(name)]
    return [path for path in paths if path.is_dir() and not is_too_wide(path)]


def is_too_wide(path: Path) -> bool:
    """Whether granting `path` would grant the home folder, /tmp or the whole disk."""
    narrow = [Path.home(), Path("/tmp"), Path("/var/tmp"), Path("/root"), Path("/home")]
    return path == Path(path.anchor) or any(path == n or path in n.parents for n in narrow)


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths, sorted, without those that lie in another of them."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda p: (len(p.parts), str(p))):
        if not any(other == path or other in path.parents for other in kept):
            kept.append(path)
    return kept


def private_environment(writable: Sequence[Path]) -> dict[str, str]:
    """Variables that put home and temporary files into the first writable folder, which must exist.

    For tiers without a /tmp of their own; {} when nothing is writable.
    """
    if not writable or not writable[0].is_dir():
        return {}
    home, temporary = writable[0] / "home", writable[0] / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    return {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / ".cache")}

"""Facts for `doctor`: `report = diagnose(backend)`, a dict that is JSON as it stands.

Keys: hardware, passed_over, policy, probes, peak_flops (None when unknown), checks (name, ok, says)
and faster (lines to act on).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from autoresearch.init import git_version
from prepare.errors import MissingTool

# A shard of climbmix is about 100 MB and ten of them, tokenized, need a few GB.
LOW_DISK_BYTES = 5 * 2**30
LEAST_DISK_BYTES = 2**30


def diagnose(requested: str | None) -> dict[str, Any]:
    """Detect, decide and check. Raises BackendError for a request that can't be met."""
    import backends
    from backends import speed
    from backends.peak_flops import peak_flops

    selection = backends.select(requested)
    peak = peak_flops(selection.hardware)
    return {
        "hardware": selection.hardware.to_dict(),
        "passed_over": [dataclasses.asdict(miss) for miss in selection.passed_over],
        "policy": selection.policy.to_dict(),
        "probes": speed.measured_figures(),
        "peak_flops": None if peak is None else dataclasses.asdict(peak),
        "checks": [*_folders(), _git(), _python()],
        "faster": suggestions(selection.hardware.backend, selection.hardware.os),
    }


def suggestions(backend: str, system: str) -> list[str]:
    """What to install to go faster on `backend`, each with its command; often nothing."""

    def missing(module: str) -> bool:
        return importlib.util.find_spec(module) is None

    lines = []
    if (
        backend in ("cuda", "rocm")
        and missing("flash_attn")
        and missing("flash_attn_interface")
        and missing("kernels")
    ):
        lines.append("FlashAttention: pip install 'autoresearch[flash]'")
    if sys.platform == "darwin" and missing("mlx"):
        lines.append("MLX, Apple's own framework: pip install 'autoresearch[mlx]'")
    if backend == "cpu" and sys.platform != "darwin":
        if shutil.which("nvidia-smi"):
            lines.append(
                "NVIDIA's driver is here and this torch can't use it: uv sync --extra cuda"
            )
        if shutil.which("rocminfo"):
            lines.append("ROCm is here and this torch can't use it: uv sync --extra rocm")
        if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
            lines.append("a C++ compiler lets torch compile on the CPU: install g++, clang or MSVC")
    return lines


def _check(name: str, ok: bool, says: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "says": says}


def _git() -> dict[str, Any]:
    try:
        return _check("git", True, git_version())
    except MissingTool as error:
        return _check("git", False, f"{error.message}: {error.hint}")


def _python() -> dict[str, Any]:
    return _check("python", True, f"{sys.version.split()[0]} at {sys.executable}")


def _folders() -> list[dict[str, Any]]:
    from prepare.cache import cache_root

    cache = cache_root()
    existing = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    says = f"{free / 2**30:.1f} GiB free"
    if free < LOW_DISK_BYTES:
        enough = "enough for the embedded corpus, not" if free > LEAST_DISK_BYTES else "too little"
        says += f" ({enough} for climbmix)"
    return [_writable(cache, existing), _check("disk", free > LEAST_DISK_BYTES, says)]


def _writable(cache: Path, existing: Path) -> dict[str, Any]:
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return _check(
            "cache", False, f"{cache} can't be written ({error.strerror}): set AUTORESEARCH_CACHE"
        )
    by = " (from AUTORESEARCH_CACHE)" if os.environ.get("AUTORESEARCH_CACHE") else ""
    return _check("cache", True, f"{cache}{by}")

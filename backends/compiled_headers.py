"""What torch.compile needs once on a CPU, made for all processes: a header, a check of g++.

    make_once()     # the harness, before it starts candidates: seconds the first time
    use()           # a process that compiles

torch precompiles that header (160 MB, 8 s on two cores) into the temporary folder, and a candidate
has a new, private one in every run. What the harness made lies in the cache, where candidates read
it and can't write: no candidate gets a header from another.

    python -m backends.compiled_headers FOLDER      # what make_once runs
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.cache import cache_root
from backends.speed import settled

TIMEOUT = 600.0  # seconds; two cores under a load of 12 took 113
MADE = "made"  # a file that says that all is there
INSTRUCTIONS = "instructions"  # a file that names the sets of vector instructions that work


def folder() -> Path:
    """Where the headers of this torch and this compiler lie, made or not.

    Below the folder of the speed figures, which a candidate may read. Another environment has
    another: its paths are among the compiler's arguments.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or ""
    about = [importlib.metadata.version("torch"), sys.prefix, sys.version, compiler]
    with contextlib.suppress(OSError):
        about.append(str(os.stat(compiler).st_mtime_ns))
    key = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    return cache_root() / "probes" / "headers" / key


def make_once() -> None:
    """Have a process of its own make the headers, unless they are there.

    Without them a candidate makes its own, which costs time only: nothing is raised.
    """
    import filelock

    place = folder()
    if (place / MADE).exists() or sys.platform == "win32":  # torch precompiles none on Windows
        return
    with contextlib.suppress(OSError, filelock.Timeout, subprocess.SubprocessError):
        place.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{place}.lock", timeout=TIMEOUT):
            if not (place / MADE).exists():
                _make(place)


def _make(place: Path) -> None:
    """gcc looks a header up by the path it was made for: it is made where it stays.

    What is there is half made, by a process that was killed; torch would take it for whole.
    """
    shutil.rmtree(place, ignore_errors=True)
    packages = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (packages, inherited))),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers starts slower than it helps
        **settled("cpu"),  # else torch's pickling asks for a selection, which would wait for us
    }
    subprocess.run(
        [sys.executable, "-m", "backends.compiled_headers", str(place)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )
    (place / MADE).touch()


@functools.cache
def use() -> None:
    """Let torch.compile in this process take what the harness made, else make its own.

    It can't where the harness made none, or where a kernel is compiled with other flags.
    """
    shared = folder()
    if (shared / MADE).exists():
        _use_header(shared)
        _use_instructions(shared)


def _use_header(shared: Path) -> None:
    from torch._inductor import codecache

    make: Callable[..., str] | None = getattr(codecache, "_precompile_header", None)
    if make is None:
        return
    own, locks = codecache._HEADER_DIR, codecache._HEADER_LOCK_DIR

    def precompile(*request: Any, **command: Any) -> str:
        codecache._HEADER_DIR, codecache._HEADER_LOCK_DIR = str(shared), locks
        try:
            return make(*request, **command)
        except OSError:  # it isn't there, and may not be made there
            codecache._HEADER_DIR = own
            return make(*request, **command)

    codecache._precompile_header = precompile  # type: ignore[assignment]


def _use_instructions(shared: Path) -> None:
    """Take the harness's word for those it saw work. The processor's own flags are asked anyway."""
    from torch._inductor import cpu_vec_isa

    check: Callable[[Any, str], bool] | None = getattr(cpu_vec_isa.VecISA, "check_build", None)
    try:
        work = set((shared / INSTRUCTIONS).read_text(encoding="utf-8").splitlines())
    except OSError:
        return
    if check is None:
        return

    def check_build(self: Any, code: str) -> bool:
        return str(self) in work or check(self, code)

    cpu_vec_isa.VecISA.check_build = check_build  # type: ignore[method-assign]


def main(place: Path) -> None:
    """Compile something small, with the header precompiled into `place`."""
    import torch
    from torch._inductor import codecache, cpu_vec_isa

    codecache._HEADER_DIR = str(place)
    codecache._HEADER_LOCK_DIR = str(place / "locks")
    x = torch.ones(64, requires_grad=True)
    torch.compile(lambda x: x.sin().square().sum(), dynamic=False, fullgraph=True)(x).backward()
    work = [str(instructions) for instructions in cpu_vec_isa.valid_vec_isa_list()]
    (place / INSTRUCTIONS).write_text("\n".join(work), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

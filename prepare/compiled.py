"""Compiled kernels, kept between runs without letting one candidate poison another's.

A candidate's processes get a private copy of the caches of torch.compile and Triton, and what they
leave is kept under the hash of their own train.py. So a run starts warm from what the same train.py
left before, or from another that the caller vouches for (the champion, which passed the probes);
what a rejected candidate wrote is only ever read by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from prepare.cache import cache_root

KEPT_SCRIPTS = 16
MAX_BYTES = 1 << 30
FOLDER_NAME = "compiled"
# Variables that say where a cache is: torch.compile, Triton, CUDA's own compiler.
VARIABLES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
}
# Single kernels, which training and answering share. torch.compile's own cache is of whole graphs:
# the forward pass alone is another one, which is never kept, since it could hold the questions.
KERNELS = ("triton", "cuda")


def cache_variables(work: Path) -> dict[str, str]:
    """Variables that put the caches into a process's own folder."""
    return {name: str(work / FOLDER_NAME / part) for name, part in VARIABLES.items()}


def begin_warm(
    work: Path, scripts: Sequence[Path], parts: Sequence[str] = tuple(VARIABLES.values())
) -> None:
    """Fill these parts of a process's caches with what the first known one of `scripts` left."""
    for script in scripts:
        kept = _folder(script)
        if kept.is_dir():
            for part in parts:
                copy_plain(kept / part, work / FOLDER_NAME / part)
            with contextlib.suppress(OSError):
                os.utime(kept)  # used: the last to be thrown away
            return


def keep_compiled(work: Path, script: Path) -> None:
    """Keep what the processes of `script` compiled, in place of what was kept before.

    To be called when they have ended. A cache that can't be kept costs time, not correctness, so
    a full disk is no error here.
    """
    made, kept = work / FOLDER_NAME, _folder(script)
    if not made.is_dir():
        return
    temporary = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        copy_plain(made, temporary)
        old = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}.old")
        with contextlib.suppress(FileNotFoundError):
            os.replace(kept, old)
        os.replace(temporary, kept)
        shutil.rmtree(old, ignore_errors=True)
        _forget_oldest(kept.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_plain(source: Path, destination: Path) -> None:
    """Copy folders and plain files, up to 1 GiB in all; links, pipes and the like are left out.

    The source may be a candidate's doing. Raises OSError if the destination can't be written.
    """
    destination.mkdir(parents=True, exist_ok=True)
    left = MAX_BYTES
    for place, folders, files in os.walk(source):
        target = destination / os.path.relpath(place, source)
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]
        for name in folders:
            (target / name).mkdir(exist_ok=True)
        for name in files:
            path = os.path.join(place, name)
            try:
                about = os.lstat(path)
            except FileNotFoundError:  # a cache being replaced by another run
                continue
            if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_size > left:
                continue
            left -= about.st_size
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(path, target / name, follow_symlinks=False)


def _folder(script: Path) -> Path:
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    return cache_root() / FOLDER_NAME / digest


def _forget_oldest(folder: Path) -> None:
    def used(path: Path) -> float:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for path in sorted(folder.iterdir(), key=used, reverse=True)[KEPT_SCRIPTS:]:
        shutil.rmtree(path, ignore_errors=True)

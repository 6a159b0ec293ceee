"""What a run left in its folder: why it failed, and what of it is kept.

leave_new_files(output, program, most_bytes)
why_it_failed(inputs, runner, tier, said)      # "; it may not write in the input data: ..."
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from autoresearch.engine.sandbox import Tier
from autoresearch.taskfile.inputs import Inputs
from autoresearch.taskfile.model import Program


def why_it_failed(inputs: Inputs, program: Program, tier: Tier, said: str) -> str:
    """What a failed program met that its sandbox refuses, and what to do; "" if nothing is known.

    said: what it printed.
    """
    path = inputs.refused(said)
    if path:
        return (
            f"; it may not write in the input {path}: let a variable in `env` name another folder "
            "for what it writes, such as HF_DATASETS_CACHE: cache"
        )
    given = {name: os.environ.get(name, "") for name in program.pass_env}
    for name, value in {**given, **program.env}.items():
        place = Path(value)
        if tier.strict and place.is_absolute() and place.exists() and Path.home() in place.parents:
            return (
                f"; {name} is {value}, which the sandbox hides: put what it needs below the task "
                f"file, name it under `inputs`, and in `env` write {name} as that relative path"
            )
    return ""


def leave_new_files(output: Path, program: Path, most_bytes: int) -> None:
    """Of a runner's folder keep what it wrote, if that isn't much: the rest is the candidate."""
    if output.is_symlink() or not output.is_dir():
        return
    try:
        total = _drop_same(output, program)
        if total > most_bytes or not any(output.iterdir()):
            shutil.rmtree(output)
    except OSError:  # a stranger made these folders: what can't be read or removed isn't worth more
        shutil.rmtree(output, ignore_errors=True)


def _drop_same(output: Path, program: Path) -> int:
    """Remove what is the candidate's own, and what Python compiled; the bytes that are left."""
    total = 0
    for parent, folders, files in os.walk(output, topdown=False):
        for name in files:
            place = Path(parent, name)
            same, status = program / place.relative_to(output), place.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if place.suffix == ".pyc" or (same.is_file() and _equal(place, same)):
                place.unlink()
            else:
                total += status.st_size
        for name in folders:
            inner = Path(parent, name)
            if not inner.is_symlink() and not any(inner.iterdir()):
                inner.rmdir()
    return total


def _equal(one: Path, other: Path) -> bool:
    if one.lstat().st_size != other.lstat().st_size:
        return False
    return one.read_bytes() == other.read_bytes()

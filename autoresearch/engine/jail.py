"""A program run inside an isolation tier: own home and temporary files, deadline, bounded output.

    done = run_jailed(argv, tier=tier, cwd=folder, env=environment(), private=place,
                      readable=[data], writable=[folder], seconds=60)

It sees the system, Python, itself, and the paths that are granted. What it starts ends with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.engine.proposers.process import (
    KEPT_BYTES,
    Finished,
    needed_environment,
    run_program,
)
from autoresearch.engine.sandbox import Limits, Tier

# Variables of the user's that name their own folders, or may hold a password of a proxy.
_PERSONAL = frozenset(["HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "USERPROFILE"])
_PERSONAL |= {"APPDATA", "LOCALAPPDATA"}
# A jail begins in a folder of its own choice.
_ENTER = "import os, sys; os.chdir(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"


def environment(
    pass_env: Sequence[str] = (), extra: Mapping[str, str] | None = None, network: bool = False
) -> dict[str, str]:
    """What a jailed program sees: the system's variables, those named, and `extra`.

    `python` on its PATH is the Python that runs this. Proxies are passed on with `network` only.
    """
    found = {
        name: value
        for name, value in needed_environment(pass_env).items()
        if name in pass_env
        or not (
            name in _PERSONAL
            or name.startswith("XDG_")
            or (name.lower().endswith("_proxy") and not network)
        )
    }
    folders = [str(Path(sys.executable).parent), found.get("PATH", os.defpath)]
    return {**found, "PATH": os.pathsep.join(folders), **(extra or {})}


def run_jailed(
    argv: Sequence[str],
    *,
    tier: Tier,
    cwd: Path,
    env: Mapping[str, str],
    private: Path,
    seconds: float,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    network: bool = False,
    stdin: bytes = b"",
    cancelled: Callable[[], bool] | None = None,
    kept_bytes: int = KEPT_BYTES,
    limits: Limits | None = None,
) -> Finished:
    """Run `argv` in `cwd` until it ends, `seconds` pass or it floods.

    `private`, made where it is missing, holds its home and its temporary files. Raises
    FileNotFoundError when the program is missing, PermissionError when it can't be executed.
    """
    home, temporary = private / "home", private / "tmp"
    for folder in (home, temporary):
        folder.mkdir(parents=True, exist_ok=True)
    own = {"HOME": str(home), "USERPROFILE": str(home)}
    own |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    env = {**env, **own}
    program = _program(argv[0], cwd, env)
    if not os.path.dirname(argv[0]):  # it may lie in a folder of the user's, as uv does
        readable = [*readable, Path(program)]
    argv = [program, *argv[1:]]
    if tier.strict:
        argv = [sys.executable, "-I", "-S", "-c", _ENTER, str(cwd), *argv]
    wrapped = tier.wrap(
        argv,
        env,
        readable=readable,
        writable=[private, *writable],
        network=network,
        limits=limits,
    )
    done = run_program(
        wrapped.argv,
        cwd=cwd,
        env=wrapped.env,
        stdin=stdin,
        seconds=seconds,
        cancelled=cancelled,
        kept_bytes=kept_bytes,
        started=tier.started,
    )
    return replace(done, returncode=tier.exit_status(done.returncode))


def _program(name: str, cwd: Path, env: Mapping[str, str]) -> str:
    """The program's full path. Raises FileNotFoundError, PermissionError."""
    if os.path.dirname(name):
        place = cwd / name
        if not place.is_file():
            raise FileNotFoundError(f"no program {name!r} in {cwd}")
        if not os.access(place, os.X_OK):
            raise PermissionError(f"{name!r} can't be executed")
        return str(place)
    found = shutil.which(name, path=env.get("PATH"))
    if found is None:
        raise FileNotFoundError(f"no program {name!r} on PATH")
    return os.path.abspath(found)

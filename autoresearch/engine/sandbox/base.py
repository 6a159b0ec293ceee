"""What an isolation tier is: it rewrites a command so that the command runs jailed.

wrapped = tier.wrap(argv, env, readable=..., writable=..., limits=Limits())
process = subprocess.Popen(wrapped.argv, env=wrapped.env, ...)
tier.started(process.pid)
code = tier.exit_status(process.wait())
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

MEBIBYTE = 1 << 20
PROBE_SECONDS = 20.0


class SandboxUnavailable(Exception):
    """A tier that was asked for by name does not work on this machine; `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"sandbox {name} is not available here: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Bounds on what a jailed process may use; None leaves one out.

    processes: processes and threads beyond those the user runs already. file_bytes: the longest
    single file. temporary_bytes: the private /tmp, where a tier has one. cpu_seconds: of each
    process. memory_bytes: address space, which GPU drivers reserve far beyond what they use.
    """

    processes: int | None = 2048
    file_bytes: int | None = 64 * 1024 * MEBIBYTE
    temporary_bytes: int = 4096 * MEBIBYTE
    cpu_seconds: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Wrapped:
    """A command to start in place of another."""

    argv: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Miss:
    """A tier that was passed over, and why."""

    tier: str
    reason: str


class Tier(ABC):
    """One way of isolating a process.

    `strict` tiers hide files, the network and other processes from native code too. The other tier
    relies on an audit hook in Python and on limits.
    """

    name: ClassVar[str]
    strict: ClassVar[bool]

    @abstractmethod
    def wrap(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        listable: Sequence[Path] = (),
        network: bool = False,
        loopback: bool = False,
        limits: Limits | None = None,
    ) -> Wrapped:
        """The command that runs `argv` with what the system needs and these paths, nothing else.

        Args:
            readable: files, or folders with all that is in them. writable: the same, to write
                too; the first is where a tier without a private /tmp puts temporary files.
            listable: folders whose names may be seen, without what is in the files.
            loopback: what runs in it may speak to itself over a network that nobody else is on.
        """

    def loopback_problem(self) -> str:
        """Why `loopback` can't be had in this tier, on this machine; "" if it can."""
        return ""

    @abstractmethod
    def stops(self) -> tuple[str, ...]:
        """What a process in this tier can't do, in words for documents and records."""

    @abstractmethod
    def does_not_stop(self) -> tuple[str, ...]:
        """What it still can do."""

    def started(self, pid: int) -> None:
        """Called once the process runs and before it is spoken to."""
        return

    def exit_status(self, code: int) -> int:
        """The jailed program's own exit status, negative for a signal, from the wrapper's."""
        return code

    def problem(self) -> str:
        """Why this tier does not work on this machine; "" if it does. Found out by trying, once."""
        return _problem(self)


# Runs inside the jail: the secret must be out of reach, the writable folder must work.
_PROBE = """
import sys
try:
    open(sys.argv[1]).read()
except OSError:
    pass
else:
    sys.exit("it could read a hidden file")
open(sys.argv[2], "w").write("jailed")
"""


@functools.lru_cache(maxsize=32)
def _problem(tier: Tier) -> str:
    with tempfile.TemporaryDirectory(prefix="autoresearch-probe-") as folder:
        root = Path(folder).resolve()
        secret, inside = root / "secret", root / "inside"
        secret.write_text("hidden", encoding="utf-8")
        inside.mkdir()
        argv = [sys.executable, "-I", "-S", "-c", _PROBE, str(secret), str(inside / "written")]
        try:
            wrapped = tier.wrap(argv, {"PATH": "/usr/bin:/bin"}, writable=[inside])
            done = subprocess.run(
                wrapped.argv,
                env=wrapped.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, SandboxUnavailable) as error:
            return str(error)
        if done.returncode == 0 and (inside / "written").is_file():
            return ""
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"a jailed probe exited with status {done.returncode}"

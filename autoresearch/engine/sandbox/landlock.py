"""Landlock and seccomp: Linux's own means of confinement, for any user, without namespaces.

Rights per kernel version (ABI): https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.engine.sandbox import paths, seccomp
from autoresearch.engine.sandbox.base import (
    PROBE_SECONDS,
    Limits,
    SandboxUnavailable,
    Tier,
    Wrapped,
)
from autoresearch.engine.sandbox.process import LAUNCHER, launcher_command, resource_limits

CREATE_RULESET, CREATE_RULESET_VERSION = 444, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FIRST_FILE_RIGHTS = 13  # ABI 1: execute .. make_sym
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
NETWORK_RIGHTS = 0b11  # bind and connect, TCP
SCOPES = 0b11  # abstract UNIX sockets, signals
# Making device files is not granted, not even in writable folders.
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
NEWEST_ABI = 7
# For a loopback in a network namespace of its own. No UNIX sockets: Landlock doesn't hide the
# host's, whose paths are in the file system.
LOOPBACK_FAMILIES = (seccomp.INET, seccomp.NETLINK)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 if it has none or has it turned off."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(
        ctypes.c_long(CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint32(CREATE_RULESET_VERSION),
    )
    return max(0, int(version))


def file_rights(abi: int) -> int:
    """Every right over files that this version can refuse."""
    rights = (1 << FIRST_FILE_RIGHTS) - 1
    rights |= REFER if abi >= 2 else 0
    rights |= TRUNCATE if abi >= 3 else 0
    return rights | (IOCTL_DEVICE if abi >= 5 else 0)


def ruleset(
    abi: int,
    *,
    readable: Iterable[Path],
    writable: Iterable[Path],
    listable: Iterable[Path],
    devices: Iterable[Path],
    network: bool,
) -> dict[str, Any]:
    """The specification that the launcher turns into a Landlock domain."""
    handled = file_rights(abi)
    read = READ_FILE | READ_DIR | EXECUTE
    write = handled & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEVICE)
    use = (READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEVICE) & handled
    rules: list[list[Any]] = []
    groups = ((readable, read), (writable, write), (listable, READ_DIR), (devices, use))
    for group, rights in groups:
        for path in group:
            kept = rights if path.is_dir() else rights & FILE_ONLY
            if path.exists() and kept:
                rules.append([str(path), kept])
    return {
        "files": handled,
        "network": NETWORK_RIGHTS if abi >= 4 and not network else 0,
        "scoped": SCOPES if abi >= 6 else 0,
        # The kernel refuses a structure longer than it knows, unless the rest is zero.
        "size": 24 if abi >= 6 else 16 if abi >= 4 else 8,
        "rules": rules,
    }


@functools.lru_cache(maxsize=4)
def _no_own_network(abi: int) -> str:
    """Why a process in Landlock can't have a network of its own; found out by trying, once."""
    wrapped = LandlockTier(abi).wrap([sys.executable, "-I", "-S", "-c", ""], {}, loopback=True)
    try:
        done = subprocess.run(
            wrapped.argv, env=wrapped.env, capture_output=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip()
    return "" if done.returncode == 0 else said or "a network of its own can't be made"


class LandlockTier(Tier):
    """For Linux without bubblewrap or without user namespaces. It needs kernel 5.13 or newer."""

    name = "landlock"
    strict = True

    def __init__(self, abi: int | None = None) -> None:
        self._abi = min(landlock_abi() if abi is None else abi, NEWEST_ABI)

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
        if self._missing():
            raise SandboxUnavailable(self.name, self._missing())
        system = paths.existing((*paths.LINUX_SYSTEM, *paths.LINUX_ETC, "/proc"))
        system += [LAUNCHER, *paths.python_paths(), *paths.library_paths()]
        spec = {
            "supervise": os.getpid(),
            "rlimits": resource_limits(limits or Limits(), own_count=False),
            "drop": True,
            "landlock": ruleset(
                self._abi,
                readable=[*system, *readable],
                writable=writable,
                listable=listable,
                devices=paths.existing((*DEVICES, *paths.LINUX_GPU_DEVICES)),
                network=network or loopback,
            ),
            "own_network": loopback and not network,
            "seccomp": seccomp.program(
                network=network,
                keep_group=True,
                families=LOOPBACK_FAMILIES if loopback else (),
            ).hex(),
        }
        return Wrapped(launcher_command(spec, argv), {**env, **paths.private_environment(writable)})

    def problem(self) -> str:
        return self._missing() or super().problem()

    def _missing(self) -> str:
        if sys.platform != "linux":
            return "it exists on Linux only"
        if not seccomp.supported():
            return "no table of system calls for this processor"
        return "" if self._abi >= 1 else "this kernel has no Landlock, or it is turned off"

    def loopback_problem(self) -> str:
        return self._missing() or _no_own_network(self._abi)

    def stops(self) -> tuple[str, ...]:
        return (
            "reading what it wasn't given: data, the home folder, git's objects, other trials",
            "writing outside its own folder",
            "the network: no socket of any family, UNIX ones included",
            "reading memory or environment of processes outside it",
            *(("signalling processes outside it",) if self._abi >= 6 else ()),
            "processes that outlive it: they can't leave the group that is killed",
            "mounting, tracing, loading kernel modules, new namespaces",
        )

    def does_not_stop(self) -> tuple[str, ...]:
        left = [
            "a hole in the kernel or in a GPU driver",
            "reading GPU memory that another process freed without clearing",
            "seeing which processes run, and names, sizes and times of files it can't read",
            "System V shared memory and message queues of the same user",
            "using CPU, memory and memory bandwidth up to the machine's own limits",
        ]
        if self._abi < 6:
            left.append("signalling other processes of the same user (kernel before 6.12)")
        if self._abi < 5:
            left.append("ioctl on devices whose files it can open (kernel before 6.10)")
        if self._abi < 3:
            left.append("emptying files of the same user by truncate() (kernel before 6.2)")
        if os.getuid() == 0:
            left.append(
                "many processes at once beyond a moment: the kernel counts none of root's, so the "
                "harness counts and kills"
            )
        return tuple(left)

"""macOS: `sandbox-exec` with a profile in Apple's sandbox language (SBPL).

Apple calls the program deprecated and still ships it. The profile is tested as text; it has not
been run on a Mac yet.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autoresearch.engine.sandbox import paths
from autoresearch.engine.sandbox.base import Limits, SandboxUnavailable, Tier, Wrapped
from autoresearch.engine.sandbox.process import LAUNCHER, launcher_command, resource_limits

PROGRAM = "/usr/bin/sandbox-exec"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/dtracehelper", "/dev/tty")
# What Metal, the GPU's compiler service and the system's libraries speak to.
SERVICES = (
    "com.apple.MTLCompilerService",
    "com.apple.CARenderServer",
    "com.apple.cvmsServ",
    "com.apple.gpumemd.source",
    "com.apple.system.notification_center",
    "com.apple.system.logger",
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.diagnosticd",
    "com.apple.logd",
    "com.apple.analyticsd",
)
XPC_SERVICES = ("com.apple.MTLCompilerService",)
DRIVER_CLASSES = (
    "AGXDeviceUserClient",
    "AppleGraphicsControlClient",
    "IOAccelerator",
    "IOSurfaceRootUserClient",
    "IOAccelDevice2",
    "IOAccelContext2",
    "IOAccelSharedUserClient2",
    "RootDomainUserClient",
)


def quoted(text: str) -> str:
    """A string as SBPL writes it. Raises ValueError for control characters."""
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"a path with control characters can't be granted: {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _filters(granted: Iterable[Path]) -> str:
    """One filter per path; the kernel compares real paths, so links are resolved as well."""
    found: list[str] = []
    for path in granted:
        for each in dict.fromkeys((path, path.resolve())):
            kind = "subpath" if each.is_dir() else "literal"
            found.append(f"  ({kind} {quoted(str(each))})")
    return "\n".join(dict.fromkeys(found))


def _folders_above(granted: Iterable[Path]) -> list[Path]:
    found = {parent for path in granted for parent in (*path.parents, *path.resolve().parents)}
    return sorted(found)


def profile(
    *,
    readable: Sequence[Path],
    writable: Sequence[Path],
    listable: Sequence[Path],
    network: bool = False,
) -> str:
    """The SBPL profile: everything is denied that is not named."""
    devices = [Path(name) for name in DEVICES]
    names_only = "\n".join(
        f"  (literal {quoted(str(path))})"
        for path in _folders_above([*readable, *writable, *listable, *devices])
    )
    listed = "\n".join(f"  (literal {quoted(str(path))})" for path in listable)
    services = "\n".join(f"  (global-name {quoted(name)})" for name in SERVICES)
    xpc = "\n".join(f"  (xpc-service-name {quoted(name)})" for name in XPC_SERVICES)
    drivers = "\n".join(f"  (iokit-user-client-class {quoted(name)})" for name in DRIVER_CLASSES)
    rules = [
        "(version 1)",
        "(deny default)",
        "(allow process-exec process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow process-info* (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read-metadata file-test-existence\n" + names_only + ")",
        "(allow file-read* file-map-executable\n" + _filters(readable) + ")",
        "(allow file-read* file-write*\n" + _filters(writable) + ")",
        "(allow file-read* file-write-data file-ioctl\n" + _filters(devices) + ")",
        "(allow ipc-posix-sem)",
        f"(allow mach-lookup\n{services}\n{xpc})",
        f"(allow iokit-open\n{drivers})",
        "(allow iokit-get-properties)",
    ]
    if listable:
        rules.append("(allow file-read-data file-read-metadata\n" + listed + ")")
    rules.append("(allow network*)" if network else "(deny network*)")
    return "\n".join(rules) + "\n"


class SeatbeltTier(Tier):
    """macOS's own sandbox, through `sandbox-exec`."""

    name = "sandbox-exec"
    strict = True

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
        system = paths.existing(paths.MACOS_SYSTEM)
        granted = [*system, LAUNCHER, *paths.python_paths(), *readable]
        text = profile(readable=granted, writable=writable, listable=listable, network=network)
        spec = {"rlimits": resource_limits(limits or Limits(), own_count=False)}
        command = [PROGRAM, "-p", text, *launcher_command(spec, argv)]
        return Wrapped(command, {**env, **paths.private_environment(writable)})

    def problem(self) -> str:
        return self._missing() or super().problem()

    def _missing(self) -> str:
        if sys.platform != "darwin":
            return "it exists on macOS only"
        return "" if shutil.which(PROGRAM, os.X_OK) else f"no program {PROGRAM}"

    def loopback_problem(self) -> str:
        return "macOS has one loopback for all, and other programs listen on it"

    def stops(self) -> tuple[str, ...]:
        return (
            "reading what it wasn't given: data, the home folder, git's objects, other trials",
            "writing outside its own folder",
            "the network, loopback and UNIX sockets included",
            "inspecting or signalling processes outside it",
        )

    def does_not_stop(self) -> tuple[str, ...]:
        return (
            "a hole in the kernel, in a GPU driver or in a system service that Metal speaks to",
            "processes that leave their group and outlive it, until the harness finds them by name",
            "seeing names, sizes and times of folders above those it may read",
            "reading what is installed for all users: /Library, Homebrew",
            "using CPU, memory and memory bandwidth up to the machine's own limits",
        )

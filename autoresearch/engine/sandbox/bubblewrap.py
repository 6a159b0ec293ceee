"""Linux namespaces through the `bwrap` program: its own mounts, processes and network.

The jail's file system starts empty. The system's folders, Python and what is granted are mounted
into it at their own paths, everything else isn't there. A seccomp filter is put on top.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoresearch.engine.sandbox import paths, seccomp
from autoresearch.engine.sandbox.base import Limits, SandboxUnavailable, Tier, Wrapped
from autoresearch.engine.sandbox.process import LAUNCHER, launcher_command, resource_limits

SHARED_MEMORY_BYTES = 1 << 30
HOME = "/tmp/home"
# For a loopback in a network namespace of its own. NCCL passes memory on over UNIX sockets without
# a path, which belong to that namespace; those with a path are files, and the host's aren't there.
LOOPBACK_FAMILIES = (seccomp.UNIX, seccomp.INET, seccomp.NETLINK)


class BubblewrapTier(Tier):
    """The strictest tier on Linux. It needs `bwrap`, and user namespaces or root.

    Start it from a thread that lives as long as the jail: Linux ties --die-with-parent to it.
    """

    name = "bubblewrap"
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
        bwrap = self._program()
        limits = limits or Limits()
        system = paths.existing(paths.LINUX_SYSTEM + paths.LINUX_ETC)
        granted = [LAUNCHER, *paths.python_paths(), *paths.library_paths(), *readable]
        command = [bwrap, *_namespaces(network), *_base(limits)]
        for path in system:
            command += _system_mount(path)
        outside = paths.outermost(p for p in granted if not _inside(p, system))
        links = [p for p in outside if _leads_into(p, [*system, *outside])]
        command += _mounts("--ro-bind", [p for p in outside if p not in links])
        for link in links:
            command += ["--symlink", os.readlink(link), str(link)]
        for folder in listable:
            command += ["--dir", str(folder)]
        for device in paths.existing(paths.LINUX_GPU_DEVICES):
            command += ["--dev-bind", str(device), str(device)]
        command += _mounts("--bind", writable)
        command += ["--remount-ro", "/"]  # its own memory, but unbounded
        command += ["--chdir", str(writable[0]) if writable else "/"]
        spec = {
            "rlimits": resource_limits(limits, own_count=os.getuid() != 0),
            "drop": True,
            "seccomp": seccomp.program(
                network=network, families=LOOPBACK_FAMILIES if loopback else ()
            ).hex(),
        }
        home = {"HOME": HOME, "TMPDIR": "/tmp", "XDG_CACHE_HOME": f"{HOME}/.cache"}
        command += ["--", *launcher_command(spec, argv)]
        return Wrapped(command, {**env, **home})

    def exit_status(self, code: int) -> int:
        # bwrap tells of a signal as shells do.
        return 128 - code if 128 < code < 128 + 65 else code

    def problem(self) -> str:
        try:
            self._program()
        except SandboxUnavailable as error:
            return error.reason
        return super().problem()

    def _program(self) -> str:
        if sys.platform != "linux":
            raise SandboxUnavailable(self.name, "it exists on Linux only")
        if not seccomp.supported():
            machine = platform.machine()
            raise SandboxUnavailable(self.name, f"no table of system calls for {machine}")
        found = shutil.which("bwrap")
        if found is None:
            reason = "no program bwrap: install the package bubblewrap"
            raise SandboxUnavailable(self.name, reason)
        return found

    def stops(self) -> tuple[str, ...]:
        return (
            "reading what it wasn't given: data, the home folder, git's objects, other trials: "
            "those files don't exist in it",
            "writing outside its own folder and a private, bounded /tmp",
            "the network, loopback and UNIX sockets of the host included",
            "seeing, reading or signalling processes outside it",
            "processes that outlive it: all of its process namespace is killed at once",
            "mounting, tracing, loading kernel modules, new namespaces",
        )

    def does_not_stop(self) -> tuple[str, ...]:
        left = [
            "a hole in the kernel or in a GPU driver",
            "reading GPU memory that another process freed without clearing",
            "using CPU, memory and memory bandwidth up to the machine's own limits",
        ]
        if os.getuid() == 0:
            left.append(
                "many processes at once beyond a moment: the kernel counts none of root's, so the "
                "harness counts and kills"
            )
        return tuple(left)


def _namespaces(network: bool) -> list[str]:
    options = ["--unshare-user-try", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    options += ["--hostname", "jail", "--cap-drop", "ALL"]
    return options if network else [*options, "--unshare-net"]


def _base(limits: Limits) -> list[str]:
    """Mounts that every jail has; /tmp and /dev/shm are private and bounded."""
    size, shared = str(limits.temporary_bytes), str(SHARED_MEMORY_BYTES)
    options = ["--proc", "/proc", "--dev", "/dev"]
    options += ["--size", shared, "--tmpfs", "/dev/shm"]
    options += ["--size", size, "--tmpfs", "/tmp", "--dir", HOME]
    return [*options, "--dir", "/var", "--symlink", "../tmp", "/var/tmp"]


def _system_mount(path: Path) -> list[str]:
    """/bin and the like are symbolic links on merged systems and stay so."""
    if path.is_symlink() and path.parent == Path("/"):
        return ["--symlink", os.readlink(path), str(path)]
    return ["--ro-bind", str(path), str(path)]


def _mounts(option: str, granted: Sequence[Path]) -> list[str]:
    """Outer folders first, so that nothing is mounted over what lies in it."""
    ordered = sorted({p for p in granted if p.exists()}, key=lambda p: len(p.parts))
    return [part for path in ordered for part in (option, str(path), str(path))]


def _leads_into(path: Path, folders: Sequence[Path]) -> bool:
    """A link to a file that is there anyway stays a link: Python finds its library by where its
    program really lies."""
    others = [folder for folder in folders if folder != path]
    return path.is_symlink() and path.is_file() and _inside(path.resolve(), others)


def _inside(path: Path, folders: Sequence[Path]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)

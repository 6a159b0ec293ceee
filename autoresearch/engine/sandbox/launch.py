"""Started as a file of its own (`python -I -S launch.py SPEC COMMAND ...`): jails, then executes.

It needs the standard library alone, so that nothing of the candidate's environment is imported
before the jail is shut. SPEC is JSON, made by the tiers:

    rlimits     {"RLIMIT_FSIZE": bytes, ...}, lowered, never raised
    drop        give up all capabilities
    seccomp     a BPF program, in hex
    landlock    {"files", "network", "scoped": what is handled, "rules": [[path, rights], ...]}
    own_network a network namespace of its own, in which only the loopback is up
    supervise   the pid of the harness: stay behind as the parent of all that is started, and end
                everything when the harness is gone

Numbers are from include/uapi/linux/{prctl,landlock,seccomp,capability}.h.
"""

import ctypes
import json
import os
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH = 1
CAPABILITY_VERSION_3 = 0x20080522
CAPSET = {"x86_64": 126, "aarch64": 91}
LAST_CAPABILITY = 63
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # include/uapi/linux/{sockios,if}.h
EXIT_NOT_JAILED = 126


class JailError(Exception):
    """A step of the jail failed: the command must not run."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *arguments: object) -> None:
    padded = [*arguments, *([0] * (4 - len(arguments)))]
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded]
    if _libc().prctl(option, *values) != 0:
        raise JailError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _syscall(number: int, *arguments: object) -> int:
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc().syscall(ctypes.c_long(number), *values)
    if result < 0:
        raise JailError(f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def lower_limits(limits: dict) -> None:
    """Set soft and hard resource limits, where they are lower than what holds already."""
    import resource

    for name, wanted in limits.items():
        which = getattr(resource, name, None)
        if which is None:  # this system has no such limit
            continue
        hard = resource.getrlimit(which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))


def drop_capabilities() -> None:
    """Give up every capability, also those that root would get back by executing a program."""
    for capability in range(LAST_CAPABILITY + 1):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except JailError:  # not privileged, or the kernel knows no such capability
            continue
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    empty = ctypes.create_string_buffer(struct.pack("=6I", *([0] * 6)))
    _syscall(CAPSET[os.uname().machine], header, empty)


def leave_network() -> None:
    """Move to a new network namespace and bring its loopback up.

    Whoever lacks the right to gets it in a user namespace, where those are allowed.
    """
    import fcntl
    import socket

    user, group = os.getuid(), os.getgid()
    try:
        _unshare(CLONE_NEWNET)
    except JailError:
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
        for name, text in maps.items():
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def _unshare(flags: int) -> None:
    if _libc().unshare(ctypes.c_int(flags)) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise JailError(f"no network namespace of its own: {reason}")


def restrict_files(spec: dict) -> None:
    """Shut the process and all it starts into a Landlock domain."""
    attributes = struct.pack("=QQQ", spec["files"], spec["network"], spec["scoped"])
    attributes = attributes[: spec["size"]]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _syscall(LANDLOCK_CREATE_RULESET, buffer, len(attributes), 0)
    for path, rights in spec["rules"]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what isn't there needs no rule
            continue
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
        try:
            _syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        except JailError as error:
            raise JailError(f"Landlock refuses a rule for {path}: {error}") from error
        finally:
            os.close(place)
    _syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter; it needs no_new_privs."""
    instructions = ctypes.create_string_buffer(program, len(program))
    address = ctypes.addressof(instructions)
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, address))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog)


def jail(spec: dict) -> None:
    """Everything that the specification asks for, in an order in which each step still can."""
    if spec.get("rlimits"):
        lower_limits(spec["rlimits"])
    if spec.get("own_network"):
        leave_network()
    if spec.get("drop"):
        drop_capabilities()
    if spec.get("landlock") or spec.get("seccomp"):
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if spec.get("landlock"):
        restrict_files(spec["landlock"])
    if spec.get("seccomp"):
        filter_calls(bytes.fromhex(spec["seccomp"]))


def execute(spec: dict, command: list) -> None:
    """Jail this process and become the command; does not return."""
    try:
        jail(spec)
        os.execvpe(command[0], command, os.environ)
    except (JailError, OSError, ValueError) as error:
        os.write(2, f"the sandbox could not be set up: {error}\n".encode())
    os._exit(EXIT_NOT_JAILED)


def supervise(spec: dict, command: list) -> None:
    """Run the command as a child and end as it ends, taking along whatever it left behind.

    Orphans become children of this process rather than of init, so that they are found and killed.
    """
    harness = spec["supervise"]

    def harness_gone(number: int, frame: object) -> None:
        # The kernel also signals when only the thread that started us has ended.
        if os.getppid() != harness:
            end_all()

    signal.signal(signal.SIGUSR1, harness_gone)
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != harness:
        os._exit(EXIT_NOT_JAILED)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        execute(spec, command)
    for stream in (0, 1):  # held by the command alone: its end must be seen by the harness
        os.close(stream)
    while True:
        ended, status = os.wait()
        if ended == child:
            break
    kill_descendants()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        lower_limits({"RLIMIT_CORE": 0})
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def children() -> list:
    """Pids of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def kill_descendants() -> None:
    """Kill children until there are none: a killed one's own children become ours."""
    try:
        while found := children():
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            for pid in found:
                os.waitpid(pid, 0)
    except (OSError, ValueError):  # no such file in this kernel: the group is killed by the harness
        return


def end_all() -> None:
    """The harness is gone: kill the group at once, then whatever left it."""
    kill_descendants()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_NOT_JAILED)


def main() -> None:
    spec, command = json.loads(sys.argv[1]), sys.argv[2:]
    if spec.get("supervise") and sys.platform == "linux":
        supervise(spec, command)
    execute(spec, command)


if __name__ == "__main__":
    main()

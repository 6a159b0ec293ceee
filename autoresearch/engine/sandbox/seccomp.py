"""A seccomp filter as BPF instructions: which system calls a jailed process is refused.

Refused calls fail with EPERM, so that a library that merely asks goes on. Numbers are from the
kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

# From include/uapi/linux/{seccomp,audit,bpf_common}.h.
RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD_WORD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_FIRST_ARGUMENT = 0, 4, 16
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # x86-64's 32-bit-pointer calls: the same numbers with this bit
CLONE_NEW = 0x7E020080  # every CLONE_NEW* flag that clone() takes: namespaces

# name: (x86_64, aarch64); None where the architecture has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # opens and connects behind a filter's back
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "personality": (135, 92),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "mknodat": (259, 33),
    "mknod": (133, None),
}
SOCKET = (41, 198)
# Address families, from include/linux/socket.h. NETLINK answers which interfaces there are.
UNIX, INET, NETLINK = 1, 2, 16
CLONE, CLONE3 = (56, 220), (435, 435)
# Pretended to work: whatever a process starts stays in the group that is killed with it.
PRETENDED = {"setsid": (112, 157), "setpgid": (109, 154)}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def supported() -> bool:
    """Whether this processor's system calls are in the tables."""
    return platform.machine() in ARCHITECTURES


def program(
    *, network: bool = False, keep_group: bool = False, families: Sequence[int] = ()
) -> bytes:
    """The filter for this processor, as an array of struct sock_filter.

    Args:
        network: leave socket() alone. Without it sockets of every family are refused, UNIX ones
            included (a Docker or D-Bus socket is a way out); socketpair() still works.
        families: of which sockets are let through all the same, where the process has a network of
            its own. keep_group: let setsid() and setpgid() do nothing and say they did.
    """
    machine = platform.machine()
    column = list(ARCHITECTURES).index(machine)
    refuse = _instruction(RETURN, RET_ERRNO | errno.EPERM)
    pretend = _instruction(RETURN, RET_ERRNO)
    code = [
        _instruction(LOAD_WORD, OFFSET_ARCH),
        _instruction(JUMP_EQUAL, ARCHITECTURES[machine], if_true=1),
        _instruction(RETURN, RET_KILL),
        _instruction(LOAD_WORD, OFFSET_NUMBER),
    ]
    if machine == "x86_64":
        code += [_instruction(JUMP_GREATER_EQUAL, X32_BIT, if_false=1), refuse]
    refused = [numbers[column] for numbers in REFUSED.values()]
    if not network and not families:
        refused.append(SOCKET[column])
    for number in refused:
        if number is not None:
            code += [_instruction(JUMP_EQUAL, number, if_false=1), refuse]
    if families and not network:
        # Past what follows, unless it is socket() of another family.
        code += [_instruction(JUMP_EQUAL, SOCKET[column], if_false=len(families) + 3)]
        code += [_instruction(LOAD_WORD, OFFSET_FIRST_ARGUMENT)]
        for left, family in zip(range(len(families), 0, -1), families, strict=True):
            code += [_instruction(JUMP_EQUAL, family, if_true=left)]
        code += [refuse, _instruction(RETURN, RET_ALLOW)]
    if keep_group:
        for numbers in PRETENDED.values():
            code += [_instruction(JUMP_EQUAL, numbers[column], if_false=1), pretend]
    # clone3's flags are behind a pointer: glibc falls back to clone() when told it isn't there.
    no_such_call = _instruction(RETURN, RET_ERRNO | errno.ENOSYS)
    code += [_instruction(JUMP_EQUAL, CLONE3[column], if_false=1), no_such_call]
    code += [
        _instruction(JUMP_EQUAL, CLONE[column], if_false=3),
        _instruction(LOAD_WORD, OFFSET_FIRST_ARGUMENT),
        _instruction(JUMP_SET, CLONE_NEW, if_false=1),
        refuse,
        _instruction(RETURN, RET_ALLOW),
    ]
    return b"".join(code)

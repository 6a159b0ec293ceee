"""A Windows job object: what a process starts dies with it, and is bounded in number and memory.

Written from the documentation of CreateJobObjectW and JOBOBJECT_EXTENDED_LIMIT_INFORMATION; it has
not been run on Windows yet.
"""

from __future__ import annotations

import ctypes
import sys

from autoresearch.engine.sandbox.base import Limits

EXTENDED_LIMIT_INFORMATION = 9
LIMIT_ACTIVE_PROCESS = 0x0008
LIMIT_JOB_MEMORY = 0x0200
LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x0400
LIMIT_KILL_ON_JOB_CLOSE = 0x2000
PROCESS_SET_QUOTA, PROCESS_TERMINATE = 0x0100, 0x0001


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION; IO_COUNTERS are six unsigned 64-bit numbers."""

    _fields_ = (
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


def information(limits: Limits) -> ExtendedLimits:
    """The limits as Windows takes them; a job may not hold more than 2**32 - 1 processes."""
    info = ExtendedLimits()
    basic = info.BasicLimitInformation
    basic.LimitFlags = LIMIT_KILL_ON_JOB_CLOSE | LIMIT_DIE_ON_UNHANDLED_EXCEPTION
    if limits.processes is not None:
        basic.LimitFlags |= LIMIT_ACTIVE_PROCESS
        basic.ActiveProcessLimit = limits.processes
    if limits.memory_bytes is not None:
        basic.LimitFlags |= LIMIT_JOB_MEMORY
        info.JobMemoryLimit = limits.memory_bytes
    return info


def confine(pid: int, limits: Limits) -> None:
    """Put process `pid` into a new job. Raises OSError.

    The job's handle stays open in this process on purpose: Windows closes it when this process
    ends, however it ends, and with it everything in the job.
    """
    if sys.platform != "win32":
        raise OSError("job objects exist on Windows only")
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    kernel.OpenProcess.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    info = information(limits)
    size = ctypes.sizeof(info)
    rights = PROCESS_SET_QUOTA | PROCESS_TERMINATE
    process = ctypes.c_void_p(kernel.OpenProcess(rights, False, pid))
    done = (
        job.value
        and process.value
        and kernel.SetInformationJobObject(
            job, EXTENDED_LIMIT_INFORMATION, ctypes.byref(info), size
        )
        and kernel.AssignProcessToJobObject(job, process)
    )
    error = ctypes.get_last_error()
    if process.value:
        kernel.CloseHandle(process)
    if not done:
        if job.value:
            kernel.CloseHandle(job)
        raise ctypes.WinError(error)

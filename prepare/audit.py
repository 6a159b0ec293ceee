"""A Python audit hook for the candidate process: reports what it touches outside of what it got.

`install` runs before any of the candidate's code is loaded. Acts that no honest candidate needs
(opening the text or git's objects, changing the program it is part of, an internet socket, another
process's memory) are refused and reported as forbidden; others (a started program, a library loaded
by ctypes, a write elsewhere) are only reported. A process that answers questions may write in its
own folder alone: whatever it leaves anywhere else could be a note of what it was asked.

The hook sees what Python does. Native code goes past it, and Python code that knows where to look
can blind it: where that matters, a strict tier must hold.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_REPORTS = 50
MAX_TEXT = 300
COMPILERS = re.compile(
    r"(.*-)?(g\+\+|gcc|c\+\+|cc|clang|clang\+\+|cl|ld|lld|as|ar|ptxas|nvcc|hipcc|icpx|ldconfig"
    r"|uname|file|openssl|xcrun|metal|cuobjdump|nvdisasm|amdgpu-arch|rocm_agent_enumerator)(-[0-9.]+)?"
)
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OTHER_PROCESS = re.compile(r"/proc/(\d+)/(mem|environ|maps|fd|cwd|root|task)\b")
_TRIED_LIBRARY = re.compile(
    r"\s*import sys\s+if sys.platform != \"linux\":\s+import torch  # noqa: F401\s+"
    r"from ctypes import cdll\s+cdll.LoadLibrary\(\"[^\"\n]*\"\)\s*"
)
_BYTECODE = f"{os.sep}__pycache__{os.sep}"
# Event -> positions of the paths that it changes.
_CHANGES = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "os.setxattr": (0,),
    "os.removexattr": (0,),
    "os.chflags": (0,),
}
# Event -> for each path that it changes, the position of the folder's number it is relative to.
_RELATIVE_TO = {
    "os.remove": (1,),
    "os.rename": (2, 3),
    "os.link": (2, 3),
    "os.symlink": (2,),
    "os.mkdir": (2,),
    "os.rmdir": (1,),
    "os.chmod": (2,),
    "os.chown": (3,),
    "os.utime": (3,),
}
_LOOKS = ("os.listdir", "os.scandir", "os.chdir")
_ADDRESSED = ("socket.connect", "socket.bind", "socket.sendto")
_STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn")
_NATIVE = ("ctypes.dlopen", "ctypes.dlsym")
# Functions that make a file and raise no event.
_UNANNOUNCED = ("mkfifo", "mknod")
_SHARED_MEMORY = f"{os.sep}dev{os.sep}shm{os.sep}"
_GIT = re.compile(r"(^|[\s;&|/(])git([\s;]|$)")
# What even a confined process may write to: it keeps nothing.
_SINKS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/stdout", "/dev/stderr")
_SYSTEM_READS = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev", "/opt", "/run")


class Forbidden(PermissionError):
    """The candidate did what no honest one needs."""


class Rules:
    """What is granted and hidden, and what an event amounts to.

    listable: folders of the program itself; nothing in them may be changed. confined: whether it
    may write in `writable` alone, and read nothing that was not granted.
    """

    def __init__(
        self,
        readable: Sequence[str],
        writable: Sequence[str],
        hidden: Sequence[str],
        listable: Sequence[str] = (),
        confined: bool = False,
    ) -> None:
        temporary = [tempfile.gettempdir(), os.path.realpath(tempfile.gettempdir())]
        compile_caches = [
            os.environ[name]
            for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
            if name in os.environ
        ]
        home_caches = [os.path.expanduser(f"~/{name}") for name in (".triton", ".nv", ".cache")]
        python = [sys.prefix, sys.base_prefix, *sys.path[1:]]
        self._confined = confined
        self._granted = _prefixes([*readable, *python, *_SYSTEM_READS])
        if confined:
            self._granted += _prefixes(home_caches)
            self._writable = _prefixes([*writable, *_SINKS])
        else:
            anywhere = [*writable, *temporary, *compile_caches, *home_caches, "/dev"]
            self._writable = _prefixes(anywhere)
        self._hidden = _prefixes(hidden)
        self._listable = frozenset(_prefixes(listable))
        self._python = tuple(path for path in _prefixes(python) if path.strip(os.sep))
        self._program = (*self._listable, *self._python)
        self._pid = os.getpid()
        self._above = frozenset([1, os.getppid(), *_ancestors()])
        self._own = f"/proc/{self._pid}/"

    def judge(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str, bool] | None:
        """(what it did, to what, whether that is forbidden), or None if it may."""
        if event == "open":
            return self._open(*arguments)
        if event in _LOOKS:
            return self._path(arguments[0], "list")
        if event in _CHANGES:
            return self._change(event, arguments)
        if event in _STARTS:
            return self._start(event, arguments)
        if event in _NATIVE:
            return self._native(event, arguments)
        if event == "sqlite3.connect":
            database = arguments[0]
            return None if database in ("", ":memory:") else self._path(database, "write")
        if event == "mmap.__new__":
            return self._shared_memory(arguments[0])
        return self._socket_or_signal(event, arguments)

    def _open(self, path: Any, mode: str | None, flags: int | None) -> tuple[str, str, bool] | None:
        writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITE_FLAGS)
        found = self._path(path, "write" if writes else "read")
        if mode is None and isinstance(path, (str, bytes)) and not (found and found[2]):
            # os.open() may be given a folder's number, which is not told here: upwards from that
            # can be anywhere. And the number of a folder that holds hidden ones leads into them.
            text = os.fsdecode(path)
            if not os.path.isabs(text) and os.pardir in text.split(os.sep):
                return "read", text, True
            real = os.path.realpath(text)
            if self._holds_hidden(real) and os.path.isdir(real):
                return "read", real, True
        return found

    def _change(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str, bool] | None:
        relative_to = _RELATIVE_TO.get(event, ())
        found = []
        for number, index in enumerate(_CHANGES[event]):
            path, folder = arguments[index], -1
            if number < len(relative_to) and relative_to[number] < len(arguments):
                folder = arguments[relative_to[number]]
            if isinstance(path, int):
                path = _opened(path)
            elif isinstance(folder, int) and folder >= 0:
                path = os.path.join(_opened(folder) or "", os.fsdecode(path))
            found.append(self._path(path, "write"))
        return max((f for f in found if f), key=lambda f: f[2], default=None)

    def _path(self, value: Any, act: str) -> tuple[str, str, bool] | None:
        try:
            path = os.fsdecode(value)
        except TypeError:  # an open file's number, or None for the working folder
            return None
        real = os.path.abspath(path)
        if act == "read" and real.startswith(self._python) and not self._is_hidden(real):
            return None  # the bulk of all opens: imports, of which none are links elsewhere
        real = os.path.realpath(real)
        if real.startswith(self._own):
            return None
        other = _OTHER_PROCESS.match(real)
        if other and int(other.group(1)) != self._pid:
            return act, real, True
        if act == "list" and real in self._listable:
            return None  # its own folder, wherever that lies
        if self._is_hidden(real):
            return act, real, True
        if act == "list" or (act == "read" and _BYTECODE in real):
            return None
        if act == "read":
            granted = _longest(real, self._writable + self._granted)
            return None if granted else (act, real, self._confined)
        writable = _longest(real, self._writable)
        if _longest(real, self._program) > writable:
            return act, real, True
        return None if writable else (act, real, self._confined)

    def _shared_memory(self, number: int) -> tuple[str, str, bool] | None:
        """Named shared memory outlives its process; it opens without an event of its own."""
        path = _opened(number) if self._confined and number >= 0 else None
        if path is None or not path.startswith(_SHARED_MEMORY):
            return None
        return None if _longest(path, self._writable) else ("share", path, True)

    def _native(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str, bool] | None:
        """Compiled kernels and what Python came with are loaded by everybody."""
        library = arguments[0] if event == "ctypes.dlopen" else arguments[0]._name
        name = "" if library is None else os.fsdecode(library)
        if os.path.isabs(name):
            ours = (*self._writable, *self._python)
            if _longest(os.path.realpath(name), ours):
                return None
        said = name or "this process"
        if event == "ctypes.dlsym":
            said += f": {arguments[1]}"
        return "load", said, False

    def _holds_hidden(self, folder: str) -> bool:
        inside = folder.rstrip(os.sep) + os.sep
        return any(hidden.startswith(inside) for hidden in self._hidden)

    def _is_hidden(self, path: str) -> bool:
        hidden = _longest(path, self._hidden)
        return hidden > 0 and hidden >= _longest(path, self._granted + self._writable)

    def _start(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str, bool] | None:
        words = _command_words(event, arguments)
        if event != "os.system" and words and COMPILERS.fullmatch(os.path.basename(words[0])):
            return None
        # torch.compile's own pool of compiling processes, and its trial of what it compiled.
        if any("torch" in word and "compile_worker" in word for word in words):
            return None
        if words[1:2] == ["-c"] and _TRIED_LIBRARY.fullmatch(words[2]):
            return None
        line = " ".join(words)
        named = any(self._is_hidden(os.path.realpath(word)) for word in line.split())
        return "start", line, named or bool(_GIT.search(line))

    def _socket_or_signal(
        self, event: str, arguments: tuple[Any, ...]
    ) -> tuple[str, str, bool] | None:
        if event == "socket.__new__":
            family = int(arguments[1])
            # Unix sockets: asyncio's own pairs. -1 wraps an open socket, whatever it is.
            return None if family in (-1, 1) else ("socket", f"address family {family}", True)
        if event in _ADDRESSED:
            address = arguments[1]
            return "socket", str(address), self._confined or not isinstance(address, (str, bytes))
        return self._signal(int(arguments[0]), group=event == "os.killpg")

    def _signal(self, number: int, group: bool) -> tuple[str, str, bool] | None:
        if number < -1:
            number, group = -number, True
        if group:
            return None if number in (0, os.getpgrp()) else ("signal", f"group {number}", True)
        everybody = number == -1
        if everybody or number in self._above:
            return "signal", f"process {number}", True
        return None


def _ancestors() -> list[int]:
    """The processes that this one came from: its jail, the harness, whoever started that."""
    import psutil

    try:
        return [process.pid for process in psutil.Process().parents()]
    except psutil.Error:  # not to be seen from in here
        return []


def _opened(number: Any) -> str | None:
    """The path of an open file, None where the system doesn't tell."""
    try:
        return os.readlink(f"/proc/self/fd/{int(number)}")
    except (OSError, TypeError, ValueError):
        return None


def _command_words(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The command line of an event that starts a program."""
    given = arguments[1] if len(arguments) > 1 and event != "os.spawn" else arguments[0]
    if event == "os.spawn":  # (mode, path, args, env)
        given = arguments[2]
    if isinstance(given, (str, bytes, os.PathLike)):
        given = [given]
    words = [os.fsdecode(word) for word in given or ()]
    program = arguments[0]
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn") and program is not None:
        return [os.fsdecode(program), *words[1:]]
    return words


def _prefixes(paths: Sequence[str]) -> tuple[str, ...]:
    found = []
    for path in paths:
        if path:
            found += [os.path.abspath(path), os.path.realpath(path)]
    return tuple(dict.fromkeys(found))


def _longest(path: str, folders: tuple[str, ...]) -> int:
    """Length of the longest of `folders` that is `path` or holds it, 0 if none does."""
    ends = ("", "/", "\\")
    holding = (f for f in folders if path.startswith(f) and path[len(f) : len(f) + 1] in ends)
    return max(map(len, holding), default=0)


def install(rules: Mapping[str, Any], report: Callable[[str, str, bool], None]) -> None:
    """Watch this process from now on; it can't be undone.

    Args:
        rules: "readable", "writable", "hidden" and (those alone, not what they hold) "listable":
            lists of paths; "refuse": whether forbidden acts fail; "confined": whether writing
            elsewhere than in "writable" is one. report: called with what was done, to what, and
            whether that is forbidden; once for each, 50 times at most.
    """
    judge = Rules(
        rules["readable"],
        rules["writable"],
        rules["hidden"],
        rules.get("listable", ()),
        bool(rules.get("confined")),
    ).judge
    refuse = bool(rules["refuse"])
    seen: set[tuple[str, str]] = set()
    watched = {"open", "socket.__new__", "os.kill", "os.killpg", "sqlite3.connect", "mmap.__new__"}
    watched |= {*_CHANGES, *_LOOKS, *_STARTS, *_NATIVE, *_ADDRESSED}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in watched:
            return
        found = judge(event, arguments)
        if found is None:
            return
        act, target, forbidden = found[0], found[1][:MAX_TEXT], found[2]
        if (act, target) not in seen and (len(seen) < MAX_REPORTS or forbidden):
            seen.add((act, target))
            report(act, target, forbidden)
        if forbidden and refuse:
            raise Forbidden(f"{act} {target}: not part of what a candidate is given")

    sys.addaudithook(hook)
    for name in _UNANNOUNCED:
        if hasattr(os, name):
            _announce(name, hook)


def _announce(name: str, hook: Callable[[str, tuple[Any, ...]], None]) -> None:
    """Make `os.NAME(path, ...)` tell the hook as os.mkdir does: Python has no event for it."""
    import posix

    original = getattr(os, name)

    @functools.wraps(original)
    def announced(path: Any, mode: int = 0o600, *rest: Any, dir_fd: int | None = None) -> None:
        hook("os.mkdir", (path, mode, -1 if dir_fd is None else dir_fd))
        original(path, mode, *rest, dir_fd=dir_fd)

    setattr(os, name, announced)
    setattr(posix, name, announced)

"""A Python audit hook for the candidate process: reports what it touches outside of what it got.

`install` runs before any of the candidate's code is loaded. Acts that no honest candidate needs
(opening the text or git's objects, an internet socket, another process's memory) are refused and
reported as forbidden; others (a started program, a write elsewhere) are only reported.

The hook sees what Python does. Native code goes past it, and Python code that knows where to look
can blind it: where that matters, a strict tier must hold.
"""

from __future__ import annotations

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
}
_LOOKS = ("os.listdir", "os.scandir", "os.chdir")
_STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn")
_SYSTEM_READS = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev", "/opt", "/run")


class Forbidden(PermissionError):
    """The candidate did what no honest one needs."""


class Rules:
    """What is granted and hidden, and what an event amounts to."""

    def __init__(
        self,
        readable: Sequence[str],
        writable: Sequence[str],
        hidden: Sequence[str],
        listable: Sequence[str] = (),
    ) -> None:
        temporary = [tempfile.gettempdir(), os.path.realpath(tempfile.gettempdir())]
        compile_caches = [
            os.environ[name]
            for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
            if name in os.environ
        ]
        home_caches = [os.path.expanduser(f"~/{name}") for name in (".triton", ".nv", ".cache")]
        python = [sys.prefix, sys.base_prefix, *sys.path[1:]]
        self._granted = _prefixes([*readable, *python, *_SYSTEM_READS])
        self._writable = _prefixes([*writable, *temporary, *compile_caches, *home_caches, "/dev"])
        self._hidden = _prefixes(hidden)
        self._listable = frozenset(_prefixes(listable))
        self._python = tuple(path for path in _prefixes(python) if path.strip(os.sep))
        self._pid, self._parent = os.getpid(), os.getppid()
        self._own = f"/proc/{self._pid}/"

    def judge(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str, bool] | None:
        """(what it did, to what, whether that is forbidden), or None if it may."""
        if event == "open":
            path, mode, flags = arguments
            writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITE_FLAGS)
            return self._path(path, "write" if writes else "read")
        if event in _LOOKS:
            return self._path(arguments[0], "list")
        if event in _CHANGES:
            found = [self._path(arguments[index], "write") for index in _CHANGES[event]]
            return max((f for f in found if f), key=lambda f: f[2], default=None)
        if event in _STARTS:
            return self._start(event, arguments)
        return self._socket_or_signal(event, arguments)

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
        allowed = self._writable if act == "write" else self._writable + self._granted
        return None if _longest(real, allowed) else (act, real, False)

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
        return "start", " ".join(words), False

    def _socket_or_signal(
        self, event: str, arguments: tuple[Any, ...]
    ) -> tuple[str, str, bool] | None:
        if event == "socket.__new__":
            family = int(arguments[1])
            # Unix sockets: asyncio's own pairs. -1 wraps an open socket, whatever it is.
            return None if family in (-1, 1) else ("socket", f"address family {family}", True)
        if event in ("socket.connect", "socket.bind", "socket.sendto"):
            address = arguments[1]
            return "socket", str(address), not isinstance(address, (str, bytes))
        if event == "os.kill" and arguments[0] in (self._parent, 1, -1):
            return "signal", f"process {arguments[0]}", True
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
            lists of paths; "refuse": whether forbidden acts fail. report: called with what was
            done, to what, and whether that is forbidden; once for each, 50 times at most.
    """
    judge = Rules(
        rules["readable"], rules["writable"], rules["hidden"], rules.get("listable", ())
    ).judge
    refuse = bool(rules["refuse"])
    seen: set[tuple[str, str]] = set()
    watched = {"open", "socket.__new__", "socket.connect", "socket.bind", "socket.sendto"}
    watched |= {"os.kill", *_CHANGES, *_LOOKS, *_STARTS}

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

"""What the audit hook makes of a candidate's acts. Hooks can't be removed, so children get them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prepare.audit import COMPILERS, Rules

ROOT = Path(__file__).resolve().parents[2]

WATCHED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from prepare import audit
rules, code = json.loads(sys.argv[2]), sys.argv[3]
seen = []
audit.install(rules, lambda act, target, forbidden: seen.append([act, target, forbidden]))
try:
    exec(code)
    ended = "done"
except Exception as error:
    ended = f"{type(error).__name__}: {error}"
print(json.dumps([seen, ended]))
"""


@pytest.fixture
def watched(tmp_path):
    """Run code in a process with the hook; (what was reported, how it ended)."""
    for name in ("work", "data", "given"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "valid.bin").write_text("secret")
    (tmp_path / "data" / "probes").mkdir()
    (tmp_path / "data" / "probes" / "speed.json").write_text("{}")
    (tmp_path / "given" / "train.py").write_text("x = 1\n")

    def run(code: str, refuse: bool = True, **more: object) -> tuple[list, str]:
        rules = {
            "readable": [str(tmp_path / "given"), str(tmp_path / "data" / "probes")],
            "writable": [str(tmp_path / "work")],
            "hidden": [str(tmp_path / "data")],
            "refuse": refuse,
            **more,
        }
        # Not below /tmp, as tests are: that is writable in this tier.
        environment = {**os.environ, "TMPDIR": str(tmp_path / "work")}
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(ROOT), json.dumps(rules), code],
            capture_output=True,
            text=True,
            cwd=tmp_path / "work",
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen, ended = json.loads(done.stdout)
        return [tuple(each) for each in seen], ended

    return run


def test_what_was_given_is_not_reported(watched):
    code = """
open("../given/train.py").read(); open("../data/probes/speed.json").read()
open("out.txt", "w").write("x"); os.rename("out.txt", "in.txt"); os.remove("in.txt")
import tempfile, asyncio, sqlite3
tempfile.NamedTemporaryFile().close()
asyncio.new_event_loop().close()
open("/dev/null", "w"); open("/proc/self/status").read(); os.listdir("/proc")
"""
    assert watched(code) == ([], "done")


@pytest.mark.parametrize(
    "code",
    [
        'open("../data/valid.bin").read()',
        'os.open("../data/valid.bin", os.O_RDONLY)',
        'os.symlink("../data/valid.bin", "link"); open("link").read()',
        'os.chdir("../data"); open("valid.bin")',
        'import pathlib; pathlib.Path("..", "data", "valid.bin").read_bytes()',
        'open(b"../data/valid.bin")',
        'import sqlite3; sqlite3.connect("../data/valid.bin")',
        'os.scandir("../data")',
        'os.remove("../data/valid.bin")',
        'import numpy; numpy.memmap("../data/valid.bin", mode="r")',
    ],
)
def test_reaching_for_the_data_is_forbidden_by_any_spelling(watched, code, tmp_path):
    seen, ended = watched(code)
    assert ended.startswith("Forbidden")
    assert seen[-1][2] is True
    assert seen[-1][1].startswith(str(tmp_path / "data"))
    assert (tmp_path / "data" / "valid.bin").exists()


@pytest.mark.parametrize(
    "code", ['os.open(os.path.abspath(".."), 0)', 'os.open("../data/valid.bin", 0, dir_fd=0)']
)
def test_no_way_leads_by_a_folders_number(watched, code):
    seen, ended = watched(code)
    assert ended.startswith("Forbidden")
    assert seen[-1][0] == "read"


@pytest.mark.parametrize(
    ("code", "act"),
    [
        ("import socket; socket.socket()", "socket"),
        ("import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "socket"),
        ("import urllib.request as u; u.urlopen('http://127.0.0.1:9')", "socket"),
        ("open(f'/proc/{os.getppid()}/environ')", "read"),
        ("os.kill(os.getppid(), 0)", "signal"),
        ("import psutil; os.kill(psutil.Process().parents()[1].pid, 0)", "signal"),
        ("os.killpg(os.getpgid(os.getppid()) + 10**6, 0)", "signal"),
    ],
)
def test_sockets_and_other_processes_are_forbidden(watched, code, act):
    if "/proc" in code and sys.platform != "linux":
        pytest.skip("no /proc here")
    seen, ended = watched(code)
    assert seen[-1][0] == act
    assert seen[-1][2] is True
    assert "Forbidden" in ended or "urlopen" in ended


NOTES = """
def attempt(act):
    try:
        act()
        raise SystemExit("left a note")
    except OSError as error:
        assert "not part of what" in str(error), error
import mmap, socket, sqlite3
from multiprocessing import shared_memory
open("mine", "w").write("x"); os.mkdir("folder"); os.mkfifo("folder/pipe")
there = os.path.abspath("../given/")
for act in (
    lambda: open(there + "/note", "w"),
    lambda: os.open(there + "/note", os.O_CREAT | os.O_WRONLY),
    lambda: os.mkdir(there + "/note"),
    lambda: os.mkfifo(there + "/note"),
    lambda: os.mknod(there + "/note"),
    lambda: os.rename("mine", there + "/note"),
    lambda: os.link("mine", there + "/note"),
    lambda: os.symlink("mine", there + "/note"),
    lambda: os.utime(there + "/train.py", (1, 1)),
    lambda: os.chmod(there + "/train.py", 0o700),
    lambda: os.truncate(there + "/train.py", 0),
    lambda: os.remove(there + "/train.py"),
    lambda: sqlite3.connect(there + "/note"),
    lambda: socket.socket(socket.AF_UNIX).bind("\\0note"),
    lambda: open(os.path.dirname(there) + "/left-by-another"),
    lambda: os.mkdir("note", dir_fd=os.open(there, 0)),
    lambda: shared_memory.SharedMemory("autoresearch-note", create=True, size=64),
):
    attempt(act)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory and folders' numbers by /proc")
def test_a_process_that_answers_can_leave_no_note(watched, tmp_path):
    (tmp_path / "left-by-another").write_text("a note")
    seen, ended = watched(NOTES, confined=True)
    assert ended == "done"
    assert seen and all(forbidden for _, _, forbidden in seen)
    assert sorted(path.name for path in (tmp_path / "given").iterdir()) == ["train.py"]
    assert not Path("/dev/shm/autoresearch-note").exists()


def test_libraries_that_ctypes_loads_are_reported_but_for_compiled_kernels(watched):
    code = """
import ctypes
ctypes.CDLL(None).getpid
ctypes.pythonapi.Py_IncRef
try:
    ctypes.CDLL(os.path.abspath("kernel.so"))
except OSError:
    pass
"""
    seen, ended = watched(code)
    assert ended == "done"
    assert [each[1] for each in seen if each[0] == "load"] == [
        "this process",
        "this process: getpid",
        "this process: Py_IncRef",
    ]
    assert not any(forbidden for _, _, forbidden in seen)


def test_a_strict_tier_only_wants_to_know(watched):
    seen, ended = watched('open("../data/valid.bin").read()', refuse=False)
    assert (ended, [each[2] for each in seen]) == ("done", [True])


def test_programs_and_writes_elsewhere_are_reported_and_go_on(watched, tmp_path):
    seen, ended = watched(
        "import subprocess; subprocess.run(['true']); open('../elsewhere.txt', 'w').close()"
    )
    assert ended == "done"
    assert ("start", "true", False) in seen
    assert ("write", str(tmp_path / "elsewhere.txt"), False) in seen


def test_a_thing_is_reported_once_and_reports_are_bounded(watched):
    seen, _ = watched("for n in range(500): open(f'../many{n % 100}.txt', 'w').close()")
    assert len(seen) == 50


@pytest.mark.parametrize(
    "name",
    ["g++", "g++-13", "clang++", "x86_64-linux-gnu-g++-12", "ptxas", "cc", "cl", "ld", "openssl"],
)
def test_compilers_are_known(name):
    assert COMPILERS.fullmatch(name)


@pytest.mark.parametrize("name", ["curl", "python", "git", "bash", "gccurl", "nc"])
def test_other_programs_are_no_compilers(name):
    assert not COMPILERS.fullmatch(name)


def test_every_way_to_start_a_program_is_read():
    judge = Rules([], [], []).judge
    assert judge("subprocess.Popen", (None, ["curl", "x"], None, None)) == (
        "start",
        "curl x",
        False,
    )
    assert judge("subprocess.Popen", ("/usr/bin/g++", ["g++", "a.cpp"], None, None)) is None
    assert judge("os.system", (b"g++ a.cpp; curl x",)) == ("start", "g++ a.cpp; curl x", False)
    assert judge("os.exec", ("/bin/sh", ["sh", "-c", "x"], None)) == (
        "start",
        "/bin/sh -c x",
        False,
    )
    assert judge("os.posix_spawn", ("git", ("git", "log"), {})) == ("start", "git log", True)
    assert judge("os.system", ("cd /; git log",)) == ("start", "cd /; git log", True)
    words = [sys.executable, "-m", "torch._inductor.compile_worker"]
    assert judge("subprocess.Popen", (sys.executable, words, None, None)) is None
    tried = """
import sys
if sys.platform != "linux":
    import torch  # noqa: F401
from ctypes import cdll
cdll.LoadLibrary("/run/work/train/x.so")
"""
    words = [sys.executable, "-c", tried]
    assert judge("subprocess.Popen", (None, words, None, None)) is None
    words = [sys.executable, "-c", tried + "import os"]
    assert judge("subprocess.Popen", (None, words, None, None)) is not None


def test_its_own_folder_may_be_listed_even_inside_hidden_ones(tmp_path):
    """Python lists the folder of train.py when it imports, and the demo's lies in the cache."""
    cache, own = tmp_path / "cache", tmp_path / "cache" / "demo"
    judge = Rules([str(own / "train.py")], [], [str(cache)], [str(own)]).judge
    assert judge("os.listdir", (str(own),)) is None
    assert judge("open", (str(own / "train.py"), "r", 0)) is None
    assert judge("os.listdir", (str(cache),)) == ("list", str(cache), True)
    assert judge("os.listdir", (str(own / "runs"),)) == ("list", str(own / "runs"), True)
    assert judge("open", (str(own / "weights"), "r", 0)) == ("read", str(own / "weights"), True)

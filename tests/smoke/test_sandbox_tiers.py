"""Each isolation tier of this machine against a program that tries to get out of it."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.engine.sandbox import Limits, Tier, all_tiers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the jails here are POSIX ones")

STRICT = [tier for tier in all_tiers() if tier.strict]


def available(tier: Tier) -> Tier:
    reason = tier.problem()
    if reason:
        pytest.skip(f"no {tier.name} here: {reason}")
    return tier


@pytest.fixture(params=STRICT, ids=lambda tier: tier.name)
def strict(request) -> Tier:
    return available(request.param)


@pytest.fixture(params=all_tiers(), ids=lambda tier: tier.name)
def tier(request) -> Tier:
    return available(request.param)


def jailed(tier: Tier, work: Path, code: str, *arguments: object, **options) -> subprocess.Popen:
    work.mkdir(exist_ok=True)
    argv = [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]
    limits = options.pop("limits", Limits())
    wrapped = tier.wrap(argv, {"PATH": os.defpath}, writable=[work], limits=limits, **options)
    return subprocess.Popen(
        wrapped.argv,
        env=wrapped.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=work,
    )


def output(process: subprocess.Popen, timeout: float = 30) -> str:
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


ESCAPES = """
import ctypes, json, os, signal, socket, sys
corpus, home, parent, port, outside, git = sys.argv[1:]
def attempt(act):
    try:
        return act() or "done"
    except OSError as error:
        return f"refused: {error}"
def connect():
    with socket.create_connection(("127.0.0.1", int(port)), timeout=2):
        pass
def unix():
    socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")
def vm_read():
    libc = ctypes.CDLL(None, use_errno=True)
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    local = Vector(ctypes.addressof(buffer), 8)
    maps = Vector(0x400000, 8)
    if libc.process_vm_readv(int(parent), ctypes.byref(local), 1, ctypes.byref(maps), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
def ptrace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, int(parent), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
print(json.dumps({
    "corpus": attempt(lambda: open(corpus).read()),
    "git": attempt(lambda: open(git).read()),
    "home": attempt(lambda: os.listdir(home)),
    "memory": attempt(lambda: open(f"/proc/{parent}/mem", "rb").read(1)),
    "environ": attempt(lambda: open(f"/proc/{parent}/environ").read()),
    "network": attempt(connect),
    "unix socket": attempt(unix),
    "write outside": attempt(lambda: open(outside, "w").write("x")),
    "replace python": attempt(lambda: open(os.__file__, "a").write("#")),
    "signal": attempt(lambda: os.kill(int(parent), 0)),
    "read its memory": attempt(vm_read),
    "trace": attempt(ptrace),
    "namespace": attempt(unshare),
    "chroot": attempt(lambda: os.chroot("/")),
}))
"""


SPEAK = """
import socket
print([name for _, name in socket.if_nameindex()])
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as there, server.accept()[0] as here:
        there.sendall(b"hello")
        print(here.recv(5))
"""


def test_processes_may_be_given_a_loopback_of_their_own(strict, tmp_path):
    if strict.loopback_problem():
        pytest.skip(strict.loopback_problem())
    said = output(jailed(strict, tmp_path / "work", SPEAK, loopback=True))
    assert said.splitlines() == ["['lo']", "b'hello'"]


@pytest.mark.parametrize("loopback", [False, True], ids=["", "with a loopback"])
def test_nothing_outside_is_in_reach(strict, loopback, tmp_path):
    if loopback and strict.loopback_problem():
        pytest.skip(strict.loopback_problem())
    work, data = tmp_path / "work", tmp_path / "data"
    data.mkdir()
    (data / "valid.txt").write_text("the validation text")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        out = output(
            jailed(
                strict,
                work,
                ESCAPES,
                data / "valid.txt",
                Path.home(),
                os.getpid(),
                port,
                tmp_path / "outside.txt",
                tmp_path / ".git" / "HEAD",
                loopback=loopback,
            )
        )
    results = json.loads(out)
    # A jail may hold an empty folder of that name, with the way to Python in it.
    seen = set() if str(results["home"]).startswith("refused") else set(results.pop("home"))
    assert seen <= set(Path(sys.base_prefix).parts) | set(Path(sys.prefix).parts)
    # Into a /tmp of its own it may write: what counts is asserted below.
    results.pop("write outside")
    if strict.name == "landlock" and any("signalling" in x for x in strict.does_not_stop()):
        results.pop("signal")
    escaped = {what: r for what, r in results.items() if not str(r).startswith("refused")}
    assert escaped == {}
    assert not (tmp_path / "outside.txt").exists()


def test_what_is_granted_works(strict, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "a.txt").write_text("read me")
    (tmp_path / "listed").mkdir()
    code = """
import os, socket, subprocess, sys, tempfile, threading
assert open(sys.argv[1] + "/a.txt").read() == "read me"
try:
    open(sys.argv[1] + "/b.txt", "w")
except OSError:
    pass
else:
    sys.exit("a readable folder could be written")
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
os.makedirs("sub/folder"); open("sub/folder/f", "w").write("x"); os.rename("sub/folder/f", "g")
os.path.expanduser("~").startswith("/") and os.makedirs(os.path.expanduser("~/.cache/x"))
open("/dev/null", "w").write("x"); open("/dev/urandom", "rb").read(1)
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
t = threading.Thread(target=lambda: None); t.start(); t.join()
r, w = os.pipe()
argv = [sys.executable, "-I", "-S", "-c", "print(1)"]
assert subprocess.run(argv, capture_output=True).stdout == b"1\\n"
assert subprocess.run(["true"], start_new_session=True).returncode == 0
print(os.getcwd())
"""
    process = jailed(
        strict, tmp_path / "work", code, given, readable=[given], listable=[tmp_path / "listed"]
    )
    assert output(process).strip() == str(tmp_path / "work")
    assert (tmp_path / "work" / "g").read_text() == "x"


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        code = "import time; time.sleep(300)"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code, sys.argv[1]])
    os._exit(0)
print("started", flush=True)
time.sleep(float(sys.argv[2]))
"""


def processes_with(*words: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line, status = process.cmdline(), process.status()
        except psutil.Error:  # gone, or a zombie
            continue
        if set(words) <= set(line) and status != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def sleepers(mark: str) -> list[psutil.Process]:
    return processes_with(mark, "import time; time.sleep(300)")


def gone(mark: str) -> bool:
    return eventually(lambda: not processes_with(mark))


def eventually(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="what lives on is found by Linux's means")
def test_a_daemon_ends_with_the_program_that_left_it(tier, tmp_path):
    mark = f"daemon-{tier.name}-{os.getpid()}-ends"
    process = jailed(tier, tmp_path / "work", DAEMON, mark, 0.5)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert eventually(lambda: sleepers(mark))
    assert process.wait(timeout=20) == 0
    assert gone(mark)
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="what lives on is found by Linux's means")
def test_a_daemon_dies_when_the_jail_is_killed(tier, tmp_path):
    from prepare.process import kill_tree

    mark = f"daemon-{tier.name}-{os.getpid()}-killed"
    process = jailed(tier, tmp_path / "work", DAEMON, mark, 300)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert eventually(lambda: sleepers(mark))
    kill_tree(process.pid)
    process.wait(timeout=10)
    assert gone(mark)
    process.communicate()


HARNESS = """
import subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from autoresearch.engine.sandbox import all_tiers
tier = next(t for t in all_tiers() if t.name == sys.argv[2])
wrapped = tier.wrap([sys.executable, "-I", "-S", "-c", *sys.argv[4:]], {"PATH": "/usr/bin:/bin"},
                    writable=[Path(sys.argv[3])])
p = subprocess.Popen(wrapped.argv, env=wrapped.env, stdout=subprocess.PIPE, start_new_session=True)
p.stdout.readline()
print("ready", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what lives on is found by Linux's means")
def test_everything_dies_when_the_harness_is_killed(tier, tmp_path):
    mark = f"daemon-{tier.name}-{os.getpid()}-orphan"
    root = str(Path(__file__).resolve().parents[2])
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, root, tier.name, str(tmp_path), DAEMON, mark, "300"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout is not None
    assert harness.stdout.readline() == "ready\n"
    assert eventually(lambda: sleepers(mark))
    harness.kill()
    harness.wait()
    assert gone(mark)
    harness.stdout.close()


def test_a_file_can_not_fill_the_disk(tier, tmp_path):
    code = """
import signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("big", "wb", buffering=0) as file:
    try:
        for _ in range(64):
            file.write(bytes(1 << 20))
    except OSError as error:
        print("stopped", error.errno)
"""
    out = output(jailed(tier, tmp_path / "work", code, limits=Limits(file_bytes=4 << 20)))
    assert out.startswith("stopped")
    assert (tmp_path / "work" / "big").stat().st_size <= 4 << 20


def test_a_private_tmp_is_bounded(strict, tmp_path):
    if strict.name != "bubblewrap":
        pytest.skip("its temporary files lie in the run folder, which the harness measures")
    code = """
try:
    for n in range(64):
        open(f"/tmp/{n}", "wb").write(bytes(1 << 20))
except OSError as error:
    print("stopped", error.errno)
"""
    out = output(jailed(strict, tmp_path / "work", code, limits=Limits(temporary_bytes=8 << 20)))
    assert out.startswith("stopped")


BOMB = """
import os, time
started = 0
for _ in range(400):
    try:
        pid = os.fork()
    except OSError as error:
        print("stopped after", started, flush=True)
        break
    if pid == 0:
        time.sleep(20)
        os._exit(0)
    started += 1
else:
    print("never stopped", flush=True)
"""


@pytest.mark.skipif(
    os.name != "posix" or os.getuid() == 0, reason="the kernel counts none of root's"
)
def test_a_fork_bomb_is_stopped_by_the_kernel(tier, tmp_path):
    process = jailed(tier, tmp_path / "work", BOMB, limits=Limits(processes=100))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert re.match(r"stopped after \d+", line)
    process.kill()
    process.communicate()


def test_the_exit_status_comes_through(tier, tmp_path):
    for code, expected in (
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 11)", -11),
    ):
        process = jailed(tier, tmp_path / "work", code)
        process.communicate(timeout=30)
        assert tier.exit_status(process.returncode) == expected


def test_the_thread_that_started_it_may_end(tier, tmp_path):
    if tier.name == "bubblewrap":
        pytest.skip("bwrap's --die-with-parent means the thread")
    started: list[subprocess.Popen] = []
    code = "import time; time.sleep(1.5); print('alive')"
    thread = threading.Thread(target=lambda: started.append(jailed(tier, tmp_path / "w", code)))
    thread.start()
    thread.join()
    assert output(started[0]) == "alive\n"


def test_a_compiler_works_in_it(strict, tmp_path):
    code = """
import ctypes, subprocess
source = "#include <cmath>\\nextern \\"C\\" double f(double x) { return std::sqrt(x); }"
open("a.cpp", "w").write(source)
subprocess.run(["c++", "-O2", "-shared", "-fPIC", "a.cpp", "-o", "a.so"], check=True)
f = ctypes.CDLL("./a.so").f
f.restype, f.argtypes = ctypes.c_double, [ctypes.c_double]
print(f(9.0))
"""
    import shutil

    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    assert output(jailed(strict, tmp_path / "work", code), timeout=60) == "3.0\n"

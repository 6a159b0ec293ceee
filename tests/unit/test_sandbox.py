"""Isolation tiers as text and tables: filters, rules, profiles, choices. Nothing is jailed here."""

import ctypes
import platform
import re
import struct
import sys
from pathlib import Path

import pytest

from autoresearch.engine import sandbox
from autoresearch.engine.sandbox import launch, paths, seatbelt, seccomp, windows_job
from autoresearch.engine.sandbox.base import Limits
from autoresearch.engine.sandbox.landlock import file_rights, ruleset

HEADERS = {
    0: (
        Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        Path("/usr/include/asm/unistd_64.h"),
    ),
    1: (Path("/usr/include/asm-generic/unistd.h"),),
}


def numbers_in(header: Path) -> dict[str, int]:
    text = header.read_text(encoding="utf-8")
    found = re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", text)
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("column", [0, 1])
def test_system_call_numbers_are_the_kernel_headers(column):
    header = next((path for path in HEADERS[column] if path.is_file()), None)
    if header is None:
        pytest.skip("no kernel headers here")
    known = numbers_in(header)
    ours = {
        **seccomp.REFUSED,
        **seccomp.PRETENDED,
        "socket": seccomp.SOCKET,
        "clone": seccomp.CLONE,
        "clone3": seccomp.CLONE3,
    }
    compared = {n: v[column] for n, v in ours.items() if n in known and v[column] is not None}
    assert len(compared) > 40
    assert compared == {name: known[name] for name in compared}


def simulate(program: bytes, number: int, first: int = 0, architecture: int | None = None) -> int:
    """Run the filter as the kernel would, on one system call."""
    arch = seccomp.ARCHITECTURES["x86_64"] if architecture is None else architecture
    data = {0: number, 4: arch, 16: first}
    code = [struct.unpack("=HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    at, word = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == seccomp.LOAD_WORD:
            word = data[value]
        elif operation == seccomp.RETURN:
            return value
        else:
            test = {
                seccomp.JUMP_EQUAL: word == value,
                seccomp.JUMP_GREATER_EQUAL: word >= value,
                seccomp.JUMP_SET: bool(word & value),
            }[operation]
            at += if_true if test else if_false


@pytest.fixture
def on_x86(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


READ, SOCKET, PTRACE, SETSID, CLONE = 0, 41, 101, 112, 56
PERM = seccomp.RET_ERRNO | 1


def test_the_filter_refuses_what_it_should_and_nothing_else(on_x86):
    program = seccomp.program()
    assert simulate(program, READ) == seccomp.RET_ALLOW
    assert simulate(program, PTRACE) == PERM
    assert simulate(program, SOCKET) == PERM
    assert simulate(program, SETSID) == seccomp.RET_ALLOW
    assert simulate(program, READ, architecture=0x40000003) == seccomp.RET_KILL  # 32-bit calls
    assert simulate(program, seccomp.X32_BIT | READ) == PERM
    assert simulate(program, CLONE, 0x00010000) == seccomp.RET_ALLOW  # a thread
    assert simulate(program, CLONE, 0x10000000) == PERM  # a new user namespace


def test_the_filter_can_leave_the_network_and_hold_the_group(on_x86):
    program = seccomp.program(network=True, keep_group=True)
    assert simulate(program, SOCKET) == seccomp.RET_ALLOW
    assert simulate(program, SETSID) == seccomp.RET_ERRNO  # "it worked"


def test_the_filter_can_leave_sockets_of_some_families(on_x86):
    program = seccomp.program(keep_group=True, families=(1, 2, 16))
    for family in (1, 2, 16):
        assert simulate(program, SOCKET, family) == seccomp.RET_ALLOW
    for family in (10, 17, 40):  # INET6, raw packets, VSOCK: to the host of a virtual machine
        assert simulate(program, SOCKET, family) == PERM
    assert simulate(program, READ) == seccomp.RET_ALLOW
    assert simulate(program, PTRACE) == PERM
    assert simulate(program, SETSID) == seccomp.RET_ERRNO
    assert simulate(program, CLONE, 0x10000000) == PERM


def test_landlock_rights_grow_with_the_kernel():
    assert file_rights(1) == (1 << 13) - 1
    assert file_rights(2) == (1 << 14) - 1
    assert file_rights(3) == file_rights(4) == (1 << 15) - 1
    assert file_rights(5) == file_rights(7) == (1 << 16) - 1


def test_landlock_rules_by_kind(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "train.py").write_text("")
    rules = ruleset(
        7,
        readable=[tmp_path / "train.py", tmp_path / "missing"],
        writable=[tmp_path / "work"],
        listable=[tmp_path],
        devices=[],
        network=False,
    )
    rights = dict(rules["rules"])
    assert set(rights) == {str(tmp_path / "train.py"), str(tmp_path / "work"), str(tmp_path)}
    assert rights[str(tmp_path / "train.py")] == 0b101  # execute, read
    assert rights[str(tmp_path)] == 1 << 3  # names only
    assert not rights[str(tmp_path / "work")] & (1 << 11)  # no block devices
    assert (rules["network"], rules["scoped"], rules["size"]) == (3, 3, 24)


@pytest.mark.parametrize(("abi", "size", "network", "scoped"), [(1, 8, 0, 0), (4, 16, 3, 0)])
def test_older_kernels_are_asked_for_what_they_know(abi, size, network, scoped):
    rules = ruleset(abi, readable=[], writable=[], listable=[], devices=[], network=False)
    assert (rules["size"], rules["network"], rules["scoped"]) == (size, network, scoped)


def test_what_a_landlock_tier_admits_depends_on_the_kernel():
    old, new = sandbox.LandlockTier(1).does_not_stop(), sandbox.LandlockTier(6).does_not_stop()
    assert any("signalling" in line for line in old)
    assert not any("signalling" in line for line in new)


def test_the_seatbelt_profile_denies_by_default(tmp_path):
    work = tmp_path / 'odd "name"'
    work.mkdir()
    (tmp_path / "train.py").write_text("")
    text = seatbelt.profile(readable=[tmp_path / "train.py"], writable=[work], listable=[tmp_path])
    assert text.startswith("(version 1)\n(deny default)\n")
    assert "(deny network*)" in text
    assert f'(literal "{tmp_path / "train.py"}")' in text
    assert r'odd \"name\"")' in text
    assert text.count("(") == text.count(")")
    writes = text[text.index("(allow file-read* file-write*") :].split("(allow", 2)[1]
    assert "train.py" not in writes
    with pytest.raises(ValueError):
        seatbelt.quoted("a\nb")


def test_windows_limits_have_the_layout_that_windows_documents():
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("the sizes are those of 64-bit Windows")
    assert ctypes.sizeof(windows_job.BasicLimits) == 64
    assert ctypes.sizeof(windows_job.ExtendedLimits) == 144
    info = windows_job.information(Limits(processes=7, memory_bytes=1 << 30))
    basic = info.BasicLimitInformation
    assert basic.LimitFlags & windows_job.LIMIT_KILL_ON_JOB_CLOSE
    assert (basic.ActiveProcessLimit, info.JobMemoryLimit) == (7, 1 << 30)


def test_home_and_the_whole_disk_are_never_granted_as_a_library_folder(monkeypatch):
    wide = [Path("/"), Path.home(), Path.home().parent, Path("/tmp")]
    assert all(paths.is_too_wide(path) for path in wide if path.exists())
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/:{Path.home()}:relative:/usr")
    assert Path("/usr") in paths.library_paths() or sys.platform == "win32"
    assert Path("/") not in paths.library_paths()


def test_outermost_drops_what_lies_inside():
    given = [Path("/usr/lib"), Path("/usr"), Path("/opt/a"), Path("/usr")]
    assert paths.outermost(given) == [Path("/usr"), Path("/opt/a")]


def test_limits_are_lowered_and_never_raised():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_CORE)
    child = sys.executable, "-I", "-S", str(launch.__file__)
    import subprocess

    spec = f'{{"rlimits": {{"RLIMIT_CORE": {10**9}, "RLIMIT_NOFILE": 64, "RLIMIT_NONE": 1}}}}'
    code = "import resource as r; print(r.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_NOFILE))"
    done = subprocess.run(
        [*child, spec, sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    core = int(done.stdout.split(",")[0].strip("( "))
    assert "(64, 64)" in done.stdout
    assert before[1] == resource.RLIM_INFINITY or core <= before[1]


def test_the_best_tier_is_one_that_works_and_the_others_have_reasons():
    tier, missed = sandbox.best_tier()
    assert tier.problem() == ""
    assert all(miss.reason for miss in missed)
    names = [each.name for each in sandbox.all_tiers()]
    assert names == list(sandbox.TIER_NAMES)
    assert [miss.tier for miss in missed] == names[: names.index(tier.name)]


def test_a_tier_that_was_asked_for_is_not_replaced(monkeypatch):
    with pytest.raises(ValueError, match="bubblewrap"):
        sandbox.choose("fort-knox")
    away = "linux" if sys.platform == "darwin" else "darwin"
    name = "bubblewrap" if away == "linux" else "sandbox-exec"
    with pytest.raises(sandbox.SandboxUnavailable) as caught:
        sandbox.choose(name)
    assert caught.value.name == name
    assert caught.value.reason


@pytest.mark.parametrize("tier", sandbox.all_tiers(), ids=lambda tier: tier.name)
def test_every_tier_says_what_it_stops_and_what_not(tier):
    assert tier.stops()
    assert tier.does_not_stop()
    assert tier.strict == (tier.name != "process")


def test_the_command_line_offers_every_tier():
    from autoresearch.options import SANDBOXES

    assert ("auto", *sandbox.TIER_NAMES) == SANDBOXES


def test_a_tier_that_does_not_work_is_a_missing_tool_for_the_command_line():
    from autoresearch.commands.train import chosen_tier
    from prepare.errors import MissingTool

    assert chosen_tier("process").name == "process"
    away = "sandbox-exec" if sys.platform == "linux" else "landlock"
    with pytest.raises(MissingTool, match=away):
        chosen_tier(away)

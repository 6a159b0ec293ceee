"""A record that was acknowledged is there once, whatever is killed, full, changed or set back."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.engine import chain as chain_module
from autoresearch.engine import ledger as ledger_module
from autoresearch.engine.chain import canonical, read_chain, seal
from autoresearch.engine.errors import LedgerBusy, LedgerDamaged, LedgerError, LedgerUnwritable
from autoresearch.engine.holder import Holder
from autoresearch.engine.ledger import Ledger, export_tsv
from autoresearch.engine.trial import Trial, TrialStatus

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "ein Ordner ü"
    folder.mkdir()
    return folder / "results.jsonl"


def filled(path: Path, count: int = 4) -> Ledger:
    ledger = Ledger(path)
    with ledger:
        for n in range(count):
            ledger.append({"kind": "note", "n": n})
    return ledger


def script(text: str, *arguments: object, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


# -- append and read --------------------------------------------------------------------------


def test_appends_chain_and_read_back(path):
    with Ledger(path) as ledger:
        first = ledger.append({"kind": "study", "name": "ü\u2028", "numbers": (1, 2.5)})
        second = ledger.append({"kind": "note"})
    assert first["numbers"] == [1, 2.5] and first["prev"] == "0" * 64
    assert second["prev"] == first["hash"] and second["seq"] == 1
    assert Ledger(path).records() == [first, second]
    assert Ledger(path).records("note") == [second]
    assert Ledger(path).verify() == []
    assert path.read_bytes().count(b"\n") == 2


def test_goes_on_in_a_new_process_and_without_a_block(path):
    filled(path, 2)
    assert Ledger(path).append({"kind": "note"})["seq"] == 2
    assert [r["seq"] for r in Ledger(path).records()] == [0, 1, 2]


def test_a_second_reading_verifies_only_what_is_new(path, monkeypatch):
    filled(path, 3)
    reader = Ledger(path)
    seen, opened = [], chain_module._open_line
    monkeypatch.setattr(
        chain_module, "_open_line", lambda *line: seen.append(line[1]) or opened(*line)
    )
    assert len(reader.records()) == 3 and seen == [0, 1, 2]
    seen.clear()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"half": ')  # a writer is at it
    assert len(reader.records()) == 3 and seen == [3]
    path.write_bytes(whole)
    Ledger(path).append({"kind": "note"})
    seen.clear()
    assert [r["seq"] for r in reader.records()] == [0, 1, 2, 3] and seen == [3]
    assert reader.verify() == [] and seen[1:] == [0, 1, 2, 3], "verify looks at all of it"
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert len(reader.records()) == 1, "a file that shrank is read anew"
    path.unlink()
    filled(path, 5)
    assert len(reader.records()) == 5
    longer = path.read_bytes()
    path.unlink()
    path.write_bytes(b"")
    assert reader.records() == []
    Ledger(path).append({"kind": "study", "tag": "another"})
    assert [r["kind"] for r in reader.records()] == ["study"]
    path.write_bytes(longer)  # another ledger under the same name, in the same file
    assert len(reader.records()) == 5, "what doesn't fit behind the known is read from the start"
    path.with_name("other").write_bytes(whole.replace(b'"n":1', b'"n":7'))
    path.with_name("other").replace(path)
    with pytest.raises(LedgerDamaged, match="line 2"):
        reader.records()


def test_trials_round_trip_and_are_written_once(path):
    trial = Trial(1, None, TrialStatus.KEEP, "baseline", score=float("nan"), curve=((1.0, 2.0),))
    with Ledger(path) as ledger:
        ledger.append_trial(trial)
        with pytest.raises(LedgerError, match="trial 1 is in the ledger already"):
            ledger.append_trial(trial)
    with pytest.raises(LedgerError, match="already"):
        Ledger(path).append_trial(trial)
    assert [t.to_dict() for t in Ledger(path).trials()] == [trial.to_dict()]


@pytest.mark.parametrize(
    "record",
    [
        {"n": 1},
        {"kind": 3},
        {"kind": "x", "hash": "1"},
        {"kind": "x", "n": float("nan")},
        {"kind": "x", "n": object()},
    ],
)
def test_refuses_what_is_no_record_and_stays_whole(path, record):
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError):
            ledger.append(record)
        ledger.append({"kind": "note"})
    assert len(Ledger(path).records()) == 1


def test_missing_file_is_empty_and_reading_makes_nothing(path):
    assert Ledger(path).records() == [] and Ledger(path).verify() == []
    assert list(path.parent.iterdir()) == []


def test_clock_set_back_does_not_matter(path):
    with Ledger(path) as ledger:
        for when in ("2030-01-01", "1999-01-01"):
            ledger.append({"kind": "note", "at": when})
    assert Ledger(path).verify() == []
    assert [r["at"] for r in Ledger(path).records()] == ["2030-01-01", "1999-01-01"]


# -- torn tails and damage --------------------------------------------------------------------


def test_every_torn_tail_is_set_aside(path):
    filled(path, 3)
    whole = path.read_bytes()
    two = whole[: whole.rstrip(b"\n").rindex(b"\n") + 1]
    for cut in range(len(two) + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        assert [p.fatal for p in Ledger(path).verify()] == [False]
        assert len(Ledger(path).records()) == 2
        assert Ledger(path).append({"kind": "note", "n": 2})["seq"] == 2
        assert Ledger(path).verify() == []
        assert path.read_bytes() == whole
    torn = path.with_name("results.jsonl.torn").read_bytes()
    assert torn.startswith(whole[len(two) : len(two) + 1])


def test_a_whole_last_record_without_its_newline_is_kept(path):
    filled(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert Ledger(path).append({"kind": "note"})["seq"] == 3
    assert path.read_bytes().startswith(whole) and Ledger(path).verify() == []


def test_zeros_from_a_power_cut_are_set_aside(path):
    filled(path, 2)
    with path.open("ab") as file:
        file.write(b'{"kind":"note"' + b"\0" * 4096 + b"\n")
    assert Ledger(path).append({"kind": "note"})["seq"] == 2
    assert Ledger(path).verify() == []


def lines_changed(lines: list[bytes], how: str) -> list[bytes]:
    if how == "value":
        lines[1] = lines[1].replace(b'"n":1', b'"n":7')
    elif how == "removed":
        del lines[1]
    elif how == "doubled":
        lines.insert(1, lines[1])
    elif how == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif how == "spaces":
        lines[1] = lines[1].replace(b":", b": ", 1)
    elif how == "crlf":
        lines = [line + b"\r" for line in lines]
    elif how == "garbage":
        lines[2] = b"\xff\xfe"
    elif how == "last":
        lines[-1] = lines[-1].replace(b'"n":3', b'"n":9')
    elif how == "rehashed":
        # A forger who mends the hash of one line still breaks the next.
        record = json.loads(lines[1])
        record.pop("hash")
        body = {"kind": "note", "n": 7}
        lines[1] = canonical(seal(body, record["seq"], record["prev"]))
    return lines


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("value", 2),
        ("removed", 2),
        ("doubled", 3),
        ("swapped", 2),
        ("spaces", 2),
        ("crlf", 1),
        ("garbage", 3),
        ("last", 4),
        ("rehashed", 3),
    ],
)
def test_damage_is_reported_and_refuses_appending(path, how, line):
    filled(path)
    lines = lines_changed(path.read_bytes().split(b"\n")[:-1], how)
    path.write_bytes(b"".join(item + b"\n" for item in lines))
    before = path.read_bytes()
    problems = Ledger(path).verify()
    assert [(p.line, p.fatal) for p in problems] == [(line, True)]
    with pytest.raises(LedgerDamaged, match=f"line {line}") as caught:
        Ledger(path).append({"kind": "note"})
    assert "backup" in caught.value.hint and f"{line - 1} records" in caught.value.hint
    with pytest.raises(LedgerDamaged):
        Ledger(path).records()
    assert path.read_bytes() == before


def test_change_under_the_writer_is_refused(path):
    with Ledger(path) as ledger:
        ledger.append({"kind": "note"})
        path.write_bytes(b"")
        with pytest.raises(LedgerDamaged, match="another program"):
            ledger.append({"kind": "note"})
    with Ledger(path) as ledger:
        ledger.append({"kind": "note"})
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(LedgerDamaged, match="gone"):
            ledger.append({"kind": "note"})


def test_an_interrupt_behind_the_sync_loses_nothing(path, monkeypatch):
    """Ctrl-C when the record is on disk and the count in memory isn't yet."""

    def interrupted(self, data, *_):
        os.write(self._fd, data)
        raise KeyboardInterrupt

    with Ledger(path) as ledger:
        ledger.append({"kind": "note"})
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "_write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ledger.append({"kind": "note"})
        assert ledger.append({"kind": "note"})["seq"] == 2
    assert Ledger(path).verify() == []


# -- one writer -------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from autoresearch.engine.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_writer_is_refused_naming_the_first(path):
    first = script(HOLD, path, stdin=subprocess.PIPE)
    assert first.stdout.readline() == "held\n"
    try:
        with pytest.raises(LedgerBusy, match=f"process {first.pid} on ") as caught:
            Ledger(path).append({"kind": "note"})
        assert "-c" in caught.value.message and "since 2" in caught.value.message
        assert Ledger(path).records() == []
    finally:
        first.communicate("")
    Ledger(path).append({"kind": "note"})
    assert not path.with_name("results.jsonl.holder").exists()


def test_two_writers_in_one_process(path):
    with Ledger(path), pytest.raises(LedgerBusy, match=f"process {os.getpid()} "):
        Ledger(path).open()


@posix
def test_a_killed_writer_is_no_hindrance(path):
    first = script(HOLD, path, stdin=subprocess.PIPE)
    assert first.stdout.readline() == "held\n"
    first.kill()
    first.communicate()
    assert Holder.read(path.with_name("results.jsonl.holder")).alive() is False
    assert Ledger(path).append({"kind": "note"})["seq"] == 0


def test_a_dead_or_reused_process_id_is_not_called_alive(path):
    me = Holder.this_process()
    assert me.alive() is True
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert Holder(gone.pid, me.host, "", "", time.time()).alive() is False
    other = Holder(me.pid, me.host, "", "", psutil.Process().create_time() - 1000)
    assert other.alive() is False
    assert Holder(me.pid, "another-host", "", "", 0.0).alive() is None


def test_lock_held_by_a_child_that_was_left_behind(path):
    with Ledger(path):
        holder = path.with_name("results.jsonl.holder")
        data = json.loads(holder.read_text())
        holder.write_text(json.dumps({**data, "process_started": 1.0}))
        with pytest.raises(LedgerBusy, match="left behind"):
            Ledger(path).open()


# -- disk full, read-only ---------------------------------------------------------------------

FULL = """
import resource, signal, sys
from pathlib import Path
from autoresearch.engine.errors import LedgerUnwritable
from autoresearch.engine.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
with Ledger(path) as ledger:
    ledger.append({"kind": "note", "n": 0})
    size = path.stat().st_size
    # The kernel writes what fits, 10 bytes, then refuses.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    for _ in range(3):
        try:
            ledger.append({"kind": "note", "n": 1})
        except LedgerUnwritable as error:
            print(error.exit_code, error.hint)
        assert path.stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append({"kind": "note", "n": 2})
"""


@posix
def test_a_write_that_does_not_fit_is_taken_back(path):
    process = script(FULL, path)
    out, _ = process.communicate()
    assert process.returncode == 0 and out.count("4 ") == 3 and "ulimit" in out
    assert Ledger(path).verify() == []
    assert [r["n"] for r in Ledger(path).records()] == [0, 2]


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_each_failing_call_is_typed_and_the_chain_stays(path, monkeypatch, call, code):
    ledger = filled(path, 2)
    before = path.read_bytes()

    def refuse(fd, *_):
        raise OSError(code, os.strerror(code))

    with ledger:
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module.os, call, refuse)
            with pytest.raises(LedgerUnwritable, match="intact") as caught:
                ledger.append({"kind": "note"})
        assert caught.value.hint
    assert path.read_bytes() == before
    assert Ledger(path).append({"kind": "note"})["seq"] == 2


def test_a_torn_line_that_cannot_be_cut_back_stops_this_writer(path, monkeypatch):
    ledger = filled(path, 2)

    def half(fd, data):
        real(fd, bytes(data)[:5])
        raise OSError(errno.EIO, "broken")

    def never(fd, size):
        raise OSError(errno.EIO, "broken")

    real = os.write
    ledger.open()
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module.os, "write", half)
        patch.setattr(ledger_module.os, "ftruncate", never)
        with pytest.raises(LedgerUnwritable):
            ledger.append({"kind": "note"})
    assert not path.read_bytes().endswith(b"\n")
    assert ledger.append({"kind": "note"})["seq"] == 2
    assert Ledger(path).verify() == []


def test_missing_or_read_only_folder_is_typed(tmp_path):
    with pytest.raises(LedgerUnwritable) as caught:
        Ledger(tmp_path / "no" / "results.jsonl").append({"kind": "note"})
    assert caught.value.hint
    if os.name != "nt" and os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(LedgerUnwritable):
            Ledger(tmp_path / "results.jsonl").append({"kind": "note"})
        tmp_path.chmod(0o700)


# -- kill -9 ----------------------------------------------------------------------------------


def append_for_ever(path: Path, told: int) -> None:
    """Append and tell each record's number once it counts; never returns."""
    try:
        with Ledger(path) as ledger:
            os.write(told, b"ready\n")
            while True:
                record = ledger.append({"kind": "note", "by": os.getpid(), "pad": "x" * 20_000})
                os.write(told, b"%d\n" % record["seq"])
    finally:
        os._exit(1)


@posix
def test_forty_kills_lose_and_double_nothing(path):
    chance = random.Random(3)
    acknowledged: list[tuple[int, int]] = []
    for _ in range(40):
        reading, told = os.pipe()
        child = os.fork()
        if child == 0:
            append_for_ever(path, told)
        os.close(told)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged += [(child, int(line)) for line in pipe if line.endswith(b"\n")]
    with Ledger(path) as ledger:
        ledger.append({"kind": "note", "by": 0})
    assert Ledger(path).verify() == []
    there = [(r["by"], r["seq"]) for r in Ledger(path).records()]
    assert len(set(there)) == len(there) and len(acknowledged) > 40
    assert set(acknowledged) <= set(there)


def test_reading_never_trusts_random_bytes():
    chance = random.Random(5)
    for _ in range(200):
        chain = read_chain(chance.randbytes(chance.randrange(80)))
        assert chain.records == ()


# -- upstream's table -------------------------------------------------------------------------


def test_tsv_has_upstreams_columns():
    kept = Trial(
        1,
        None,
        TrialStatus.KEEP,
        "",
        description="a\tb\nc",
        commit="a1b2c3d4e5",
        score=0.9979,
        metrics={"peak_memory_mb": 45056.0},
    )
    text = export_tsv([kept, Trial(2, 1, TrialStatus.REJECTED, "", description="x")])
    assert text.splitlines() == [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
        "a1b2c3d\t0.997900\t44.0\tkeep\ta b c",
        "-------\t0.000000\t0.0\tcrash\tx",
    ]


def test_records_that_are_not_synced_are_with_the_next_that_is(path, monkeypatch):
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
    with Ledger(path) as ledger:
        ledger.append({"kind": "note"})
        before = len(synced)
        ledger.append({"kind": "note"}, synced=False)
        ledger.append({"kind": "note"}, synced=False)
        assert len(synced) == before and len(Ledger(path).records()) == 3
        ledger.sync()
        ledger.sync()
        assert len(synced) == before + 1
        ledger.append({"kind": "note"}, synced=False)
    assert len(synced) == before + 2 and Ledger(path).verify() == []  # closing waits, too

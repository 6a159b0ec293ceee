"""Runs in threads of one process: how many at once, in which order, and how they are ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autoresearch.engine.executor import BEGUN, Done
from autoresearch.engine.proposers.process import run_program
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.threads import ThreadPool
from autoresearch.engine.trial import Replicate

SECONDS = 30.0  # that anything here may take on a busy machine


class Measured:
    """A measure whose runs wait until they are let go, or cancelled."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.go = {seed: threading.Event() for seed in range(9)}

    def __call__(self, request: MeasureRequest) -> Replicate:
        self.begun.append(request.seed)
        request.on_event("phase", {"phase": "scoring"})
        deadline = time.monotonic() + SECONDS
        while not self.go[request.seed].wait(0.005):
            if request.cancelled():
                self.cancelled.append(request.seed)
                break
            assert time.monotonic() < deadline
        if request.seed == 8:
            raise ValueError("no measure can do 8")
        return Replicate(request.seed, float(request.seed))


@pytest.fixture
def measured() -> Measured:
    return Measured()


@pytest.fixture
def pool(measured: Measured) -> Iterator[ThreadPool]:
    with ThreadPool(measured, 3) as pool:
        yield pool


def request(seed: int, on_event: Callable[..., None] = lambda name, data: None) -> MeasureRequest:
    return MeasureRequest(Path("program"), seed, Path(f"run-{seed}"), on_event)


def until(pool: ThreadPool, enough: Callable[[], bool]) -> list[Done]:
    """Collect until something is so."""
    found: list[Done] = []
    deadline = time.monotonic() + SECONDS
    while not enough():
        assert time.monotonic() < deadline
        found += pool.collect(timeout=0.02)
    return found


def test_as_many_runs_as_slots_and_the_others_in_their_order(pool, measured):
    tickets = [pool.submit(request(seed)) for seed in range(5)]
    assert until(pool, lambda: len(measured.begun) == 3) == [] and pool.slots == {"": 3}
    assert sorted(measured.begun) == [0, 1, 2]
    measured.go[1].set()
    assert [done.replicate.seed for done in until(pool, lambda: 3 in measured.begun)] == [1]
    assert 4 not in measured.begun
    for seed in (4, 3, 2, 0):
        measured.go[seed].set()
    found: list[Done] = []
    while len(found) < 4:
        found += pool.collect(timeout=SECONDS)
    assert {done.ticket: done.replicate.score for done in found} == {
        tickets[seed]: float(seed) for seed in (0, 2, 3, 4)
    }
    assert pool.collect() == [], "nothing is under way: at once"


def test_events_are_told_where_runs_are_collected(pool, measured):
    told: list[tuple[str, int]] = []
    pool.submit(request(0, lambda name, data: told.append((name, threading.get_ident()))))
    until(pool, lambda: measured.begun == [0])
    measured.go[0].set()
    assert pool.collect(timeout=SECONDS) or pool.collect(timeout=SECONDS)
    here = threading.get_ident()
    assert told == [(BEGUN, here), ("phase", here)]


def test_what_a_measure_raises_is_raised_where_runs_are_collected(pool, measured):
    pool.submit(request(8))
    other = pool.submit(request(0))
    measured.go[8].set()
    with pytest.raises(ValueError, match="can do 8"):
        until(pool, lambda: False)
    measured.go[0].set()
    assert [done.ticket for done in pool.collect(timeout=SECONDS)] == [other]


def test_a_cancelled_run_is_over_and_one_that_waits_never_begins(pool, measured):
    tickets = [pool.submit(request(seed)) for seed in range(5)]
    until(pool, lambda: len(measured.begun) == 3)
    pool.cancel(tickets[0])
    assert measured.cancelled == [0], "it has ended when this returns"
    pool.cancel(tickets[3])  # who drops all of them begins none of those that waited
    until(pool, lambda: 4 in measured.begun)
    for seed in (1, 2, 4):
        measured.go[seed].set()
    found: list[Done] = []
    while len(found) < 3:
        found += pool.collect(timeout=SECONDS)
    assert {done.ticket for done in found} == {tickets[1], tickets[2], tickets[4]}
    assert 3 not in measured.begun


def test_closing_ends_all_and_begins_none(measured):
    with ThreadPool(measured, 2) as pool:
        for seed in range(4):
            pool.submit(request(seed))
        until(pool, lambda: len(measured.begun) == 2)
    assert sorted(measured.cancelled) == [0, 1] and sorted(measured.begun) == [0, 1]
    assert pool.collect() == []


def test_collecting_waits_no_longer_than_asked(pool):
    pool.submit(request(0))
    began = time.monotonic()
    assert pool.collect(timeout=0.1) == []
    assert 0.1 <= time.monotonic() - began < 5


# -- programs ------------------------------------------------------------------------------------

# Says who it is, and who its child is; asked to end it takes longer than anybody waits for.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
with open("new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("new", "pids")
time.sleep(600)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


def alive(pid: int) -> bool:
    """Does it still do anything? Who has ended and wasn't waited for doesn't."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def by_program(request: MeasureRequest) -> Replicate:
    request.run_dir.mkdir()
    argv = [sys.executable, "-S", "-c", STUBBORN]
    done = run_program(
        argv,
        cwd=request.run_dir,
        env={"PATH": os.environ["PATH"]},
        seconds=600,
        cancelled=request.cancelled,
    )
    return Replicate(request.seed, float(done.returncode))


@posix
def test_interrupted_while_it_waits_it_ends_all_programs_together(tmp_path, monkeypatch):
    monkeypatch.setattr("autoresearch.engine.proposers.process.GRACE", 0.4)
    pool, folders = ThreadPool(by_program, 3), [tmp_path / str(seed) for seed in range(3)]
    tickets = [pool.submit(MeasureRequest(tmp_path, 0, folder)) for folder in folders]
    until(pool, lambda: all((folder / "pids").is_file() for folder in folders))
    pids = [int(pid) for folder in folders for pid in (folder / "pids").read_text().split()]
    assert len(pids) == 6 and all(map(alive, pids))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pool.collect(timeout=SECONDS)
    began, one = time.monotonic(), 0.0
    for ticket in tickets:
        pool.cancel(ticket)
        one = one or time.monotonic() - began
    assert not any(map(alive, pids)), "nothing of them is left"
    assert time.monotonic() - began < 2 * one, "they got their time to end at once"
    pool.close()

"""Worker processes of this machine: who makes what, and what becomes of those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autoresearch import local_pool
from autoresearch.engine.executor import BEGUN, LOST, Done
from autoresearch.engine.task import MeasureRequest
from autoresearch.local_pool import LocalPool, WorkerProblem
from autoresearch.slots import Slot

WORKER = Path(__file__).with_name("pool_worker.py")
SPEC = {"kind": "scripted", "word": "hello"}
posix = pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    """Two workers, started once for the tests that leave them alive or have them restarted."""
    slots = [Slot(f"gpu {number}", {"CUDA_VISIBLE_DEVICES": str(5 + number)}) for number in (0, 1)]
    logs = tmp_path_factory.mktemp("logs")
    with LocalPool(SPEC, slots, logs, command=(sys.executable, str(WORKER))) as pool:
        yield pool


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., MeasureRequest]:
    """A request for a run of a program that does these things."""

    def request(seed: int, program: str = "", **options: object) -> MeasureRequest:
        folder = tmp_path / f"program-{seed}"
        folder.mkdir()
        (folder / "program.txt").write_text(program)
        return MeasureRequest(folder, seed, tmp_path / f"run-{seed}", **options)  # type: ignore[arg-type]

    return request


def all_of(pool: LocalPool, tickets: list[int], seconds: float = 60) -> dict[int, Done]:
    """What these runs came to."""
    found: dict[int, Done] = {}
    deadline = time.monotonic() + seconds
    while set(found) < set(tickets):
        assert time.monotonic() < deadline, f"only {sorted(found)} of {tickets} ended"
        found |= {done.ticket: done for done in pool.collect(timeout=1.0)}
    return found


def test_runs_are_made_at_the_same_time_each_worker_on_its_device(shared, make):
    events: list[tuple[int, str, dict[str, float]]] = []

    def told(seed: int) -> Callable[..., None]:
        return lambda name, data: events.append((seed, name, dict(data)))

    curves = ([(1.0, 5.0), (2.0, 4.0)],)
    tickets = [
        shared.submit(make(seed, "say=progress sleep=0.6", on_event=told(seed), champion_curves=c))
        for seed, c in ((1, curves), (2, ()), (3, ()))
    ]
    assert not events  # they are told where results are collected, and nowhere else
    found = all_of(shared, tickets)
    assert [found[ticket].replicate.score for ticket in tickets] == [1.0, 2.0, 3.0]
    details = [found[ticket].replicate.details for ticket in tickets]
    assert {item["CUDA_VISIBLE_DEVICES"] for item in details[:2]} == {"5", "6"}
    assert len({item["pid"] for item in details}) == 2 and os.getpid() not in shared.pids
    assert details[2]["company"] == shared.pids and details[0]["spec"] == "hello"
    assert details[0]["curves"] == [[[1.0, 5.0], [2.0, 4.0]]] and details[1]["curves"] == []
    assert [name for seed, name, _ in events if seed == 1] == [BEGUN, "progress"]
    assert next(data for _, name, data in events if name == "progress")["number"] == 1.5
    assert details[2]["known"] >= 1  # a worker hears of the runs of the others
    assert shared.collect() == [] and shared.slots == {"": 2}


def test_what_is_printed_in_a_worker_is_no_answer(shared, make):
    ticket = shared.submit(make(4, 'print={"ticket":1,"replicate":{}} print=x'))
    assert all_of(shared, [ticket])[ticket].replicate.score == 4.0


@posix
def test_a_run_whose_worker_dies_is_made_again_with_an_empty_folder(shared, make):
    warnings: list[str] = []
    on_event = lambda name, data: warnings.append(data.get("message", name))  # noqa: E731
    ticket = shared.submit(make(5, "die=2", on_event=on_event))
    assert all_of(shared, [ticket])[ticket].replicate.score == 5.0
    assert [word == BEGUN for word in warnings] == [True, False, True, False, True]
    assert "SIGKILL" in warnings[1] and "made again" in warnings[1]


@posix
def test_a_run_that_no_worker_survives_is_lost_and_the_others_are_not(shared, make):
    bad, good = shared.submit(make(6, "print=why die=9")), shared.submit(make(7))
    found = all_of(shared, [bad, good])
    failure = found[bad].replicate.failure
    assert failure is not None and (failure.kind, failure.phase) == (LOST, "worker")
    assert "in 3 attempts: its worker died" in failure.message and "why" in failure.log_tail
    assert found[bad].replicate.seed == 6 and found[good].replicate.score == 7.0


@posix
def test_a_worker_that_hangs_is_ended_and_its_run_made_again(shared, make, monkeypatch):
    monkeypatch.setattr(local_pool, "LOOK_SECONDS", 0.1)
    warnings: list[str] = []
    on_event = lambda name, data: warnings.append(data.get("message", name))  # noqa: E731
    ready = shared.submit(make(16))  # its worker has started, which may take longer
    all_of(shared, [ready])
    monkeypatch.setattr(shared, "silence", 3.0)
    hangs = shared.submit(make(17, "hang=1", on_event=on_event))
    talks = shared.submit(make(18, "sleep=1.7 say=progress sleep=1.7"))
    found = all_of(shared, [hangs, talks])
    assert found[hangs].replicate.score == 17.0
    assert found[talks].replicate.failure is None, "it took longer, and said so"
    assert any("said nothing for 3 s" in word and "made again" in word for word in warnings)
    assert shared.collect(timeout=0.1) == []


def test_a_cancelled_run_ends_with_what_it_started_and_its_place_is_free(shared, make, monkeypatch):
    monkeypatch.setattr(local_pool, "ENDING_SECONDS", 0.2)  # nobody guards a scripted run's
    begun: list[str] = []
    endless = [make(seed, "child say=there sleep=60", on_event=lambda name, _: begun.append(name))
               for seed in (8, 9)]  # fmt: skip
    first, second = [shared.submit(request) for request in endless]
    waiting = shared.submit(make(10))
    while begun.count("there") < 2:
        assert shared.collect(timeout=0.2) == []
    family = [psutil.Process(pid) for pid in shared.pids]
    family += [child for process in family for child in process.children(recursive=True)]
    assert len(family) >= 4
    shared.cancel(waiting)
    shared.cancel(first)
    shared.cancel(second)
    last = shared.submit(make(11))
    assert set(all_of(shared, [last])) == {last}  # the others are not collected any more
    _, left = psutil.wait_procs(family, timeout=15)
    assert not left


def test_a_machine_at_fault_is_told_as_an_error(shared, make):
    warnings: list[str] = []
    on_event = lambda name, data: warnings.append(data.get("message", name))  # noqa: E731
    shared.submit(make(12, "problem", on_event=on_event))
    with pytest.raises(WorkerProblem, match="the disk is full") as raised:
        shared.collect(timeout=60)
    assert [word for word in warnings if word != BEGUN] == [
        f"a run on gpu {number} was lost and is made again: the disk is full" for number in (0, 1)
    ]
    assert raised.value.exit_code == 4 and raised.value.hint == "free some"
    ticket = shared.submit(make(13))
    assert all_of(shared, [ticket])[ticket].replicate.score == 13.0


def test_collecting_waits_no_longer_than_asked(shared, make):
    ticket = shared.submit(make(14, "sleep=1.5"))
    began = time.monotonic()
    assert shared.collect(timeout=0.1) == [] and time.monotonic() - began < 1.0
    assert all_of(shared, [ticket])


@posix
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path, make):
    make(15, "child say=there sleep=60")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from autoresearch.engine.task import MeasureRequest\n"
        "from autoresearch.local_pool import LocalPool\nfrom autoresearch.slots import Slot\n"
        f"pool = LocalPool({SPEC!r}, [Slot('a', cores=(0,))], Path({str(tmp_path)!r}),"
        f" command=(sys.executable, {str(WORKER)!r}))\n"
        f"here = Path({str(tmp_path)!r})\n"
        "said = lambda name, data: name == 'there' and print(*pool.pids, flush=True)\n"
        "pool.submit(MeasureRequest(here / 'program-15', 15, here / 'run', said))\n"
        "while True:\n    pool.collect()\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    if hasattr(os, "sched_getaffinity"):
        assert worker.cpu_affinity() == [0]
    child = worker.children()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    try:
        assert psutil.wait_procs([worker], timeout=10)[1] == []
    finally:
        for process in child:  # of this test's own making: a real run's are ended by its guards
            process.kill()
        driver.stdout.close()

"""On which devices of a machine runs are made, and where lost runs go. The workers are played."""

import pytest

from autoresearch import local_pool
from autoresearch.engine.executor import LOST
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.local_pool import LocalPool, WorkerProblem
from autoresearch.slots import Slot

MADE = {"replicate": Replicate(0, 1.0).to_dict()}
FULL = {"problem": {"message": "no space left", "hint": "free some", "exit_code": 4}}
DEAD = None


class Played:
    """A worker that answers at once what `makes` says for its device."""

    makes, begun = {}, []

    def __init__(self, command, spec, slot, log, inbox):
        self.name, self.device, self.log, self.inbox = slot.name, slot.device, log, inbox
        self.pid, self.ending = 0, False

    def start(self):
        fresh, self.pid = not self.pid, 1
        return fresh

    def say(self, message):
        if "ticket" in message:
            self.begun.append((self.name, message["ticket"]))
            says = self.makes[self.device]
            self.inbox.put((self, says and {"ticket": message["ticket"], **says}))

    def kill(self):
        if self.pid and not self.ending:
            self.ending = True
            self.inbox.put((self, None))

    def bury(self):
        self.pid, self.ending = 0, False
        return "as it was told to"

    def join(self): ...


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """A pool of played workers, one on each of these devices."""

    def open_pool(makes, slots=None, **options):
        monkeypatch.setattr(Played, "makes", dict(makes))
        monkeypatch.setattr(Played, "begun", [])
        monkeypatch.setattr(local_pool, "_Worker", Played)
        monkeypatch.setattr(local_pool, "LOOK_SECONDS", 0.05)
        slots = slots or [Slot(name) for name in makes]
        return LocalPool({}, slots, tmp_path / "logs", command=(), **options)

    return open_pool


def made(pool, folder, count, warnings=None):
    """What comes of so many runs."""

    def on_event(name, data):
        if name == "warning" and warnings is not None:
            warnings.append(data["message"])

    for seed in range(count):
        pool.submit(MeasureRequest(folder, seed, folder / f"run-{seed}", on_event))
    found = []
    while len(found) < count:
        found += pool.collect(timeout=5.0)
    return [done.replicate for done in found]


@pytest.mark.parametrize("fault", [FULL, DEAD], ids=["full", "dead"])
def test_a_device_that_fails_every_run_costs_no_run_while_others_make_them(opened, tmp_path, fault):
    told, warnings = [], []
    with opened({"gpu 0": fault, "gpu 1": MADE, "gpu 2": MADE}, tell=told.append) as pool:
        assert [run.score for run in made(pool, tmp_path, 12, warnings)] == [1.0] * 12
        on_bad = [ticket for name, ticket in Played.begun if name == "gpu 0"]
        assert on_bad and len(on_bad) == len(set(on_bad)), "no run goes back to it"
        assert len(warnings) == len(on_bad)
        if fault is FULL:
            assert len(on_bad) == 2
            assert told == ["the device gpu 0 is left out: no space left"]
            assert warnings[0] == "a run on gpu 0 was lost and is made again: no space left"
            assert pool.slots == {"": 2} and len(pool.pids) == 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_devices_say_one_after_the_other_ends_the_study(opened, tmp_path, count):
    with opened({f"gpu {number}": FULL for number in range(count)}) as pool:
        with pytest.raises(WorkerProblem, match=r"on gpu \d: no space left") as raised:
            made(pool, tmp_path, 1)
        assert raised.value.exit_code == 4 and raised.value.hint == "free some"
        begun = [name for name, _ in Played.begun]
        assert len(begun) == (2 if count == 1 else 3)
        assert len(set(begun)) == min(count, 3), "each attempt is on another device"


def test_the_study_ends_when_no_device_is_left(opened, tmp_path):
    told = []
    with opened({"gpu 0": FULL, "gpu 1": MADE}, tell=told.append) as pool:
        made(pool, tmp_path, 5)
        Played.makes["gpu 1"] = FULL
        with pytest.raises(WorkerProblem):
            made(pool, tmp_path, 2)
        assert len(told) == 1 and pool.slots == {"": 0}


def test_a_failure_that_passed_is_forgotten_with_the_next_run_that_is_made(opened, tmp_path):
    told = []
    with opened({"gpu 0": MADE, "gpu 1": MADE}, tell=told.append) as pool:
        for _ in range(3):
            Played.makes["gpu 0"] = FULL
            pool.submit(MeasureRequest(tmp_path, 1, tmp_path / "run"))
            Played.makes["gpu 0"] = MADE
            made(pool, tmp_path, 4)
        assert not told and pool.slots == {"": 2}


def test_those_who_share_a_device_are_left_out_together(opened, tmp_path):
    slots = [
        Slot(f"gpu {number % 2}, share {number // 2}", shares=f"gpu {number % 2}")
        for number in range(4)
    ]
    told = []
    with opened({"gpu 0": FULL, "gpu 1": MADE}, slots, tell=told.append) as pool:
        assert [run.score for run in made(pool, tmp_path, 8)] == [1.0] * 8
        assert sum(name.startswith("gpu 0") for name, _ in Played.begun) == 2
        assert len(told) == 1 and pool.slots == {"": 2} and len(pool.pids) == 2


def test_a_run_that_no_worker_survives_is_tried_on_other_devices_first(opened, tmp_path):
    with opened({"gpu 0": DEAD, "gpu 1": DEAD, "gpu 2": DEAD}) as pool:
        (run,) = made(pool, tmp_path, 1)
    assert run.failure.kind == LOST and "3 attempts" in run.failure.message
    assert len({name for name, _ in Played.begun}) == 3

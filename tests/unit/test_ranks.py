"""The leader and its followers, without processes: who is told what, and who gets which rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from backends.errors import RankLost
from backends.hardware import Hardware, why_not_together
from prepare import devices as several
from prepare import ranks, run
from prepare.channel import ChannelClosed
from prepare.errors import EnvironmentProblem
from prepare.ranks import FollowerRun, Followers
from prepare.run import Crew, Spec, TimedRun, WarmupRun, check_batch_size

SPEC = Spec(vocab_size=50, max_seq_len=3)
RING = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4)  # two slots of four rows
PLACE = {"ring": {"handle": 7}, "shape": [2, 4, 4], "dtype": "uint16"}


class Told(Crew):
    """Two others that only listen."""

    size = 2

    def __init__(self) -> None:
        self.heard: list[dict] = []

    def batch(self, **fields) -> None:
        self.heard.append({"kind": "batch", **fields})

    def stop(self, progress: float) -> None:
        self.heard.append({"kind": "stop", "progress": progress})


class Script:
    """A channel that says what it was given to say, then that it is closed."""

    def __init__(self, *messages: dict) -> None:
        self.messages, self.sent = list(messages), []

    def receive(self) -> dict:
        if not self.messages:
            raise ChannelClosed("end")
        return self.messages.pop(0)

    def send(self, kind: str, **fields) -> None:
        self.sent.append(kind)


@pytest.fixture(autouse=True)
def plain_batches(monkeypatch):
    """Rows as they are in place of tensors, and the ring above in place of shared memory."""
    for module in (run, ranks):
        monkeypatch.setattr(module, "to_device", lambda rows: rows)
        monkeypatch.setattr(module, "shared_array", lambda address, shape, dtype: RING)


def test_each_device_gets_its_rows_and_all_see_the_same_progress():
    slots = [{"kind": "slot", "slot": 0}, {"kind": "slot", "slot": 1}, {"kind": "end"}]
    channel, crew = Script({"kind": "opened", **PLACE}, *slots), Told()
    leader = TimedRun(SPEC, 0, channel, {"tokens": 48.0}, crew)
    own, seen = [], []
    for rows in leader.batches(4):
        own.append(rows)
        seen.append(leader.progress)
    assert channel.sent == ["open", "released", "released"]
    assert [message["kind"] for message in crew.heard] == ["batch", "batch", "stop"]

    follower = FollowerRun(SPEC, 0, back := Script(*crew.heard), 1, 2)
    others, theirs = [], []
    for rows in follower.batches(4):
        others.append(rows)
        theirs.append(follower.progress)
    assert back.sent == ["taken", "taken"]
    assert np.array_equal(np.concatenate([np.stack(own), np.stack(others)], axis=1), RING)
    assert seen == theirs == [0.0, 0.25]
    assert follower.progress == leader.progress == 0.5


def test_progress_stands_still_during_a_batch_for_it_must_be_the_same_everywhere(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: now[0]))
    slots = [{"kind": "slot", "slot": 0}] * 2
    leader = TimedRun(SPEC, 0, Script({"kind": "opened", **PLACE}, *slots), {"seconds": 10}, Told())
    batches = leader.batches(4)
    next(batches)
    now[0] += 4
    assert leader.progress == 0.0
    next(batches)
    assert leader.progress == pytest.approx(0.4)


def test_the_warm_up_is_the_leaders_too():
    crew = Told()
    leader = WarmupRun(SPEC, 0, 60.0, crew)
    for rows in leader.batches(6):
        assert rows.shape == (3, 4)
        leader.log(step=0, loss=1.0)
    assert [message["kind"] for message in crew.heard] == ["batch", "batch", "stop"]
    follower = FollowerRun(SPEC, 0, back := Script(*crew.heard), 1, 2)
    assert [rows.shape for rows in follower.batches(6)] == [(3, 4)] * 2
    assert back.sent == []


def test_devices_that_ask_for_different_batches_are_stopped():
    follower = FollowerRun(SPEC, 0, Script({"kind": "batch", "rows": 8, "progress": 0.0}), 1, 2)
    with pytest.raises(ValueError, match=r"batches\(4\) on device 1 and run.batches\(8\)"):
        next(follower.batches(4))


def test_rows_that_cannot_be_shared_out_are_refused():
    assert check_batch_size(6, 3) == 6
    with pytest.raises(ValueError, match="3 devices share the rows"):
        check_batch_size(4, 3)


def test_a_follower_that_is_gone_is_noticed_when_it_is_spoken_to():
    class Closed:
        def send(self, kind, **fields):
            raise ChannelClosed("broken pipe")

    crew = object.__new__(Followers)
    crew._channels = [Closed()]
    with pytest.raises(RankLost, match="broken pipe"):
        crew.stop(1.0)


@pytest.mark.parametrize(
    ("backend", "count", "devices", "words"),
    [
        ("cuda", 8, 8, ""),
        ("rocm", 2, 2, ""),
        ("cpu", 1, 2, ""),
        ("mlx", 1, 1, ""),
        ("cuda", 1, 8, "takes 8 devices, and this machine shows 1"),
        ("mlx", 1, 2, "mlx.distributed is another matter"),
        ("mps", 1, 2, "needs NCCL, RCCL or gloo"),
    ],
)
def test_where_devices_train_together(backend, count, devices, words):
    hardware = Hardware(
        backend, "v", "n", "a", 1 << 30, count, "", "mlx" if backend == "mlx" else "torch", "", ""
    )
    why = why_not_together(hardware, devices)
    assert words in why and bool(words) == bool(why)
    hello = SimpleNamespace(hardware=hardware.to_dict(), backend=backend)
    if why:
        with pytest.raises(EnvironmentProblem, match="devices = "):
            several.check_devices(hello, devices)
    assert several.accelerators(hello, devices) == (1 if backend == "cpu" else devices)

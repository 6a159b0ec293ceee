"""What others took of the machine: exact arithmetic on what the system counts, no guesses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable

import pytest

from autoresearch import neighbours
from autoresearch.neighbours import BUSY_SHARE, Neighbours


def watched(monkeypatch: pytest.MonkeyPatch, looks: Iterable[tuple[float, ...]]) -> Neighbours:
    """A watch that saw these: when, processor seconds passed, busy and ours since a start."""
    seen = [neighbours._Look(*look) for look in looks]
    left = iter(seen)
    monkeypatch.setattr(neighbours, "_look", lambda company: next(left))
    with Neighbours(every=60) as watch:
        for _ in seen[2:]:
            watch._sample()
    return watch


def test_what_was_busy_and_not_ours_is_others(monkeypatch):
    # Two cores: one second of ours and half a second of others in each second that passes.
    calm = watched(monkeypatch, [(0, 0, 0, 5), (1, 2, 1.2, 6), (2, 4, 2.4, 7)])
    assert calm.share == pytest.approx(0.1) and calm.disturbance == ""
    busy = watched(monkeypatch, [(0, 0, 0, 5), (1, 2, 1.5, 6), (2, 4, 3, 7)])
    assert busy.share == pytest.approx(0.25) and "25% of the machine" in busy.disturbance
    assert 0.1 < BUSY_SHARE < 0.25


def test_a_stretch_in_which_a_process_of_ours_was_lost_tells_nothing(monkeypatch):
    lost = watched(monkeypatch, [(0, 0, 0, 5), (1, 2, 1, 6), (2, 4, 2, 4), (3, 6, 3, 5)])
    assert lost.share == 0.0


def test_a_stretch_too_short_to_be_counted_is_added_to_the_next(monkeypatch):
    looks = [(0, 0, 0, 0), (0.05, 0.1, 0.1, 0), (1, 2, 1, 0.5)]
    assert watched(monkeypatch, looks).share == pytest.approx(0.25)
    assert watched(monkeypatch, looks[:2]).share == 0.0


def test_on_battery_nothing_can_be_compared(monkeypatch):
    plugged = iter([True, False])
    monkeypatch.setattr(neighbours, "_plugged", lambda: next(plugged, True))
    with Neighbours(every=60) as watch:
        pass
    assert "battery" in watch.disturbance and watch.power == "mains"
    monkeypatch.setattr(neighbours, "_plugged", lambda: False)
    with Neighbours(every=60) as watch:
        pass
    assert not watch.battery_lost and watch.power == "battery", "a study may be made on battery"


def test_a_machine_that_slept_meanwhile_is_told_from_two_clocks(monkeypatch):
    asleep = iter([100.0, 100.2, 730.0])
    monkeypatch.setattr(neighbours, "_seconds_asleep", lambda: next(asleep))
    with Neighbours(every=60) as watch:
        watch._sample()
        assert "slept" not in watch.disturbance
    assert watch.disturbance == "the machine slept for 630 s"


def test_the_clocks_agree_while_the_machine_is_awake():
    before = neighbours._seconds_asleep()
    time.sleep(0.05)
    assert before >= -0.1
    assert abs(neighbours._seconds_asleep() - before) < 0.04


@pytest.mark.skipif(os.name != "posix", reason="Windows forgets what a process has used")
def test_what_a_child_used_is_ours_also_when_it_has_ended():
    before = neighbours._our_seconds()
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.25 <= neighbours._our_seconds() - before < 3  # the system counts in hundredths


def test_company_is_ours_with_what_it_started_and_nobody_else():
    starts = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']).wait()"
    child, other = (
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        for code in (starts, "input()")
    )
    try:
        deadline = time.monotonic() + 20
        while len(found := neighbours._family({child.pid, -1})) < 2:
            assert time.monotonic() < deadline, "what it started was not found"
            time.sleep(0.05)
        assert child.pid in {process.pid for process in found}
        assert not {other.pid, os.getpid()} & {process.pid for process in found}
        both = {process.pid for process in neighbours._family({os.getpid(), child.pid})}
        assert {child.pid, other.pid} < both and os.getpid() not in both
    finally:
        for process in (child, other):
            process.communicate()

"""Pausing and stopping a loop from outside, by a file that it reads between trials."""

from pathlib import Path

import pytest

from autoresearch.engine.control import GO_ON, PAUSE, STOP, Control
from autoresearch.engine.loop import MOST_TIMES
from autoresearch.engine.proposers import Proposal
from autoresearch.engine.proposers.base import NO_COST
from autoresearch.engine.task import Budget
from tests.unit.studies import Script


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path / "own" / "control.json")


def ideas(count: int) -> Script:
    return Script(*(f"VALUE = {2 + number}.0\n" for number in range(count)))


def test_nothing_is_asked_without_a_file_or_by_a_broken_one(control: Control) -> None:
    assert control.asked() == Control().asked() == GO_ON
    control.ask(PAUSE)
    assert control.asked() == PAUSE
    for text in ("", "[]", '{"wish": "explode"}', '{"wish": ["stop"]}'):
        assert control.path is not None
        control.path.write_text(text)
        assert control.asked() == GO_ON
    control.clear()
    control.clear()
    with pytest.raises(ValueError, match="explode"):
        control.ask("explode")


def test_a_stop_ends_the_run_after_the_trial_under_way(make_loop, control: Control) -> None:
    def on_event(name: str, data: dict) -> None:
        if name == "trial" and data["id"] == 1:
            control.ask(STOP)

    with make_loop(control=control, on_event=on_event) as loop:
        assert loop.run(ideas(3), Budget()) == "asked to stop"
        assert list(loop.state.trials) == [0, 1]


def test_a_wish_of_an_earlier_run_is_forgotten(make_loop, control: Control) -> None:
    control.ask(STOP)
    with make_loop(control=control) as loop:
        assert loop.run(ideas(2), Budget(trials=2)) == "2 trials done"


def test_a_pause_waits_until_it_is_taken_back(make_loop, control: Control) -> None:
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        seen.append("slept")
        if seen.count("slept") == 3:
            control.ask(GO_ON)

    def on_event(name: str, data: dict) -> None:
        if name in ("held", "trial"):
            seen.append(name)
        if name == "trial" and data["id"] == 1:
            control.ask(PAUSE)

    with make_loop(control=control, on_event=on_event, sleep=sleep) as loop:
        loop.run(ideas(2), Budget(trials=2))
    assert seen == ["trial", "trial", "held", "slept", "slept", "slept", "trial"]


def test_a_run_that_is_done_ends_though_a_pause_was_asked(make_loop, control: Control) -> None:
    def on_event(name: str, data: dict) -> None:
        if name == "trial" and data["id"] == 2:
            control.ask(PAUSE)

    def sleep(seconds: float) -> None:
        raise AssertionError("nothing is left to wait for")

    with make_loop(control=control, on_event=on_event, sleep=sleep) as loop:
        assert loop.run(ideas(2), Budget(trials=2)) == "2 trials done"


def test_a_stop_counts_also_where_no_edit_came(make_loop, control: Control) -> None:
    """The last of many empty answers would end the study as one that can't go on."""
    asked = [0]

    class Empty(Script):
        def propose(self, request):
            asked[0] += 1
            if asked[0] == MOST_TIMES:
                control.ask(STOP)
            return Proposal("", problem="no idea", cost=NO_COST)

    with make_loop(control=control, sleep=lambda seconds: None) as loop:
        assert loop.run(Empty(), Budget()) == "asked to stop"
    assert asked == [MOST_TIMES]


def test_a_pause_ends_with_the_hours_and_by_a_stop(make_loop, control: Control) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += 60

    with make_loop(control=control, sleep=sleep, clock=lambda: clock[0]) as loop:
        loop.on_event = lambda name, data: control.ask(PAUSE)
        assert loop.run(ideas(2), Budget(hours=0.5)) == "0.5 hours are over"
        loop.sleep = lambda seconds: control.ask(STOP)
        assert loop.run(ideas(2), Budget(hours=0.5)) == "asked to stop"
        assert list(loop.state.trials) == [0]

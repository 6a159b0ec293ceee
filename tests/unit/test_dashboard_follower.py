"""Following a study while its writer appends: every record once, in order, also after a break."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from autoresearch.dashboard import follower as following
from autoresearch.dashboard.follower import Event, Follower
from autoresearch.engine.ledger import Ledger
from tests.unit.synthetic import make_study, trials_of

MOST = 20.0  # seconds that anything here may take


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("follower") / "study"
    make_study(folder, 5, points=3)
    return folder


@pytest.fixture
def study(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a baseline and five trials."""
    monkeypatch.setattr(following, "EVERY", 0.01)
    return Path(shutil.copytree(template, tmp_path / "study"))


def records(events: list[Event]) -> list[Event]:
    return [event for event in events if event.id]


async def take(events: AsyncIterator[Event | None], until: int) -> list[Event]:
    """Events until so many of the ledger came, and then the rest of that look."""
    found: list[Event] = []
    async for event in events:
        if event is not None:
            found.append(event)
        elif len(records(found)) >= until:
            break
    return found


def listen(follower: Follower, after: str, until: int) -> list[Event]:
    return asyncio.run(asyncio.wait_for(take(follower.events(after), until), MOST))


def append(folder: Path, first: int, last: int) -> None:
    with Ledger(folder / "results.jsonl") as ledger:
        for trial in trials_of(last, points=3, first=first):
            ledger.append_trial(trial)


def test_a_new_listener_gets_what_follows_its_page(study: Path) -> None:
    follower = Follower(study)
    asyncio.run(follower.refresh())
    page = follower.head
    append(study, 6, 8)
    found = records(listen(follower, page, 3))
    assert [(event.name, event.data["id"]) for event in found] == [("trial", n) for n in (6, 7, 8)]
    assert follower.story["trials"][-1]["id"] == 8 and follower.standing["trials"] == 9


def test_from_the_beginning_it_is_the_whole_ledger(study: Path) -> None:
    follower = Follower(study)
    mark = follower.head.partition("-")[0]
    assert mark == following.EMPTY
    asyncio.run(follower.refresh())
    mark = follower.head.partition("-")[0]
    found = records(listen(follower, f"{mark}-0", 7))
    assert [event.name for event in found] == ["record", *["trial"] * 6]


def test_nothing_is_missed_while_a_writer_appends(study: Path) -> None:
    follower = Follower(study)
    asyncio.run(follower.refresh())
    start = follower.head
    writer = threading.Thread(target=append, args=(study, 6, 65))
    writer.start()
    seen: list[Event] = []
    after = start
    while len(seen) < 60:  # it comes back again and again with the id that it saw last
        seen += records(listen(follower, after, 1))
        after = seen[-1].id
    writer.join()
    assert [event.data["id"] for event in seen] == list(range(6, 66))
    assert len({event.id for event in seen}) == 60


def test_two_listeners_do_not_take_from_each_other(study: Path) -> None:
    follower = Follower(study)

    async def both() -> list[list[Event]]:
        await follower.refresh()
        head = follower.head
        append(study, 6, 9)
        listening = [take(follower.events(head), 4) for _ in range(2)]
        return await asyncio.wait_for(asyncio.gather(*listening), MOST)

    one, other = asyncio.run(both())
    assert records(one) == records(other) and len(records(one)) == 4


def test_a_listener_that_leaves_amid_a_reading_does_not_begin_a_second(study: Path) -> None:
    follower = Follower(study)
    read, at_once, most = follower._read, [0], [0]

    def slowly() -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        read()
        at_once[0] -= 1

    async def leave() -> None:
        follower._read = slowly  # type: ignore[method-assign]
        for _ in range(3):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(follower.refresh(), 0.01)
        await follower.refresh()

    asyncio.run(leave())
    assert most == [1] and len(follower.story["trials"]) == 6


def test_another_ledger_in_its_place_is_told(study: Path, tmp_path: Path) -> None:
    follower = Follower(study)
    asyncio.run(follower.refresh())
    old = follower.head
    lines = (study / "results.jsonl").read_bytes()
    (study / "results.jsonl").unlink()
    with Ledger(study / "results.jsonl") as ledger:
        ledger.append({"kind": "study", "tag": "synthetic", "settings": {}, "other": 1})
    reset = records(listen(follower, old, 1))[0]
    assert reset.name == "reset" and reset.id == follower.head != old
    (study / "results.jsonl").write_bytes(lines)
    assert records(listen(follower, reset.id, 1))[0].name == "reset"


def test_a_damaged_ledger_is_told_and_mends(study: Path) -> None:
    follower = Follower(study)
    asyncio.run(follower.refresh())
    path = study / "results.jsonl"
    good = path.read_bytes()
    path.write_bytes(good + good.splitlines(keepends=True)[-1])
    told = [e for e in _looks(follower, 3) if e.name == "problem"]
    assert told and "does not follow" in told[0].data["message"] and told[0].data["hint"]
    path.write_bytes(good)
    told = [e for e in _looks(follower, 3) if e.name == "problem"]
    assert follower.problem is None and (not told or told[-1].data is None)


def test_where_nothing_runs_and_nothing_is_new_nothing_is_told_again(study: Path) -> None:
    assert [event.name for event in _looks(Follower(study), 4)].count("standing") == 1


def test_a_study_that_could_not_be_read_once_has_no_standing(study: Path) -> None:
    follower, path = Follower(study), study / "results.jsonl"
    good = path.read_bytes()
    path.write_bytes(good + good.splitlines(keepends=True)[-1])
    names = [event.name for event in _looks(follower, 2)]
    assert "problem" in names and "standing" not in names
    path.write_bytes(good)
    assert "standing" in [event.name for event in _looks(follower, 2)]


def _looks(follower: Follower, count: int) -> Iterator[Event]:
    """What a listener is told in so many looks at the files."""

    async def look() -> list[Event]:
        found, silent = [], 0
        async for event in follower.events(follower.head):
            silent += event is None
            found += [event] if event is not None else []
            if silent == count:
                break
        return found

    yield from asyncio.run(asyncio.wait_for(look(), MOST))


def test_a_study_that_has_not_begun_is_waited_for(template: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(template, tmp_path / "new"))
    lines = (folder / "results.jsonl").read_bytes()
    (folder / "results.jsonl").unlink()
    follower = Follower(folder)
    asyncio.run(follower.refresh())
    assert follower.head == "0-0" and follower.story["trials"] == [] and not follower.problem
    (folder / "results.jsonl").write_bytes(lines)
    assert records(listen(follower, "0-0", 1))[0].name == "reset"


def test_closing_ends_the_listening(study: Path) -> None:
    follower = Follower(study)
    follower.close()
    assert listen(follower, "", 99) == []

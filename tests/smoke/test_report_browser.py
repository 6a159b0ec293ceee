"""The report in headless Chromium: its scripts run under its own policy, words of agents don't.

Skipped without Chromium or playwright; what axe would say also without axe-core, whose axe.min.js
AUTORESEARCH_AXE names.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.opening import open_study
from autoresearch.report.charts import charts
from autoresearch.report.page import page as make_page
from autoresearch.report.story import story_of
from tests.unit.reported import EVIL, night, write

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: pip install '.[dev]'"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

MOST = 90_000  # milliseconds that anything may take on a machine that is busy otherwise
HIT = "document.title = 'hit'"
SCRIPT = f'<script>{HIT}</script><img src=x onerror="{HIT}">'
DRAWN = "document.querySelectorAll('.plot svg.marks').length"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a study in which every word of an agent is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    write(
        folder, [replace(t, description=f"{t.id} {SCRIPT}{EVIL}", reason=SCRIPT) for t in night()]
    )
    story = story_of(open_study(folder))
    assert len(charts(story)) == 10
    file = folder / "report.html"
    file.write_text(make_page(story, {2: f"+{SCRIPT}", 6: f"-{SCRIPT}"}), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def tab(browser: Any, address: str) -> Iterator[Any]:
    """The report at a desktop's width and high enough to show all; `tab.faults` were logged."""
    found = browser.new_page(viewport={"width": 1200, "height": 9000}, color_scheme="light")
    found.set_default_timeout(MOST)
    found.faults = []
    found.on("console", lambda m: m.type == "error" and found.faults.append(m.text))
    found.on("pageerror", lambda error: found.faults.append(str(error)))
    found.on("request", lambda r: r.url != address and found.faults.append(r.url))
    found.goto(address)
    until(found, f"{DRAWN} === 10")
    yield found
    found.close()


def until(tab: Any, expression: str) -> None:
    """Wait for it; the page's policy allows no eval, which playwright's own waiting would use."""
    ends = time.monotonic() + MOST / 1000
    while not tab.evaluate(expression):
        assert time.monotonic() < ends, expression
        tab.wait_for_timeout(100)


def test_all_is_drawn_and_hostile_words_do_nothing(tab: Any) -> None:
    assert tab.faults == []  # nothing was fetched, and the policy had nothing to stop
    assert tab.title() == "mar5: val_bpb"
    assert tab.locator("img").count() == 0 and tab.locator("script").count() == 3


def test_hovering_shows_the_idea_and_clicking_opens_its_row(tab: Any) -> None:
    kept = tab.locator("#figure-progress path[aria-label^='decision: 6;']")
    kept.hover()
    tab.wait_for_selector("#vg-tooltip-element.visible")
    shown = tab.locator("#vg-tooltip-element")
    assert SCRIPT in shown.inner_text() and "1.810000" in shown.inner_text()
    assert "confidence\t98.0%" in shown.inner_text() and "null" not in shown.inner_text()
    place, mark = shown.bounding_box(), kept.bounding_box()
    assert abs(place["x"] - mark["x"]) < 500 and abs(place["y"] - mark["y"]) < 300
    kept.click()
    assert tab.locator("tr#trial-6.found").is_visible()
    assert tab.title() == "mar5: val_bpb" and tab.faults == []


def test_it_turns_dark_with_the_system(tab: Any) -> None:
    paper = "getComputedStyle(document.querySelector('#figure-kinds svg')).backgroundColor"
    assert tab.evaluate(paper) == "rgb(255, 255, 255)"
    tab.emulate_media(color_scheme="dark")
    until(tab, f"{DRAWN} === 10 && {paper} === 'rgb(20, 23, 28)'")
    tab.emulate_media(color_scheme="light")


def test_a_phone_needs_no_scrolling_sideways(browser: Any, address: str) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 9000}, color_scheme="dark")
    tab.set_default_timeout(MOST)
    tab.goto(f"{address}#trial-3")
    until(tab, f"{DRAWN} === 10")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    # Words beside points have no room there, and the address of a trial opens its table.
    assert tab.locator("#figure-progress .mark-text.role-mark text").count() == 0
    assert tab.locator("tr#trial-3.found").is_visible()
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(tab: Any, scheme: str) -> None:
    file = os.environ.get("AUTORESEARCH_AXE", "")
    if not Path(file).is_file():
        pytest.skip("AUTORESEARCH_AXE names no axe.min.js")
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = tab.evaluate(f"{Path(file).read_text(encoding='utf-8')}; axe.run()")
    faults = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not faults, json.dumps(faults, indent=1)

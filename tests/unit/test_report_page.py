"""The page and the Markdown: nothing that agents wrote becomes markup, and all of it is there."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from autoresearch.opening import open_study
from autoresearch.report.charts import charts
from autoresearch.report.facts import figures, large, verdict
from autoresearch.report.markdown import escape, markdown
from autoresearch.report.page import page
from autoresearch.report.story import edits, story_of
from tests.unit.reported import DIFF, EVIL, night, write

HANDLER = re.compile(r"on[a-z]+", re.I)


class Read(HTMLParser):
    """Tags with their attributes, the texts of scripts, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """A study whose every word of an agent is an attack, and its page."""
    folder = tmp_path_factory.mktemp("hostile")
    evil = [
        replace(each, description=EVIL, reason=EVIL, proposer=EVIL, warning=EVIL)
        for each in night()
    ]
    write(folder, evil)
    study = open_study(folder)
    for number in (2, 6):
        study.run_folder(number).mkdir(parents=True)
        (study.run_folder(number) / "change.diff").write_text(DIFF, encoding="utf-8")
    story = story_of(study)
    return story, page(story, edits(study, [2, 6]))


@pytest.fixture(scope="module")
def read(hostile: tuple[dict[str, Any], str]) -> Read:
    return Read(hostile[1])


def test_nothing_an_agent_wrote_is_markup(read: Read) -> None:
    names = {tag for tag, _ in read.tags}
    assert not names & {"img", "iframe", "object", "embed", "form", "link", "svg", "base"}
    for tag, attributes in read.tags:
        assert not [name for name in attributes if HANDLER.fullmatch(name)], (tag, attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert len(read.scripts) == 3
    # It is there all the same, to be read.
    assert read.text.count(EVIL) >= 7
    assert "{{7*7}}" in read.text and "49" not in read.text.split("{{7*7}}")[0][-20:]


def test_data_survive_their_script_tag(read: Read, hostile: tuple[dict[str, Any], str]) -> None:
    assert not set("<>&") & set(read.scripts[0])
    document = json.loads(read.scripts[0])
    assert document["data"]["trials"][2]["idea"] == hostile[0]["trials"][2]["idea"]
    assert [chart["name"] for chart in document["charts"]] == [c.name for c in charts(hostile[0])]
    for chart in document["charts"]:
        assert set(chart["data"]) <= document["data"].keys()


def test_the_policy_runs_its_own_scripts_alone(read: Read) -> None:
    policy = next(a["content"] or "" for t, a in read.tags if t == "meta" and "http-equiv" in a)
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in read.scripts[1:]
    ]
    assert re.findall(r"sha256-([^']+)", policy) == digests
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_each_chart_has_a_table_beside_it(read: Read, hostile: tuple[dict[str, Any], str]) -> None:
    plots = [a for _, a in read.tags if "data-chart" in a]
    assert len(plots) == len(charts(hostile[0])) >= 9
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    tags = [tag for tag, _ in read.tags]
    assert tags.count("table") == tags.count("caption") == len(plots)
    heads = [a for tag, a in read.tags if tag == "th"]
    assert all(a.get("scope") in ("col", "row") for a in heads)
    scrolled = [a for _, a in read.tags if "scroll" in (a.get("class") or "")]
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolled)
    rows = {a["id"] for tag, a in read.tags if tag == "tr" and a.get("id")}
    assert rows == {f"trial-{number}" for number in range(7)}


def test_headings_do_not_skip_and_ids_are_unique(read: Read) -> None:
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [a["id"] for _, a in read.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    named = [a["aria-labelledby"] for _, a in read.tags if a.get("aria-labelledby")]
    assert set(named) <= set(ids)


def test_edits_are_coloured(read: Read) -> None:
    kinds = [a["class"] for tag, a in read.tags if tag == "span" and a.get("class")]
    assert kinds.count("add") == kinds.count("del") == 2  # of two kept ideas


@pytest.mark.parametrize("count", [0, 1])
def test_a_page_of_hardly_anything(tmp_path: Path, count: int) -> None:
    write(tmp_path, night()[:count])
    story = story_of(open_study(tmp_path))
    read = Read(page(story, {}))
    assert ("No trial was recorded yet" in read.text) == (count == 0)
    assert verdict(story) in read.text and markdown(story).startswith("# mar5\n")


def test_markdown_is_no_markup_either(hostile: tuple[dict[str, Any], str]) -> None:
    text = markdown(hostile[0], "progress.png")
    assert "\n![6 trials, 2 of them kept" in text and "(progress.png)" in text
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(http", text) and "http://x" not in text
    rows = [line for line in text.splitlines() if line.startswith("| 6 |")]
    assert len(rows) == 1 and "+0.0900" in rows[0] and "98.0%" in rows[0]


def test_escaped_words_stay_readable() -> None:
    assert escape("DEPTH: 4 -> 6 in val_bpb\n|") == "DEPTH: 4 -> 6 in val_bpb \\|"
    assert escape("_so_ *so*") == "\\_so\\_ \\*so\\*"
    assert escape("no @torch.compile, see #12") == "no @\u200btorch.compile, see \\#\u200b12"
    assert escape("a @ b, x@y # c") == "a @ b, x@y \\# c"


def test_figures(tmp_path: Path) -> None:
    write(tmp_path, night())
    found = {fact.name: fact for fact in figures(story_of(open_study(tmp_path)))}
    assert found["best val_bpb"].value == "1.810000"
    assert (
        found["gain"].value == "+0.1900" and found["gain"].note == "from 2.000000, effects added up"
    )
    assert found["cost"].value == "2.50 dollars" and "not known of 1 of 6" in found["cost"].note
    assert found["time"].value == "2 h 00 min" and "stood still" in found["time"].note
    assert (large(1.4623e9), large(312), large(20_000)) == ("1.46 G", "312", "20 k")

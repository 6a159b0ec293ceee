"""`autoresearch clean`: sizes, and removing what is ours and in nobody's use."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch import cleaning
from autoresearch.commands import clean as command
from autoresearch.engine.errors import LedgerBusy
from autoresearch.engine.holder import Claim
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.init import make_workspace
from prepare.settings import Settings
from tests.unit.command_line import run

KEY = "0123456789abcdef"
OURS = {
    "compiled": (KEY, f"{KEY}.00000000.tmp"),
    "corpora": ("climbmix",),
    "prepared": (f"{KEY}-1024-1",),
    "probes": (f"{KEY}.json", f"{KEY}.lock", "headers"),
    "demo": ("autoresearch.toml", "runs"),
    "dashboard": ("vega-1.9.0.js",),
}


@pytest.fixture
def full(cache: Path) -> Path:
    """A cache with 1,000 bytes of each kind, beside things of somebody else's."""
    for kind, names in OURS.items():
        for name in names:
            place = cache / kind / name
            if "." in name and not name.endswith("tmp"):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(b"x" * (1000 // len(names)))
            else:
                place.mkdir(parents=True)
                (place / "data").write_bytes(b"x" * (1000 // len(names)))
        (cache / kind / "mine.txt").write_text("precious")
    (cache / "photos").mkdir()
    (cache / "photos" / f"{KEY}.json").write_text("precious")
    return cache


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A study with the baseline, one kept, one not; a run folder each, and one of another study."""
    folder = tmp_path / "w"
    files = {"train.py": "X = 1\n", "autoresearch.toml": Settings().dumps()}
    make_workspace(folder, files, "begin")
    ledger = Ledger(folder / "results.jsonl")
    ledger.append({"kind": "study", "tag": "mar5"})
    for number, status in enumerate(("keep", "keep", "discard")):
        ledger.append_trial(Trial(number, number - 1 if number else None, TrialStatus(status), ""))
    own = folder / ".autoresearch"
    for name in ("mar5/0000", "mar5/0001", "mar5/0002", "mar5/0003", "old/0000"):
        (own / "runs" / name).mkdir(parents=True)
        (own / "runs" / name / "train.log").write_text("hello")
    (own / "work" / "mar5@3-candidate").mkdir(parents=True)
    for name in ("weights/mar5/0001", "weights/old/0000", "trackers/mlruns"):
        (own / name).mkdir(parents=True)
        (own / name / "data").write_bytes(b"x" * 500)
    return folder


def document(capsys, *arguments: object) -> dict:
    code, out, err = run(capsys, "clean", "--json", *arguments)
    assert code == 0, out + err
    return json.loads(out)


def precious(cache: Path) -> int:
    return sum(path.read_text() == "precious" for path in cache.rglob("*") if path.is_file())


def test_sizes_are_told_and_nothing_goes(full: Path, capsys, monkeypatch) -> None:
    before = sorted(full.rglob("*"))
    kinds = document(capsys)["kinds"]
    assert {name: kind["bytes"] // 100 for name, kind in kinds.items()} == dict.fromkeys(
        OURS, 10
    ) | {"probes": 9}
    assert document(capsys, "all", "--dry-run")["freed"] == {}
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(capsys, "clean", "compiled")[0] == 130
    assert run(capsys, "clean", "compiled", "--json")[0] == 2, "a program must say --yes"
    assert sorted(full.rglob("*")) == before


def test_what_is_named_goes_and_nothing_of_others(full: Path, capsys) -> None:
    freed = document(capsys, "compiled", "probes", "--yes")["freed"]
    assert freed == {"compiled": 1000, "probes": 999}
    left = {path.name for kind in ("compiled", "probes") for path in (full / kind).iterdir()}
    assert left == {"mine.txt"} and (full / "prepared" / f"{KEY}-1024-1").is_dir()
    document(capsys, "all", "--yes")
    assert precious(full) == len(OURS) + 1
    assert not any(kind["bytes"] for kind in document(capsys)["kinds"].values())


def test_a_workspace_inside_the_cache_is_no_cache(full: Path, capsys) -> None:
    subprocess.run(["git", "init", "-q", full / "demo"], check=True)
    assert "demo" not in document(capsys, "all", "--yes")["freed"]
    assert (full / "demo" / "autoresearch.toml").is_file()


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_are_not_followed(full: Path, tmp_path: Path, capsys) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / KEY).mkdir(parents=True)
    (elsewhere / KEY / "data").write_text("precious")
    (full / "compiled" / ("f" * 16)).symlink_to(elsewhere / KEY)
    (full / "prepared").rename(full / "moved")
    (full / "prepared").symlink_to(elsewhere)
    (elsewhere / f"{KEY}-1024-1").mkdir()
    freed = document(capsys, "all", "--yes")["freed"]
    assert "prepared" not in freed and freed["compiled"] < 1100
    assert (elsewhere / KEY / "data").read_text() == "precious"
    assert (elsewhere / f"{KEY}-1024-1").is_dir()


def test_of_a_workspace_the_champions_stay(full: Path, workspace: Path, capsys) -> None:
    freed = document(capsys, "runs", "scratches", "--yes", "--dir", workspace)["freed"]
    assert set(freed) == {"runs", "scratches"}
    runs = workspace / ".autoresearch" / "runs"
    left = sorted(path.relative_to(runs).as_posix() for path in runs.glob("*/*"))
    assert left == ["mar5/0000", "mar5/0001", "mar5/0003"], (
        "0003 is in no record: it may be at work"
    )
    assert {path.name for path in (runs.parent / "weights").iterdir()} == {"mar5", "old"}
    freed = document(capsys, "all", "--yes", "--dir", workspace)["freed"]
    assert freed["weights"] == 500 and "trackers" not in freed
    assert [path.name for path in (runs.parent / "weights").iterdir()] == ["mar5"]
    assert document(capsys, "--dir", workspace)["kinds"]["trackers"]["bytes"] == 500
    assert document(capsys, "trackers", "--yes", "--dir", workspace)["freed"] == {"trackers": 500}
    code, _, err = run(capsys, "clean", "runs", "--yes", "--dir", full)
    assert code == 2 and "no workspace" in err


def test_what_a_study_uses_is_refused(full: Path, workspace: Path, capsys) -> None:
    with Claim(workspace / "results.jsonl"):
        code, _, err = run(capsys, "clean", "all", "--yes", "--dir", workspace)
    assert code == 3 and "being written by process" in err
    assert (workspace / ".autoresearch" / "runs" / "old").is_dir()
    assert (full / "compiled" / KEY).is_dir(), "nothing at all is gone"


def test_a_study_that_begins_while_the_question_stands_loses_nothing(
    full: Path, workspace: Path, capsys, monkeypatch
) -> None:
    run_of_another = Claim(workspace / "results.jsonl")
    monkeypatch.setattr("click.confirm", lambda *words, **how: run_of_another.acquire())
    try:
        code, _, err = run(capsys, "clean", "scratches", "--dir", workspace)
    finally:
        run_of_another.release()
    assert code == 3 and "scratches is in use" in err
    assert (workspace / ".autoresearch" / "work" / "mar5@3-candidate").is_dir()


def test_no_study_begins_while_its_runs_are_removed(workspace: Path, monkeypatch) -> None:
    chosen = [heap for heap in cleaning.heaps(workspace) if heap.name == "runs"]
    with cleaning.unused(chosen, workspace), pytest.raises(LedgerBusy):
        Claim(workspace / "results.jsonl").acquire()


def test_what_a_running_command_uses_is_refused(full: Path, tmp_path: Path, capsys) -> None:
    """Seen by its command line and the cache folder that it was given."""
    script = tmp_path / "autoresearch"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    for elsewhere, expected in ((str(tmp_path / "other"), 0), (str(full), 3)):
        process = subprocess.Popen(
            [sys.executable, str(script), "train"],
            env={**os.environ, "AUTORESEARCH_CACHE": elsewhere},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stdout.readline()
        try:
            code, _, err = run(capsys, "clean", "demo", "--yes")
        finally:
            process.kill()
            process.communicate()
        assert code == expected, err
        if expected:
            assert f"process {process.pid}" in err and "autoresearch train" in err
        else:
            (full / "demo" / "runs").mkdir()


def test_names_are_those_of_cleaning() -> None:
    assert (*command.CACHE, *command.STUDY) == cleaning.NAMES

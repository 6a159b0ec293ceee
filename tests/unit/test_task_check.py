"""`task check` and the options of `task run`: what is said of a task before a study begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch import cli
from autoresearch.engine.sandbox import all_tiers
from autoresearch.study import Options
from autoresearch.taskfile.check import UNCONFINED
from autoresearch.taskfile.scaffold import make_task
from autoresearch.taskfile.study import TaskStudy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_task(tmp_path / "demo")
    return tmp_path / "demo"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, object]]:
    code = cli.run([*map(str, args), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out)


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "task.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_check_tells_what_commands_of_a_task_can_do_without_a_sandbox(folder, capsys):
    change(folder, "parse: json", "parse: json\n  timed: true")
    code, report = run(capsys, "task", "check", folder, "--sandbox", "process")
    assert code == 0 and report["ok"] and report["scores"] == [0, 0] and report["noise"] == 0
    assert report["does_not_stop"] == list(UNCONFINED)
    assert report["hidden"] == {"scorer": ["score.py"]} and report["beside"] == ["mutate.py"]
    assert report["timed"] and "others_cpu_share" in report["runs"][0]["metrics"]
    assert not (folder / "work" / "results.jsonl").exists() and "task run" in report["next"][0]


@pytest.mark.parametrize(
    "tier", [tier for tier in all_tiers() if tier.strict], ids=lambda t: t.name
)
def test_no_sandbox_speaks_of_pretraining(tier):
    words = " ".join((*tier.stops(), *tier.does_not_stop()))
    assert not {"tokens", "val_bpb", "weights", "validation"} & set(words.replace(",", "").split())


def test_search_with_nothing_to_vary_is_told_before_anything_is_run(folder, capsys):
    change(folder, "type: command\n  command: python mutate.py", "type: search")
    for command in ("run", "check"):
        code, document = run(capsys, "task", command, folder)
        error = document["error"]
        assert code == 2 and "nothing to vary" in error["message"], document
        assert "LEVEL = 6" in error["hint"]
    assert not (folder / "work" / "runs").exists()


def test_a_run_takes_the_options_that_a_workspaces_takes(folder):
    with TaskStudy.write(folder / "task.yaml", Options(frontier=2, combine=True)) as study:
        assert (study.loop.frontier, study.loop.combine) == (2, True)


def test_a_workspaces_command_says_that_this_is_a_task(folder, capsys):
    for command in (("run",), ("trial", "-m", "idea")):
        code, document = run(capsys, *command, "--dir", folder)
        assert code == 2 and "autoresearch task run" in document["error"]["hint"]

"""Which task file is meant, and where its records lie: any name, several in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch import cli
from autoresearch.opening import find_task, holds_task, task_of
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.model import load
from autoresearch.taskfile.scaffold import make_task
from prepare.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with first.yaml, second.yml and a YAML file that is no task's."""
    folder = tmp_path / "tasks"
    make_task(folder)
    (folder / "compose.yaml").write_text("services: {scorer: {image: x}}\n")
    text = (folder / "task.yaml").read_text()
    (folder / "task.yaml").rename(folder / "first.yaml")
    (folder / "second.yml").write_text(text.replace("id: tasks", "id: second"))
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, object]]:
    code = cli.run([*map(str, args), "--json"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    return code, json.loads(lines[-1] if lines[-1] != "}" else text)


def test_a_folder_means_its_task_yaml_or_its_only_task_file(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"first\.yaml, second\.yml"):
        find_task(folder)
    assert find_task(folder / "second.yml") == folder / "second.yml"
    (folder / "second.yml").rename(folder / "task.yaml")
    assert find_task(folder) == folder / "task.yaml"
    (folder / "task.yaml").unlink()
    assert find_task(folder) == folder / "first.yaml" and holds_task(folder)
    (folder / "first.yaml").unlink()
    assert find_task(folder) is None and not holds_task(folder)
    assert find_task(folder / "nothing") is None
    (folder / "broken.yaml").write_text('id: [\n"scorer": {}\n')
    assert find_task(folder) == folder / "broken.yaml", "what is wrong with it is told in full"


def test_a_workspace_is_no_task_whatever_lies_in_it(folder: Path) -> None:
    (folder / "autoresearch.toml").write_text("")
    assert task_of(folder) is None
    assert task_of(folder / "first.yaml") == folder / "first.yaml"


def test_two_task_files_of_a_folder_have_records_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(capsys, "results", "--dir", folder)
    assert code == 2 and "several task files" in str(error)
    for name in ("first.yaml", "second.yml"):
        code, _ = run(capsys, "task", "run", folder / name, "--once")
        assert code == (0 if name == "first.yaml" else 10), "the first one took the first idea"
    assert (folder / "work" / "results.jsonl").is_file()
    for name, tag in (("first.yaml", "tasks"), ("second.yml", "second")):
        for command in ("results", "status", "verify"):
            code, document = run(capsys, command, "--dir", folder / name)
            assert code == 0 and document.get("tag", tag) == tag
    assert run(capsys, "notes", "add", "be bold", "--dir", folder / "second.yml")[0] == 0
    assert "be bold" in (folder / "program.md").read_text()
    first, second = (Place.of(folder / name) for name in ("first.yaml", "second.yml"))
    assert (first.work, second.work) == (folder / "work", folder / "work/tasks/second.yml")
    found = first.programs(load(first.file))
    assert "artifact.md" in found and not [path for path in found if path.startswith("work")]


def test_records_follow_a_task_file_that_was_renamed(folder: Path) -> None:
    record = {"kind": "study", "file": "first.yaml"}
    (folder / "work").mkdir()
    (folder / "work" / "results.jsonl").write_text(json.dumps(record, separators=(",", ":")))
    assert Place.of(folder / "second.yml").work != folder / "work"
    (folder / "first.yaml").unlink()
    assert Place.of(folder / "second.yml").work == folder / "work"

"""`autoresearch task new` in a folder: what it proposes for a project, and what it leaves alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autoresearch import cli
from autoresearch.engine.errors import TaskError
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.model import load
from autoresearch.taskfile.scaffold import make_task

FILES = {
    "src/rank/__init__.py": "",
    "src/rank/train.py": "parser.add_argument('--seed')",
    "src/rank/model.py": "",
    "configs/base.yaml": "lr: 1",
    "data/train.tsv": "1",
    "evaluate.py": "",
    "tests/test_rank.py": "",
    "models/layers.py": "",
    "my notes.py": "",
    ".venv/pyvenv.cfg": "",
    ".venv/bin/python": "",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


@pytest.fixture(params=[True, False], ids=["git", "no git"])
def project(request, tmp_path: Path) -> Path:
    folder = write(tmp_path / "theirs", FILES)
    if request.param:
        (folder / ".gitignore").write_text("data/\n.venv/\n")
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def test_a_project_gets_a_task_file_and_nothing_else_changes(project, capsys):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert cli.run(["task", "new", str(project)]) == 0
    assert "Proposed a task" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {project / "task.yaml"}
    assert {path: after[path] for path in before} == before
    task = load(project / "task.yaml")
    include = ("src/rank/train.py", "configs/base.yaml", "src/rank/model.py")
    assert task.artifacts.include == include
    assert task.inputs == (".venv/**", "data/**"), "models/ holds code"
    assert task.runner.command == (".venv/bin/python", "-m", "rank.train", "--seed", "{seed}")
    assert task.runner.env == {"PYTHONPATH": "src"}
    assert task.scorer.command == (".venv/bin/python", "evaluate.py", "{output}")
    programs = Place.of(project / "task.yaml").programs(task)
    assert "src/rank/train.py" in programs and "evaluate.py" not in programs
    assert not [path for path in programs if path.startswith((".venv", "data"))]
    with pytest.raises(TaskError, match="is there already"):
        make_task(project)


def test_a_project_without_a_scorer_gets_one_to_replace(tmp_path):
    folder = write(tmp_path / "theirs", {"train.py": "", "metrics.json": '{"score": 4}'})
    assert make_task(folder) == ["task.yaml", "score_run.py"]
    task = load(folder / "task.yaml")
    assert task.runner.command == ("python", "train.py") and not task.inputs
    done = subprocess.run(
        ["python3", "score_run.py", "."], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == '{"score": 4}\n'


def test_an_empty_repository_gets_a_task_that_runs(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path / "new")], check=True)
    (tmp_path / "new" / "README.md").write_text("mine")
    (tmp_path / "new" / ".gitignore").write_text("mine\n")
    assert "mutate.py" in make_task(tmp_path / "new")
    assert (tmp_path / "new" / ".gitignore").read_text() == "mine\n"

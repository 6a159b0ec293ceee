"""Somebody's training project as a task: it gets better, and its data stays where it lies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from autoresearch import cli
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.trial import TrialStatus
from autoresearch.taskfile.study import TaskStudy

PROJECT = Path(__file__).resolve().parents[2] / "tasks" / "finetune-reranker"
# Few runs, one to a decision: what takes long is to load torch, once in each.
FASTER = {"trials: 8": "trials: 1", "min_effect: 0.005": "{name: greedy, noise_seeds: 1}"}


def test_a_reranker_gets_better_on_queries_that_decide_nothing_too(tmp_path, capsys):
    folder = tmp_path / "reranker"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("work", "data", "__pycache__"))
    task = (folder / "task.yaml").read_text()
    for old, new in FASTER.items():
        assert old in task
        task = task.replace(old, new)
    (folder / "task.yaml").write_text(task)
    subprocess.run([sys.executable, "scripts/make_data.py"], cwd=folder, check=True)
    data = {path.name: path.read_bytes() for path in (folder / "data").iterdir()}

    assert cli.run(["task", "run", str(folder)]) == 0, capsys.readouterr()
    ledger = Ledger(folder / "work" / "results.jsonl")
    baseline, better = ledger.trials()
    assert better.status is TrialStatus.KEEP and better.score > baseline.score + 0.05
    assert '"lr": 0.05' in (folder / "configs/train.json").read_text()
    held = TaskStudy.read(folder / "task.yaml").holdouts()
    assert held[better.id]["run"]["score"] > held[0]["run"]["score"] + 0.05

    assert data == {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
    (header,) = ledger.records("study")
    assert header["inputs"]["data"]["files"] == 5
    run = next((folder / "work/runs/0001").glob("candidate-*/output"))
    left = {path.name for path in (run / "out").iterdir()}
    assert left == {"model.safetensors", "dev.run", "test.run"} and not (run / "data").exists()
    git = ["git", "-C", str(folder / "work/repository"), "ls-tree", "-r", "--name-only", "HEAD"]
    seen = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    assert "src/reranker/model.py" in seen
    hidden = {"evaluate.py", "scripts/make_data.py", "data/dev.qrels"}
    assert not hidden & set(seen), "who knows the labels has the score"
    assert json.loads((folder / "configs/train.json").read_text())["epochs"] == 4

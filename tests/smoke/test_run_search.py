"""A study from `init` to `export` with the real harness: small enough for two busy cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.engine.constants import apply_constants
from autoresearch.init import git, make_workspace
from autoresearch.workspace_files import seed_text
from prepare.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "DEPTH": 1,
    "ASPECT_RATIO": 32,
    "HEAD_DIM": 16,
    "TOTAL_BATCH_SIZE": 128,
    "DEVICE_BATCH_SIZE": 4,
}
SETTINGS = Settings(
    corpus_bytes=100_000, vocab_size=256, max_seq_len=32, token_budget=4_096, eval_bytes=2_000
)
# One run decides: what is tested here is the way, not the decision.
TASK = '\n[task]\npolicy = {name = "greedy", noise_seeds = 1}\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace as `init` makes it, of a model that trains in a second."""
    folder = tmp_path / "w"
    files = {
        "train.py": apply_constants(seed_text("train.py"), TINY),
        "autoresearch.toml": SETTINGS.dumps() + TASK,
        "program.md": seed_text("program.md"),
    }
    make_workspace(folder, files, "begin")
    return folder


def call(workspace: Path, *arguments: str) -> tuple[int, str, str]:
    """The command as a person starts it, in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AUTORESEARCH_CACHE": str(workspace.parent / "cache"),
        "AUTORESEARCH_BACKEND": "cpu",
        "AUTORESEARCH_ATTENTION": "sdpa",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_COMPILE": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "autoresearch.cli", *arguments]
    done = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=900
    )
    return done.returncode, done.stdout, done.stderr


def test_a_study_by_search_and_by_hand(workspace: Path, tmp_path: Path) -> None:
    code, out, err = call(workspace, "run", "--trials", "2", "--tag", "smoke")
    assert code == 0, err
    assert "Ended: 2 trials done" in out and "autoresearch export" in out
    assert git(workspace, "status", "--porcelain") == ""
    lines = call(workspace, "results", "--tsv")[1].splitlines()
    assert lines[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert len(lines) == 4
    assert lines[1].split("\t")[3:] == ["keep", "baseline"]
    trials = json.loads(call(workspace, "results", "--json")[1])["trials"]
    assert trials[0]["score"] > 1 and trials[0]["score_id"]
    assert json.loads(call(workspace, "show", "0", "--json")[1])["trial"]["curve"]
    assert all(trial["description"].count(" -> ") for trial in trials[1:])

    git(workspace, "switch", "-q", "autoresearch/smoke")
    train = workspace / "train.py"
    champion = train.read_text(encoding="utf-8")
    train.write_text(champion + "\nraise RuntimeError('a bad idea')\n", encoding="utf-8")
    code, out, err = call(workspace, "trial", "-m", "raise at import")
    assert code == 5 and "a bad idea" in out, err
    assert train.read_text(encoding="utf-8") == champion

    code, out, err = call(workspace, "verify")
    assert code == 0 and "git agrees" in out, out + err
    assert "a bad idea" in call(workspace, "log", "3")[1]
    code, out, err = call(workspace, "export", "--to", str(tmp_path / "out"), "--json")
    assert code == 0, err
    assert (tmp_path / "out/train.py").read_text(encoding="utf-8") == champion

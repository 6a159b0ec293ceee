"""`autoresearch config`: every setting, its value, and where that comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from autoresearch.configuration import HIDDEN, VARIABLES, without_credentials
from autoresearch.preset import load_preset
from prepare.settings import Settings
from tests.unit.command_line import run

ROOT = Path(__file__).resolve().parents[2]
FILE = """

[experiment]
preset = "demo"
corpus = "embedded"
time_budget = 11.0

[task]
policy = "greedy"
[task.budget]
hours = 8

[weights]
keep = "none"
some_token = "s3cret"
[tracker]
name = "mlflow"
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "autoresearch.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    return tmp_path


def settings(capsys, *options: str) -> dict[str, tuple[object, str]]:
    code, out, err = run(capsys, "config", "--json", *options)
    assert code == 0, out + err
    found = json.loads(out)["settings"]
    return {name: (item["value"], item["source"]) for name, item in found.items()}


def test_each_source_is_told(workspace: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    found = settings(capsys, "--attention", "dense", "--confidence", "0.9")
    assert found["experiment.time_budget"] == (11.0, "autoresearch.toml")
    assert found["experiment.corpus"] == ("embedded", "autoresearch.toml, as preset demo")
    assert found["experiment.seed"] == (42, "default")
    assert found["task.policy.name"] == ("greedy", "autoresearch.toml")
    assert found["task.policy.confidence"] == (0.9, "option --confidence")
    assert found["task.budget.hours"] == (8, "autoresearch.toml")
    assert found["task.budget.trials"] == (None, "default")
    assert found["tracker.name"] == ("mlflow", "autoresearch.toml")
    assert found["AUTORESEARCH_BACKEND"] == ("cpu", "environment")
    assert found["AUTORESEARCH_ATTENTION"] == ("dense", "option --attention")
    assert found["AUTORESEARCH_DTYPE"] == ("auto", "default")
    assert {f"experiment.{name}" for name in Settings.model_fields} <= found.keys()


def test_what_a_preset_says_is_told_apart(workspace: Path, capsys) -> None:
    """As `init` writes it, every value is the preset's; one that was edited isn't."""
    text = load_preset("cpu-tinystories").settings.dumps()
    (workspace / "autoresearch.toml").write_text(text)
    sources = {name: source for name, (_, source) in settings(capsys, "--changed").items()}
    assert set(sources.values()) == {"autoresearch.toml, as preset cpu-tinystories"}
    (workspace / "autoresearch.toml").write_text(text.replace("seed = 42", "seed = 43"))
    assert settings(capsys)["experiment.seed"] == (43, "autoresearch.toml")


def test_nothing_secret_is_shown(workspace: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    monkeypatch.setenv(
        "AUTORESEARCH_MIRROR", "https://me:s3cret@mirror.example:8443/hub?sig=s3cret"
    )
    found = settings(capsys)
    assert found["AUTORESEARCH_MIRROR"][0] == "https://mirror.example:8443/hub"
    assert found["HF_TOKEN"] == (HIDDEN, "environment")
    assert found["weights.some_token"] == (HIDDEN, "autoresearch.toml")
    assert "s3cret" not in str(found) + run(capsys, "config")[1]
    assert without_credentials("https://host:port/") == HIDDEN


def test_what_people_read(workspace: Path, capsys) -> None:
    code, out, _ = run(capsys, "config", "--changed")
    assert code == 0 and "time_budget" in out and "seconds of training" in out
    assert "seed" not in out, "that is as by default"
    code, out, _ = run(capsys, "config", "--help")
    assert all(word in out for word in ("option", "environment", "autoresearch.toml", "default"))
    (workspace / "autoresearch.toml").write_text("[experiment]\ntime_bugdet = 3\n")
    code, _, err = run(capsys, "config")
    assert code == 2 and "time_budget" in err


def test_every_variable_that_is_read_is_listed() -> None:
    """But for those that one process of ours sets for another."""
    internal = {"CANDIDATE", "JOB", "SETTINGS"}
    read: set[str] = set()
    for package in ("autoresearch", "backends", "prepare"):
        for path in (ROOT / package).rglob("*.py"):
            read |= set(re.findall(r'"AUTORESEARCH_([A-Z_]+)"', path.read_text(encoding="utf-8")))
    assert read - internal == {
        variable.name.removeprefix("AUTORESEARCH_")
        for variable in VARIABLES
        if variable.name.startswith("AUTORESEARCH_")
    }

"""The command line as tests call it, in a workspace whose harness is a function of theirs."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import backends
from autoresearch import cli
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.init import make_workspace
from autoresearch.pretraining import Pretraining
from backends.hardware import GIB, Hardware
from prepare.settings import Settings

CPU = Hardware("cpu", "acme", "Some CPU", "x86_64", GIB, 8, "", "torch", "2.13", "Linux", ("host",))
Measure = Callable[[Pretraining, MeasureRequest], Replicate]


def make_fake_workspace(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    measure: Measure,
    train: str,
    files: Mapping[str, str] = {},
) -> Path:
    """A workspace with `train` as its train.py, measured by `measure`; it is the current folder."""
    usual = {"program.md": "be bold\n", "autoresearch.toml": Settings().dumps()}
    make_workspace(folder, {"train.py": train, **usual, **files}, "begin")
    enter_fake_workspace(folder, monkeypatch, measure)
    return folder


def enter_fake_workspace(folder: Path, monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    """Make one that was made before the current folder, measured by `measure`."""
    monkeypatch.setattr(Pretraining, "measure", measure)
    monkeypatch.setattr(backends, "make_ready", lambda requested=None: None)
    monkeypatch.setattr(backends, "detected", lambda requested=None: CPU)
    monkeypatch.chdir(folder)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, what was printed, what was said on standard error."""
    code = cli.run([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def git(*arguments: str) -> str:
    """What git prints in the current folder."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()

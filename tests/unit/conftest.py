"""Fixtures of tests that drive a whole loop; what the study is stands in studies.py."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.loop import Loop
from autoresearch.engine.policy import Confirm, Policy
from autoresearch.engine.workspace import Workspace
from tests.unit.studies import TASK, measure


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    root.mkdir()
    (root / "value.py").write_text("VALUE = 1.0\n")
    (root / "other.txt").write_text("mine\n")
    for command in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


@pytest.fixture
def make_loop(repository: Path) -> Callable[..., Loop]:
    def make(policy: Policy | None = None, **more: object) -> Loop:
        workspace = Workspace.open(repository, "test", create=True)
        ledger = Ledger(repository / "results.jsonl")
        options = {"rules": frozenset({"causality"}), "sleep": lambda seconds: None, **more}
        return Loop(
            options.pop("task", TASK),
            workspace,
            ledger,
            measure,
            policy or Confirm(),
            runs=repository / ".autoresearch" / "runs",
            **options,  # type: ignore[arg-type]
        )

    return make

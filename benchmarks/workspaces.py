"""Workspaces to measure the loop in: made as a user makes them, with the settings changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-c", "from autoresearch.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def make_workspace(
    folder: Path, preset: str, settings: Mapping[str, object], more: str = ""
) -> None:
    """`autoresearch init`, then these settings of autoresearch.toml, with `more` at its end."""
    init = [*PROGRAM, "init", str(folder), "--preset", preset]
    subprocess.run(init, cwd=ROOT, env=ENVIRONMENT, check=True)
    file = folder / "autoresearch.toml"
    text = file.read_text(encoding="utf-8")
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {json.dumps(value)}", text)
        if count != 1:
            raise SystemExit(f"{file}: no setting {name}")
    file.write_text(text + more, encoding="utf-8")
    subprocess.run(["git", "commit", "-qam", "Settings to measure"], cwd=folder, check=True)


def command_proposer(script: str) -> list[str]:
    """Options of `run` by which `python SCRIPT --propose` proposes."""
    command = f"{sys.executable} {Path(script).resolve()} --propose"
    return ["--agent", "command", "--agent-option", f"command={command}"]


def trials(folder: Path) -> list[dict[str, Any]]:
    """The trials in a workspace's ledger, the baseline first."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "trial"]

"""The plugin and the settings files, as the real coding agents read them; see test_real_agents.py
on where those are looked for. Each gets an empty home, and no network is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.proposers.agents import agents_found
from autoresearch.init import make_workspace
from autoresearch.mcp_server.clients import edits_for, plugin_folder
from autoresearch.workspace_files import workspace_files
from prepare.settings import Settings
from tests.agents import fake_models
from tests.agents.model_server import ModelServer
from tests.unit.quick_trials import SEED

pytestmark = pytest.mark.agents
PATH = os.environ.get("AUTORESEARCH_AGENT_BIN") or os.environ.get("PATH", "")
FOUND = agents_found({"PATH": PATH})


def ask(home: Path, folder: Path, *command: str, **more: str) -> str:
    """What an agent's command prints; it must end well."""
    if command[0] not in FOUND:
        pytest.skip(f"no {command[0]} here")
    own = str(Path(sys.executable).parent)
    env = {
        "HOME": str(home),
        "PATH": os.pathsep.join([own, PATH, os.environ.get("PATH", "")]),
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        **more,
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "w"
    files = {**workspace_files(tmp_path), "train.py": "X = 1\n", "program.md": "be bold\n"}
    make_workspace(folder, {**files, "autoresearch.toml": Settings().dumps()}, "begin")
    (tmp_path / "home").mkdir()
    return folder


def install(client: str, workspace: Path) -> None:
    for edit in edits_for(client, workspace):
        edit.write()


def test_claude(workspace: Path) -> None:
    home, place = workspace.parent / "home", plugin_folder()
    for part in (place, place / "autoresearch"):
        ask(home, workspace, "claude", "plugin", "validate", "--strict", str(part))
    ask(home, workspace, "claude", "plugin", "marketplace", "add", str(place))
    ask(home, workspace, "claude", "plugin", "install", "autoresearch@autoresearch")
    listed = ask(home, workspace, "claude", "mcp", "list")
    assert "plugin:autoresearch:autoresearch" in listed and "Connected" in listed
    assert "Skills (1)  autoresearch" in ask(
        home, workspace, "claude", "plugin", "details", "autoresearch"
    )


def test_claude_in_a_workspace(workspace: Path) -> None:
    home = workspace.parent / "home"
    install("claude", workspace)
    # A folder that its user trusts, as the first start in it asks.
    trusted = {"projects": {str(workspace): {"hasTrustDialogAccepted": True}}}
    (home / ".claude.json").write_text(json.dumps(trusted))
    listed = ask(home, workspace, "claude", "mcp", "list")
    assert "autoresearch: " in listed and "Connected" in listed, listed


def test_codex(workspace: Path) -> None:
    home = workspace.parent / "home"
    ask(home, workspace, "codex", "plugin", "marketplace", "add", str(plugin_folder()))
    ask(home, workspace, "codex", "plugin", "add", "autoresearch@autoresearch")
    assert "installed, enabled" in ask(home, workspace, "codex", "plugin", "list")
    said = ask(home, workspace, "codex", "mcp", "list", "--json")
    listed = json.loads(said[said.index("\n[") if not said.startswith("[") else 0 :])
    assert listed[0]["name"] == "autoresearch" and listed[0]["tool_timeout_sec"] > 3600


def test_codex_in_a_workspace(workspace: Path) -> None:
    home = workspace.parent / "home"
    install("codex", workspace)
    (home / ".codex").mkdir()
    trust = f'[projects."{workspace}"]\ntrust_level = "trusted"\n'
    (home / ".codex" / "config.toml").write_text(trust)
    shown = ask(home, workspace, "codex", "mcp", "get", "autoresearch")
    assert f"--dir={workspace}" in shown, shown


def test_gemini(workspace: Path) -> None:
    home, plugin = workspace.parent / "home", plugin_folder() / "autoresearch"
    said = ask(home, workspace, "gemini", "extensions", "validate", str(plugin))
    assert "successfully validated" in said
    install("gemini", workspace)
    listed = ask(home, workspace, "gemini", "mcp", "list")
    assert "autoresearch" in listed and "Connected" in listed, listed


def test_claude_measures_an_edit(workspace: Path) -> None:
    """The real client, told by the settings files, a scripted model behind it: a trial is kept."""
    home = workspace.parent / "home"
    (workspace / "train.py").write_text(SEED)
    subprocess.run(["git", "commit", "-qam", "quick"], cwd=workspace, check=True)
    install("claude", workspace)
    settings = json.loads((workspace / ".mcp.json").read_text())
    server = Path(__file__).resolve().parents[1] / "unit" / "mcp_workspace_server.py"
    quick = {"command": sys.executable, "args": [str(server), str(workspace)]}
    quick["env"] = {"PYTHONPATH": str(server.parents[2])}
    settings["mcpServers"]["autoresearch"] = quick
    (workspace / ".mcp.json").write_text(json.dumps(settings))
    trusted = {"projects": {str(workspace): {"hasTrustDialogAccepted": True}}}
    (home / ".claude.json").write_text(json.dumps(trusted))
    edit = SEED.replace("0.04", "0.06")
    script: list[fake_models.Call] = [
        *[("WaitForMcpServers", {})]
        * 20,  # each waits for a few seconds; a busy machine takes more
        ("mcp__autoresearch__champion", {}),
        ("mcp__autoresearch__propose_trial", {"idea": "a larger rate", "on": 0, "edit": edit}),
    ]
    with ModelServer(fake_models.anthropic(script)) as server_of_models:
        model = {"ANTHROPIC_BASE_URL": server_of_models.url, "ANTHROPIC_API_KEY": "dummy"}
        model["MCP_TIMEOUT"] = "240000"
        words = ("-p", "improve it", "--output-format", "json", "--model", "claude-sonnet-4-5")
        ask(home, workspace, "claude", *words, **model)
    asked = json.dumps([body for _, body in server_of_models.requests], default=str)
    assert "MATRIX_LR = 0.04" in asked, "it saw the champion"
    trials = Ledger(workspace / "results.jsonl").trials()
    assert [str(trial.status) for trial in trials] == ["keep", "keep"], asked[-3_000:]
    assert trials[1].description == "a larger rate" and trials[1].proposer == "submitted"

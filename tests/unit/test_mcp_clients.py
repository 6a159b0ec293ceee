"""Telling coding agents of the server: their settings files, and the plugin's manifests."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from autoresearch.commands import mcp as command
from autoresearch.init import make_workspace
from autoresearch.mcp_server import clients
from autoresearch.workspace_files import workspace_files
from prepare.settings import Settings
from tests.unit.command_line import run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "my research"
    files = {**workspace_files(tmp_path), "train.py": "X = 1\n"}
    make_workspace(folder, {**files, "autoresearch.toml": Settings().dumps()}, "begin")
    return folder


def servers(workspace: Path) -> dict[str, dict]:
    gemini = json.loads((workspace / ".gemini/settings.json").read_text())
    return {
        "claude": json.loads((workspace / ".mcp.json").read_text())["mcpServers"],
        "codex": tomllib.loads((workspace / ".codex/config.toml").read_text())["mcp_servers"],
        "gemini": gemini["mcpServers"],
    }


def test_each_agent_is_told_and_keeps_its_settings(workspace: Path, capsys) -> None:
    before = {path: path.read_text() for path in workspace.glob(".c*/*") if path.is_file()}
    for name in command.CLIENTS:
        code, out, _ = run(capsys, "mcp", "--install", name, "--yes", "--dir", workspace)
        assert code == 0 and str(workspace) in out and "git " in out
        again = run(capsys, "mcp", "--install", name, "--yes", "--json", "--dir", workspace)
        assert json.loads(again[1])["written"] == [], "the second time there is nothing to do"
    for name, found in servers(workspace).items():
        server = found["autoresearch"]
        assert server["command"] == sys.executable and f"--dir={workspace}" in server["args"]
        skill = workspace / clients._SKILLS[name] / "autoresearch" / "SKILL.md"
        assert skill.read_text().startswith("---\nname: autoresearch\n")
    claude = json.loads((workspace / ".claude/settings.json").read_text())
    assert claude["enabledMcpjsonServers"] == ["autoresearch"]
    old = json.loads(before[workspace / ".claude/settings.json"])
    assert claude["permissions"]["allow"] == [*old["permissions"]["allow"], "mcp__autoresearch"]
    codex = (workspace / ".codex/config.toml").read_text()
    assert codex.startswith(before[workspace / ".codex/config.toml"]), "comments stay"


def test_nothing_is_written_unasked(workspace: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    arguments = ["mcp", "--install", "claude", "--dir", workspace]
    assert run(capsys, *arguments)[0] == 130
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 2 and "--yes" in out
    assert not (workspace / ".mcp.json").exists()
    code, _, err = run(capsys, "mcp", "--install", "claud", "--dir", workspace)
    assert code == 2 and "'claude'" in err
    code, _, err = run(capsys, "mcp", "--install", "claude", "--yes", "--dir", workspace.parent)
    assert code != 0 and "init" in err


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("claude", ".mcp.json", "{ // mine"),
        ("claude", ".mcp.json", '{"mcpServers": []}'),
        ("codex", ".codex/config.toml", "= 1"),
        ("codex", ".codex/config.toml", '[mcp_servers.autoresearch]\ncommand = "mine"\n'),
        ("codex", ".codex/config.toml", 'mcp_servers = {x = {command = "mine"}}  # inline\n'),
        ("codex", ".codex/config.toml", "mcp_servers = 7\n"),
    ],
)
def test_what_can_not_be_added_to_is_left_as_it_is(
    workspace: Path, capsys, name: str, path: str, text: str
) -> None:
    (workspace / path).write_text(text)
    code, _, err = run(capsys, "mcp", "--install", name, "--yes", "--dir", workspace)
    assert code == 3 and path in err and "by hand" in err
    assert (workspace / path).read_text() == text


def test_the_manifests_agree(capsys) -> None:
    """Validated by the agents' own commands in the smoke tests, where those are installed."""
    out = json.loads(run(capsys, "mcp", "--plugin", "--json")[1])
    folder = Path(out["folder"])
    assert folder == clients.plugin_folder() and len(out["next"]) == len(command.CLIENTS)
    plugin = folder / "autoresearch"
    manifests = [
        json.loads((plugin / name).read_text())
        for name in (
            ".claude-plugin/plugin.json",
            ".codex-plugin/plugin.json",
            "gemini-extension.json",
        )
    ]
    for key in ("name", "version", "description"):
        assert len({manifest[key] for manifest in manifests}) == 1
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert tomllib.loads(project)["project"]["version"] == manifests[0]["version"]
    codex = json.loads((plugin / manifests[1]["mcpServers"]).read_text())
    for document in (manifests[0], codex, manifests[2]):
        server = document["mcpServers"]["autoresearch"]
        assert [server["command"], *server["args"]] == ["autoresearch", "mcp"]
    for name in (".claude-plugin", ".agents/plugins"):
        listed = json.loads((folder / name / "marketplace.json").read_text())["plugins"]
        source = listed[0]["source"]
        path = source if isinstance(source, str) else source["path"]
        assert (folder / path).resolve() == plugin


def test_the_skill_is_one() -> None:
    """As agentskills.io asks: the folder's name, a description of at most 1,024 characters."""
    skill = clients.plugin_folder() / "autoresearch" / "skills" / "autoresearch" / "SKILL.md"
    head = re.match(r"---\n(.*?)\n---\n", skill.read_text(), re.S)
    assert head is not None
    fields = dict(line.split(": ", 1) for line in head[1].splitlines())
    assert fields["name"] == skill.parent.name and 20 < len(fields["description"]) <= 1024

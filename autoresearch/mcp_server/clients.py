"""How coding agents are told of the server: their settings files in a workspace, and a plugin.

    edits = edits_for("claude", workspace)      # what would be written, nothing is yet
    for edit in edits:
        edit.write()
    plugin_folder()                             # for the agents' own install commands

Where each client's syntax was read:

    claude   Claude Code, "Connect to tools via MCP": .mcp.json; "Settings":
             enabledMcpjsonServers, permissions; "Skills": .claude/skills
    codex    Codex, "Model Context Protocol": [mcp_servers.NAME] in .codex/config.toml, whose
             tool_timeout_sec is 60 unless given; "Agent skills": .agents/skills
    gemini   Gemini CLI, "MCP servers": mcpServers in .gemini/settings.json, timeout in
             milliseconds; "Agent skills": .gemini/skills

The names of folders and server are the agents' to read; the command is this installation's own, so
that it is found whatever PATH an agent is started with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare.errors import DataError

NAME = "autoresearch"
CLIENTS = ("claude", "codex", "gemini")
DAY = 86_400  # seconds that a call may take: a trial repeats what looks promising
_SKILLS = {"claude": ".claude/skills", "codex": ".agents/skills", "gemini": ".gemini/skills"}


@dataclass(frozen=True)
class FileEdit:
    """One file as it is to be. `before` is None where there is none yet."""

    path: Path
    before: str | None
    text: str

    @property
    def new(self) -> bool:
        """Does it differ from what is there?"""
        return self.text != self.before

    def write(self) -> None:
        """Write it whole."""
        from autoresearch.study import write_text

        write_text(self.path, self.text)


def edits_for(client: str, root: Path) -> list[FileEdit]:
    """What tells a client of the workspace `root`. Raises DataError for a file it can't read."""
    root = root.resolve()
    command, arguments = sys.executable, ["-m", "autoresearch.cli", "mcp", f"--dir={root}"]
    server: dict[str, Any] = {"command": command, "args": arguments}
    skill = Path(_SKILLS[client], NAME, "SKILL.md")
    edits = [_file(root / skill, (plugin_folder() / NAME / "skills" / NAME / "SKILL.md"))]
    if client == "codex":
        table = {**server, "startup_timeout_sec": 60, "tool_timeout_sec": DAY}
        return [_toml(root / ".codex" / "config.toml", table), *edits]
    if client == "gemini":
        settings = {"mcpServers": {NAME: {**server, "timeout": 1_000 * DAY}}}
        return [_json(root / ".gemini" / "settings.json", settings), *edits]
    allowed = {"enabledMcpjsonServers": [NAME], "permissions": {"allow": [f"mcp__{NAME}"]}}
    return [
        _json(root / ".mcp.json", {"mcpServers": {NAME: server}}),
        _json(root / ".claude" / "settings.json", allowed),
        *edits,
    ]


def plugin_folder() -> Path:
    """The folder that Claude Code and Codex take as a marketplace; the plugin in it is also an
    extension of Gemini CLI's."""
    return Path(__file__).resolve().parent.parent / "agent_plugin"


def plugin_commands() -> list[str]:
    """How each client installs it for every folder of its user."""
    place = plugin_folder()
    return [
        f"claude plugin marketplace add {place} && claude plugin install {NAME}@{NAME}",
        f"codex plugin marketplace add {place} && codex plugin add {NAME}@{NAME}",
        f"gemini extensions install {place / NAME}",
    ]


def _file(path: Path, source: Path) -> FileEdit:
    return FileEdit(path, _read(path), source.read_text(encoding="utf-8"))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _json(path: Path, more: Mapping[str, Any]) -> FileEdit:
    """A JSON file with `more` in it: tables are joined, lists get what they lack."""
    before = _read(path)
    try:
        known = json.loads(before) if before and before.strip() else {}
        text = json.dumps(_joined(known, more), indent=2, ensure_ascii=False) + "\n"
    except ValueError as error:
        raise DataError(
            f"{path} can't be added to: {error}",
            "mend it, or add this by hand: " + json.dumps(more),
        ) from error
    return FileEdit(path, before, before if before and json.loads(text) == known else text)


def _joined(old: Any, new: Any) -> Any:
    """`new` within `old`. Raises ValueError where the two are of different kinds."""
    if isinstance(new, Mapping):
        if not isinstance(old, Mapping):
            raise ValueError(f"a table is expected, this is {old!r}")
        return {
            **old,
            **{
                k: _joined(old[k], v) if k in old and not _is_server(v) else v
                for k, v in new.items()
            },
        }
    if isinstance(new, list):
        if not isinstance(old, list):
            raise ValueError(f"a list is expected, this is {old!r}")
        return [*old, *(item for item in new if item not in old)]
    return new


def _is_server(value: Any) -> bool:
    """Our own entry is replaced whole: arguments of an earlier one must not be joined to it."""
    return isinstance(value, Mapping) and "command" in value


def _toml(path: Path, table: Mapping[str, Any]) -> FileEdit:
    """A TOML file with the server's table at its end; all else stays as it is, comments too."""
    import tomli_w

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    before = _read(path)
    wanted = {"mcp_servers": {NAME: dict(table)}}
    added = tomli_w.dumps(wanted)
    try:
        known = tomllib.loads(before or "")
    except tomllib.TOMLDecodeError as error:
        raise DataError(
            f"{path} is no TOML: {error}", f"mend it, or add by hand:\n{added}"
        ) from error
    servers = known.get("mcp_servers", {})
    there = servers.get(NAME) if isinstance(servers, Mapping) else None
    if there == dict(table) and before is not None:
        return FileEdit(path, before, before)
    if there is not None:
        hint = f"take that table out, or make it this by hand:\n{added}"
        raise DataError(f"{path} has another [mcp_servers.{NAME}]", hint)
    glue = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    text = f"{before or ''}{glue}{added}"
    try:
        fits = tomllib.loads(text) == {**known, "mcp_servers": {**servers, NAME: dict(table)}}
    except (tomllib.TOMLDecodeError, TypeError):
        fits = False
    if not fits:  # such as `mcp_servers = {...}`, to which nothing can be added below
        hint = f"make it tables, [mcp_servers.NAME] each, or add by hand:\n{added}"
        raise DataError(f"{path} has mcp_servers in a form that can't be added to", hint)
    return FileEdit(path, before, text)

"""What `autoresearch init` writes besides train.py, program.md and autoresearch.toml.

    files = workspace_files(cache)    # path inside the workspace -> text

These are the instruction and permission files of common coding agents. Where each client's syntax
was read:

    .claude/settings.json    Claude Code, "Configure permissions"
                             (`/train.py` is relative to the project)
    .codex/config.toml       Codex, "Configuration reference"
                             (project files count once the folder is trusted)
    .gemini/settings.json    Gemini CLI, "Configuration": tools.core is an allow list
    .qwen/settings.json      Qwen Code, "Settings": permissions.allow and permissions.deny
    .cursor/cli.json         Cursor CLI, "Permissions": Shell(), Read(), Write()
                             (Shell() knows a command's first word alone)
    opencode.json            OpenCode, "Permissions": the last matching rule wins
    .aider.conf.yml          aider, "YAML config file"
    .goosehints              goose, which also reads AGENTS.md

They are a convenience, not a fence (AGENTS.md says so to the agent): the harness judges by the
diff and the score.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from string import Template

# Path in the workspace -> template in autoresearch/templates.
AGENT_FILES = {
    "AGENTS.md": "AGENTS.md",
    "CLAUDE.md": "CLAUDE.md",
    ".claude/settings.json": "claude.json",
    ".codex/config.toml": "codex.toml",
    ".gemini/settings.json": "gemini.json",
    ".qwen/settings.json": "qwen.json",
    ".cursor/cli.json": "cursor.json",
    "opencode.json": "opencode.json",
    ".aider.conf.yml": "aider.yml",
    ".goosehints": "goosehints",
    ".gitignore": "gitignore",
}


def workspace_files(cache: Path) -> dict[str, str]:
    """The files for agents. `cache` is the one other folder that commands write to."""
    values = {"cache_toml": json.dumps(str(cache))}
    return {path: _template(name).substitute(values) for path, name in AGENT_FILES.items()}


def seed_text(name: str) -> str:
    """The seed `train.py` or `program.md`."""
    return seed_path(name).read_text(encoding="utf-8")


def seed_path(name: str) -> Path:
    """Where the seed lies: in the wheel, or in the checkout of an editable install.

    Raises FileNotFoundError with both places when the install is broken.
    """
    package = Path(__file__).resolve().parent
    places = (package / "seed" / name, package.parent / name)
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{name} is in neither {places[0]} nor {places[1]}: reinstall autoresearch"
    )


def _template(name: str) -> Template:
    folder = resources.files("autoresearch") / "templates"
    return Template((folder / name).read_text(encoding="utf-8"))

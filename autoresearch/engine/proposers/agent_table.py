"""How each coding agent is called headless: one row per agent, nothing else differs between them.

Flags were compared with `--help` of Claude Code 2.1.197, codex-cli 0.169.0, Gemini CLI 0.61.0,
opencode 1.18.33, Qwen Code 0.15.10 and aider 0.86.2; those of cursor and goose are from their
documentation. An installed program whose help lacks a flag is refused with that flag's name.

Settings are written into a private folder that is gone after the call, never into the scratch one.
They narrow what an agent does by accident; what counts is the diff it leaves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.engine.proposers import formats
from autoresearch.engine.proposers.formats import Report
from autoresearch.engine.proposers.process import Finished

_PROVIDER_KEYS = (
    "OPENAI_API_KEY OPENAI_BASE_URL OPENAI_API_BASE ANTHROPIC_API_KEY ANTHROPIC_BASE_URL "
    "GEMINI_API_KEY GOOGLE_API_KEY GOOGLE_GENERATIVE_AI_API_KEY OPENROUTER_API_KEY "
    "DEEPSEEK_API_KEY GROQ_API_KEY MISTRAL_API_KEY XAI_API_KEY DASHSCOPE_API_KEY OLLAMA_HOST "
    "OLLAMA_API_BASE LM_STUDIO_API_BASE"
)
_READING = ("read_file", "glob", "grep_search", "list_directory")
_POINTER = "Do what the text above says."  # where a flag must have a prompt and stdin has it all


@dataclass(frozen=True)
class Call:
    """One call: `folder` is the scratch copy, `private` holds settings and the prompt's file."""

    folder: Path
    private: Path
    artifacts: tuple[str, ...]
    prompt: str
    model: str | None = None
    dollars: float | None = None
    turns: int = 40

    @property
    def prompt_file(self) -> Path:
        """The prompt as a file."""
        return self.private / "prompt.md"

    def option(self, flag: str, value: object | None) -> list[str]:
        """The flag with its value, nothing when there is no value."""
        return [] if value is None else [flag, str(value)]


@dataclass(frozen=True)
class Agent:
    """A row of the table. `confines` says in words what its settings keep it from."""

    name: str
    programs: tuple[str, ...]
    arguments: Callable[[Call], list[str]]
    parse: Callable[[Finished, Path], Report]
    keys: tuple[str, ...]  # environment variables it needs of ours
    confines: str
    stdin: bool = True  # the prompt goes there
    files: Callable[[Call], Mapping[str, Any]] = field(
        default=lambda call: {}
    )  # name -> text, or JSON
    environment: Callable[[Call], Mapping[str, str]] = field(default=lambda call: {})
    exits: Mapping[int, str] = field(default_factory=dict)
    help: tuple[str, ...] = ("--help",)
    install: str = ""


def _claude_arguments(call: Call) -> list[str]:
    return [
        *("-p", "--output-format", "json", "--tools", "Read,Edit,Grep,Glob"),
        *("--permission-mode", "dontAsk", "--settings", str(call.private / "settings.json")),
        *("--setting-sources", "", "--strict-mcp-config", "--no-session-persistence"),
        *call.option("--max-budget-usd", None if call.dollars is None else f"{call.dollars:.4f}"),
        *call.option("--model", call.model),
    ]


def _claude_files(call: Call) -> dict[str, Any]:
    # "//" starts an absolute path in its rules; only Edit() and Read() rules hold for paths.
    root = "/" + call.folder.as_posix().rstrip("/") if call.folder.drive == "" else "/"
    edits = [f"Edit({root}/{path})" for path in call.artifacts]
    return {"settings.json": {"permissions": {"allow": edits, "defaultMode": "dontAsk"}}}


def _codex_arguments(call: Call) -> list[str]:
    return [
        *("exec", "--json", "-o", str(call.private / "last.txt"), "--sandbox", "workspace-write"),
        *("-C", str(call.folder), "--skip-git-repo-check", "--ephemeral", "--ignore-user-config"),
        *("--ignore-rules", "-c", "sandbox_workspace_write.network_access=false"),
        *("-c", "sandbox_workspace_write.exclude_slash_tmp=true"),
        *("-c", "sandbox_workspace_write.exclude_tmpdir_env_var=true"),
        # What the model runs sees no key of ours.
        *("-c", 'approval_policy="never"', "-c", 'shell_environment_policy.inherit="core"'),
        *call.option("-m", call.model),
    ]


def _gemini_files(call: Call) -> dict[str, Any]:
    """A policy: its system settings must lie in a folder of root's, a policy file may be ours."""
    rules: list[tuple[Any, str, str, int]] = [
        ("*", "", "deny", 1),
        (list(_READING), "", "allow", 50),
    ]
    for path in call.artifacts:
        # A rule each: it refuses nested groups. Its arguments are JSON, keys in order.
        edits = json.dumps(f'"file_path":"[^"]*{re.escape(path)}"')
        rules.append((["replace", "write_file"], f"argsPattern = {edits}\n", "allow", 100))
    return {
        "policy.toml": "\n".join(
            f"[[rule]]\ntoolName = {json.dumps(tools)}\n{pattern}"
            f'decision = "{decision}"\npriority = {priority}\n'
            for tools, pattern, decision, priority in rules
        )
    }


def _qwen_files(call: Call) -> dict[str, Any]:
    return {
        "settings.json": {
            "general": {"enableAutoUpdate": False},
            "privacy": {"usageStatisticsEnabled": False},
            "tools": {"core": [*_READING, "edit", "write_file"]},
        }
    }


def _qwen_arguments(call: Call) -> list[str]:
    return [
        *("--output-format", "json", "--approval-mode", "auto-edit"),
        *("--max-session-turns", str(call.turns), *call.option("--model", call.model)),
        *("-p", _POINTER),
    ]


def _opencode_environment(call: Call) -> dict[str, str]:
    permission = {
        "*": "deny",
        "read": "allow",
        "grep": "allow",
        "glob": "allow",
        "list": "allow",
        "edit": {"*": "deny", **dict.fromkeys(call.artifacts, "allow")},
    }
    return {
        "OPENCODE_PERMISSION": json.dumps(permission),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_SHARE": "1",
        "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
        "OPENCODE_PURE": "1",
    }


def _aider_arguments(call: Call) -> list[str]:
    private = call.private
    files = [part for path in call.artifacts for part in ("--file", path)]
    return [
        *("--message-file", str(call.prompt_file), "--yes-always", "--no-auto-commits"),
        *("--no-dirty-commits", "--no-suggest-shell-commands", "--no-detect-urls"),
        *("--no-check-update", "--no-stream", "--no-pretty", "--map-tokens", "0"),
        *(
            "--no-gitignore",
            "--no-show-release-notes",
            "--no-show-model-warnings",
            "--analytics-disable",
            "--subtree-only",
        ),
        *("--input-history-file", str(private / "input.txt")),
        *("--chat-history-file", str(private / "chat.md")),
        *(*call.option("--model", call.model), *files),
    ]


def _cursor_arguments(call: Call) -> list[str]:
    # The prompt is an argument: Linux allows 128 KiB in one, Windows 32 KiB in all.
    return [
        *("-p", "--force", "--trust", "--output-format", "json", "--sandbox", "enabled"),
        *("--workspace", str(call.folder), *call.option("--model", call.model)),
        call.prompt.encode()[:30_000].decode("utf-8", errors="ignore"),
    ]


def _cursor_files(call: Call) -> dict[str, Any]:
    allow = ["Read(**)", *(f"Write({path})" for path in call.artifacts)]
    permissions = {"allow": allow, "deny": ["Shell(*)"]}
    return {
        "cli-config.json": {"version": 1, "editor": {"vimMode": False}, "permissions": permissions}
    }


def _goose_arguments(call: Call) -> list[str]:
    return [
        *("run", "-i", str(call.prompt_file), "--no-session", "--max-turns", str(call.turns)),
        *("--with-builtin", "developer", *call.option("--model", call.model)),
    ]


def _named(*groups: str) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group.split())


def _rows() -> Sequence[Agent]:
    return (
        Agent(
            name="claude",
            programs=("claude",),
            arguments=_claude_arguments,
            files=_claude_files,
            environment=lambda call: {
                "DISABLE_AUTOUPDATER": "1",
                "DISABLE_TELEMETRY": "1",
                "DISABLE_ERROR_REPORTING": "1",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            },
            parse=formats.result_object,
            keys=_named(
                "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL ANTHROPIC_MODEL",
                "ANTHROPIC_SMALL_FAST_MODEL ANTHROPIC_DEFAULT_HAIKU_MODEL CLAUDE_CONFIG_DIR",
                "CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX",
                "AWS_PROFILE AWS_REGION AWS_BEARER_TOKEN_BEDROCK ANTHROPIC_VERTEX_PROJECT_ID",
                "CLOUD_ML_REGION GOOGLE_APPLICATION_CREDENTIALS",
            ),
            confines="no shell, no network tools; edits of the artifacts alone",
            install="npm install -g @anthropic-ai/claude-code",
        ),
        Agent(
            name="codex",
            programs=("codex",),
            arguments=lambda call: [*_codex_arguments(call), "-"],
            parse=formats.codex_events,
            keys=_named("OPENAI_API_KEY CODEX_API_KEY CODEX_HOME"),
            confines="a shell in its own sandbox: no network, writes in the scratch folder alone",
            help=("exec", "--help"),
            install="npm install -g @openai/codex",
        ),
        Agent(
            name="gemini",
            programs=("gemini",),
            arguments=lambda call: [
                *("-o", "json", "--approval-mode", "auto_edit", "--skip-trust"),
                *("--policy", str(call.private / "policy.toml")),
                *(*call.option("-m", call.model), "-p", _POINTER),
            ],
            files=_gemini_files,
            environment=lambda call: {"GEMINI_TELEMETRY_ENABLED": "false"},
            parse=formats.gemini_object,
            keys=_named(
                "GEMINI_API_KEY GOOGLE_API_KEY GOOGLE_GENAI_USE_VERTEXAI GOOGLE_CLOUD_PROJECT",
                "GOOGLE_CLOUD_LOCATION GOOGLE_APPLICATION_CREDENTIALS GOOGLE_GEMINI_BASE_URL",
            ),
            confines="no shell, no network tools; edits of the artifacts alone",
            exits={
                41: "authentication",
                42: "wrong input",
                44: "its sandbox",
                52: "its configuration",
                53: "too many turns",
                54: "a tool failed",
                55: "untrusted folder",
                130: "interrupted",
            },
            install="npm install -g @google/gemini-cli",
        ),
        Agent(
            name="opencode",
            programs=("opencode",),
            arguments=lambda call: ["run", "--format", "json", *call.option("-m", call.model)],
            environment=_opencode_environment,
            parse=formats.opencode_events,
            keys=_named(
                _PROVIDER_KEYS,
                "OPENCODE_CONFIG OPENCODE_CONFIG_CONTENT OPENCODE_API_KEY",
                "OPENCODE_DISABLE_MODELS_FETCH OPENCODE_MODELS_URL",
            ),
            confines="no shell, no network tools; edits of the artifacts alone",
            help=("run", "--help"),
            install="npm install -g opencode-ai",
        ),
        Agent(
            name="aider",
            programs=("aider",),
            arguments=_aider_arguments,
            parse=formats.aider_text,
            keys=_named(_PROVIDER_KEYS),
            confines="no shell; edits of files it was given or creates",
            stdin=False,
            install="pipx install aider-chat",
        ),
        Agent(
            name="cursor",
            programs=("cursor-agent",),
            arguments=_cursor_arguments,
            files=_cursor_files,
            environment=lambda call: {"CURSOR_CONFIG_DIR": str(call.private)},
            parse=formats.result_object,
            keys=_named("CURSOR_API_KEY CURSOR_API_ENDPOINT"),
            confines="a shell in its own sandbox; writes of the artifacts alone",
            stdin=False,
            install="see cursor.com/cli",
        ),
        Agent(
            name="qwen",
            programs=("qwen",),
            arguments=_qwen_arguments,
            files=_qwen_files,
            environment=lambda call: {
                "QWEN_CODE_SYSTEM_SETTINGS_PATH": str(call.private / "settings.json")
            },
            parse=formats.result_object,
            keys=_named("OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL DASHSCOPE_API_KEY QWEN_HOME"),
            confines="no shell, no network tools; edits inside the scratch folder",
            exits={53: "too many turns", 130: "interrupted"},
            install="npm install -g @qwen-code/qwen-code",
        ),
        Agent(
            name="goose",
            programs=("goose",),
            arguments=_goose_arguments,
            environment=lambda call: {"GOOSE_MODE": "auto", "GOOSE_DISABLE_KEYRING": "1"},
            parse=formats.plain_text,
            keys=_named(_PROVIDER_KEYS, "GOOSE_PROVIDER GOOSE_MODEL GOOSE_API_KEY"),
            confines="nothing: it has a shell",
            stdin=False,
            help=("run", "--help"),
            install="see block.github.io/goose",
        ),
    )


TABLE: Mapping[str, Agent] = {agent.name: agent for agent in _rows()}

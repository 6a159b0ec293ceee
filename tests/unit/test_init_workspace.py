"""A new workspace: its files, its first commit, and what it refuses."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from autoresearch.init import git, make_workspace
from autoresearch.workspace_files import AGENT_FILES, seed_path, seed_text, workspace_files
from prepare.errors import EnvironmentProblem, MissingTool, UsageError
from prepare.settings import tomllib

FILES = {"train.py": "x = 1\n", "deep/er/file.txt": "é\n"}


@pytest.fixture(autouse=True)
def no_identity(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose git knows nobody and has no settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_files_are_committed_byte_for_byte(tmp_path: Path) -> None:
    commit = make_workspace(tmp_path / "w", FILES, "Start")
    folder = tmp_path / "w"
    assert (folder / "deep/er/file.txt").read_bytes() == "é\n".encode()
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "log", "--format=%h %s %an").strip() == f"{commit} Start autoresearch"
    assert sorted(git(folder, "ls-files").split()) == sorted(FILES)
    assert "user.name" not in (folder / ".git/config").read_text()


def test_the_users_identity_is_used_when_there_is_one(tmp_path: Path) -> None:
    subprocess.run(["git", "config", "--global", "user.name", "Ada"], check=True)
    subprocess.run(["git", "config", "--global", "user.email", "ada@example.org"], check=True)
    make_workspace(tmp_path / "w", FILES, "Start")
    assert git(tmp_path / "w", "log", "--format=%an <%ae>").strip() == "Ada <ada@example.org>"


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    make_workspace(tmp_path, FILES, "Start")
    assert (tmp_path / "train.py").exists()


@pytest.mark.parametrize(
    ("present", "words"),
    [("autoresearch.toml", "already a workspace"), ("notes.txt", "not empty")],
)
def test_nothing_is_overwritten(tmp_path: Path, present: str, words: str) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(UsageError, match=words):
        make_workspace(tmp_path, FILES, "Start")
    assert [path.name for path in tmp_path.iterdir()] == [present]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        make_workspace(tmp_path / "w", FILES, "Start")


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingTool, match="git is not installed") as caught:
        make_workspace(tmp_path / "w", FILES, "Start")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "w").exists()


def test_gits_own_words_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no-such-command"):
        git(tmp_path, "no-such-command")


def test_agent_files_are_valid_in_their_own_syntax() -> None:
    files = workspace_files(Path("C:\\cache") / "autoresearch")
    assert set(files) == set(AGENT_FILES)
    for name, text in files.items():
        if name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".toml"):
            config = tomllib.loads(text)
            assert config["sandbox_workspace_write"]["network_access"] is False
    assert "@AGENTS.md" in files["CLAUDE.md"]
    assert "$" not in files[".codex/config.toml"]


def test_agents_may_edit_train_py_and_run_autoresearch_alone() -> None:
    files = workspace_files(Path("/cache"))
    claude = json.loads(files[".claude/settings.json"])["permissions"]
    edits = [rule for rule in claude["allow"] if rule.startswith(("Edit", "Write"))]
    assert edits == ["Edit(/train.py)"]
    assert {"WebFetch", "WebSearch", "Bash(pip:*)"} <= set(claude["deny"])
    opencode = json.loads(files["opencode.json"])["permission"]
    assert opencode["edit"] == {"*": "deny", "train.py": "allow"}
    assert next(iter(opencode["bash"])) == "*" and opencode["bash"]["*"] == "deny"
    cursor = json.loads(files[".cursor/cli.json"])["permissions"]
    assert [rule for rule in cursor["allow"] if rule.startswith("Write")] == ["Write(train.py)"]
    gemini = json.loads(files[".gemini/settings.json"])["tools"]
    assert "run_shell_command" not in gemini["core"]
    assert "web_fetch" not in gemini["core"]


@pytest.mark.parametrize("client", ["claude", "opencode", "gemini", "qwen"])
def test_what_speaks_for_the_human_is_no_agents(client: str) -> None:
    """Cursor's Shell() knows a command's first word alone, Codex' sandbox no commands at all."""
    files = workspace_files(Path("/cache"))
    found = {
        "claude": json.loads(files[".claude/settings.json"])["permissions"]["allow"],
        "opencode": list(json.loads(files["opencode.json"])["permission"]["bash"])[1:],
        "gemini": json.loads(files[".gemini/settings.json"])["tools"]["core"],
        "qwen": json.loads(files[".qwen/settings.json"])["permissions"]["allow"],
    }[client]
    rules = [re.sub(r"^(Bash|run_shell_command)\((.*)\)$", r"\2", rule) for rule in found]
    # Claude's `:*` and Qwen's ` *` match the bare command, too; Gemini's rules are prefixes.
    rules = [re.sub(r"(:\*| \*)$", "*", rule) for rule in rules]
    rules = [f"{rule}*" for rule in rules] if client == "gemini" else rules

    def allowed(words: str) -> bool:
        return any(fnmatch.fnmatchcase(f"autoresearch {words}", rule) for rule in rules)

    for words in ("trial -m idea", "train", "results", "show 3", "log", "status", "notes --digest"):
        assert allowed(words), words
    for words in ("notes add 'do as I say'", "notes edit", "undo 0", "run", "init x", "combine"):
        assert not allowed(words), words


def test_seeds_are_found() -> None:
    assert "build_model" in seed_text("train.py")
    assert "val_bpb" in seed_text("program.md")
    with pytest.raises(FileNotFoundError, match="reinstall"):
        seed_path("nothing.py")

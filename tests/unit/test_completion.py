"""Shell completion: what is offered at TAB, and the scripts in the shells themselves."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from autoresearch import cli, completing
from autoresearch.commands.completion import INSTALL, SHELLS
from tests.unit.command_line import run


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lines of a ledger, one of another kind, one cut short."""
    lines = [{"kind": "study", "tag": "mar5"}]
    for number, status in enumerate(("keep", "discard", "keep")):
        lines.append(
            {"kind": "trial", "id": number, "status": status, "description": f"a: {number}"}
        )
    text = "\n".join(map(json.dumps, lines)) + '\n{"kind": "tri'
    (tmp_path / "results.jsonl").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cli.COMPLETING, "bash_complete")
    return tmp_path


def offered(words: str) -> list[str]:
    """What is offered for the last of these words; a space at the end begins a new one."""
    *before, last = words.split(" ")
    complete = ShellComplete(cli.cli, {}, "autoresearch", cli.COMPLETING)
    return [item.value for item in complete.get_completions(before, last)]


def test_words_that_commands_take(ledger: Path) -> None:
    assert offered("") == list(cli.COMMANDS)
    assert offered("st") == ["status"]
    assert offered("show ") == ["2", "1", "0"], "trials, the latest first"
    assert offered("combine 1 ") == ["2", "1", "0"] and offered("trial --on 1") == ["1"]
    assert "rtx-4090" in offered("init --preset rtx") and "demo" in offered("presets show d")
    assert offered("run --agent c") == ["command", "claude", "codex", "cursor"]
    assert offered("run --policy ") == ["confirm", "greedy"]
    assert "--json" in offered("status --j") and offered("task s") == ["schema"]
    assert offered("no-command ") == list(cli.COMMANDS), "no traceback at TAB"


def test_trials_of_another_folder_and_of_none(ledger: Path, tmp_path: Path, monkeypatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert offered("show ") == []
    assert offered(f"show --dir {ledger} ") == ["2", "1", "0"]


def test_of_a_long_ledger_the_end_alone_is_read(ledger: Path, monkeypatch) -> None:
    read: list[bytes] = []
    usual = json.loads
    monkeypatch.setattr(completing, "MOST_TRIALS", 2)
    monkeypatch.setattr(completing.json, "loads", lambda line: read.append(line) or usual(line))
    assert offered("show ") == ["2", "1"] and len(read) == 3, "the torn line and two trials"


def test_a_key_loads_no_framework(ledger: Path) -> None:
    code = "import sys; from autoresearch import cli\ntry: cli.run([])\nfinally:\n"
    code += "    assert not {'torch', 'mlx', 'numpy', 'pydantic'} & set(sys.modules)"
    env = {**os.environ, cli.COMPLETING: "bash_complete", "COMP_WORDS": "autoresearch show "}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["plain,2", "plain,1", "plain,0"], done.stderr


@pytest.fixture
def env(ledger: Path, tmp_path: Path) -> dict[str, str]:
    """Variables of a shell that finds our program, and is in the ledger's folder."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "autoresearch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m autoresearch.cli "$@"\n')
    program.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if key != cli.COMPLETING}
    return {**env, "PATH": f"{place}{os.pathsep}{env['PATH']}", "TERM": "dumb"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash_itself(env: dict[str, str]) -> None:
    script = (
        'eval "$(autoresearch completion bash)"\n'
        "complete -p autoresearch\n"
        "COMP_WORDS=(autoresearch pres); COMP_CWORD=1\n"
        "_autoresearch_completion autoresearch\n"
        'echo "offered: ${COMPREPLY[*]}"\n'
    )
    command = ["bash", "--noprofile", "--norc", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert "_autoresearch_completion" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "offered: presets", done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_in_fish_itself(env: dict[str, str]) -> None:
    asked = ("pres", "status --js", "init --preset dem", "show ")
    script = "autoresearch completion fish | source\n"
    script += "".join(f"complete -C 'autoresearch {words}'; echo @\n" for words in asked)
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    names, options, presets, trials, _ = done.stdout.split("@\n")
    assert names.startswith("presets\tlist the presets") and names.count("\n") == 1, done.stderr
    assert options == "--json\tJSON on stdout, for programs.\n", "whole, whatever commas are in it"
    assert presets.startswith("demo\t")
    assert [line.split("\t")[0] for line in trials.splitlines()] == ["0", "1", "2"]


# Types words and TAB, then has zsh print the line as it stands.
IN_ZSH = r"""
PROMPT= RPROMPT=; autoload -Uz compinit; compinit -D -u; LISTMAX=1000
eval "$(autoresearch completion zsh)"
tell() { print -r -- "line{$BUFFER}"; BUFFER= }; zle -N tell; bindkey '^X' tell; print rea''dy
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_in_zsh_itself(env: dict[str, str]) -> None:
    import pty

    zsh, terminal = pty.fork()
    if zsh == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], env)
    try:
        os.write(terminal, IN_ZSH.encode())
        until(terminal, "ready\r\n")

        def line(words: str) -> tuple[str, str]:
            os.write(terminal, f"autoresearch {words}\t\x18".encode())
            listed, _, rest = until(terminal, "}").rpartition("line{autoresearch ")
            return rest.partition("}")[0].strip(), listed

        assert line("pres")[0] == "presets"
        assert line("status --js")[0] == "status --json"
        assert line("init --preset dem")[0] == "init --preset demo"
        listed = line("show ")[1]
        assert "2  -- keep a  2" in listed and "1  -- discard a  1" in listed
    finally:
        os.kill(zsh, signal.SIGKILL)
        os.waitpid(zsh, 0)
        os.close(terminal)


def until(terminal: int, mark: str, seconds: float = 60.0) -> str:
    """What a terminal shows, up to this mark."""
    shown, ends_at = "", time.monotonic() + seconds
    while mark not in shown:
        assert select.select([terminal], [], [], ends_at - time.monotonic())[0], shown
        shown += os.read(terminal, 65_536).decode("utf-8", "replace")
    return shown


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(capsys, monkeypatch, shell: str) -> None:
    code, script, _ = run(capsys, "completion", shell)
    assert code == 0 and f"{cli.COMPLETING}={shell}_complete" in script
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    assert run(capsys, "completion")[1] == script
    document = json.loads(run(capsys, "completion", "--json")[1])
    assert document["script"] in script and document["next"] == [INSTALL[shell]]
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_an_unknown_shell_is_told(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, _, err = run(capsys, "completion")
    assert code == 2 and "bash, zsh, fish" in err
    help_text = run(capsys, "completion", "--help")[1]
    assert all(line.split("    ")[0] in help_text for line in INSTALL.values())

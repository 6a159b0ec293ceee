"""What the documents say of the command line is what the command line does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from autoresearch import cli
from autoresearch.commands.task import NO_EDIT
from autoresearch.commands.trial import EXIT_CODES
from autoresearch.commands.verify import DAMAGED
from autoresearch.engine.errors import EngineError
from autoresearch.engine.proposers.base import ProposalRequest
from autoresearch.engine.proposers.command import _message
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.trial import Replicate
from autoresearch.taskfile.scaffold import make_task
from backends.errors import BackendError
from prepare.errors import PrepareError
from tests.unit.command_line import make_fake_workspace

ROOT = Path(__file__).resolve().parents[2]
USAGE = ROOT / "USAGE.md"
DOCUMENTS = [USAGE, ROOT / "README.md", ROOT / "program.md", *sorted(ROOT.glob("tasks/**/*.md"))]
DOCUMENTS += sorted(ROOT.glob("autoresearch/agent_plugin/**/*.md"))
GLOBAL = {"-h", "--help", "--version"}
LINE = 120  # columns of text; a row of a table may be longer


def commands(group: click.Command = cli.cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, groups that do something by themselves too."""
    if not isinstance(group, click.Group) or (path and group.invoke_without_command):
        yield path, group
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            yield from commands(command, f"{path} {name}".strip())


COMMANDS = dict(commands())
OPTIONS = {
    name: {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, command in COMMANDS.items()
}


def code(text: str) -> Iterator[str]:
    """Code in a Markdown text: spans, indented lines, fenced lines that are no Python."""
    for fence in re.findall(r"^```(?!python)\w*\n(.*?)^```", text, re.S | re.M):
        yield from fence.splitlines()
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    yield from re.findall(r"^    (.+)$", text, re.M)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands that a text names, with the options that it gives them."""
    for line in code(text):
        for call in re.findall(r"(?<![\w/.-])autoresearch ([^|&;#>()]+)", line):
            words = [word for word in call.split() if word != "\\"]
            at = next((n for n in (2, 1) if n <= len(words) and " ".join(words[:n]) in COMMANDS), 1)
            given = [w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)]
            yield " ".join(words[:at]), [option for option in given if option not in GLOBAL]


def table(section: str) -> list[list[str]]:
    """The cells of the first table of a section of USAGE.md, its head left out."""
    text = USAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2]
    rows = re.findall(r"^\|(.+)\|$", text.partition("\n## ")[0], re.M)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows[2:]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_are_spelled_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = list(calls(text))
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    for name, options in found:
        if name.startswith("-"):
            continue
        assert name in COMMANDS or name in groups, f"no command autoresearch {name}"
        strange = set(options) - OPTIONS.get(name, set())
        assert not strange, f"autoresearch {name} has no {', '.join(strange)}"
    alone = {span.split()[0] for span in code(text) if re.match("--[a-z]", span)}
    known = GLOBAL.union(*OPTIONS.values())
    assert not alone - known, f"no command has {alone - known}"
    assert found or path.name != "USAGE.md"


def test_every_command_is_named() -> None:
    named = {name for name, _ in calls(USAGE.read_text(encoding="utf-8"))}
    assert not COMMANDS.keys() - named


def test_it_is_short() -> None:
    lines = USAGE.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 250
    assert not [line for line in lines if len(line) > LINE + 8 and not line.startswith("|")]


def kinds(error: type[Any]) -> Iterator[type[Any]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


def test_exit_codes_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli, "main", interrupted)
    errors = [kind for base in (EngineError, PrepareError, BackendError) for kind in kinds(base)]
    known = {0, cli.run([]), DAMAGED, NO_EDIT, *EXIT_CODES.values()}
    rows = {int(number): means for number, means, _ in table("Exit codes")}
    assert rows.keys() == known | {error.exit_code for error in errors}
    for status, number in EXIT_CODES.items():
        assert status in rows[number]
    assert {row[0] for row in table("A workspace: you edit, it decides")} == EXIT_CODES.keys()


def test_a_proposer_is_told_what_is_said() -> None:
    request = ProposalRequest(ROOT, ("a.md",), "program", Digest(), 60.0)
    said = {name for row in table("Be a proposer") for name in re.findall(r"`(\w+)`", row[0])}
    assert said == _message(request, ROOT / "program.md").keys()


# -- JSON ----------------------------------------------------------------------------------------


def lacks(document: Any, path: str) -> bool:
    """Whether `a.b[].c` leads nowhere, in one item of a list at least."""
    for part in re.findall(r"\w+|\[\]", path):
        if part == "[]":
            if not document:
                return True
            document = list(document)
            rest = path.partition("[].")[2]
            return any(lacks(item, rest) for item in document) if rest else False
        if not isinstance(document, dict) or part not in document:
            return True
        document = document[part]
    return False


def last(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    """The document that a command prints, or the last of its lines."""
    capsys.readouterr()
    cli.run([*map(str, args), "--json"])
    text = capsys.readouterr().out
    if not text.startswith('{"event"'):
        return json.loads(text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert all("event" in line for line in lines) and lines[-1]["event"] == "result"
    return lines[-1]


def measure(study: Any, request: Any) -> Replicate:
    return Replicate(request.seed, 1.0, score_id="id", details={"tier": "none"})


def test_fields_are_those_that_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    make_task(folder)
    documents = {"task run": last(capsys, "task", "run", folder, "--once")}
    make_fake_workspace(tmp_path / "w", monkeypatch, measure, "DEPTH = 4\n")
    documents["trial"] = last(capsys, "trial", "-m", "baseline")
    rows = table("What was tried")
    assert len(rows) >= 12
    for command, fields in rows:
        words = command.strip("`").split()[1:]
        name = " ".join(words)
        if name not in documents:
            where = [folder] if words[0] == "task" else ["--dir", folder]
            documents[name] = last(capsys, *words, *where)
        for field in re.findall(r"`([^`]+)`", fields):
            assert not lacks(documents[name], field), f"{command} prints no {field}"
        assert isinstance(documents[name]["next"], list)


def test_a_path_that_leads_nowhere_is_seen() -> None:
    document = {"a": [{"b": 1}, {"c": {"d": None}}], "e": {}}
    assert not lacks(document, "a") and not lacks(document, "e")
    assert lacks(document, "a[].b") and lacks(document, "e.f") and lacks({"a": []}, "a[].b")
    assert not lacks({"c": {"d": None}}, "c.d")

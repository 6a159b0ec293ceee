"""Every shell block of the documentation runs, or is marked with why it can't and still parses.

How a page marks its blocks, in comments that its readers don't see:

- a fenced `sh` block is run, after those above it, in one shell of its page's own;
- `<!-- not run: why -->` before it: the command line parses its `autoresearch` lines instead,
  values too;
- a `text` block after one that ran is what it prints: its lines are found in the output in this
  order, numbers aside. `<!-- differs: why -->` before it: not compared;
- a block with `title="NAME"` is written to that file before the page runs;
- `<!-- continues: PAGE -->` in a page's first lines: it begins in the folder where PAGE ended.

`docs_command` makes the workspaces tiny. README.md, whose blocks are indented, is parsed alone.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from autoresearch import cli
from autoresearch.engine.proposers.base import (
    AGENTS,
    BUILT_IN,
    GROUP,
    ProposerOptions,
    find_proposer,
)
from autoresearch.notify import Notify
from autoresearch.preset import ORDER
from autoresearch.settings_file import read_part
from autoresearch.task_table import read_task
from autoresearch.trackers import Tracking
from autoresearch.weights import Keeping
from prepare.settings import FILE_NAME, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
SECONDS = 600.0  # of one page, on a machine that does much else
MARK = re.compile(r"<!-- (not run|differs|continues): (.+?) -->")
FENCE = re.compile(r"```(\w*)\s*(?:title=\"([^\"]+)\")?\s*$")
OPERATORS = set("();<>|&")


@dataclass(frozen=True)
class Block:
    """One fenced block: `mark` is the word of the comment right before it, "" without one."""

    page: str
    line: int
    language: str
    title: str
    mark: str
    why: str
    text: str

    @property
    def runs(self) -> bool:
        return self.language == "sh" and self.mark != "not run"


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """The fenced blocks of a page. Raises ValueError for one that is never closed."""
    mark = ("", "")
    start: tuple[int, re.Match[str]] | None = None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if start is not None:
            if line.strip() != "```":
                inside.append(line)
                continue
            at, fence = start
            yield Block(page, at, fence[1], fence[2] or "", *mark, "\n".join(inside) + "\n")
            start, inside, mark = None, [], ("", "")
        elif found := FENCE.match(line):
            start = number, found
        elif found := MARK.fullmatch(line.strip()):
            mark = found[1], found[2]
        elif line.strip():
            mark = ("", "")
    if start is not None:
        raise ValueError(f"{page}:{start[0]}: this block is never closed")


@functools.cache
def blocks(page: str) -> tuple[Block, ...]:
    return tuple(blocks_of((DOCS / page).read_text(encoding="utf-8"), page))


def continued(page: str) -> str | None:
    """The page that this one goes on from."""
    head = (DOCS / page).read_text(encoding="utf-8")[:400]
    return next((found[2] for found in MARK.finditer(head) if found[1] == "continues"), None)


# -- Parsing -------------------------------------------------------------------------------------


def calls(text: str) -> Iterator[list[str]]:
    """The arguments of every call of `autoresearch` in shell lines."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
        for at, word in enumerate(words):
            if word != "autoresearch":
                continue
            rest = words[at + 1 :]
            end = next((n for n, each in enumerate(rest) if set(each) <= OPERATORS), len(rest))
            redirected = end < len(rest) and rest[end][0] == ">" and rest[end - 1] == "2"
            yield rest[: end - 1] if redirected else rest[:end]


def parse(args: list[str]) -> click.Context:
    """The context of the command that these arguments call, checked by click but not run.

    Raises click.UsageError; a path that isn't there is no mistake of the call.
    """
    command: click.Command = cli.cli
    context, rest = None, list(args)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command, parent=context, info_name="autoresearch")
        _, below, rest = command.resolve_command(context, rest)
        assert below is not None
        command = below
    return command.make_context(command.name, rest, parent=context)


def check_call(args: list[str], own_presets: set[str]) -> None:
    """Raises AssertionError or click.UsageError for a call that names what doesn't exist."""
    try:
        values = parse(args).params
    except click.exceptions.Exit:
        return  # --help, --version
    except click.BadParameter as error:
        if error.param is not None and isinstance(error.param.type, click.Path):
            return
        raise
    preset = values.get("preset_name") or values.get("preset")
    if args[:2] == ["presets", "show"]:
        preset = values["name"]
    assert preset in (None, "auto", *ORDER, *own_presets), f"there is no preset {preset}"
    for agent in values.get("agents", ()):
        assert agent in (*BUILT_IN, *AGENTS), f"there is no agent {agent}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_what_exists(page: str) -> None:
    own = {Path(block.title).stem for block in blocks(page) if block.title.endswith(".toml")}
    for block in blocks(page):
        if block.language != "sh" or block.runs:
            continue
        for args in calls(block.text):
            try:
                check_call(args, own)
            except click.UsageError as error:
                where = f"docs/{page}:{block.line}: autoresearch {shlex.join(args)}"
                pytest.fail(f"{where}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES)
def test_what_the_prose_names_exists(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    for span in re.findall(r"`(autoresearch [^`]+)`", text):
        call = " ".join(span.split())
        if re.search(r"\b[A-Z]+\b|\|", call):
            continue  # with a word to be filled in
        for args in calls(call):
            try:
                check_call(args, set())
            except click.UsageError as error:
                pytest.fail(f"docs/{page}: {call}: {error.format_message()}")


def test_blocks_of_the_readme_name_what_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = [block.text for block in blocks_of(text, "README.md") if block.language == "sh"]
    indented = re.findall(r"^    (?:\$ )?((?:autoresearch|uv run|python3 -m) .*)$", text, re.M)
    found = [args for part in [*fenced, *indented] for args in calls(part)]
    assert len(found) >= 5
    for args in found:
        check_call(args, set())


@pytest.mark.parametrize(
    "line",
    [
        "autoresearch rnu",
        "autoresearch run --hour 8",
        "autoresearch run --agent claud",
        "autoresearch init x --preset rtx-4909",
        "autoresearch presets show rtx-4909",
        "cd x && autoresearch train --backend cudaa | tee log",
        "autoresearch trial",
    ],
)
def test_a_wrong_line_is_seen(line: str) -> None:
    (args,) = calls(line)
    with pytest.raises((click.UsageError, AssertionError)):
        check_call(args, set())


def test_the_plug_in_of_the_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {block.title: block.text for block in blocks("extend/proposer.md")}
    (tmp_path / "my_proposer.py").write_text(files["my_proposer.py"], encoding="utf-8")
    group = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]
    about = tmp_path / "my_proposer-0.1.dist-info"  # what installing it would leave
    about.mkdir()
    (about / "METADATA").write_text("Name: my-proposer\nVersion: 0.1\n", encoding="utf-8")
    lines = [f"{name} = {value}" for name, value in group[GROUP].items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_proposer("momentum", {"factor": 1.5}).name == "momentum"
    with pytest.raises(ProposerOptions) as error:
        find_proposer("momentum", {"facter": 1.5})
    assert "factor" in error.value.hint


# -- Running -------------------------------------------------------------------------------------


def test_settings_that_pages_show_are_understood(tmp_path: Path) -> None:
    shown = [b for page in PAGES for b in blocks(page) if b.language == "toml" and not b.title]
    assert shown
    for number, block in enumerate(shown):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / FILE_NAME).write_text(block.text, encoding="utf-8")
        read_task(folder / FILE_NAME)
        Settings.load(folder)
        for name, part in (("notify", Notify), ("weights", Keeping), ("tracker", Tracking)):
            read_part(folder / FILE_NAME, name, part)


Reader = Callable[[str], tuple[Path, tuple[str, ...]]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Runs a page once, and those before it: the folder where it ended, each block's output."""
    root = tmp_path_factory.mktemp("docs")
    (root / "bin").mkdir()
    command = root / "bin" / "autoresearch"
    shim = ROOT / "tests" / "smoke" / "docs_command.py"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{shim}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (root / "bin" / "python").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(root / "home"),
        "XDG_CONFIG_HOME": str(root / "home" / ".config"),
        "AUTORESEARCH_CACHE": str(root / "cache"),
        "AUTORESEARCH_OFFLINE": "1",
        "AUTORESEARCH_BACKEND": "cpu",
        "AUTORESEARCH_ATTENTION": "sdpa",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_COMPILE": "0",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "110",
    }
    (root / "home").mkdir()

    @functools.cache
    def read_page(page: str) -> tuple[Path, tuple[str, ...]]:
        before = continued(page)
        folder = read_page(before)[0] if before else root / page.replace("/", "-")
        folder.mkdir(exist_ok=True)
        return run_page(page, folder, root / f"out-{page.replace('/', '-')}", environment)

    return read_page


def run_page(
    page: str, folder: Path, outputs: Path, environment: dict[str, str]
) -> tuple[Path, tuple[str, ...]]:
    """Run the blocks of a page that run; the folder where it ended, and what each printed."""
    outputs.mkdir()
    lines = ["set -e", f"cd {shlex.quote(str(folder))}"]
    running = [block for block in blocks(page) if block.runs]
    for block in blocks(page):
        if block.title:
            place = folder / block.title
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text, encoding="utf-8")
    for number, block in enumerate(running):
        lines += [f"exec > {shlex.quote(str(outputs / str(number)))} 2>&1", block.text]
    lines.append(f"pwd > {shlex.quote(str(outputs / 'end'))}")
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=environment, timeout=SECONDS, check=False
    )
    printed = tuple(
        path.read_text() for n in range(len(running)) if (path := outputs / str(n)).exists()
    )
    if done.returncode:
        block = running[max(len(printed) - 1, 0)]
        pytest.fail(
            f"docs/{page}:{block.line}: exit {done.returncode}\n{block.text}\n{printed[-1]}"
        )
    return Path((outputs / "end").read_text().strip()), printed


def plain(line: str) -> str:
    """A line as it is compared: numbers and the width of columns aside."""
    return re.sub(r"[\d.,]*\d", "0", " ".join(line.split()))


def missing(shown: str, printed: str) -> str:
    """The first line of a page's output that isn't printed in its turn; "" if all are."""
    lines = iter([plain(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        wanted = plain(line)
        if wanted not in ("", "...") and wanted not in lines:
            return line
    return ""


@pytest.mark.skipif(sys.platform != "linux", reason="the pages' folders are those of Linux")
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.runs for b in blocks(page))])
def test_blocks_run_and_print_what_is_shown(page: str, read: Reader) -> None:
    printed = iter(read(page)[1])
    last = ""
    for block in blocks(page):
        if block.runs:
            last = next(printed)
        elif block.language == "sh":
            last = ""
        elif block.language == "text" and block.mark != "differs" and last:
            line = missing(block.text, last)
            assert not line, f"docs/{page}:{block.line}: not printed: {line}\n{last}"


def test_a_line_that_is_not_printed_is_seen() -> None:
    assert not missing("a 1\n...\nb  2.5\n", "a 7\nx\nb 30\n")
    assert missing("a\nb\n", "b\na\n") == "b"


def test_marks_belong_to_the_block_after_them() -> None:
    text = (
        "<!-- not run: x -->\n\n```sh\na\n```\ntext\n```sh\nb\n```\n"
        '```toml title="c.toml"\nd\n```\n'
    )
    found = list(blocks_of(text, "page"))
    assert [(block.mark, block.runs) for block in found] == [
        ("not run", False),
        ("", True),
        ("", False),
    ]
    assert found[2].title == "c.toml"
    with pytest.raises(ValueError):
        list(blocks_of("```sh\na\n", "page"))

"""The human's notes: from the command line to whoever proposes, while a run goes on."""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path

import pytest

from autoresearch.engine.ledger import Ledger
from autoresearch.engine.proposers.base import Proposal, ProposalRequest
from autoresearch.engine.proposers.prompt import instructions
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate, Trial
from autoresearch.pretraining import Pretraining
from autoresearch.study import Study
from autoresearch.taskfile.study import TaskStudy
from tests.unit.command_line import git, make_fake_workspace, run

PROGRAM = "# Aim\n\nbe bold\n\n## Notes\n\n- leave DEPTH alone\n\n## Ideas\n\nfewer blocks\n"


def measure(self: Pretraining, request: MeasureRequest) -> Replicate:
    """The score is what the program says it is."""
    score = float((request.folder / "train.py").read_text().split("=")[1])
    return Replicate(request.seed, score + 1e-5 * request.seed, score_id="id")


class Author:
    """Proposes ever better scores; what it is asked is kept, and `meanwhile` done each time."""

    name = "author"

    def __init__(self, *meanwhile) -> None:
        self.meanwhile, self.asked = list(meanwhile), []

    def propose(self, request: ProposalRequest) -> Proposal:
        self.asked.append(request)
        (request.folder / "train.py").write_text(f"SCORE = {2 - 0.1 * len(self.asked)}\n")
        if self.meanwhile:
            self.meanwhile.pop(0)(request)
        return Proposal("lower", details={})

    def observe(self, trial: Trial) -> None:
        pass


@pytest.fixture
def workspace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a small train.py, and no real harness."""
    return make_fake_workspace(
        tmp_path / "w",
        monkeypatch,
        measure,
        "SCORE = 2\n",
        {"program.md": PROGRAM, ".gitignore": "results.*\n.autoresearch/\n"},
    )


# -- the command -------------------------------------------------------------------------------


def test_printing_and_adding(workspace: Path, capsys) -> None:
    code, out, _ = run(capsys, "notes")
    assert code == 0 and out == "- leave DEPTH alone\n"
    code, out, _ = run(capsys, "notes", "add", "try smaller batches")
    bullet = f"- {datetime.date.today().isoformat()}: try smaller batches"
    assert code == 0 and out == bullet + "\n"
    document = json.loads(run(capsys, "notes", "--json")[1])
    assert document["notes"] == f"- leave DEPTH alone\n{bullet}"
    text = (workspace / "program.md").read_text()
    assert text == PROGRAM.replace("alone\n", f"alone\n{bullet}\n")
    code, out, _ = run(capsys, "notes", "add", "in", "two", "words", "--json")
    assert code == 0 and json.loads(out)["notes"].endswith("in two words")
    elsewhere = workspace.parent
    os.chdir(elsewhere)
    assert run(capsys, "notes", "--dir", "w", "add", "from afar")[0] == 0
    assert "from afar" in (workspace / "program.md").read_text()
    assert git("-C", "w", "status", "--porcelain") == "M program.md", "and nothing is left beside"


def test_what_is_asked_wrongly(workspace: Path, capsys, tmp_path: Path) -> None:
    for arguments, words in (
        (("ad", "x"), "'add'"),
        (("add",), "notes add"),
        (("add", "  "), "says nothing"),
        (("edit", "x"), "no text"),
        (("add", "x", "--digest"), "--digest"),
    ):
        code, out, err = run(capsys, "notes", *arguments)
        assert (code, out) == (2, "") and words in err, arguments
    assert (workspace / "program.md").read_text() == PROGRAM
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "notes", "add", "x", "--dir", tmp_path / "empty")
    assert code == 2 and "init" in err and not list((tmp_path / "empty").iterdir())


def test_editing_opens_the_file_with_a_section_to_write_in(
    workspace: Path, capsys, monkeypatch, tmp_path: Path
) -> None:
    (workspace / "program.md").write_text("# Aim\n")
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; open(sys.argv[-1], 'a').write('- from the editor\\n')")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {editor}")
    code, out, _ = run(capsys, "notes", "edit")
    assert code == 0 and out == "- from the editor\n"
    monkeypatch.setenv("VISUAL", str(tmp_path / "no-such-editor"))
    code, out, err = run(capsys, "notes", "edit")
    assert (code, out) == (4, "") and "no-such-editor" in err and "EDITOR" in err


def test_the_digest_is_what_the_next_proposer_gets(workspace: Path, capsys, monkeypatch) -> None:
    assert "Nothing was tried yet" in run(capsys, "notes", "--digest")[1]
    author = Author()
    monkeypatch.setattr(Study, "proposer", lambda *_: author)
    run(capsys, "run", "--trials", "2")
    run(capsys, "undo")  # back to trial 1
    told = json.loads(run(capsys, "notes", "--digest", "--json")[1])
    plain = run(capsys, "notes", "--digest")[1]
    run(capsys, "run", "--trials", "1")
    given = author.asked[-1].digest
    assert told["history"] == given.to_dict() and given.champion.id == 1
    for text in (told["markdown"], plain):  # the marks of its fence are random each time
        token = text.split("<data ")[1].split(">")[0]
        assert text.replace(token, given.fence.token) == given.markdown()


def test_a_task_has_notes_too(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "t"
    assert run(capsys, "task", "new", folder)[0] == 0
    said = TaskStudy.read(folder / "task.yaml")._program()
    assert run(capsys, "notes", "add", "be short", "--dir", folder)[0] == 0
    told = TaskStudy.read(folder / "task.yaml")._program()
    assert told.notes.endswith("be short") and told.text == said.text != ""
    assert "Nothing was tried yet" in run(capsys, "notes", "--digest", "--dir", folder)[1]
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} <= {".gitignore"}


# -- while a run goes on -----------------------------------------------------------------------


def test_the_next_proposal_reads_notes_anew(workspace: Path, capsys, monkeypatch) -> None:
    path = workspace / "program.md"
    author = Author(
        lambda _: run(capsys, "notes", "add", "try smaller batches"),
        lambda _: path.write_text("# Aim\n\nbe careful\n"),
        lambda _: path.unlink(),
    )
    monkeypatch.setattr(Study, "proposer", lambda *_: author)
    code, _, err = run(capsys, "run", "--trials", "4")
    assert code == 0, err
    notes = [request.notes for request in author.asked]
    assert notes[0] == "- leave DEPTH alone" and notes[1].endswith("try smaller batches")
    assert notes[2:] == ["", ""]
    programs = [" ".join(request.program.split()) for request in author.asked]
    assert programs[0] == programs[1] == "# Aim be bold ## Ideas fewer blocks"
    assert programs[2:] == ["# Aim be careful", ""]
    prompt = instructions(author.asked[1])
    assert prompt.count("smaller batches") == prompt.count("leave DEPTH alone") == 1
    assert "win over everything else" in prompt
    assert not path.exists(), "what the human did stays done"


@pytest.mark.parametrize("branch", ["main", "autoresearch/mar5"])
def test_the_humans_edit_is_neither_refused_nor_lost(
    workspace: Path, capsys, monkeypatch, branch: str
) -> None:
    path = workspace / "program.md"
    author = Author(*[lambda _: path.write_text(path.read_text() + "more\n")] * 2)
    monkeypatch.setattr(Study, "proposer", lambda *_: author)
    path.write_text(PROGRAM + "before\n")
    if branch != "main":
        git("switch", "-qc", branch)
    code, out, err = run(capsys, "run", "--trials", "2", "--tag", "mar5")
    assert code == 0 and out.count(" keep ") >= 2, err
    assert path.read_text() == PROGRAM + "before\nmore\nmore\n"
    assert git("status", "--porcelain") == "M program.md"
    if branch != "main":
        assert "SCORE = 1.8" in (workspace / "train.py").read_text(), "the checkout followed"
    assert git("show", "autoresearch/mar5:program.md") == PROGRAM.strip(), "no trial holds it"
    assert run(capsys, "verify")[0] == 0


def test_an_agents_edit_of_the_program_is_rejected(workspace: Path, capsys, monkeypatch) -> None:
    def obey_me(request: ProposalRequest) -> None:
        (request.folder / "program.md").write_text("obey me\n")

    author = Author(obey_me)
    monkeypatch.setattr(Study, "proposer", lambda *_: author)
    assert run(capsys, "run", "--trials", "2")[0] == 0
    first, second = Ledger(workspace / "results.jsonl").trials()[1:]
    assert str(first.status) == "rejected" and "program.md" in first.reason
    assert str(second.status) == "keep"
    assert (workspace / "program.md").read_text() == PROGRAM
    assert "obey me" not in author.asked[1].program + author.asked[1].notes

"""`autoresearch trial --edit`: an edit that is handed in, whole, as a patch or as blocks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from autoresearch.engine.ledger import Ledger
from autoresearch.submitted import place
from tests.unit.command_line import git, make_fake_workspace, run
from tests.unit.quick_trials import SEED, measure

PATCH = """--- a/train.py
+++ b/train.py
@@ -1,5 +1,5 @@
 import prepare

-MATRIX_LR = 0.04
+MATRIX_LR = 0.06
 DEPTH = 4
"""
BLOCKS = """train.py
<<<<<<< SEARCH
DEPTH = 4
=======
DEPTH = 5
>>>>>>> REPLACE
"""


@pytest.fixture
def workspace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_fake_workspace(tmp_path / "w", monkeypatch, measure, SEED)


def submit(capsys, monkeypatch, edit: str, *more: object) -> tuple[int, dict]:
    stdin = io.TextIOWrapper(io.BytesIO(edit.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    code, out, _ = run(capsys, "trial", "-m", "an idea", "--json", "--edit", "-", *more)
    return code, json.loads(out.splitlines()[-1] if '"event"' in out else out)


def test_each_form_is_measured_and_the_checkout_is_left_alone(
    workspace: Path, capsys, monkeypatch
) -> None:
    mine = "# what I am at\n" + SEED
    (workspace / "train.py").write_text(mine)
    branch = git("branch", "--show-current")
    code, result = submit(capsys, monkeypatch, PATCH, "--on", 0, "--predict", "-0.02")
    assert code == 0 and result["trial"]["status"] == "keep", result
    assert result["trial"]["proposer"] == "submitted" and result["trial"]["predicted"] == -0.02
    code, result = submit(capsys, monkeypatch, BLOCKS, "--on", 1)
    assert code == 10 and result["trial"]["id"] == 2, result
    assert "DEPTH = 5" in git("show", "refs/autoresearch/" + result_tag() + "/2:train.py")
    whole = SEED.replace("0.04", "0.07")
    code, result = submit(capsys, monkeypatch, whole)
    assert code == 0 and result["train.py"] == "not touched"
    assert (workspace / "train.py").read_text() == mine
    assert git("branch", "--show-current") == branch


def result_tag() -> str:
    return str(Ledger(Path("results.jsonl")).records("study")[-1]["tag"])


@pytest.mark.parametrize(
    ("edit", "more", "words"),
    [
        (PATCH, ["--on", 3], "trial 3, and the champion is trial 0"),
        (PATCH.replace("DEPTH = 4", "DEPTH = 9"), [], "doesn't fit"),
        (BLOCKS.replace("DEPTH = 4", "NOWHERE = 1"), [], "does not occur"),
        (SEED, [], "nothing was edited"),
        (PATCH.replace("train.py", "program.md"), [], "doesn't fit"),
        (PATCH.replace("train.py", "../../outside.py"), [], "doesn't fit"),
    ],
)
def test_what_can_not_be_measured_is_told_and_not_recorded(
    workspace: Path, capsys, monkeypatch, edit: str, more: list, words: str
) -> None:
    code, result = submit(capsys, monkeypatch, edit, *more)
    assert code == 2 and words in result["error"]["message"], result
    assert len(Ledger(workspace / "results.jsonl").trials()) <= 1


def test_a_patch_of_other_files_is_rejected(workspace: Path, capsys, monkeypatch) -> None:
    for name in ("more.py", "notes.txt"):
        head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
        code, result = submit(capsys, monkeypatch, f"{PATCH}{head}@@ -0,0 +1 @@\n+X = 1\n")
        assert code == 11 and result["rule"] == "not-an-artifact" and name in result["message"]
    link = PATCH + (
        "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n"
        "@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n"
    )
    code, result = submit(capsys, monkeypatch, link)
    assert code == 11, result
    assert not Ledger(workspace / "results.jsonl").trials()


def test_a_refused_edit_is_kept_in_its_folder(workspace: Path, capsys, monkeypatch) -> None:
    code, result = submit(capsys, monkeypatch, SEED.replace("DEPTH = 4", "DEPTH = ("))
    assert code == 11 and "syntax" in result["trial"]["reason"]
    assert len(list(workspace.glob(".autoresearch/runs/*/0001/change.diff"))) == 1


def test_a_program_that_begins_like_a_line_of_a_patch_is_a_program(tmp_path: Path) -> None:
    place(tmp_path, b"index = 3\n")
    assert (tmp_path / "train.py").read_bytes() == b"index = 3\n"


def test_on_needs_an_edit(workspace: Path, capsys) -> None:
    code, _, err = run(capsys, "trial", "-m", "x", "--on", "1")
    assert code == 2 and "--edit" in err

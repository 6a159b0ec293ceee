"""The user's files follow the champion in a move that can be cut anywhere, and spares edits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.engine.errors import UncommittedChanges
from autoresearch.engine.git import Entry, open_repository
from autoresearch.taskfile.exchange import exchange
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.model import load
from autoresearch.taskfile.repository import Repository
from autoresearch.taskfile.tree import EXCHANGE, MainTree

TASK = """\
id: demo
artifacts: {include: "*.txt"}
mutator: {type: search}
objective: {}
scorer: {command: score}
"""
OLD = {"a.txt": "1", "b.txt": "2", "gone.txt": "3"}
NEW = {"a.txt": "10", "b.txt": "20", "new.txt": "4"}


@pytest.fixture
def tree(tmp_path: Path) -> tuple[MainTree, str]:
    """A tree with OLD, and the commit of NEW."""
    for name, text in {**OLD, "task.yaml": TASK, "other.md": "mine"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "b.txt").chmod(0o755)
    place, task = Place.of(tmp_path / "task.yaml"), load(tmp_path / "task.yaml")
    repository = Repository(place)
    repository.begin(place.programs(task))
    git = open_repository(repository.root)
    found = MainTree(place, task, git)
    head = git.commit_of("HEAD") or ""
    found.begin(head)
    entries: dict[str, Entry | None] = {
        name: Entry("100644", git.write_blob(text.encode())) for name, text in NEW.items()
    }
    tree_id = git.write_tree(head, {**entries, "gone.txt": None})
    return found, git.write_commit(tree_id, head, "better")


def texts(tree: MainTree) -> dict[str, str]:
    return {path.name: path.read_text() for path in tree.place.folder.glob("*.txt")}


def test_it_follows_and_keeps_modes_and_what_is_no_artifact(tree):
    main, better = tree
    assert main.follow(better) == "" and texts(main) == NEW
    assert os.stat(main.place.folder / "b.txt").st_mode & 0o111
    assert (main.place.folder / "other.md").read_text() == "mine"
    assert main.follow(better) == "" and main.recover() == ""
    main.refuse_edits()


@pytest.mark.parametrize("name", ["a.txt", "gone.txt", "new.txt"])
def test_an_edit_keeps_all_files_where_they_are(name, tree):
    main, better = tree
    (main.place.folder / name).write_text("mine")
    assert main.follow(better) == f"{name} was edited meanwhile"
    assert texts(main) == {**OLD, name: "mine"}
    with pytest.raises(UncommittedChanges, match=name):
        main.refuse_edits()


def test_a_link_in_place_of_an_artifact_is_not_followed(tree, tmp_path):
    main, better = tree
    (main.place.folder / "a.txt").unlink()
    (main.place.folder / "a.txt").symlink_to("other.md")
    assert "a.txt was edited" in main.follow(better)
    assert (main.place.folder / "other.md").read_text() == "mine"


@pytest.mark.parametrize("done", range(5))
def test_a_move_of_which_some_was_done_is_finished_later(done, tree, monkeypatch):
    main, better = tree

    def cut(self, moves):
        exchange([[fresh, self.place.folder / path] for fresh, path in moves[:done]])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MainTree, "_exchange", cut)
        with pytest.raises(KeyboardInterrupt):
            main.follow(better)
    assert (texts(main) == NEW) == (done == 4), "two files, one removal, a new file"
    assert main.recover() == "" and texts(main) == NEW
    assert main.follow(better) == "" and not (main.place.work / "tree.new").exists()


def test_orders_that_were_cut_short_move_nothing(tree):
    main, _ = tree
    orders = json.dumps([[None, str(main.place.folder / "a.txt")]]).encode()
    command = [sys.executable, "-I", "-S", str(EXCHANGE)]
    assert subprocess.run(command, input=orders[:-1], capture_output=True).returncode
    assert texts(main) == OLD
    assert subprocess.run(command, input=orders, capture_output=True).returncode == 0
    assert "a.txt" not in texts(main)


def test_what_cant_be_put_in_place_is_told_and_done_later(tree):
    main, better = tree
    (main.place.folder / "new.txt").mkdir()
    assert main.follow(better) == "new.txt was edited meanwhile"
    (main.place.folder / "new.txt").rmdir()
    (main.place.work / "tree.new").write_text("in the way")
    with pytest.raises(OSError):
        main.follow(better)
    (main.place.work / "tree.new").unlink()
    assert main.recover() == "" and texts(main) == NEW

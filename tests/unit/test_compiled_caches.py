"""Compile caches between runs: what is kept of which process, and who begins with it."""

import pytest

from prepare import compiled


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A train module whose training process left something in each cache."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "train.py"
    script.write_text("x = 1")
    for part in compiled.VARIABLES.values():
        file = tmp_path / "run" / compiled.FOLDER_NAME / part / "ab" / "kernel"
        file.parent.mkdir(parents=True)
        file.write_text(part)
    compiled.keep_compiled(tmp_path / "run", script)
    return script


def found(work) -> set[str]:
    return {path.read_text() for path in work.rglob("kernel")}


def test_the_same_program_begins_with_what_it_left(kept, tmp_path):
    compiled.begin_warm(tmp_path / "next", [kept])
    assert found(tmp_path / "next") == {"inductor", "triton", "cuda"}


def test_another_begins_with_the_first_that_is_known(kept, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("x = 2")
    compiled.begin_warm(tmp_path / "alone", [other])
    assert found(tmp_path / "alone") == set()
    compiled.begin_warm(tmp_path / "vouched", [other, kept])
    assert found(tmp_path / "vouched") == {"inductor", "triton", "cuda"}


def test_who_answers_begins_with_kernels_and_no_graphs(kept, tmp_path):
    compiled.begin_warm(tmp_path / "answer", [kept], compiled.KERNELS)
    assert found(tmp_path / "answer") == {"triton", "cuda"}

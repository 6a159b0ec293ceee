"""torch.compile's precompiled header: made once, by the harness, and read by candidates."""

import subprocess
from pathlib import Path

import pytest

from backends import compiled_headers

codecache = pytest.importorskip("torch._inductor.codecache")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The harness's folder, and torch's function in the place of which one writes down a call."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    place = compiled_headers.folder()
    place.mkdir(parents=True)

    def precompile(header: str) -> str:
        path = Path(codecache._HEADER_DIR) / header
        if path.is_relative_to(place) and not path.exists():
            raise PermissionError(str(path))
        return str(path)

    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, str(tmp_path / "own"))
    monkeypatch.setattr(codecache, "_precompile_header", precompile)
    return place


def use() -> None:
    compiled_headers.use.cache_clear()
    compiled_headers.use()


def test_a_header_of_the_harness_is_taken_and_locked_elsewhere(shared, tmp_path):
    (shared / "a.h").touch()
    (shared / compiled_headers.MADE).touch()
    use()
    assert codecache._precompile_header("a.h") == str(shared / "a.h")
    assert Path(codecache._HEADER_LOCK_DIR).is_relative_to(tmp_path / "own")


def test_one_that_the_harness_did_not_make_is_made_in_the_own_folder(shared, tmp_path):
    (shared / compiled_headers.MADE).touch()
    use()
    assert codecache._precompile_header("b.h") == str(tmp_path / "own" / "b.h")


def test_what_was_not_finished_is_not_used(shared, tmp_path):
    (shared / "a.h").touch()
    use()
    assert codecache._precompile_header("a.h") == str(tmp_path / "own" / "a.h")


def test_they_are_made_once_and_again_after_a_failure(shared, monkeypatch):
    runs = []

    def fail(command, **_):
        runs.append(command)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(compiled_headers.subprocess, "run", fail)
    compiled_headers.make_once()
    assert not (shared / compiled_headers.MADE).exists()

    def make(command, **_):
        shared.mkdir()
        runs.append(command)

    monkeypatch.setattr(compiled_headers.subprocess, "run", make)
    compiled_headers.make_once()
    compiled_headers.make_once()
    assert [Path(command[-1]) for command in runs] == [shared, shared]


def test_what_a_killed_process_left_is_made_anew(shared, monkeypatch):
    (shared / "a.h.gch").write_text("half")

    def make(command, **_):
        assert not (shared / "a.h.gch").exists()
        shared.mkdir()

    monkeypatch.setattr(compiled_headers.subprocess, "run", make)
    compiled_headers.make_once()
    assert (shared / compiled_headers.MADE).exists()


def test_another_compiler_or_environment_has_another_folder(monkeypatch, tmp_path):
    first = compiled_headers.folder()
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    second = compiled_headers.folder()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert len({first, second, compiled_headers.folder()}) == 3


def test_vector_instructions_that_worked_are_not_tried_out_again(shared, monkeypatch):
    cpu_vec_isa = pytest.importorskip("torch._inductor.cpu_vec_isa")
    tried = []

    def check(self, code: str) -> bool:
        tried.append(str(self))
        return False

    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", check)
    wide, narrow = cpu_vec_isa.VecAVX512(), cpu_vec_isa.VecAVX2()
    (shared / compiled_headers.INSTRUCTIONS).write_text(str(wide))
    use()
    assert not wide.check_build("") and tried == [str(wide)]  # unfinished: nothing is believed
    (shared / compiled_headers.MADE).touch()
    use()
    assert wide.check_build("") and not narrow.check_build("")
    assert tried == [str(wide), str(narrow)]

"""A workspace's settings: read, written, and refused with a reason."""

from pathlib import Path

import pytest

from prepare.errors import UsageError
from prepare.settings import FILE_NAME, Settings


def write(folder: Path, text: str) -> Path:
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    return folder


def test_what_is_written_is_read_again(tmp_path):
    settings = Settings(preset="mine", vocab_size=512, token_budget=1000)
    assert Settings.load(write(tmp_path, settings.dumps())) == settings


def test_a_path_is_meant_from_the_file_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    relative = Settings.load(write(tmp_path, '[experiment]\ncorpus = "data/stories.txt"\n'))
    assert relative.corpus == str(tmp_path / "data" / "stories.txt")
    named = Settings.load(write(tmp_path, '[experiment]\ncorpus = "tinystories"\n'))
    assert named.corpus == "tinystories"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[experiment]\nvocab_size = 'many'\n", "experiment.vocab_size"),
        ("[experiment]\nvocab_sizes = 512\n", "experiment.vocab_sizes"),
        ("[experiment]\ntime_budget = 0\n", "experiment.time_budget"),
        ("[experiment\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, words):
    with pytest.raises(UsageError, match=words) as caught:
        Settings.load(write(tmp_path, text))
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_folder_without_settings_says_how_to_get_some(tmp_path):
    with pytest.raises(UsageError) as caught:
        Settings.load(tmp_path)
    assert "autoresearch init" in caught.value.hint


def test_a_folder_beside_the_file_is_a_path_and_a_mistyped_name_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "stories").mkdir()
    beside = Settings.load(write(tmp_path, '[experiment]\ncorpus = "stories"\n'))
    assert beside.corpus == str(tmp_path / "stories")
    mistyped = Settings.load(write(tmp_path, '[experiment]\ncorpus = "tinystorys"\n'))
    assert mistyped.corpus == "tinystorys"


def test_a_file_of_another_encoding_is_no_traceback(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe[experiment]")
    with pytest.raises(UsageError, match="not valid TOML"):
        Settings.load(tmp_path)

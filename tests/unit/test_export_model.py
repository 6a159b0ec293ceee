"""The champion's model as a folder that model hubs and their tools read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from autoresearch.hub_folder import dtypes, write_hub_folder
from autoresearch.hub_tokenizer import BOS_NAME, byte_names, hub_tokenizer
from autoresearch.model_folder import WEIGHTS_NAME, Weights, describe
from prepare.errors import CorruptFile
from prepare.settings import Settings
from prepare.tokenizer import Tokenizer
from tests.unit.command_line import make_fake_workspace, run
from tests.unit.test_sample import TABLE
from tests.unit.test_weights import RUN, SMALL, measure

pytestmark = pytest.mark.usefixtures("unprobed")
PROGRAM = (
    "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "WIDTH = 3\nNAME = 'é'\nENDS = {'.'}\n@dataclass\nclass Size:\n    depth: int\n" + TABLE
)


@pytest.fixture
def exported(tmp_path: Path, cache: Path) -> Path:
    """A table in which y follows every token, exported."""
    settings = Settings(corpus_bytes=40_000, eval_bytes=2_000, vocab_size=512, max_seq_len=32)
    folder = tmp_path / "run"
    folder.mkdir()
    table = np.zeros((512, 512), np.float32)
    table[:, ord("y")] = 1.0
    save_file({"table.weight": table}, folder / WEIGHTS_NAME)
    describe(folder, PROGRAM.encode(), settings, {"val_bpb": 1.5, **RUN})
    write_hub_folder(Weights.open(folder), tmp_path / "hub")
    return tmp_path / "hub"


def test_the_folder_holds_what_tools_look_for(exported: Path) -> None:
    assert load_file(exported / "model.safetensors")["table.weight"].shape == (512, 512)
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    sizes = ("vocab_size", "max_position_embeddings", "bos_token_id", "num_parameters")
    assert [config[name] for name in sizes] == [512, 32, 511, 1234]
    assert config["train_py_constants"] == {"WIDTH": 3, "NAME": "é", "ENDS": "{'.'}"}
    assert config["dtypes"] == dtypes(exported / "model.safetensors") == ["F32"]
    assert (exported / "train.py").read_text(encoding="utf-8") == PROGRAM
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "text-generation"
    assert "Permission is hereby granted" in (exported / "LICENSE").read_text(encoding="utf-8")
    assert Weights.open(exported).file.name == "model.safetensors"


@pytest.mark.parametrize("header", [b"", b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]"])
def test_what_are_no_weights_is_a_corrupt_file(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(header)
    with pytest.raises(CorruptFile, match="no safetensors file"):
        dtypes(tmp_path / "model.safetensors")


def test_the_cards_own_code_loads_it(exported: Path) -> None:
    """A stranger does what README.md says, in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.S)
    environment = {**os.environ, "AUTORESEARCH_BACKEND": "cpu", "AUTORESEARCH_COMPILE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=exported,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "y"), done.stderr


TEXTS = (
    "",
    "Once upon a time, there was a café.\n\n  It's 12345 o'clock!\r\n",
    "naïve \u00e9\u0301 日本語 😀👩‍👩‍👧 \u0000\u00ad\u200b\ufeff",
    "aaaaaaaaaaaaaaaaaaaaaaa" * 3,
    "   \n\n\t x  \n y   ",
)


@pytest.mark.parametrize("vocab_size", [256, 512, 2048])
def test_its_tokenizer_gives_the_same_ids(vocab_size: int, shared_data: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    lines = []
    for path in sorted(shared_data.glob("*.txt")):
        if path.name != "SOURCES.md":
            lines += path.read_text(encoding="utf-8", errors="replace")[:20_000].split("\n\n")
    own = Tokenizer.train(lines, vocab_size)
    hub = tokenizers.Tokenizer.from_str(json.dumps(hub_tokenizer(own)))
    assert hub.token_to_id(BOS_NAME) == own.bos
    for text in (*TEXTS, *lines):
        assert hub.encode(text).ids == [own.bos, *own.encode(text)], text
        assert hub.decode(hub.encode(text).ids) == text


def test_byte_names_are_distinct_and_printable() -> None:
    names = byte_names()
    assert len(set(names)) == 256 and all(name.isprintable() and name != " " for name in names)
    assert (names[ord("a")], names[ord(" ")], names[ord("\n")]) == ("a", "Ġ", "Ċ")  # GPT-2's


def test_the_command_writes_the_champion_and_nothing_over(
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"autoresearch.toml": SMALL.dumps()}
    monkeypatch.setattr("autoresearch.hub_folder.dtypes", lambda file: [])  # theirs are no tensors
    make_fake_workspace(tmp_path / "w", monkeypatch, measure, "DEPTH = 1\n", files)
    code, _, err = run(capsys, "export", "--hf-dir", tmp_path / "hub")
    assert code == 2 and "no trial yet" in err
    Path("train.py").write_text("DEPTH = 4\n")
    run(capsys, "trial", "-m", "deeper")
    code, out, err = run(capsys, "export", "--hf-dir", tmp_path / "hub", "--json")
    assert code == 0, err
    assert "config.json" in json.loads(out)["files"]
    assert Weights.open(tmp_path / "hub").facts["trial"] == 1
    code, _, err = run(capsys, "export", "--hf-dir", tmp_path / "hub")
    assert code == 2 and "not empty" in err
    code, _, err = run(capsys, "export", "--hf-dir", tmp_path / "x", "--to", tmp_path / "y")
    assert code == 2 and "name one of them" in err

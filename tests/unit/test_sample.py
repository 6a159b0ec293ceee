"""Text from weights: what is drawn, by whom, and what a program can't do meanwhile."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import backends
from autoresearch.engine.sandbox import choose
from autoresearch.model_folder import WEIGHTS_NAME, Weights, describe
from prepare.errors import CandidateError, UsageError
from prepare.sample import Drawing, write_text
from prepare.settings import Settings
from prepare.tokenizer import Tokenizer
from tests.unit.command_line import make_fake_workspace, run
from tests.unit.test_weights import RUN, SMALL, measure

pytestmark = pytest.mark.usefixtures("unprobed")
LENGTH = 32
# What comes next depends on the token alone, as a table says.
TABLE = """
from backends import nn

class Table(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.table = nn.Embedding(spec.vocab_size, spec.vocab_size)

    def forward(self, tokens):
        assert tokens.shape[1] <= 32
        return self.table(tokens)

def build_model(spec):
    return Table(spec)

def train(model, run):
    pass
"""
FORWARD = "        return self.table(tokens)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights of a table in which the alphabet goes on to z and \u00e9, where the document ends."""
    table = np.zeros((256, 256), np.float32)
    for now, then in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True):
        table[ord(now), ord(then)] = 9.0
    for now, then in ((ord("z"), 0xC3), (0xC3, 0xA9), (0xA9, 255)):
        table[now, then] = 9.0
    save_file({"table.weight": table}, tmp_path / WEIGHTS_NAME)
    (tmp_path / "train.py").write_text(TABLE)
    return tmp_path


def write(folder: Path, prompt: str, backend: str = "cpu", **more: object) -> list[str]:
    tokenizer = Tokenizer.train([], 256)
    weights, script = folder / WEIGHTS_NAME, folder / "train.py"
    pieces = write_text(
        script,
        tokenizer,
        LENGTH,
        weights,
        prompt=prompt,
        drawing=Drawing(0.0),
        backend=backend,
        sandbox=choose("auto"),
        **more,  # type: ignore[arg-type]
    )
    return list(pieces)


@pytest.mark.parametrize("backend", ["cpu", "mlx"])
def test_a_model_writes_on_to_the_end_of_a_document(folder: Path, backend: str) -> None:
    """The prompt is longer than the context, and a letter of two bytes comes in one piece."""
    if backend == "mlx" and importlib.util.find_spec("mlx") is None:
        pytest.skip("needs mlx")
    pieces = write(folder, "-" * 50 + "u", backend)
    assert pieces == ["v", "w", "x", "y", "z", "\u00e9"]


def test_what_a_program_does_wrong_is_an_error_of_its_own(folder: Path) -> None:
    """It can't read what it wasn't given, and what it answers is looked at."""
    secret = folder.with_name(folder.name + "-secret")
    secret.write_text("hidden")
    reading = f"        raise ValueError(open({str(secret)!r}).read())"
    (folder / "train.py").write_text(TABLE.replace(FORWARD, reading))
    with pytest.raises(CandidateError, match="-secret") as told:
        write(folder, "a", hidden=(secret,))
    assert "hidden" not in told.value.message
    (folder / "train.py").write_text(TABLE.replace(FORWARD, FORWARD + " * float('nan')"))
    with pytest.raises(CandidateError, match="NaN or infinite"):
        write(folder, "a")
    with pytest.raises(CandidateError, match="no answer in"):
        write(folder, "a", seconds=0.01)


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))

    def draws(drawing: Drawing, n: int = 4000) -> Counter[int]:
        random = np.random.default_rng(drawing.seed)
        return Counter(drawing.draw(logits, random) for _ in range(n))

    plain = draws(Drawing(1.0))
    assert all(abs(plain[i] / 4000 - p) < 0.03 for i, p in enumerate((0.5, 0.3, 0.15, 0.05)))
    assert plain == draws(Drawing(1.0)) != draws(Drawing(1.0, seed=1))
    assert set(draws(Drawing(1.0, top_k=2))) == {0, 1}
    assert draws(Drawing(0.5))[0] > plain[0] + 400
    assert set(draws(Drawing(0.0), 50)) == {0}
    for wrong in ({"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}):
        with pytest.raises(UsageError):
            Drawing(**wrong)  # type: ignore[arg-type]


def test_the_command_reads_a_folder_of_weights(
    folder: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "select", lambda requested=None: None)
    settings = Settings(corpus_bytes=40_000, eval_bytes=2_000, vocab_size=256, max_seq_len=LENGTH)
    describe(folder, TABLE.encode(), settings, {"val_bpb": 1.5, **RUN})
    assert Weights.open(folder).facts["val_bpb"] == 1.5
    common = ("sample", "--weights", folder, "--prompt", "w", "--temperature", 0)
    # Escape sequences of a prompt, or of a text, don't reach the terminal.
    code, out, err = run(capsys, *common[:4], "\x1b[2Jw", *common[5:])
    assert (code, out) == (0, "wxyz\u00e9\n"), err
    code, out, _ = run(capsys, *common, "--tokens", 2, "--json")
    found = json.loads(out)
    assert (code, found["text"], found["val_bpb"], found["trial"]) == (0, "xy", 1.5, None)
    code, _, err = run(capsys, *common, "7")
    assert code == 2 and "name one of them" in err


def test_a_trials_text_stays_hidden_and_a_prompt_is_text(
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in its trial, where the corpus is somebody's own folder."""
    text = tmp_path / "own text"
    text.mkdir()
    files = {"autoresearch.toml": SMALL.model_copy(update={"corpus": str(text)}).dumps()}
    make_fake_workspace(tmp_path / "w", monkeypatch, measure, "DEPTH = 1\n", files)
    Path("train.py").write_text("DEPTH = 4\n")
    run(capsys, "trial", "-m", "deeper")
    seen: dict[str, object] = {}

    def written(*_: object, **named: object) -> Iterator[str]:
        seen.update(named)
        yield "a text"

    monkeypatch.setattr(backends, "select", lambda requested=None: None)
    monkeypatch.setattr("autoresearch.weights.weights_of", lambda study, n: Weights(text, {}))
    monkeypatch.setattr(Weights, "tokenizer", None)
    monkeypatch.setattr(Weights, "max_seq_len", LENGTH)
    with monkeypatch.context() as patch:
        patch.setattr("prepare.sample.write_text", written)
        code, out, err = run(capsys, "sample")
    assert (code, out, seen["hidden"]) == (0, "a text\n", (text,)), err
    with pytest.raises(UsageError, match="no text"):
        write(tmp_path, "\udcff")

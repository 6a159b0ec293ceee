"""The candidate's process, seen from inside: what an error is called, what an answer may be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prepare import child

V, T = 8, 4


def kind_of(code: str) -> str:
    try:
        exec(compile(code, "train.py", "exec"), {"torch": torch})
    except (Exception, SystemExit) as error:  # noqa: BLE001 - each is asked for its kind
        return child._kind_of(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import not_installed_anywhere", "import_error"),
        ("from os import not_there", "import_error"),
        ("def broken(:", "syntax_error"),
        ("  x = 1", "syntax_error"),
        ("raise RuntimeError('no model today')", "exception"),
        ("raise FloatingPointError('the loss is nan')", "nan"),
        ("raise MemoryError('too wide')", "out_of_memory"),
        ("torch.empty(1 << 46)", "out_of_memory"),
        ("raise SystemExit(0)", "exit"),
    ],
)
def test_an_error_has_a_kind(monkeypatch, code, kind):
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    assert kind_of(code) == kind


class FakeChannel:
    """Asks for two rows, then for no more; keeps what it is told."""

    def __init__(self) -> None:
        ask = {"kind": "ask", "slot": 0, "rows": 2, "length": T}
        self.messages = [{"kind": "load"}, ask, {"kind": "end"}]
        self.told: list[str] = []

    def receive(self) -> dict:
        return self.messages.pop(0)

    def send(self, kind: str, **fields: object) -> None:
        self.told.append(kind)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: logits, ""),
        (lambda logits: logits[:, :, :3], r"\(2, 4, 8\).*not \(2, 4, 3\) in float32"),
        (lambda logits: logits[:1], r"not \(1, 4, 8\) in float32"),
        (lambda logits: logits.double(), r"not \(2, 4, 8\) in float64"),
    ],
)
def test_an_answer_has_the_shape_and_a_dtype_of_logits(monkeypatch, change, words):
    model = lambda tokens: change(torch.zeros(*tokens.shape, V))  # noqa: E731
    arrays = {"int32": np.zeros((2, 2 * T), np.int32), "uint8": np.ones((2, 2 * T * V * 4), "u1")}
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setattr(child, "_hello", lambda *_, **__: None)
    monkeypatch.setattr(child, "_restore", lambda *_: (model, SimpleNamespace(vocab_size=V)))
    monkeypatch.setattr(child, "shared_array", lambda address, shape, dtype: arrays[dtype])
    about = {"questions": "", "answers": "", "shape": [2, 2 * T], "answer_bytes": 0}
    channel = FakeChannel()
    if words:
        with pytest.raises(child.InvalidLogits, match=words) as caught:
            child._serve_answers(channel, about, {"phase": ""})
        assert child._kind_of(caught.value) == "invalid_output"
        assert channel.told == ["ready"]
    else:
        child._serve_answers(channel, about, {"phase": ""})
        assert channel.told == ["ready", "answered"]
        assert not arrays["uint8"][0].any() and arrays["uint8"][1].all()

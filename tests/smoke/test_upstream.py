"""A script in upstream's style: imports upstream's names, scores itself, prints the summary."""

import pytest

from prepare.experiment import run_experiment
from prepare.outcome import Failure, Result
from prepare.settings import Settings

SCRIPT = """
import math
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb

tokenizer = Tokenizer.from_directory()
vocab_size = tokenizer.get_vocab_size()
assert tokenizer.decode(tokenizer.encode("once upon", prepend=None)) == "once upon"
assert tokenizer.encode(["a"], prepend=tokenizer.get_bos_token_id())[0][0] == vocab_size - 1


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, idx, targets=None, reduction="mean"):
        logits = self.table(idx)
        if targets is None:
            return logits
        return F.cross_entropy(
            logits.view(-1, vocab_size), targets.view(-1), ignore_index=-1, reduction=reduction
        )


model = Model()
loader = make_dataloader(tokenizer, 4, MAX_SEQ_LEN, "train")
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
x, y, epoch = next(loader)
start, step = time.time(), 0
while time.time() - start < TIME_BUDGET:
    loss = model(x, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    x, y, epoch = next(loader)
    step += 1
val_bpb = evaluate_bpb(model, tokenizer, 4)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {time.time() - start:.1f}")
print(f"num_steps:        {step}")
print(f"total_tokens_M:   {step * 4 * MAX_SEQ_LEN / 1e6:.6f}")
"""


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    text = "<|endoftext|>".join(f"the cat number {n} sat on the mat." * 3 for n in range(200))
    (corpus / "train.txt").write_text(text)
    (corpus / "valid.txt").write_text(text[:8000])
    return Settings(
        corpus=str(corpus), vocab_size=256, max_seq_len=64, time_budget=1.5, eval_bytes=4000
    )


def test_it_runs_as_it_is_and_is_marked_unverified(tmp_path, settings):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    outcome = run_experiment(script, settings, run_dir=tmp_path / "run")
    assert isinstance(outcome, Result), outcome
    assert not outcome.verified
    assert 0.1 < outcome.val_bpb < 4.0
    assert outcome.tokens > 0
    assert outcome.num_steps > 0


def test_one_that_prints_no_number_has_none(tmp_path, settings):
    script = tmp_path / "train.py"
    script.write_text("from prepare import evaluate_bpb\nprint('done')\n")
    outcome = run_experiment(script, settings, run_dir=tmp_path / "run")
    assert isinstance(outcome, Failure)
    assert outcome.kind == "invalid_output"

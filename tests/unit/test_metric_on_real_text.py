"""val_bpb on real text: every byte once, whatever the vocabulary, the context or the batch size."""

import math
from pathlib import Path

import numpy as np
import pytest

from prepare import evaluate as evaluation
from prepare.dataset import prepare_dataset
from prepare.settings import Settings

EVAL_BYTES = 20_000


@pytest.mark.parametrize("name", ["tinystories-valid-head.txt", "multilingual-ud.txt"])
@pytest.mark.parametrize(("vocab_size", "max_seq_len"), [(256, 512), (600, 100), (4096, 256)])
def test_a_uniform_model_scores_exactly(
    shared_data: Path, cache: Path, monkeypatch, name, vocab_size, max_seq_len
):
    settings = Settings(
        corpus=str(shared_data / name),
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        eval_bytes=EVAL_BYTES,
    )
    dataset = prepare_dataset(settings)
    model_vocab = dataset.tokenizer.vocab_size
    expected = dataset.val_tokens * math.log2(model_vocab) / dataset.val_bytes
    assert dataset.val_bytes >= EVAL_BYTES

    def uniform(questions):
        for question in questions:
            yield np.full((*question.shape, model_vocab), 2.5, dtype=np.float32)

    rows = dataset.val.read_all()
    for size in (1, 3, len(rows)):
        monkeypatch.setattr(evaluation, "question_rows", lambda *_, size=size: size)
        score, _ = evaluation.evaluate(
            rows,
            dataset.tokenizer.token_bytes,
            "float32",
            uniform,
            uniform,
            np.random.default_rng(size),
        )
        assert score.val_bpb == pytest.approx(expected, abs=1e-9)
        assert score.bytes == dataset.val_bytes
        assert score.tokens == dataset.val_tokens

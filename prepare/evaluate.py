"""The whole evaluation: which rows are asked in which order, the score, and the probes.

It knows candidates only as two functions from questions to answers, so that it can be tested
with a model written in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from prepare.hidden import TARGETS, HiddenComparison, HiddenTargets, plan_hidden
from prepare.probes import Comparison, Probe, ProbeReport, plan_probes
from prepare.score import Score, Tally, rows_per_question

# Takes questions, each (n, L) int32 tokens, and yields for each its logits (n, L, V).
Ask = Callable[[list[np.ndarray]], Iterator[np.ndarray]]

# Rows that are asked again in changed form, in as many questions as they fill: at least three, and
# beyond those at most a quarter of all.
PROBED_ROWS, PROBED_BATCHES, PROBED_SHARE = 48, 3, 4


def question_rows(n_rows: int, length: int, vocab_size: int) -> int:
    """Rows of one question: what an answer buffer holds, but at least a dozen questions.

    With few questions the probes would repeat most of the work.
    """
    return max(1, min(rows_per_question(length, vocab_size), n_rows // 12))


def evaluate(
    rows: np.ndarray,
    token_bytes: np.ndarray,
    compute_dtype: str,
    first: Ask,
    second: Ask,
    random: np.random.Generator,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Score, ProbeReport]:
    """Score `first` on every row once, and check its answers with `second`'s.

    Args:
        rows: (N, T+1) validation tokens. token_bytes: (V,) int32, 0 for special tokens.
        compute_dtype: the dtype of the candidate's arithmetic, which sets the probes' tolerance.
        first, second: two fresh processes with the same weights that can't speak to each other.
        random: for the secret order. progress: called with (questions done, questions in all).

    Raises InvalidAnswer for answers that are no logits of a causal model.
    """
    size = question_rows(len(rows), rows.shape[1] - 1, len(token_bytes))
    order = random.permutation(len(rows))
    groups = [order[start : start + size] for start in range(0, len(rows), size)]
    questions = [rows[group, :-1].astype(np.int32) for group in groups]
    n_probed = max(PROBED_BATCHES, min(-(-PROBED_ROWS // size), len(groups) // PROBED_SHARE))
    probed = [int(batch) for batch in random.permutation(len(groups))[:n_probed]]
    n_probes = 3 * len(probed) + min(TARGETS, len(rows)) // size

    tally = Tally(rows, token_bytes)
    originals: dict[int, np.ndarray] = {}
    for index, logits in enumerate(first(questions)):
        tally.add(groups[index], logits)
        if index in probed:
            originals[index] = np.array(logits)
        progress(index + 1, len(questions) + n_probes)
    score = tally.score()

    probes: list[Probe | HiddenTargets] = [
        *plan_probes(questions, probed, random),
        *plan_hidden(rows, tally.nats, size, random),
    ]
    probes = [probes[index] for index in random.permutation(len(probes))]
    comparison = Comparison(compute_dtype)
    hidden = HiddenComparison(compute_dtype, rows, tally.nats)
    answers = second([probe.tokens for probe in probes])
    for index, (probe, logits) in enumerate(zip(probes, answers, strict=True)):
        if isinstance(probe, HiddenTargets):
            hidden.check(probe, logits)
        else:
            comparison.check(probe, originals, logits)
        progress(len(questions) + index + 1, len(questions) + len(probes))
    comparison.add("hidden target", hidden.deviation(), hidden.violation())
    return score, comparison.report()

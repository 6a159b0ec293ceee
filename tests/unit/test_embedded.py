"""The embedded corpus: one derivation per text, exact entropy, and room above it for a model."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import math
import os
import re
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from prepare import embedded
from prepare.embedded import Ambiguous, NotAStory, bits_of, entropy_per_byte, generate, stories
from prepare.embedded.chooser import TOTAL, Options, Reader, falling, rule, zipf
from prepare.embedded.words import LISTS, article, counted, listed, number

HELD_OUT_BYTES = 60_000


def test_scorer_finds_every_choice_from_the_text_alone() -> None:
    """The reader demands exactly one fitting option at each choice, so equality is the proof."""
    for index in range(1500):
        story = generate(7, index)
        assert bits_of(story.text) == story.bits


def test_probabilities_of_every_short_text_of_a_grammar_add_up_to_one() -> None:
    names = {"animal": zipf("cat|dog"), "more": rule([".", " and more."], {})}
    pattern = rule(["A [animal][more]", "The [animal].", "Nothing."], names, weights=(2, 1, 1))
    texts = [f"A {x}{y}" for x in ("cat", "dog") for y in (".", " and more.")]
    texts += ["The cat.", "The dog.", "Nothing."]
    total = 0.0
    for text in texts:
        reader = Reader(text)
        reader.form(pattern, {})
        assert reader.at == len(text)
        total += 2**-reader.bits
    assert total == pytest.approx(1.0, abs=1e-12)


def test_options_that_begin_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match="'ball' is the beginning of 'balloon'"):
        zipf("ball|kite|balloon")
    with pytest.raises(Ambiguous, match="all fit"):
        Reader("Anna and Bob").among(["Anna", "Anna and"])


def test_weights_add_up_and_fall_with_the_rank() -> None:
    for name, options in LISTS.items():
        assert sum(options.weights) == TOTAL, name
        assert len(options.table) == TOTAL
        assert list(options.weights) == sorted(options.weights, reverse=True), name
        assert sum(2**-bits for bits in options.bits) == pytest.approx(1.0, abs=1e-12)
    assert min(Options([str(i) for i in range(10)], falling(10)).weights) >= 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda text: text[:-1], "expected"),
        (lambda text: text + " More.", "goes on after the end"),
        (lambda text: text.replace("The end.", "The End."), "no option fits|expected"),
        (lambda text: "X" + text, "byte 0"),
    ],
)
def test_what_the_grammar_cannot_write_is_refused(change, where: str) -> None:
    with pytest.raises(NotAStory, match=where if where != "expected" else None):
        bits_of(change(generate(0, 3).text))


def test_a_wrong_total_or_a_wrong_place_is_refused() -> None:
    """Answers cost no bits, so a wrong one has probability zero."""
    seen = 0
    for index in range(400):
        text = generate(1, index).text
        match = re.search(r'do you have\?" "(\w+)', text)
        if match and match.group(1) != "Ten":
            seen += 1
            wrong = text[: match.start(1)] + "Ten" + text[match.end(1) :]
            with pytest.raises(NotAStory):
                bits_of(wrong)
    assert seen > 20


def test_same_text_on_every_platform_and_version() -> None:
    """The digest changes with the grammar only: then VERSION must go up."""
    text = "\n".join(generate(42, index).text for index in range(200))
    assert (embedded.VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == DIGEST


DIGEST = (1, "551270a15d066632")


def test_hash_randomisation_changes_nothing() -> None:
    code = "from prepare.embedded import generate; print(generate(3, 5).text)"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": str(seed),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert told == {generate(3, 5).text + "\n"}


def test_splits_seeds_and_indices_share_no_story() -> None:
    texts = [story.text for story in stories(0, 2_000_000)]
    texts += [story.text for story in stories(0, 500_000, split="validation")]
    texts += [story.text for story in stories(1, 500_000)]
    assert len(set(texts)) == len(texts)
    with pytest.raises(ValueError, match="train or validation"):
        generate(0, 0, split="test")


def test_lengths_cover_short_and_longer_than_a_row() -> None:
    told = list(stories(5, 1_500_000))
    sizes = sorted(len(story.text) for story in told)
    assert sum(sizes) >= 1_500_000
    assert sum(sizes[:-1]) - 1_500_000 < sizes[-1]
    assert 300 < sizes[0] < 1200
    assert sizes[len(sizes) // 2] < 2500
    assert sizes[-1] > 8000
    assert all(story.text.isascii() and story.text.endswith("The end.") for story in told)
    assert all("\n\n" not in story.text and "  " not in story.text for story in told)
    assert sum(story.text.count("The end.") for story in told) == len(told)


def test_vocabulary_is_of_several_hundred_words_and_skewed() -> None:
    counts: dict[str, int] = defaultdict(int)
    for story in stories(2, 500_000):
        for word in re.findall(r"[a-z']+", story.text):
            counts[word] += 1
    assert len(counts) > 700
    top = sorted(counts.values(), reverse=True)
    assert sum(top[:50]) > 0.35 * sum(top)


def test_words() -> None:
    assert [number(n) for n in (0, 1, 19, 20, 42)] == [
        "no",
        "one",
        "nineteen",
        "twenty",
        "forty-two",
    ]
    assert counted(1, "cherries") == "one cherry"
    assert counted(2, "cups of flour") == "two cups of flour"
    assert counted(1, "pinches of salt") == "one pinch of salt"
    assert article("owl") == "an owl"
    assert [listed(list(text)) for text in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


# The floor against what needs no long memory.


@pytest.fixture(scope="module")
def split_texts() -> tuple[str, str, float]:
    """Two megabytes to learn from, stories held out, and the floor of the latter."""
    train = "\n".join(story.text for story in stories(0, 2_000_000))
    held_out = list(stories(0, HELD_OUT_BYTES, split="validation"))
    return train, "\n".join(story.text for story in held_out), entropy_per_byte(held_out)


def test_floor_is_in_the_range_of_easy_natural_text(split_texts: tuple[str, str, float]) -> None:
    assert 0.2 < split_texts[2] < 0.8
    assert entropy_per_byte(stories(9, 400_000)) == pytest.approx(split_texts[2], rel=0.06)


def witten_bell(train: np.ndarray, test: np.ndarray, alphabet: int, order: int) -> list[float]:
    """Total bits of `test` under interpolated n-gram models of order 0 to `order`.

    p_k(s|c) = (n(c s) + t(c) p_k-1(s|c')) / (n(c) + t(c)), t the number of kinds that followed c
    (Bell, Cleary, Witten: Text Compression, 1990); p_-1 is uniform over the alphabet. Symbols are
    small integers; contexts of each length get numbers, those of length k + 1 from those of k.
    """
    both = np.concatenate([train, test]).astype(np.int64)
    context = np.zeros(len(both), np.int64)
    asked = np.arange(len(train) + order, len(both))
    p, bits = np.full(len(asked), 1.0 / alphabet), []
    for k in range(order + 1):
        grams, gram = np.unique(context * (both.max() + 1) + both, return_inverse=True)
        parents = np.zeros(len(grams), np.int64)
        parents[gram] = context
        counts = np.bincount(gram[k : len(train)], minlength=len(grams))
        totals = np.bincount(parents, counts)[context[asked]]
        kinds = np.bincount(parents, counts > 0)[context[asked]]
        mixed = (counts[gram[asked]] + kinds * p) / np.maximum(totals + kinds, 1)
        p = np.where(totals > 0, mixed, p)
        bits.append(-float(np.log2(p).sum()))
        context = np.concatenate([[len(grams)], gram[:-1]])  # nothing comes before the first
    return bits


def numbered(*texts: Sequence) -> list[np.ndarray]:
    """The texts' symbols as small integers, the same one for the same symbol."""
    numbers: dict = {}
    return [np.array([numbers.setdefault(s, len(numbers)) for s in text]) for text in texts]


def test_the_model_is_the_formula_of_the_book() -> None:
    """By hand: after "abac" of three letters, "b" has p_0 = (1 + 3/3) / (4 + 3) and so on."""
    bits = witten_bell(*numbered("abac", "ab"), 3, 1)
    order_0 = (1 + 3 / 3) / (4 + 3)
    order_1 = (1 + 2 * order_0) / (2 + 2)
    assert bits == pytest.approx([-math.log2(order_0), -math.log2(order_1)])


def test_no_byte_ngram_comes_near_the_floor(split_texts: tuple[str, str, float]) -> None:
    train, test, floor = split_texts
    best = min(witten_bell(*numbered(train, test), 128, 6)) / len(test)
    assert best > 1.5 * floor, f"best of orders 0 to 6: {best:.3f} bits per byte, floor {floor:.3f}"


def tokens(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r" ?\w+|[^\w]", text))


def test_no_word_ngram_comes_near_the_floor(split_texts: tuple[str, str, float]) -> None:
    """A word never seen costs the escape and one of 100,000: generous, as it is spelt for free."""
    train, test, floor = split_texts
    numbers = numbered(tokens(train), tokens(test))
    best = min(witten_bell(*numbers, 100_000, 5)) / len(test)
    assert best > 1.5 * floor, f"best of orders 0 to 5: {best:.3f} bits per byte, floor {floor:.3f}"


def test_no_compressor_comes_near_the_floor(split_texts: tuple[str, str, float]) -> None:
    """Bits that the held-out text adds after the training text."""
    train, test, floor = split_texts

    def added(compress) -> float:
        both, alone = compress((train + "\n" + test).encode()), compress(train.encode())
        return 8 * (len(both) - len(alone)) / len(test)

    sizes = {
        "bz2": added(lambda data: bz2.compress(data, 9)),
        "lzma": added(lambda data: lzma.compress(data, preset=6)),
        "zlib": added(lambda data: zlib.compress(data, 9)),
    }
    assert min(sizes.values()) > 1.5 * floor, f"{sizes}, floor {floor:.3f}"


def test_facts_stated_long_ago_are_asked_later() -> None:
    """In some stories a thing is asked for more than 1,500 bytes after it was put away."""
    far = 0
    for story in stories(3, 600_000):
        for asked in re.finditer(r'"Where is the (\w+ \w+)\?"', story.text):
            stated = story.text.find(f"wanted to hide a {asked.group(1)}")
            far += 0 <= stated < asked.start() - 1500
    assert far > 10

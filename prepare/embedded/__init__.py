"""The `embedded` corpus: children's stories from our own grammar, of exactly known entropy.

    for story in stories(seed=0, n_bytes=16_000_000):            # offline, any size, any platform
        story.text, story.bits
    floor = entropy_per_byte(stories(seed=0, n_bytes=400_000, split="validation"))

`bits` is -log2 of the probability with which the grammar writes that very text. A text has one
derivation only (see `chooser`), so no model can average fewer bits on stories it has not seen:
bits over bytes is the floor of val_bpb. Names, places, totals, orders and answers that follow
from what was told cost nothing, but only a model that looks far enough back can know them.
Every story ends with `The end.`, so its length is part of the text.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prepare.embedded.chooser import Ambiguous, NotAStory, Reader, Writer
from prepare.embedded.story import tell

__all__ = [
    "SPLITS",
    "VERSION",
    "Ambiguous",
    "NotAStory",
    "Story",
    "bits_of",
    "entropy_per_byte",
    "generate",
    "stories",
]

VERSION = 1
"""Counts up with every change of grammar or vocabulary: the texts then differ."""

SPLITS = ("train", "validation")


class Story(NamedTuple):
    """A text of ASCII characters, and -log2 of its probability under the grammar."""

    text: str
    bits: float


def generate(seed: int, index: int, split: str = "train") -> Story:
    """The story number `index` of a stream; each split of each seed is a stream of its own."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it can be {' or '.join(SPLITS)}")
    key = hashlib.sha256(f"embedded {VERSION} {split} {seed} {index}".encode()).digest()
    writer = Writer(random.Random(int.from_bytes(key, "big")))
    tell(writer)
    return Story(writer.text, writer.bits)


def stories(seed: int, n_bytes: int, split: str = "train") -> Iterator[Story]:
    """Whole stories in order until they hold at least `n_bytes` bytes."""
    total, index = 0, 0
    while total < n_bytes:
        story = generate(seed, index, split)
        total, index = total + len(story.text), index + 1
        yield story


def bits_of(text: str) -> float:
    """-log2 of a story's probability, found from its text alone.

    Raises NotAStory where the grammar can't write the text, Ambiguous if it could in two ways.
    """
    reader = Reader(text)
    tell(reader)
    if reader.at != len(text):
        raise NotAStory(f"byte {reader.at}: text goes on after the end of the story")
    return reader.bits


def entropy_per_byte(told: Iterable[Story]) -> float:
    """Bits per byte of these stories: what a perfect model of the grammar would score on them."""
    bits, size = 0.0, 0
    for story in told:
        bits, size = bits + story.bits, size + len(story.text)
    return bits / size

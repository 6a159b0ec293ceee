"""Choices that the text itself reveals: one grammar, told by a Writer or read back by a Reader.

    def weather(teller):                     # a grammar is a function of a Teller
        teller.line(rule("It was [colour] outside.", "The sky turned [colour]."), {})

A grammar emits text through four methods only: `say` (no choice), `pick` (a word), `among`
(one of a few strings) and `line` (a sentence pattern). Each choice puts its own option on the
page before the next choice is made, and no option of one choice is the beginning of another.
So the text read so far decides the next choice: a text has one derivation at most, its
probability is the product of the choices' probabilities, and `bits` is exactly -log2 of it.
`Writer` draws the choices from a seeded generator; `Reader` recovers them from a text, and
raises if it finds none or more than one.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

DRAW_BITS = 12
TOTAL = 1 << DRAW_BITS
_LOG2 = tuple(math.log2(n) if n else 0.0 for n in range(TOTAL + 1))


class NotAStory(ValueError):
    """The text is not one that the grammar can write; says where it leaves it."""


class Ambiguous(ValueError):
    """Two options of one choice fit the same text: the grammar has a fault."""


class Options:
    """Strings with integer weights that add up to 2**12, so that one draw of 12 bits decides.

    Raises ValueError if one is the beginning of another: the text would not tell which it is.
    """

    def __init__(self, strings: Sequence[str], weights: Sequence[int]) -> None:
        for shorter, longer in itertools.pairwise(sorted(strings)):
            if longer.startswith(shorter):
                raise ValueError(f"{shorter!r} is the beginning of {longer!r}")
        self.strings = tuple(strings)
        self.weights = _scaled(weights)
        self.index = {string: i for i, string in enumerate(self.strings)}
        self.table = [i for i, weight in enumerate(self.weights) for _ in range(weight)]
        self.bits = tuple(DRAW_BITS - _LOG2[weight] for weight in self.weights)


def _scaled(weights: Sequence[int]) -> tuple[int, ...]:
    """Weights in proportion that add up to TOTAL, none below 1; integers only, so portable."""
    spare, whole = TOTAL - len(weights), sum(weights)
    scaled = [1 + spare * weight // whole for weight in weights]
    for i in range(TOTAL - sum(scaled)):
        scaled[i] += 1
    return tuple(scaled)


def falling(count: int) -> list[int]:
    """Weights that fall with the rank as 1 / (rank + 10)."""
    return [10**6 // (rank + 10) for rank in range(count)]


def zipf(words: str) -> Options:
    """Options from a `|`-separated list, from frequent to rare."""
    strings = words.split("|")
    return Options(strings, falling(len(strings)))


@dataclass(frozen=True)
class Rule:
    """Phrase patterns. `{slot}` is filled from the story; `[name]` is a choice within the phrase.

    The text up to the first `[name]` is what the choice of a pattern emits.
    """

    heads: Options
    tails: tuple[tuple[tuple[Options | Rule, str], ...], ...]


def rule(
    patterns: Sequence[str], names: Mapping[str, Options | Rule], weights: Sequence[int] = ()
) -> Rule:
    """Compile patterns over named word lists and rules; frequent ones first if no weights."""
    heads, tails = [], []
    for pattern in patterns:
        head, *rest = re.split(r"\[(\w+)\]", pattern)
        within = zip(rest[::2], rest[1::2], strict=True)
        heads.append(head)
        tails.append(tuple((names[name], after) for name, after in within))
    return Rule(Options(heads, weights or falling(len(heads))), tuple(tails))


class Teller(ABC):
    """What a grammar talks to. `bits` grows by -log2 p with each choice."""

    def __init__(self) -> None:
        self.bits = 0.0
        self.gap = ""

    @abstractmethod
    def say(self, text: str) -> None:
        """Text that follows from what has been told: no choice, no bits."""

    @abstractmethod
    def _choose(self, options: Options, slots: Mapping[str, object]) -> int:
        """Emit one option, its slots filled."""

    @abstractmethod
    def pick(self, options: Options, avoid: Collection[str] = ()) -> str:
        """Emit one of the options that is not in `avoid`, and return it."""

    @abstractmethod
    def among(self, strings: Sequence[str]) -> int:
        """Emit one of the strings, all equally likely, and return its index."""

    def start(self, text: str = "") -> None:
        """Begin a sentence: a space after the one before, none at the start of a paragraph."""
        self.say(self.gap + text)
        self.gap = " "

    def paragraph(self) -> None:
        """End the paragraph; the next sentence starts a new one."""
        self.say("\n")
        self.gap = ""

    def form(self, patterns: Rule, slots: Mapping[str, object]) -> tuple[int, list[str]]:
        """Emit one pattern of the rule. Returns its index and the words picked within it."""
        chosen = self._choose(patterns.heads, slots)
        words = []
        for inner, after in patterns.tails[chosen]:
            if isinstance(inner, Rule):
                self.form(inner, slots)
            else:
                words.append(self.pick(inner))
            if after:
                self.say(after.format_map(slots))
        return chosen, words

    def line(self, patterns: Rule, slots: Mapping[str, object]) -> tuple[int, list[str]]:
        """`form` as a sentence of its own."""
        self.start()
        return self.form(patterns, slots)


@dataclass
class Writer(Teller):
    """Draws the choices. `Random.getrandbits` gives the same bits in every version of Python."""

    source: random.Random
    parts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.draw = self.source.getrandbits

    def say(self, text: str) -> None:
        self.parts.append(text)

    def _choose(self, options: Options, slots: Mapping[str, object]) -> int:
        chosen = options.table[self.draw(DRAW_BITS)]
        self.bits += options.bits[chosen]
        self.parts.append(options.strings[chosen].format_map(slots))
        return chosen

    def pick(self, options: Options, avoid: Collection[str] = ()) -> str:
        chosen = options.table[self.draw(DRAW_BITS)]
        if avoid:
            while options.strings[chosen] in avoid:
                chosen = options.table[self.draw(DRAW_BITS)]
            self.bits += _bits_without(options, chosen, avoid)
        else:
            self.bits += options.bits[chosen]
        self.parts.append(options.strings[chosen])
        return options.strings[chosen]

    def among(self, strings: Sequence[str]) -> int:
        count = len(strings)
        width = (count - 1).bit_length()
        chosen = self.draw(width) if width else 0
        while chosen >= count:
            chosen = self.draw(width)
        self.bits += _LOG2[count]
        self.parts.append(strings[chosen])
        return chosen

    @property
    def text(self) -> str:
        """Everything told so far."""
        return "".join(self.parts)


def _bits_without(options: Options, chosen: int, avoid: Collection[str]) -> float:
    index, weights = options.index, options.weights
    left = TOTAL - sum(weights[index[word]] for word in set(avoid) if word in index)
    return _LOG2[left] - _LOG2[weights[chosen]]


class Reader(Teller):
    """Recovers the choices from a text: raises NotAStory or Ambiguous where it can't."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.at = 0

    def say(self, text: str) -> None:
        if not self.text.startswith(text, self.at):
            raise NotAStory(f"byte {self.at}: expected {text!r}, found {self._here()!r}")
        self.at += len(text)

    def _choose(self, options: Options, slots: Mapping[str, object]) -> int:
        chosen = self._match([string.format_map(slots) for string in options.strings])
        self.bits += options.bits[chosen]
        return chosen

    def pick(self, options: Options, avoid: Collection[str] = ()) -> str:
        left = [string for string in options.strings if string not in avoid]
        word = left[self._match(left)]
        chosen = options.index[word]
        self.bits += _bits_without(options, chosen, avoid) if avoid else options.bits[chosen]
        return word

    def among(self, strings: Sequence[str]) -> int:
        chosen = self._match(strings)
        self.bits += _LOG2[len(strings)]
        return chosen

    def _match(self, strings: Sequence[str]) -> int:
        fits = [i for i, string in enumerate(strings) if self.text.startswith(string, self.at)]
        if not fits:
            raise NotAStory(f"byte {self.at}: no option fits {self._here()!r}")
        if len(fits) > 1:
            both = [strings[i] for i in fits]
            raise Ambiguous(f"byte {self.at}: {both!r} all fit {self._here()!r}")
        self.at += len(strings[fits[0]])
        return fits[0]

    def _here(self) -> str:
        return self.text[self.at : self.at + 40]

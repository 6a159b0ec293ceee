"""What a story knows while it is told: who is in it, what happened, what is still to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prepare.embedded import words
from prepare.embedded.chooser import Options, Rule, Teller, rule

PRONOUNS = {"he": ("him", "his"), "she": ("her", "her"), "it": ("it", "its")}


class Person(str):
    """A name that knows its pronouns, so that a pattern can say `{a}` and `{a.his}`."""

    he: str
    him: str
    his: str
    He: str
    His: str
    kind: str

    @classmethod
    def called(cls, name: str, he: str, kind: str) -> Person:
        """A person or an animal, by its pronoun (he, she or it) and kind (boy, mother, dog)."""
        person = cls(name)
        person.he, person.kind = he, kind
        person.him, person.his = PRONOUNS[he]
        person.He, person.His = he.capitalize(), person.his.capitalize()
        return person


PHRASES: dict[str, Options | Rule] = {
    **words.LISTS,
    "said": Rule(words.SAID, ((),) * len(words.SAID.strings)),
    "town": rule(["[town_start][town_middle][town_end]"], words.LISTS),
    # the end of a sentence
    "end": rule(
        [
            " [how].",
            ".",
            ", just before [meals].",
            ", feeling [feelings].",
            ", out in the [weather] air.",
        ],
        words.LISTS,
        weights=(6, 5, 1, 1, 1),
    ),
    # what follows `"...," said Lily`
    "tag": rule(
        [".", " [how].", ", who [verbs].", ", looking [feelings].", ", in [a_trait] voice."],
        words.LISTS,
        weights=(5, 6, 3, 1, 1),
    ),
}


def rules(*patterns: str, weights: Sequence[int] = ()) -> Rule:
    """A Rule over the vocabulary's lists and the endings of sentences."""
    return rule(patterns, PHRASES, weights)


END = rules("[end]")
SAID = rules('," [said] {who}[tag]')
ASKED = rules('?" asked {who}[tag]')


@dataclass
class Fact:
    """Something done today: by a child, or by both when `who` is None."""

    who: Person | None
    did: str

    def told_by(self, speaker: Person) -> str:
        """`I hid the key`, `we baked a cake`, `Tom hid the key`."""
        subject = "we" if self.who is None else "I" if self.who is speaker else str(self.who)
        return f"{subject} {self.did}"


@dataclass
class Hidden:
    """A thing, who put it away, and where it is now."""

    owner: Person
    thing: str
    where: str


@dataclass
class World:
    """The state of one story. Everything in it can be read off the text told so far."""

    teller: Teller
    a: Person
    b: Person
    m: Person
    pet: Person
    toys: dict[str, str]
    long: bool
    day: int = 0
    facts: list[Fact] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    slots: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = {
            "a": self.a,
            "b": self.b,
            "m": self.m,
            "pet": self.pet,
            "kind": self.pet.kind,
            "sound": words.SOUNDS[self.pet.kind],
            "toy": self.toys[self.a],
        }

    def other(self, child: Person) -> Person:
        """The friend of a child."""
        return self.b if child is self.a else self.a

    def line(self, patterns: Rule, **slots: object) -> tuple[int, list[str]]:
        """A sentence by one of the patterns; see Teller.form."""
        return self.teller.line(patterns, {**self.slots, **slots} if slots else self.slots)

    def say(self, text: str) -> None:
        """A sentence that follows from what was told."""
        self.teller.start(text)

    def end(self) -> None:
        """End a sentence, with an adverb perhaps."""
        self.teller.form(END, self.slots)

    def said(self, who: str) -> None:
        """Close a quotation and say who spoke, and how."""
        self.teller.form(SAID, {"who": who})

    def asked(self, who: str) -> None:
        """Close a question and say who asked, and how."""
        self.teller.form(ASKED, {"who": who})

    def either(self) -> tuple[Person, Person]:
        """Begin a sentence with one of the children's names; returns that child, then the other."""
        self.teller.start()
        chosen = self.teller.among((self.a, self.b))
        return (self.b, self.a) if chosen else (self.a, self.b)

    def count(self, most: int, least: int = 1) -> int:
        """Emit a number word from least to most, most at 9 at the highest."""
        return least + self.teller.among([words.number(n) for n in range(least, min(most, 9) + 1)])

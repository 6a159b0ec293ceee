"""Sentences between events: weather, feelings, small talk and its replies."""

from __future__ import annotations

from prepare.embedded.world import Person, World, rules

# `x` is the child who acts, `y` the friend; `w` and `v` are words just said. Frequent ones first.
ASIDES = rules(
    "{x} felt [feelings].",
    "It was a [weather] day, and the air smelled of [smells].",
    "{pet} the {kind} {sound}.",
    '"I am [feelings]," said {x}.',
    "{x} held {x.his} {treasured} tight.",
    "{y} looked [feelings], but {x} just [verbs].",
    '"Can you hear [noises]?" asked {x}.',
    "They both [verbs].",
    '"Look, [an_animal]!" cried {y}.',
    "{x} was so [feelings] that {x.he} [verbs].",
    '"Do you like [foods]?" asked {y}.',
    "The sky was [colours], and {x} could hear [noises].",
    '"Where is my {toy}?" asked {a}.',
    '"I wish I could [skills] like [an_animal]," said {x}.',
    "{m} [verbs] when {m.he} saw them.",
    "There was [a_colour] bird on the [looks] fence.",
    '"Let us [skills] now," said {y}.',
    "Even {pet} looked [feelings].",
    "Somewhere far away they heard [noises].",
    "Everything smelled of [smells].",
)
_BY_HEAD = {head: i for i, head in enumerate(ASIDES.heads.strings)}
REPLIES = {
    _BY_HEAD['"I am ']: rules(
        '"So am I," said {y}, who was always {w} when {x} was.',
        '"Why are you {w}?" asked {y}. "Because I can hear [noises]," said {x}.',
        '"I am not {w} at all," said {y}. "I am [feelings]."',
    ),
    _BY_HEAD['"Can you hear ']: rules(
        '"Yes, I can hear {w}," said {y}.',
        '"No, I can only hear [noises]," said {y}.',
    ),
    _BY_HEAD['"Look, ']: rules(
        "And there was {w} indeed, sitting on [a_look] stone.",
        "But it was not {w}. It was only [an_animal].",
    ),
    _BY_HEAD['"Do you like ']: rules(
        '"Yes, I like {w} more than anything," said {x}.',
        '"Not much. I like [foods] better than {w}," said {x}.',
    ),
    _BY_HEAD['"Where is my {toy}?" asked {a}.']: rules(
        '"You are holding your {toy}, {a}!" said {b}.',
        '"{pet} is sitting on your {toy}," said {b}.',
    ),
    _BY_HEAD['"I wish I could ']: rules(
        '"You can {w} well enough," said {y}. "{v.cap} can only {w}, but you can also [skills]."',
        '"Then I will teach you to {w} like {v}," said {y}.',
    ),
    _BY_HEAD['"Let us ']: rules(
        "So {x} and {y} went to the [rooms] to {w}.",
        '"No, it is too [weather] to {w}," said {x}.',
    ),
}


class _Word(str):
    """A word that can open a sentence."""

    @property
    def cap(self) -> str:
        return self[:1].upper() + self[1:]


def aside(world: World, x: Person | None = None) -> None:
    """A sentence or a short exchange about `x`, the main child if none is named."""
    x = x or world.a
    slots = {"x": x, "y": world.other(x), "treasured": world.treasured(x)}
    chosen, said = world.line(ASIDES, **slots)
    if chosen in REPLIES:
        slots["w"] = said[0] if said else ""
        slots["v"] = _Word(said[-1]) if said else ""
        world.line(REPLIES[chosen], **slots)

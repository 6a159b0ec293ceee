"""Sentences between events: weather, feelings, small talk and its replies."""

from __future__ import annotations

from prepare.embedded.world import Person, World, rules

# `x` is the child who acts, `y` the friend; `w` and `v` are words just said. Frequent ones first.
ASIDES = rules(
    "{x} felt [feelings], [feelings] and [feelings], and [verbs][end]",
    "It was a [weather], [weather] day, and the air smelled of [smells] and [smells].",
    "{pet} the {kind} {sound}[end]",
    '"I am [feelings] and [feelings]," [said] {x}[tag]',
    "{x} held {x.his} {treasured} tight and [verbs][end]",
    "{y} looked [feelings] and [feelings], but {x} just [verbs][end]",
    '"Can you hear [noises]?" asked {x}[tag]',
    "They both [verbs] and [verbs] until [hours]:[minutes].",
    '"Look, [an_animal]!" cried {y}[tag]',
    "{x}, the [traits], [traits] {xkind}, thought of [foods], [foods] and [foods].",
    "Nearby, [a_trait], [feelings] [animals] [verbs] and [verbs][end]",
    '"Do you like [foods] with [foods]?" asked {y}[tag]',
    "The sky was [colours] and [colours], and {x} could hear [noises] from [town].",
    '"Where is my {toy}?" asked {a}[tag]',
    '"I wish I could [skills] like [a_trait] [animals]," [said] {x}[tag]',
    "{m} [verbs], [verbs] and [verbs] when {m.he} saw them.",
    "There was [a_look] [colours] bird on the [looks] [colours] [furniture].",
    '"Let us [skills] and [skills] now," [said] {y}[tag]',
    "Even {pet} looked [feelings] and [feelings].",
    "Somewhere behind the [looks] [landmarks] they heard [noises] and [noises].",
    "Everything smelled of [smells], [smells] and [smells].",
    "Both the [traits] [roles] and the [traits] [roles] [verbs][end]",
    '"Once I saw [a_trait] [animals] with [a_look] [colours] [things] in [town]," [said] {y}[tag]',
    "Even the [landmarks] looked [weather] and [feelings].",
    '"My [colours] [treasures] is more [feelings] than your [things]," [said] {x}[tag]',
    "On the [looks] [furniture] lay [a_look] [treasures], [a_colour] [treasures] and [a_thing].",
    '"First comes the [animals], then the [animals], then the [animals]," sang {y}[end]',
    "The clock showed [hours]:[minutes], and {x} [verbs][end]",
    '"In [town] it is [weather] now," [said] {y}[tag]',
    "Far away, in [town], [a_trait] [roles] [verbs] and [verbs][end]",
    "The train from [town] to [town] came at [hours]:[minutes].",
    "Then {x} drew [an_animal], [a_role] and [a_colour] [things] for {y}[end]",
)
_BY_HEAD = {head: i for i, head in enumerate(ASIDES.heads.strings)}
REPLIES = {
    _BY_HEAD['"I am ']: rules(
        '"So am I," said {y}, who was always {w} when {x} was.',
        '"Why are you {w}?" asked {y}. "Because I hear [noises] and [noises]," [said] {x}[tag]',
        '"I am not {w} at all," [said] {y}[tag] "I am [feelings] and [feelings]."',
    ),
    _BY_HEAD['"Can you hear ']: rules(
        '"Yes, I can hear {w}," [said] {y}[tag]',
        '"No, I can only hear [noises] and [noises]," [said] {y}[tag]',
    ),
    _BY_HEAD['"Look, ']: rules(
        "And there was {w} indeed, sitting on [a_look] [colours] [furniture].",
        "But it was not {w}. It was only [a_trait], [feelings] [animals].",
    ),
    _BY_HEAD['"Do you like ']: rules(
        '"Yes, I like {w} more than anything," [said] {x}[tag]',
        '"Not much. I like [foods] and [foods] better than {w}," [said] {x}[tag]',
    ),
    _BY_HEAD['"Where is my {toy}?" asked {a}']: rules(
        '"You are holding your {toy}, {a}!" [said] {b}[tag]',
        '"{pet} is sitting on your {toy}," [said] {b}[tag]',
    ),
    _BY_HEAD['"I wish I could ']: rules(
        '"You can {w} well enough," [said] {y}[tag] "Can the {v} also [skills] and [skills]?"',
        '"Then I will teach you to {w} like the {v}," [said] {y}[tag]',
    ),
    _BY_HEAD['"Let us ']: rules(
        "So {x} and {y} went to the [looks] [rooms] to {w} and {v}[end]",
        '"No, it is too [weather] to {w}," [said] {x}[tag] "Let us [skills] and {v}."',
    ),
    _BY_HEAD['"Once I saw ']: rules(
        '"Are you sure it was {w} {v}?" asked {x}[tag]',
        '"And what did the {v} do?" asked {x}. "It [verbs] and [verbs]," [said] {y}[tag]',
    ),
}
_LAST_WORD = {_BY_HEAD['"I wish I could ']: 2}


def aside(world: World, x: Person | None = None) -> None:
    """Three remarks, each a sentence or a short exchange: about `x`, the other child, `x`."""
    x = x or world.a
    for child in (x, world.other(x), x):
        _remark(world, child)


def _remark(world: World, x: Person) -> None:
    slots = {"x": x, "y": world.other(x), "treasured": world.toys[x], "xkind": x.kind}
    chosen, said = world.line(ASIDES, **slots)
    if chosen in REPLIES:
        w, v = said[:1], said[_LAST_WORD.get(chosen, 1) :][:1]
        world.line(REPLIES[chosen], **slots, w="".join(w), v="".join(v))

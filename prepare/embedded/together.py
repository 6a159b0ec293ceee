"""Episodes that start with both children: a journey, hats, a tower, a chain of trades.

The choice of an episode has put its first words, as in `they set out`, on the page already.
"""

from __future__ import annotations

from prepare.embedded import words
from prepare.embedded.asides import aside
from prepare.embedded.words import bare, listed
from prepare.embedded.world import Fact, World, rules

LEG = rules(
    "Then they went ",
    "After that they walked ",
    "At last they came to the {role}'s house.",
    weights=(3, 2, 3),
)
ARRIVED = 2
ON_THE_WAY = rules(
    ".",
    ", where {a} lost [a_colour] [treasures].",
    ", where they met [an_animal] with [a_colour] [things].",
    ", where {b} saw [a_look] [furniture].",
    " and were [feelings].",
    ", where the [roles] [verbs][end]",
    weights=(1, 3, 3, 2, 2, 2),
)
LOST, MET = 1, 2
VISIT = rules(
    "The {role} gave them [foods] and [foods][end]",
    '"How [feelings] you look!" [said] the {role}[tag]',
    "The {role} showed them how to [skills] and [skills][end]",
    "They gave the {role} [a_look] [things] and [a_colour] [treasures].",
)


def journey(world: World) -> None:
    """A way with stations, and the same way back in the reverse order."""
    teller = world.teller
    role = teller.pick(words.ROLES)
    world.end()
    legs: list[tuple[str, str]] = []
    events: list[tuple[int, list[str]]] = []
    while _another_leg(world, role, len(legs)):
        through = teller.pick(words.THROUGH)
        teller.say(" the ")
        mark = teller.pick(words.LANDMARKS, avoid=[place for _, place in legs])
        legs.append((through, mark))
        events.append(teller.form(ON_THE_WAY, world.slots))
    world.line(VISIT, role=role)
    aside(world)
    way = listed([f"{through} the {mark}" for through, mark in reversed(legs)])
    world.say(f"On the way home they went {way}.")
    for (_, mark), (event, said) in zip(reversed(legs), reversed(events), strict=True):
        if event == LOST:
            world.say(f"At the {mark}, {world.b} found the {bare(said[0])} {said[1]}.")
        elif event == MET:
            world.say(f"The {bare(said[0])} was still at the {mark}.")
    world.facts.append(Fact(None, f"visited the {role}"))


def _another_leg(world: World, role: str, so_far: int) -> bool:
    """Begin the next leg, or arrive; the first and the eighth sentence are no choice."""
    if so_far == 0:
        world.say("They went ")
    elif so_far == 7:
        world.say(LEG.heads.strings[ARRIVED].format(role=role))
    else:
        return world.line(LEG, role=role)[0] != ARRIVED
    return so_far == 0


HAT_PLAY = rules(
    "The one in the {p} hat [verbs], because {p_who} felt [feelings] and [feelings].",
    "The one in the {q} hat [verbs], because {q_who} felt [feelings] and [feelings].",
    '"I look like [a_trait] [roles]," [said] {p_who} in the {p} hat.',
    '"You look like [a_trait] [animals]," [said] {q_who} in the {q} hat.',
    "Then they swapped. Now {a} had the {q} hat and {b} the {p} one.",
    "{pet} ran away with the {p} hat, and {p_who} ran after {pet.him}.",
    "{pet} ran away with the {q} hat, and {q_who} ran after {pet.him}.",
    weights=(4, 4, 3, 3, 4, 3, 3),
)
SWAP, STOLEN = 4, 5


def hats(world: World) -> None:
    """Colours that stand for persons, and persons that change colours."""
    teller, a, b = world.teller, world.a, world.b
    world.say(f"{a} put on ")
    p = teller.pick(words.A_COLOUR)
    teller.say(f" hat, and {b} put on ")
    q = bare(teller.pick(words.A_COLOUR, avoid=(p,)))
    teller.say(" hat")
    world.end()
    p = bare(p)
    chosen = 0
    while chosen < STOLEN:
        slots = {"p": p, "q": q, "p_who": a, "q_who": b}
        chosen = world.line(HAT_PLAY, **slots)[0]
        if chosen == SWAP:
            p, q = q, p
    aside(world)
    world.facts.append(Fact(None, f"played with the {p} hat"))


BLOCK = rules(
    "On top of it {x} put ",
    "Then {y} put ",
    "Then it was high enough.",
    weights=(2, 2, 1),
)
ENOUGH = 2
BLOCK_END = rules(" block[end]", " one[end]", " cube from the [rooms].")
TOWER_END = rules(
    "From the bottom to the top it was {up}.",
    "From the top to the bottom it was {down}.",
    "Then {pet} came, and it all fell down. They built it again: {up}.",
    "They took it down again: {down}.",
)


def tower(world: World) -> None:
    """A list that grows, recalled forwards or backwards."""
    teller, x, y = world.teller, world.a, world.b
    world.say(f"{x} put ")
    colours = [bare(teller.pick(words.A_COLOUR))]
    teller.form(BLOCK_END, world.slots)
    while world.line(BLOCK, x=x, y=y)[0] != ENOUGH:
        colours.append(bare(teller.pick(words.A_COLOUR)))
        teller.form(BLOCK_END, world.slots)
    slots = {"up": listed(colours), "down": listed(colours[::-1])}
    world.line(TOWER_END, **slots)
    aside(world)
    world.facts.append(Fact(None, f"built a tower of {words.counted(len(colours), 'blocks')}"))


PRICE = rules(
    '"You can have the {good}," said the {role}, "for some ',
    'The {role} [verbs]. "Take the {good}, I have [a_look] [furniture] full of it."',
    weights=(1, 1),
)
FREE = 1
NEXT_HOLDER = rules(
    ' first." So they went [how] to the ',
    '." The children [verbs] and asked the ',
    '," and [verbs]. Near [town] they found the ',
)


def trades(world: World) -> None:
    """A chain of wishes: each holder wants another thing first; it is undone from the end."""
    teller = world.teller
    goods = [teller.pick(words.GOODS)]
    teller.say(", so they went to the ")
    teller.pick(words.TRAITS)
    teller.say(" ")
    roles = [teller.pick(words.ROLES)]
    world.end()
    while len(roles) < 6:
        if world.line(PRICE, role=roles[-1], good=goods[-1])[0] == FREE:
            break
        goods.append(teller.pick(words.GOODS, avoid=goods))
        teller.form(NEXT_HOLDER, world.slots)
        teller.pick(words.TRAITS)
        teller.say(" ")
        roles.append(teller.pick(words.ROLES, avoid=roles))
        teller.say(".")
    aside(world)
    for i in range(len(roles) - 2, -1, -1):
        world.say(f"They gave the {goods[i + 1]} to the {roles[i]} and got the {goods[i]}.")
    world.say(f"So they had their {goods[0]}.")
    world.facts.append(Fact(None, f"got some {goods[0]} from the {roles[0]}"))

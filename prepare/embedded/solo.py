"""Episodes that start with one child: picking fruit, hiding, an old chest, a lost pet, a race.

The choice of an episode has put its first words, as in `Lily went to the`, on the page already.
"""

from __future__ import annotations

from itertools import pairwise

from prepare.embedded import words
from prepare.embedded.asides import aside
from prepare.embedded.words import bare, counted, listed, number
from prepare.embedded.world import Fact, Hidden, Person, World, rules

CHANGE = rules(
    "{x} gave ",
    "Then {x} found ",
    "{y} ate ",
    "{x} dropped ",
    '"Count them!" said {y}. So {x} counted: {digits}.',
    "{x} wrote the number {n} on a piece of paper.",
    'At last {y} asked, "How many {fruit} do you have?" "{Total}," [said] {x}[tag]',
    weights=(5, 4, 4, 3, 2, 2, 7),
)
GIVE, FIND, EAT, DROP, COUNT, WRITE, ASK = range(7)
EFFECT = {
    GIVE: rules(
        " to {y}, so {x} had {left}.",
        " to {m}, so {x} had {left}.",
        " to the [traits] [roles], so {x} had {left}.",
    ),
    FIND: rules(
        " more, and now {x} had {left}.",
        " more under [a_look] tree near [town]. That made {left}.",
    ),
    EAT: rules(" of them [how]. Now {x} had {left}.", " and felt [feelings]. {x} had {left}."),
    DROP: rules(" near the [furniture]. Now {x} had {left}.", " of them [how] and kept {left}."),
}


AND_THEN = rules(
    " behind the [landmarks], so {x.he} had {total}.",
    " more [how], which made {total}.",
    " under [a_look] tree, so the basket held {total}.",
)


def picking(world: World, x: Person, y: Person) -> None:
    """A running total, in words and in digits."""
    teller = world.teller
    plot = teller.pick(words.PLOTS)
    teller.say(" to pick ")
    fruit = teller.pick(words.FRUITS)
    world.end()
    world.say(f"{x.He} picked ")
    n = world.count(9, 2)
    teller.say(f" {fruit} near the ")
    teller.pick(words.LANDMARKS)
    teller.say(" and ")
    n += world.count(9, 2)
    teller.form(AND_THEN, {"x": x, "total": counted(n, fruit)})
    aside(world, x)
    chosen = -1
    while chosen != ASK:
        shown = {
            "x": x,
            "y": y,
            "n": n,
            "fruit": fruit,
            "Total": number(n).capitalize() if n else "None",
        }
        shown["digits"] = ", ".join(str(i) for i in range(1, n + 1)) or "none"
        chosen = world.line(CHANGE, **shown)[0]
        if chosen in EFFECT:
            n = _changed(world, chosen, n, shown)
    world.facts.append(Fact(x, f"picked {fruit} at the {plot}"))


def _changed(world: World, chosen: int, n: int, shown: dict[str, object]) -> int:
    """Add to the total or take from it; nothing can be taken from nothing."""
    teller = world.teller
    if chosen != FIND and n == 0:
        teller.say("nothing, because nothing was left.")
        return n
    amount = world.count(4 if chosen == FIND else min(n, 6))
    n += amount if chosen == FIND else -amount
    left = counted(n, str(shown["fruit"]))
    teller.form(EFFECT[chosen], {**world.slots, **shown, "left": left})
    return n


MOVED = rules(
    "Nobody saw it but {y} and [a_trait] [animals].",
    "{x} told nobody but {y}[end]",
    "Later {y} took the {thing} and put it ",
    "Then {x} changed {x.his} mind and put the {thing} ",
)
FIRST_MOVE = 2


def hiding(world: World, x: Person, y: Person) -> None:
    """A place stated now and asked for later; the last place counts."""
    teller = world.teller
    known = {bare(hidden.thing) for hidden in world.hidden}
    colour = bare(teller.pick(words.A_COLOUR))
    teller.say(" ")
    thing = f"{colour} {teller.pick(words.TREASURES, avoid=known)}"
    teller.say(f". {x.He} put it ")
    hidden = Hidden(x, thing, _place(world))
    world.end()
    if world.line(MOVED, x=x, y=y, thing=thing)[0] >= FIRST_MOVE:
        hidden.where = _place(world)
        world.end()
    aside(world, x)
    world.hidden.append(hidden)
    world.facts.append(Fact(x, f"hid the {thing}"))


def _place(world: World) -> str:
    """Emit and return a place: `under the old table`."""
    teller = world.teller
    where = teller.pick(words.WHERE)
    teller.say(" the ")
    look = teller.pick(words.LOOKS)
    teller.say(" ")
    return f"{where} the {look} {teller.pick(words.FURNITURE)}"


WITHIN = rules(
    "In the {outer} there was ",
    "Under [a_thing] in the {outer} lay ",
    weights=(3, 2),
)
SEE = rules(
    "{y} wanted to see it, too, so {y.he} opened {inward} and found the {thing}.",
    "Then {x} put everything back: {back}.",
    '"Where did you find it?" asked {y}[tag] "In {chain}," [said] {x}[tag]',
)


def chest(world: World, x: Person, y: Person) -> None:
    """Things within things, opened one after another and put back in the reverse order."""
    teller = world.teller
    looks = [bare(teller.pick(words.A_LOOK))]
    teller.say(" ")
    boxes = [teller.pick(words.CONTAINERS)]
    teller.say(" in the ")
    room = teller.pick(words.ROOMS)
    teller.say(".")
    while len(boxes) < 6 and world.line(WITHIN, outer=boxes[-1])[0] == 0:
        looks.append(bare(teller.pick(words.A_LOOK)))
        teller.say(" ")
        boxes.append(teller.pick(words.CONTAINERS, avoid=boxes))
        teller.say(".")
    if len(boxes) == 6:
        world.say(f"At the bottom of the {boxes[-1]} lay ")
    a_thing = teller.pick(words.A_COLOUR)
    teller.say(" ")
    a_thing = f"{a_thing} {teller.pick(words.TREASURES)}"
    thing = bare(a_thing)
    teller.say(".")
    aside(world, x)
    steps = [thing, *reversed(boxes)]
    back = [f"the {a} into the {b}" for a, b in pairwise(steps)]
    inward = listed([f"the {look} {box}" for look, box in zip(looks, boxes, strict=True)])
    chain = " in ".join(f"the {box}" for box in reversed(boxes))
    slots = {"x": x, "y": y, "thing": thing, "inward": inward, "chain": chain}
    world.line(SEE, back=listed(back), **slots)
    world.facts.append(Fact(x, f"found {a_thing} in the {room}"))


SEARCH = rules(
    "{x} looked ",
    "{y} looked ",
    "The [traits] [roles] looked ",
    'Then {y} called, "Here {pet.he} is!" {pet} was ',
    weights=(4, 4, 2, 4),
)
FOUND = 3
INSTEAD = rules(
    ", but there was only [a_look] [things].",
    ", but found nothing except [a_colour] [treasures] and [a_thing].",
)


def lost_pet(world: World, x: Person, y: Person) -> None:
    """Places searched in vain, to be told in order when the pet is found."""
    teller = world.teller
    vain: list[str] = []
    while world.line(SEARCH, x=x, y=y)[0] != FOUND:
        vain.append(_place(world))
        teller.form(INSTEAD, world.slots)
    where = _place(world)
    world.end()
    aside(world, x)
    told = "".join(f"not {place}, " for place in vain) + ("but " if vain else "") + where
    world.say('"Where was it')
    world.asked(world.m)
    world.say(f'"{told[0].upper()}{told[1:]}')
    world.said(y)
    world.facts.append(Fact(None, f"found {world.pet}"))


RUNNERS = rules(" and ", ", ")
NEAR_TOWN = rules(" near [town]", " of [town]")
ARRIVAL = rules("who [verbs][end]", "looking [feelings] and [feelings].", "running [how].")
RACE_END = rules(
    '"Who won?" asked {y}[tag] "The {first}," [said] {x}[tag]',
    '"Who came last?" asked {y}[tag] "The {last}," [said] {x}[tag]',
    '"Did the {last} win?" asked {y}[tag] "No, the {first} did," [said] {x}[tag]',
    '"Did the {first} win?" asked {y}[tag] "Yes, and the {last} was last," [said] {x}[tag]',
)


def race(world: World, x: Person, y: Person) -> None:
    """Who started, who arrived in which order, and who won."""
    teller = world.teller
    runners = [teller.pick(words.AN_ANIMAL)]
    more = True
    while more:
        more = len(runners) < 4 and teller.form(RUNNERS, world.slots)[0] == 1
        teller.say(" and " if len(runners) == 4 else "")
        runners.append(teller.pick(words.AN_ANIMAL, avoid=runners))
    teller.say(".")
    left = [bare(runner) for runner in runners]
    world.say("They had to run to the ")
    teller.pick(words.LANDMARKS)
    teller.form(NEAR_TOWN, world.slots)
    world.end()
    aside(world, x)
    order: list[str] = []
    for place in words.ORDINALS[: len(runners) - 1]:
        world.say(f"The {place} to arrive was the ")
        order.append(left.pop(teller.among([f"{name}, " for name in left])))
        teller.form(ARRIVAL, world.slots)
    world.say(f"The {left[0]} came last")
    world.end()
    world.line(RACE_END, x=x, y=y, first=order[0], last=left[0])
    world.facts.append(Fact(x, f"saw the {order[0]} win a race"))

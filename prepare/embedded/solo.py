"""Episodes that start with one child: picking fruit, hiding, an old chest, a lost pet, a race.

The choice of an episode has put its first words, as in `Lily went to the`, on the page already.
"""

from __future__ import annotations

from prepare.embedded import words
from prepare.embedded.asides import aside
from prepare.embedded.words import counted, listed, number
from prepare.embedded.world import Fact, Hidden, Person, World, rules

CHANGE = rules(
    "{x} gave ",
    "Then {x} found ",
    "{y} ate ",
    "{x} dropped ",
    '"Count them!" said {y}. So {x} counted: {digits}.',
    "{x} wrote the number {n} on a piece of paper.",
    'At last {y} asked, "How many {fruit} do you have?" "{Total}," said {x}.',
    weights=(5, 5, 4, 3, 3, 2, 5),
)
GIVE, FIND, EAT, DROP, COUNT, WRITE, ASK = range(7)
EFFECT = {
    GIVE: rules(
        " to {y}, so {x} had {left}.",
        " to {m}, so {x} had {left}.",
        " to the [roles], so {x} had {left}.",
    ),
    FIND: rules(
        " more, and now {x} had {left}.",
        " more under [a_look] tree. That made {left}.",
    ),
    EAT: rules(" of them. Now {x} had {left}.", ", which left {x} with {left}."),
    DROP: rules(" in the grass. Now {x} had {left}.", " into the water and kept {left}."),
}


def picking(world: World, x: Person, y: Person) -> None:
    """A running total, in words and in digits."""
    teller = world.teller
    plot = teller.pick(words.PLOTS)
    teller.say(" to pick ")
    fruit = teller.pick(words.FRUITS)
    teller.say(".")
    world.say(f"{x.He} picked ")
    n = world.count(9, 2)
    teller.say(f" {fruit} in the morning and ")
    n += world.count(9, 2)
    teller.say(f" after that, so {x.he} had {counted(n, fruit)}.")
    aside(world, x)
    chosen = -1
    while chosen != ASK:
        shown = {"x": x, "y": y, "n": n, "fruit": fruit, "Total": number(n).capitalize()}
        shown["digits"] = ", ".join(str(i) for i in range(1, n + 1)) or "none"
        chosen = world.line(CHANGE, **shown)[0]
        if chosen in EFFECT:
            n = _changed(world, chosen, n, shown)
    world.facts.append(Fact(x, f"picked {fruit} in the {plot} and had {number(n)} left"))


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
    "Nobody saw it but {y}.",
    "{x} told nobody but {y}.",
    "Later {y} took the {thing} and put it ",
    "Then {x} changed {x.his} mind and put the {thing} ",
)
FIRST_MOVE = 2


def hiding(world: World, x: Person, y: Person) -> None:
    """A place stated now and asked for later; the last place counts."""
    teller = world.teller
    known = {hidden.thing.split(" ", 1)[1] for hidden in world.hidden}
    colour = teller.pick(words.A_COLOUR).split(" ", 1)[1]
    teller.say(" ")
    thing = f"{colour} {teller.pick(words.TREASURES, avoid=known)}"
    teller.say(f". {x.He} put it ")
    hidden = Hidden(x, thing, _place(world))
    teller.say(".")
    if world.line(MOVED, x=x, y=y, thing=thing)[0] >= FIRST_MOVE:
        hidden.where = _place(world)
        teller.say(".")
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
    "At the very bottom of the {outer} lay ",
    weights=(3, 2),
)
SEE = rules(
    "{y} wanted to see it, too, so {y.he} opened {inward} and found the {thing}.",
    "Then {x} put everything back: {back}.",
    '"Where did you find it?" asked {y}. "In {chain}," said {x}.',
)


def chest(world: World, x: Person, y: Person) -> None:
    """Things within things, opened one after another and put back in the reverse order."""
    teller = world.teller
    looks = [teller.pick(words.A_LOOK).split(" ", 1)[1]]
    teller.say(" ")
    boxes = [teller.pick(words.CONTAINERS)]
    teller.say(" in the ")
    room = teller.pick(words.ROOMS)
    teller.say(".")
    while len(boxes) < 6 and world.line(WITHIN, outer=boxes[-1])[0] == 0:
        looks.append(teller.pick(words.A_LOOK).split(" ", 1)[1])
        teller.say(" ")
        boxes.append(teller.pick(words.CONTAINERS, avoid=boxes))
        teller.say(".")
    if len(boxes) == 6:
        world.say(WITHIN.heads.strings[1].format(outer=boxes[-1]))
    a_thing = teller.pick(words.A_COLOUR)
    teller.say(" ")
    a_thing = f"{a_thing} {teller.pick(words.TREASURES)}"
    thing = a_thing.split(" ", 1)[1]
    teller.say(".")
    aside(world, x)
    steps = [thing, *reversed(boxes)]
    back = [f"the {a} into the {b}" for a, b in zip(steps[:-1], steps[1:], strict=True)]
    inward = listed([f"the {look} {box}" for look, box in zip(looks, boxes, strict=True)])
    chain = " in ".join(f"the {box}" for box in reversed(boxes))
    slots = {"x": x, "y": y, "thing": thing, "inward": inward, "chain": chain}
    world.line(SEE, back=listed(back), **slots)
    world.facts.append(Fact(x, f"found {a_thing} in the {room}"))


SEARCH = rules(
    "{x} looked ",
    "{y} looked ",
    "They all looked ",
    'Then {y} called, "Here {pet.he} is!" {pet} was ',
    weights=(4, 4, 2, 4),
)
FOUND = 3
INSTEAD = rules(
    ", but there was only [a_thing].",
    ", but found nothing except [a_colour] [treasures].",
)


def lost_pet(world: World, x: Person, y: Person) -> None:
    """Places searched in vain, to be told in order when the pet is found."""
    teller = world.teller
    vain: list[str] = []
    while world.line(SEARCH, x=x, y=y)[0] != FOUND:
        vain.append(_place(world))
        teller.form(INSTEAD, world.slots)
    where = _place(world)
    teller.say(".")
    aside(world, x)
    told = "".join(f"not {place}, " for place in vain) + ("but " if vain else "") + where
    world.say(f'"Where did you find {world.pet.him}?" asked {world.m}. "')
    teller.say(f'{told[0].upper()}{told[1:]}," said {y}.')
    world.facts.append(Fact(None, f"found {world.pet} {where}"))


RUNNERS = rules(" and ", ", ")
RACE_END = rules(
    '"Who won?" asked {y}. "The {first}," said {x}.',
    '"Who came last?" asked {y}. "The {last}," said {x}.',
    '"Did the {last} win?" asked {y}. "No, the {first} did," said {x}.',
    '"Did the {first} win?" asked {y}. "Yes, and the {last} was last," said {x}.',
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
    left = [runner.split(" ", 1)[1] for runner in runners]
    world.say("They had to run to the ")
    goal = teller.pick(words.LANDMARKS)
    teller.say(".")
    aside(world, x)
    order: list[str] = []
    for place in words.ORDINALS[: len(runners) - 1]:
        world.say(f"The {place} to arrive was the ")
        order.append(left.pop(teller.among([f"{name}." for name in left])))
    world.say(f"The {left[0]} was the last to reach the {goal}.")
    world.line(RACE_END, x=x, y=y, first=order[0], last=left[0])
    world.facts.append(Fact(x, f"saw the {order[0]} win a race"))

"""The frame of a story: who it is about, the days with their episodes, the evening, the end."""

from __future__ import annotations

from prepare.embedded import errands, solo, together, words
from prepare.embedded.asides import aside
from prepare.embedded.chooser import Teller
from prepare.embedded.words import bare, listed
from prepare.embedded.world import Person, World, rules

OPENING = rules(
    "Once upon a time, there was [a_trait] ",
    "In a [homes] near [sites], there lived [a_trait] ",
    "This is the story of [a_trait] ",
    "Not far from [sites] lived [a_trait] ",
    "Settle down, for this is a long story about [a_trait] ",
    weights=(8, 6, 4, 4, 1),
)
LONG = 4
CHILD = rules("girl named ", "boy named ", weights=(1, 1))
HOME = rules(
    ". {a.He} lived with {a.his} ",
    ", who lived near [sites] with {a.his} ",
    ". {a.His} home was [a_look] [homes], which {a.he} shared with {a.his} ",
)
FAMILY = rules(
    "mother", "father", "grandma", "grandpa", "aunt", "uncle", weights=(8, 6, 5, 4, 2, 1)
)
RELATIVE = ("Mother", "Father", "Grandma", "Grandpa", "Auntie", "Uncle")
PET = rules(" and [a_colour] ", " together with {a.his} [looks] ")
PET_NAME = rules(" called ", " named ")
FRIEND = rules(
    "{a}'s best friend was a ",
    "Next door lived a ",
    "There was nobody {a} liked better than a ",
)
TOYS = rules(
    "{a} always carried [a_colour] ",
    "{a}'s favourite thing was [a_colour] ",
    "For {a.his} birthday, {a} had been given [a_colour] ",
)
TOYS_TOO = rules(" and {b} had [a_colour] ", ", while {b} loved [a_look] ")


def tell(teller: Teller) -> None:
    """One whole story, from its opening to `The end.`"""
    world = _opening(teller)
    _day(world)
    while _evening(world):
        _day(world)


def _opening(teller: Teller) -> World:
    is_long = teller.line(OPENING, {})[0] == LONG
    a = _child(teller, ())
    who = {"a": a}
    teller.form(HOME, who)
    relative = teller.form(FAMILY, {})[0]
    m = Person.called(RELATIVE[relative], "he" if relative % 2 else "she", RELATIVE[relative])
    teller.form(PET, who)
    pet_kind = teller.pick(words.PET_KINDS)
    teller.form(PET_NAME, {})
    pet = Person.called(teller.pick(words.PETS), "it", pet_kind)
    teller.say(".")
    teller.line(FRIEND, who)
    b = _child(teller, (a,))
    teller.say(".")
    who["b"] = b
    toys: dict[str, str] = {}
    for child, patterns in ((a, TOYS), (b, TOYS_TOO)):
        if child is a:
            teller.start()
        _, said = teller.form(patterns, who)
        colour = bare(said[0])
        toys[child] = f"{colour} {teller.pick(words.THINGS)}"
    teller.say(".")
    return World(teller, a, b, m, pet, toys, is_long)


def _child(teller: Teller, avoid: tuple[str, ...]) -> Person:
    male = teller.form(CHILD, {})[0] == 1
    names = words.BOYS if male else words.GIRLS
    he, kind = ("he", "boy") if male else ("she", "girl")
    return Person.called(teller.pick(names, avoid=avoid), he, kind)


MORNING = rules("One morning, ", "On {today}, ", "After breakfast, ", "Early on {today}, ")
LATER = rules(
    "In the evening, ",
    "After that, ",
    "A little later, ",
    "In the afternoon, ",
    "Soon ",
    "When the rain was over, ",
    '"Where is the ',
    weights=(12, 4, 4, 3, 3, 1, 10),
)
LATER_NOTHING_HIDDEN = rules(*LATER.heads.strings[:-1], weights=(12, 4, 4, 3, 3, 1))
EVENING, QUESTION = 0, 6
SUBJECT = rules("{a}", "{b}", "they", "{m}", weights=(3, 3, 4, 4))
SOLO = rules(
    " went to the ",
    " wanted to hide ",
    " found ",
    " could not find {pet}.",
    " watched a race between ",
    weights=(4, 4, 3, 2, 2),
)
SOLO_EPISODES = (solo.picking, solo.hiding, solo.chest, solo.lost_pet, solo.race)
TOGETHER = rules(
    " set out to visit the ",
    " wanted some ",
    " found a box of old hats.",
    " built a tower of blocks.",
    weights=(4, 3, 3, 2),
)
TOGETHER_EPISODES = (together.journey, together.trades, together.hats, together.tower)
ERRANDS = rules(
    " asked ",
    " had a message for the ",
    " told them a story.",
    " showed them how to make ",
    weights=(4, 3, 3, 3),
)
ERRAND_EPISODES = (errands.shopping, errands.message, errands.tale, errands.baking)


def _day(world: World) -> None:
    """Episodes and questions until the evening."""
    world.facts.clear()
    world.teller.paragraph()
    world.line(MORNING, today=words.DAYS[world.day % 7])
    _episode(world)
    while True:
        world.teller.paragraph()
        chosen = world.line(LATER if world.hidden else LATER_NOTHING_HIDDEN)[0]
        if chosen == EVENING:
            return
        if chosen == QUESTION:
            _question(world)
        else:
            _episode(world)


def _episode(world: World) -> None:
    teller, slots = world.teller, world.slots
    subject = teller.form(SUBJECT, slots)[0]
    if subject < 2:
        x = (world.a, world.b)[subject]
        SOLO_EPISODES[teller.form(SOLO, slots)[0]](world, x, world.other(x))
    elif subject == 2:
        TOGETHER_EPISODES[teller.form(TOGETHER, slots)[0]](world)
    else:
        ERRAND_EPISODES[teller.form(ERRANDS, slots)[0]](world)


ANSWERED = rules(
    "{owner} went to get it.",
    "And there it stayed.",
    "{m} looked, and it was really there.",
)


ASKER = rules(" {m}[tag]", " the [traits] [roles] from [town].")


def _question(world: World) -> None:
    """Where something was put, however long ago; taking it out ends its story."""
    chosen = world.teller.among([f'{hidden.thing}?" asked' for hidden in world.hidden])
    hidden = world.hidden[chosen]
    world.teller.form(ASKER, world.slots)
    world.say(f'"It is {hidden.where}')
    world.said(hidden.owner)
    if world.line(ANSWERED, owner=hidden.owner)[0] == 0:
        world.hidden.remove(hidden)
    aside(world)


RECALL = rules("{m} asked {a} about the day.", "{m} asked {b} about the day.")
BEST = rules(
    '"And what was the best of it?" asked {m}[tag]', '"And what did you like, {y}?" asked {m}.'
)
NIGHT = (
    "Then they slept, and {a} dreamed of [a_trait], [feelings] [animals] with [a_look] "
    "[colours] [things] from [town]. The end.",
    "They were [feelings], [feelings] and [feelings], and soon they slept next to the "
    "[looks] [colours] [furniture]. The end.",
    "It was [weather] and [weather] outside, but they slept like [a_trait], [feelings] "
    "[animals]. The end.",
    "{m} [verbs], put out the [looks] [colours] lamp and hummed of [noises] and [noises]. The end.",
    "At night {b} dreamed of [a_look] [homes] near [town]. The next day was {tomorrow}.",
)
BEST_TAG = rules(" [said] {y}[tag]")
SHORT_NIGHT = rules(*NIGHT, weights=(6, 5, 4, 3, 2))
LONG_NIGHT = rules(*NIGHT, weights=(2, 2, 1, 1, 18))
NEXT_DAY = 4


def _evening(world: World) -> bool:
    """The day told once more, in order. Returns whether another day follows."""
    teller = world.teller
    chosen = teller.form(RECALL, world.slots)[0]
    x, y = (world.b, world.a) if chosen else (world.a, world.b)
    told = [f"then {fact.told_by(x)}" for fact in world.facts]
    world.say(f'"First{listed(told)[4:]}')
    world.said(x)
    world.line(BEST, y=y)
    endings = dict.fromkeys(f'that {fact.told_by(y)},"' for fact in world.facts)
    world.say('"I liked ')
    teller.among(list(endings))
    teller.form(BEST_TAG, {"y": y})
    aside(world, y)
    for hidden in world.hidden[-4:]:
        world.say(f"The {hidden.thing} was still {hidden.where}.")
    tomorrow = words.DAYS[(world.day + 1) % 7]
    night = LONG_NIGHT if world.long else SHORT_NIGHT
    world.day += 1
    return world.line(night, tomorrow=tomorrow)[0] == NEXT_DAY

"""Episodes that start with a grown-up: shopping, a message, baking, a tale within the tale.

The choice of an episode has put its first words, as in `Mother asked`, on the page already.
"""

from __future__ import annotations

from prepare.embedded import words
from prepare.embedded.asides import aside
from prepare.embedded.words import article, bare, counted, listed
from prepare.embedded.world import Fact, World, rules

TO_MARKET = rules(
    " to go to the [looks] market and buy ",
    " to run [how] and fetch ",
    ", who was [feelings], to buy ",
)
MORE_ITEMS = rules(" and ", ", ")
MARKET = rules(
    "At the market, the [traits] [roles] had everything[end]",
    "At the market, there was no ",
)
HOME_AGAIN = rules(
    "Back home, {m} looked into the [looks] basket and found {items}.",
    "When {x} came home, {m} unpacked {items}[end]",
    '"What did you bring?" asked {m}[tag] "I brought {items}," [said] {x}[tag]',
)


def shopping(world: World) -> None:
    """A list to remember in order, one thing replaced perhaps, and money to count."""
    teller, m = world.teller, world.m
    x = (world.a, world.b)[teller.among((world.a, world.b))]
    teller.form(TO_MARKET, world.slots)
    items = [teller.pick(words.FOODS)]
    more = True
    while more:
        more = len(items) < 4 and teller.form(MORE_ITEMS, world.slots)[0] == 1
        teller.say(" and " if len(items) == 4 else "")
        items.append(teller.pick(words.FOODS, avoid=items))
    teller.say(".")
    world.say(f"{m} gave {x.him} ")
    coins = world.count(9, 5)
    teller.say(" coins.")
    aside(world, x)
    if world.line(MARKET)[0] == 1:
        lacking = teller.among(items)
        teller.say(f", so {x} bought ")
        items[lacking] = teller.pick(words.FOODS, avoid=items)
        teller.say(" instead")
        world.end()
    world.say("It cost ")
    cost = world.count(coins - 1, 2)
    left = counted(coins - cost, "coins")
    teller.say(f" coins, so {x} had {left} left.")
    world.line(HOME_AGAIN, x=x, items=listed(items))
    world.say(f"{x.He} gave {m} the {left} back.")
    world.facts.append(Fact(x, f"bought {listed(items)}"))


REQUEST = rules(
    "I need [several] [fruits] by {day}",
    "I will bring [a_thing] on {day}",
    "I have lost my [colours] [things]",
    "I felt [feelings] and [feelings] after the [dishes]",
    "The [traits] [roles] has [a_look] [things]",
    "I can hear [noises] at night",
    "I would like to [skills] like [an_animal]",
)
REPORT = (
    "{who} needs {0} {1} by {day}",
    "{who} will bring {0} on {day}",
    "{who} has lost {his} {0} {1}",
    "{who} felt {0} and {1} after the {2}",
    "the {0} {1} has {2} {3}",
    "{who} can hear {0} at night",
    "{who} would like to {0} like {1}",
)


ANSWER = rules(
    'The {role} [verbs]. "Then tell {m.him} this: ',
    '"That is [traits] news," said the {role}. "Tell {m.him} this: ',
)


def message(world: World) -> None:
    """Speech carried to someone and reported there, its persons changed; then an answer back."""
    teller, m = world.teller, world.m
    there, back = words.DAYS[(world.day + 2) % 7], words.DAYS[(world.day + 4) % 7]
    role = teller.pick(words.ROLES)
    world.end()
    world.say('"Say this: ')
    chosen, said = teller.form(REQUEST, {"day": there})
    world.said(m)
    x, y = world.either()
    teller.say(f" and {y} ran to the {role}")
    world.end()
    aside(world, x)
    report = REPORT[chosen].format(*said, who=m, his=m.his, day=there)
    world.say(f'"{report}')
    world.said(y)
    world.line(ANSWER, role=role)
    chosen, said = teller.form(REQUEST, {"day": back})
    teller.say('."')
    reply = REPORT[chosen].format(*said, who=f"the {role}", his="a", day=back)
    aside(world, y)
    world.say(f'"What did the {role} say')
    world.asked(m)
    world.say(f'"That {reply}')
    world.said(x)
    world.facts.append(Fact(None, f"took a message to the {role}"))


A_DISH = words.with_article(words.DISHES)
TASTE = rules(
    "The {dish} was as [colours] as [a_look] [things].",
    "The {dish} came out [colours], but it made {m} [feelings].",
    "They gave a piece of the {dish} to the [traits] [roles][end]",
    'The {dish} smelled of [smells]. "How [traits]!" [said] {m}[tag]',
)
AGAIN = rules(
    "{b} wanted to make it again, so {b.he} took {same}.",
    "For a bigger one they took twice as much: {twice}.",
)


def baking(world: World) -> None:
    """A recipe, then the same again or twice of everything."""
    teller = world.teller
    a_dish = teller.pick(A_DISH)
    world.end()
    world.say("They needed ")
    amounts: list[tuple[int, str]] = []
    for after in (", ", " and ", "."):
        n = world.count(9, 2)
        teller.say(" ")
        amounts.append((n, teller.pick(words.INGREDIENTS, avoid=[what for _, what in amounts])))
        teller.say(after)
    aside(world)
    world.line(TASTE, dish=bare(a_dish))
    same = listed([counted(n, what) for n, what in amounts])
    twice = listed([counted(2 * n, what) for n, what in amounts])
    world.line(AGAIN, same=same, twice=twice)
    world.facts.append(Fact(None, f"made {a_dish}"))


TALE_WISH = rules(
    "{hero} lived near [town] and wanted to [skills] like [a_trait] [roles].",
    "{hero} was looking for [a_colour] [treasures] and [a_look] [things].",
    "{hero} had never seen [a_look] [homes] near [town].",
    "{hero} was always [feelings] when it was [weather], and [verbs][end]",
)
TALE_MEETING = rules(
    "Near [town] {hero} met ",
    "Behind [a_look] [furniture] sat ",
    "{hero} came to [a_look] [homes], the home of ",
    "Then came the end: ",
    weights=(4, 2, 2, 4),
)
TALE_OVER = 3
TALE_ANSWER = rules(
    '"I have only [a_look] [things]," [said] the {kind}[tag]',
    '"Ask the [animals] and the [roles]," [said] the {kind}[tag]',
    '"Come with me, {hero}, and [skills]!" [said] the {kind}[tag]',
    "The {kind} told {hero} a [traits] story.",
    weights=(4, 3, 3, 2),
)
TALE_WITHIN = 3
SEEN = rules(" with [a_look] [things].", ", who was [feelings].", " from [town].")
QUIZ = rules(
    '"What was the name of the {kind}?" asked {b}[tag] "{name}," [said] {a}[tag]',
    '"Who was {name}?" asked {a}[tag] "The {kind}," [said] {b}[tag]',
)


def tale(world: World) -> None:
    """Stories within a story: each is closed, the innermost first, before the outer goes on."""
    cast: list[tuple[str, str]] = []
    _tale(world, cast, 1)
    kind, name = cast[0]
    world.line(QUIZ, kind=kind, name=name)
    world.facts.append(Fact(None, f"heard the story of {name} the {kind}"))


def _tale(world: World, cast: list[tuple[str, str]], depth: int) -> None:
    """One tale; at depth 1 and 2 an animal that appears in it may tell another."""
    teller = world.teller
    world.say("It was about ")
    kind = _animal(world, cast)
    teller.say(" called ")
    hero = teller.pick(words.PETS, avoid=[world.pet, *(name for _, name in cast)])
    teller.say(".")
    cast.append((kind, hero))
    world.line(TALE_WISH, hero=hero)
    met: list[str] = []
    while len(met) < 5 and world.line(TALE_MEETING, hero=hero)[0] != TALE_OVER:
        met.append(_animal(world, cast))
        cast.append((met[-1], ""))
        teller.form(SEEN, world.slots)
        if world.line(TALE_ANSWER, hero=hero, kind=met[-1])[0] == TALE_WITHIN and depth < 3:
            _tale(world, cast, depth + 1)
            world.say(f"{hero} thanked the {met[-1]} for the story.")
    if len(met) == 5:
        world.say(TALE_MEETING.heads.strings[TALE_OVER])
    friends = listed([f"the {animal}" for animal in met] or ["nobody"])
    teller.say(f"{hero} danced with {friends}." if met else f"{hero} fell asleep.")


def _animal(world: World, cast: list[tuple[str, str]]) -> str:
    """Emit an animal that is new to the tale, with its article; returns it without."""
    known = [article(kind) for kind, _ in cast]
    return bare(world.teller.pick(words.AN_ANIMAL, avoid=known))

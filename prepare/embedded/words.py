"""The vocabulary: lists from frequent to rare, no word the beginning of another in its list."""

from __future__ import annotations

from prepare.embedded.chooser import Options, zipf

GIRLS = zipf(
    "Lily|Mia|Emma|Sara|Nora|Anna|Ruby|Zoe|Clara|Ella|Lucy|Alice|Maya|Rose|Ivy|Hazel|Daisy|Julia|"
    "Molly|Nina|Poppy|Tess|Wendy|Amy|Fiona|Gwen|Holly|Jane|Kate|Leah|Olive|Penny|Sophie|Tilda|"
    "Vera|Bella|Cora|Dora|Edith|Freya"
)
BOYS = zipf(
    "Tom|Ben|Max|Sam|Leo|Jack|Finn|Oscar|Hugo|Noah|Peter|Tim|Jacob|Henry|Adam|Felix|Luke|Owen|"
    "Paul|Ravi|Simon|Theo|Victor|Will|Eric|David|Colin|Bruno|Albert|George|Ivan|Karl|Martin|Nick|"
    "Otto|Ralph|Stefan|Toby|Walter|Yusuf"
)
PETS = zipf(
    "Rex|Spot|Muffin|Pepper|Biscuit|Shadow|Ginger|Cookie|Patch|Pickle|Button|Whisker|Nugget|"
    "Honey|Pip|Domino|Bubbles|Cocoa|Fluff|Marble|Tango|Waffle|Jelly|Quill|Sprout"
)
TRAITS = zipf(
    "little|kind|curious|brave|clever|cheerful|quiet|funny|gentle|shy|lively|thoughtful|stubborn|"
    "careful|sleepy|friendly"
)
COLOURS = zipf(
    "red|blue|green|yellow|white|black|brown|pink|purple|grey|golden|silver|orange|violet"
)
LOOKS = zipf(
    "old|big|small|wooden|round|tall|heavy|dusty|broken|shiny|tiny|narrow|crooked|painted|square|"
    "huge"
)
THINGS = zipf(
    "ball|kite|book|drum|doll|scarf|whistle|boat|lantern|puzzle|hat|bell|puppet|mirror|"
    "spinning top|wagon|flute|paintbrush|umbrella|teddy bear|trumpet|robot|telescope|compass|"
    "camera"
)
TREASURES = zipf(
    "key|coin|ring|marble|shell|feather|button|stone|medal|map|necklace|letter|star|pearl|acorn|"
    "ribbon|whistle|thimble|crystal|fossil"
)
FURNITURE = zipf(
    "bed|table|chair|box|sofa|cupboard|stove|piano|bench|basket|clock|lamp|wardrobe|desk|carpet|"
    "bookshelf|bathtub|curtain|barrel|ladder|mattress|fireplace"
)
WHERE = zipf("under|behind|next to|in front of|near|beside|on the far side of")
ROOMS = zipf("attic|kitchen|garden|cellar|barn|shed|hall|garage|bedroom|stable|workshop|library")
CONTAINERS = zipf(
    "box|bag|chest|basket|jar|drawer|sack|tin|suitcase|barrel|bucket|purse|crate|trunk|pot|"
    "envelope|casket|bowl"
)
PLOTS = zipf("garden|orchard|field|meadow|park|forest|hill|valley|farm|riverbank")
FRUITS = zipf(
    "apples|pears|plums|cherries|berries|nuts|flowers|mushrooms|peaches|carrots|tulips|lemons|"
    "figs|pumpkins|beans|turnips|radishes|onions|daisies|walnuts"
)
ANIMALS = zipf(
    "fox|rabbit|bear|mouse|turtle|owl|frog|hedgehog|duck|squirrel|wolf|goat|crow|deer|lion|otter|"
    "snail|goose|elephant|badger|monkey|swan|beaver|lizard|camel|penguin|tiger|zebra"
)
PET_KINDS = zipf("dog|cat|rabbit|parrot|pony|duck|hamster|goat")
SOUNDS = {
    "dog": "barked",
    "cat": "purred",
    "rabbit": "hopped about",
    "parrot": "squawked",
    "pony": "neighed",
    "duck": "quacked",
    "hamster": "squeaked",
    "goat": "bleated",
}
ROLES = zipf(
    "baker|farmer|teacher|doctor|miller|sailor|tailor|painter|shepherd|gardener|carpenter|"
    "fisherman|blacksmith|postman|mayor|cook|weaver|beekeeper|potter|librarian"
)
GOODS = zipf(
    "rope|honey|wool|bread|milk|paper|cheese|flour|soap|wood|butter|leather|salt|corn|paint|tea|"
    "hay|cloth|wax|oil|clay|silk"
)
FOODS = zipf(
    "bread|milk|eggs|butter|cheese|rice|apples|soup|honey|jam|carrots|beans|fish|flour|tea|"
    "grapes|onions|salt|noodles|pepper|lemons|nuts|sugar|raisins|tomatoes|spinach"
)
DISHES = zipf("cake|pie|soup|bread|stew|pudding|salad|pancake")
INGREDIENTS = zipf(
    "cups of flour|eggs|spoons of sugar|cups of milk|apples|spoons of honey|carrots|potatoes|"
    "pinches of salt|lumps of butter|handfuls of nuts|lemons|spoons of cocoa|onions"
)
LANDMARKS = zipf(
    "bridge|river|forest|hill|mill|church|market|pond|field|gate|tunnel|castle|well|lighthouse|"
    "windmill|vineyard|quarry|harbour|graveyard|meadow"
)
THROUGH = zipf("past|over|through|around|across|along")
WEATHER = zipf(
    "sunny|rainy|windy|warm|cold|foggy|cloudy|snowy|stormy|hot|misty|frosty|bright|mild|icy"
)
FEELINGS = zipf(
    "happy|tired|proud|excited|hungry|surprised|glad|sad|scared|worried|sleepy|thirsty|nervous|"
    "calm|puzzled|bored|grateful|cross"
)
SMELLS = zipf("bread|flowers|rain|soup|smoke|grass|pine trees|cinnamon|soap|roses|hay|coffee|mint")
NOISES = zipf(
    "a bell|an owl|thunder|music|footsteps|a train|a whistle|the wind|laughter|a drum|"
    "a church clock|a fiddle|the rain|a cuckoo|a wagon"
)
HOMES = zipf("house|cottage|farmhouse|flat|castle|mill|cabin|lighthouse|tent|tower|caravan")
SITES = zipf(
    "the river|the sea|the forest|a hill|the market|the mountains|a lake|the railway|"
    "the old bridge|a windmill|the school|the desert|an apple orchard"
)
VERBS = zipf(
    "laughed|sang|danced|jumped|smiled|clapped|whistled|giggled|waved|cheered|bowed|sneezed|"
    "skipped|hummed|yawned|blushed"
)
SKILLS = zipf(
    "run|swim|climb|sing|dance|draw|cook|read|paint|dig|fish|whisper|count|juggle|skate|garden|"
    "dream"
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SEVERAL = zipf("two|three|four|five|six|seven|eight|nine")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")

_UNITS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ODD_SINGULARS = {
    "cherries": "cherry",
    "berries": "berry",
    "peaches": "peach",
    "radishes": "radish",
    "daisies": "daisy",
    "potatoes": "potato",
    "pinches": "pinch",
}


def number(n: int) -> str:
    """The number 0 to 99 in words; 0 is `no`, as in `no apples`."""
    if n < 20:
        return _UNITS[n]
    tens, units = divmod(n, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[units]}" if units else "")


def singular(plural: str) -> str:
    """One of several: `cherries` to `cherry`, `cups of flour` to `cup of flour`."""
    first, *rest = plural.split(" ", 1)
    return " ".join([_ODD_SINGULARS.get(first, first[:-1] if first[-1] == "s" else first), *rest])


def counted(n: int, plural: str) -> str:
    """`one plum`, `seven plums`, `no plums`."""
    return f"{number(n)} {singular(plural) if n == 1 else plural}"


def article(word: str) -> str:
    """The word with `a` or `an`; no word here starts with a silent h or a long u sound."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def with_article(options: Options) -> Options:
    """The same words and weights, each with its article, so that the article is no giveaway."""
    return Options([article(word) for word in options.strings], options.weights)


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


A_COLOUR = with_article(COLOURS)
A_LOOK = with_article(LOOKS)
A_TRAIT = with_article(TRAITS)
AN_ANIMAL = with_article(ANIMALS)
A_THING = with_article(THINGS)
A_ROLE = with_article(ROLES)

LISTS: dict[str, Options] = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, Options)
}

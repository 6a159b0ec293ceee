"""The vocabulary: lists from frequent to rare, no word the beginning of another in its list."""

from __future__ import annotations

from prepare.embedded.chooser import Options, zipf

GIRLS = zipf(
    "Lily|Mia|Emma|Sara|Nora|Anna|Ruby|Zoe|Clara|Ella|Lucy|Alice|Maya|Rose|Ivy|Hazel|Daisy|Julia|"
    "Molly|Nina|Poppy|Tess|Wendy|Amy|Fiona|Gwen|Holly|Jane|Kate|Leah|Olive|Penny|Sophie|Tilda|"
    "Vera|Bella|Cora|Dora|Edith|Freya|Greta|Ida|Joan|Lena|Mabel|Nelly|Pearl|Rita|Sylvia|Thea|Una|"
    "Violet|Yara|Zelda|Amira|Beth|Chloe|Elsa"
)
BOYS = zipf(
    "Tom|Ben|Max|Sam|Leo|Jack|Finn|Oscar|Hugo|Noah|Peter|Tim|Jacob|Henry|Adam|Felix|Luke|Owen|"
    "Paul|Ravi|Simon|Theo|Victor|Will|Eric|David|Colin|Bruno|Albert|George|Ivan|Karl|Martin|Nick|"
    "Otto|Ralph|Stefan|Toby|Walter|Yusuf|Arthur|Boris|Carlos|Dan|Edgar|Frank|Gus|Harold|Isaac|Jim|"
    "Kenji|Louis|Marco|Ned|Oliver|Rupert|Sid|Zack"
)
PETS = zipf(
    "Rex|Spot|Muffin|Pepper|Biscuit|Shadow|Ginger|Cookie|Patch|Pickle|Button|Whisker|Nugget|Honey|"
    "Pip|Domino|Bubbles|Cocoa|Fluff|Marble|Tango|Waffle|Jelly|Quill|Sprout|Acorn|Bandit|Clover|"
    "Dusty|Echo|Fudge|Goblin|Hazelnut|Inky|Juniper|Kiwi|Lucky|Mango|Noodle|Oreo|Pumpkin|Rusty|"
    "Scout|Toffee|Velvet|Ziggy"
)
TRAITS = zipf(
    "little|kind|curious|brave|clever|cheerful|quiet|funny|gentle|shy|lively|thoughtful|stubborn|"
    "careful|sleepy|friendly|grumpy|tiny|patient|merry|proud|polite|lonely|daring|dreamy|"
    "jolly|nosy|wise|tidy|messy|greedy|noisy|strong|graceful|bashful"
)
COLOURS = zipf(
    "red|blue|green|yellow|white|black|brown|pink|purple|grey|golden|silver|orange|violet|striped|"
    "spotted|turquoise|crimson|beige|cream|lilac|scarlet|copper|emerald"
)
LOOKS = zipf(
    "old|big|small|wooden|round|tall|heavy|dusty|broken|shiny|tiny|narrow|crooked|painted|square|"
    "huge|plain|rusty|fancy|soft|strange|creaky|lovely|ancient|wobbly|thin|flat|empty|warm|pretty|"
    "muddy|smooth|patched|curved|odd|giant|bright|dark|hollow|polished"
)
THINGS = zipf(
    "ball|kite|book|drum|doll|scarf|whistle|boat|lantern|puzzle|hat|bell|puppet|mirror|"
    "spinning top|wagon|flute|paintbrush|umbrella|teddy bear|trumpet|robot|telescope|compass|"
    "camera|sledge|violin|rocket|seashell|notebook|pencil|yo-yo|jigsaw|marble|magnet|rattle|"
    "windmill|crown|fan|jumper|backpack|blanket|candle|clock|train|truck"
)
TREASURES = zipf(
    "key|coin|ring|marble|shell|feather|button|stone|medal|map|necklace|letter|star|pearl|acorn|"
    "ribbon|whistle|thimble|crystal|fossil|badge|brooch|chain|diamond|egg|figurine|glove|hook|"
    "jewel|locket|mask|nail|pebble|photograph|quill|ruby|stamp|ticket|tooth|watch|bead|bracelet|"
    "cork|dice|envelope|goblet"
)
FURNITURE = zipf(
    "bed|table|chair|box|sofa|cupboard|stove|piano|bench|basket|clock|lamp|wardrobe|desk|carpet|"
    "bookshelf|bathtub|curtain|barrel|ladder|mattress|fireplace|armchair|cabinet|chest|door|"
    "fridge|globe|harp|jar|mirror|oven|painting|rug|sink|stool|trunk|vase|washtub|woodpile|bucket|"
    "cradle|hatstand|flowerpot|suitcase|wheelbarrow"
)
WHERE = zipf(
    "under|behind|next to|in front of|near|beside|on the far side of|to the left of|"
    "to the right of|not far from|right below|close to"
)
ROOMS = zipf(
    "attic|kitchen|garden|cellar|barn|shed|hall|garage|bedroom|stable|workshop|library|bathroom|"
    "courtyard|pantry|greenhouse|playroom|tower|treehouse|laundry|tent|veranda|office|porch"
)
CONTAINERS = zipf(
    "box|bag|chest|basket|jar|drawer|sack|tin|suitcase|barrel|bucket|purse|crate|trunk|pot|"
    "envelope|casket|bowl|bottle|case|cup|kettle|hatbox|lunchbox|mug|parcel|pouch|satchel|teapot|"
    "urn"
)
PLOTS = zipf(
    "garden|orchard|field|meadow|park|forest|hill|valley|farm|riverbank|clearing|grove|island|"
    "yard|vineyard|prairie|jungle|swamp|shore|mountain"
)
FRUITS = zipf(
    "apples|pears|plums|cherries|berries|nuts|flowers|mushrooms|peaches|carrots|tulips|lemons|"
    "figs|pumpkins|beans|turnips|radishes|onions|daisies|walnuts|acorns|bananas|chestnuts|"
    "dandelions|grapes|herbs|limes|melons|olives|oranges|peppers|quinces|roses|shells|"
    "strawberries|sunflowers|tomatoes|violets|cucumbers|apricots"
)
ANIMALS = zipf(
    "fox|rabbit|bear|mouse|turtle|owl|frog|hedgehog|duck|squirrel|wolf|goat|crow|deer|lion|otter|"
    "snail|goose|elephant|badger|monkey|swan|beaver|lizard|camel|penguin|tiger|zebra|ant|bat|cat|"
    "dog|donkey|eagle|ferret|giraffe|heron|jackal|kangaroo|lamb|mole|newt|ostrich|panda|quail|"
    "raven|seal|toad|vulture|weasel|yak|sparrow|spider|stork|walrus|hippo|koala|parrot|pony|puffin"
)
PET_KINDS = zipf(
    "dog|cat|rabbit|parrot|pony|duck|hamster|goat|donkey|mouse|crow|goose|lizard|turtle"
)
SOUNDS = {
    "dog": "barked",
    "cat": "purred",
    "rabbit": "hopped about",
    "parrot": "squawked",
    "pony": "neighed",
    "duck": "quacked",
    "hamster": "ran in circles",
    "goat": "bleated",
    "donkey": "brayed",
    "mouse": "squeaked",
    "crow": "cawed",
    "goose": "honked",
    "lizard": "blinked",
    "turtle": "nodded",
}
ROLES = zipf(
    "baker|farmer|teacher|doctor|miller|sailor|tailor|painter|shepherd|gardener|carpenter|"
    "fisherman|blacksmith|postman|mayor|cook|weaver|beekeeper|potter|librarian|astronaut|butcher|"
    "captain|dentist|engineer|fiddler|goldsmith|hunter|inventor|juggler|king|lawyer|magician|"
    "nurse|organist|pirate|queen|ranger|scientist|trader|umbrella maker|vet|wizard|clown|dancer|"
    "pilot|judge|knight|grocer|watchmaker"
)
GOODS = zipf(
    "rope|honey|wool|bread|milk|paper|cheese|flour|soap|wood|butter|leather|salt|corn|paint|tea|"
    "hay|cloth|wax|oil|clay|silk|bricks|candles|dough|eggs|feathers|glass|glue|gold|ink|jam|lace|"
    "nails|pepper|rice|sand|string|sugar|tin|vinegar|wheat|yarn|iron"
)
FOODS = zipf(
    "bread|milk|eggs|butter|cheese|rice|apples|soup|honey|jam|carrots|beans|fish|flour|tea|grapes|"
    "onions|salt|noodles|pepper|lemons|nuts|sugar|raisins|tomatoes|spinach|bacon|cabbage|dates|"
    "figs|garlic|ham|ice cream|juice|kale|leeks|mustard|olives|pancakes|radishes|sausages|toast|"
    "vinegar|waffles|yoghurt|cherries|chocolate|cucumbers|pickles|peas"
)
DISHES = zipf(
    "cake|pie|soup|loaf|stew|pudding|salad|pancake|tart|omelette|sandwich|curry|porridge|biscuit|"
    "dumpling|muffin|pizza|roast|trifle|waffle"
)
INGREDIENTS = zipf(
    "cups of flour|eggs|spoons of sugar|cups of milk|apples|spoons of honey|carrots|potatoes|"
    "pinches of salt|lumps of butter|handfuls of nuts|lemons|spoons of cocoa|onions|bananas|"
    "cloves of garlic|drops of vanilla|figs|jars of jam|leaves of mint|mushrooms|oranges|pears|"
    "slices of cheese|tomatoes|plums|spoons of oil|cups of rice|sticks of cinnamon|turnips"
)
LANDMARKS = zipf(
    "bridge|river|forest|hill|mill|church|market|pond|field|gate|tunnel|castle|well|lighthouse|"
    "windmill|vineyard|quarry|harbour|graveyard|meadow|bakery|cave|dam|fountain|garden|hedge|inn|"
    "jetty|lake|monument|oak tree|palace|railway|school|statue|theatre|village|waterfall|zoo|ruins"
)
THROUGH = zipf("past|over|through|around|across|along|towards|beyond|straight to|down to|up to")
WEATHER = zipf(
    "sunny|rainy|windy|warm|cold|foggy|cloudy|snowy|stormy|hot|misty|frosty|bright|mild|icy|dark|"
    "damp|fine|gloomy|lovely|chilly|breezy|muggy|quiet"
)
FEELINGS = zipf(
    "happy|tired|proud|excited|hungry|surprised|glad|sad|scared|worried|sleepy|thirsty|nervous|"
    "calm|puzzled|bored|grateful|cross|brave|curious|dizzy|eager|furious|jealous|lonely|merry|"
    "restless|safe|shy|strong|warm|clever|hopeful|guilty|lucky|silly"
)
SMELLS = zipf(
    "bread|flowers|rain|soup|smoke|grass|pine trees|cinnamon|soap|roses|hay|coffee|mint|apples|"
    "chocolate|earth|fish|honey|leather|moss|oranges|paint|sausages|toast|vanilla|wet dogs|wood|"
    "the sea|lavender|garlic"
)
NOISES = zipf(
    "a bell|an owl|thunder|music|footsteps|a train|a whistle|the wind|laughter|a drum|"
    "a church clock|a fiddle|the rain|a cuckoo|a wagon|bees|somebody singing|an engine|"
    "a waterfall|crickets|a door|the sea|hammers|a trumpet|frogs|a saw|voices|a horse|geese|"
    "a kettle"
)
HOMES = zipf(
    "house|cottage|farmhouse|flat|castle|mill|cabin|lighthouse|tent|tower|caravan|barn|cave|hut|"
    "inn|palace|boat|treehouse|villa|bungalow|windmill|shop"
)
SITES = zipf(
    "the river|the sea|the forest|a hill|the market|the mountains|a lake|the railway|"
    "the old bridge|a windmill|the school|the desert|an apple orchard|a waterfall|the harbour|"
    "a volcano|the city wall|a quiet beach|the zoo|a big factory|the airport|a deep valley|"
    "the church|a chestnut wood|the border|an island"
)
VERBS = zipf(
    "laughed|sang|danced|jumped|smiled|clapped|whistled|giggled|waved|cheered|bowed|sneezed|"
    "skipped|hummed|yawned|blushed|coughed|frowned|grinned|hiccupped|nodded|paused|sighed|"
    "shivered|shrugged|stretched|trembled|twirled|winked|wept|blinked|stumbled|hopped|listened|"
    "waited|whispered"
)
HOW = zipf(
    "quickly|warmly|hopefully|sweetly|wildly|dreamily|grumpily|wisely|hoarsely|boldly|clearly|"
    "firmly|merrily|nicely|seriously|thoughtfully|angrily|anxiously|brightly|curiously|excitedly|"
    "fondly|honestly|kindheartedly|lazily|mysteriously|playfully|sleepily|softly|at once|happily|"
    "slowly|loudly|carefully|quietly|gently|kindly|proudly|bravely|calmly|politely|eagerly|sadly|"
    "with a smile|secretly|suddenly|patiently|gladly|shyly|with a sigh|in a hurry|cheerfully|"
    "nervously|without a word|out of breath|with great care|on tiptoe|with a laugh|for no reason|"
    "in silence"
)
SAID = zipf(
    "said|answered|whispered|cried|replied|called|shouted|murmured|explained|laughed|sighed|sang|"
    "mumbled|declared|repeated|announced"
)
SKILLS = zipf(
    "run|swim|climb|sing|dance|draw|cook|read|paint|dig|fish|whisper|count|juggle|skate|dream|fly|"
    "hide|jump|knit|listen|march|paddle|roar|sail|sew|ski|sleep|think|wait|whistle|yodel|write|"
    "bake|float|hop"
)
MEALS = zipf(
    "breakfast|lunch|dinner|supper|bedtime|school|sunset|the storm|tea time|dusk|the party|"
    "the holidays"
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
    "strawberries": "strawberry",
    "peaches": "peach",
    "radishes": "radish",
    "daisies": "daisy",
    "potatoes": "potato",
    "tomatoes": "tomato",
    "pinches": "pinch",
    "leaves": "leaf",
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


def bare(noun: str) -> str:
    """The noun without its article."""
    return noun.split(" ", 1)[1]


def with_article(options: Options) -> Options:
    """The same words and weights, each with its article, so that the article is no giveaway."""
    return Options([article(word) for word in options.strings], options.weights)


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


# Invented names of towns, such as Tolimar: three parts, each its own choice.
TOWN_START = zipf(
    "Al|Bel|Cor|Dun|El|Fal|Gol|Har|Il|Jar|Kel|Lor|Mar|Nor|Ol|Pel|Quin|Ros|Sal|Tol|Ur|Vel|Wil|"
    "Yar|Zan|Bru|Cla|Dri|Fri|Gra|Kra|Pla|Sto|Tra|Vi|Mo|Ne|Ka|Lu|Hi"
)
TOWN_MIDDLE = zipf(
    "an|el|im|or|un|ed|ig|ak|ev|ub|ist|omb|arl|ert|ump|ond|isk|ald|ock|yr|az|ov|ix|ap|us|em|oy|aw|eth"
)
TOWN_END = zipf(
    "mar|ton|ville|ford|by|stead|burg|wick|ham|field|port|mouth|bridge|dale|worth|ley|haven|dorf|"
    "grad|sk|nia|polis|wood|well|pool|minster|gate|church|cliff|beck"
)
HOURS = zipf("09|08|10|11|14|15|16|17|07|12|13|18|19|06|20|05|21|22")
MINUTES = zipf("|".join(f"{minute:02d}" for minute in range(60)))

A_COLOUR = with_article(COLOURS)
A_LOOK = with_article(LOOKS)
A_TRAIT = with_article(TRAITS)
AN_ANIMAL = with_article(ANIMALS)
A_THING = with_article(THINGS)
A_ROLE = with_article(ROLES)

LISTS: dict[str, Options] = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, Options)
}

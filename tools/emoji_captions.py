"""From an emoji's label and tags to captions a person would write: "red heart" -> "a red heart"."""

import re
from collections import Counter
from collections.abc import Callable, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPECIAL = {
    # faces and people that are named by what they do or are
    "rolling on the floor laughing": "a face rolling on the floor laughing",
    "star-struck": "a star-struck face",
    "face exhaling": "a face breathing out",
    "hand with fingers splayed": "a hand with its fingers splayed",
    "raised back of hand": "the back of a raised hand",
    "palms up together": "two palms up together",
    "person in bed": "a person in bed",
    "person taking bath": "a person taking a bath",
    "bust in silhouette": "the silhouette of a bust",
    "busts in silhouette": "the silhouettes of two busts",
    "woman and man holding hands": "a woman and a man holding hands",
    "family": "a sign of a family",
    "page facing up": "a page of text",
    "speaker low volume": "a speaker at low volume",
    "speaker medium volume": "a speaker at medium volume",
    "speaker high volume": "a speaker at high volume",
    "fleur-de-lis": "a fleur-de-lis",
    "face in clouds": "a face in clouds",
    "face without mouth": "a face without a mouth",
    "face with tongue": "a face with its tongue out",
    "winking face with tongue": "a winking face with its tongue out",
    "squinting face with tongue": "a squinting face with its tongue out",
    "face screaming in fear": "a face screaming in fear",
    "face with symbols on mouth": "a face with symbols on its mouth",
    "face with steam from nose": "a face with steam from its nose",
    "face with hand over mouth": "a face with a hand over its mouth",
    "face with open eyes and hand over mouth": "a face with open eyes and a hand over its mouth",
    "sad but relieved face": "a sad but relieved face",
    "ZZZ": "the letters zzz, for sleep",
    "dizzy": "a dizzy star",
    "dashing away": "a cloud of dust, dashing away",
    "collision": "a cartoon explosion",
    "hundred points": "the number one hundred, underlined twice in red",
    "heart decoration": "a heart decoration",
    "skull and crossbones": "a skull and crossbones",
    "pile of poo": "a pile of poo",
    "selfie": "a hand taking a selfie",
    "nail polish": "a hand with nail polish",
    "handshake": "a handshake",
    "thumbs up": "a thumbs up",
    "thumbs down": "a thumbs down",
    "kiss": "two people kissing",
    "couple with heart": "a couple with a heart",
    "breast-feeding": "a woman breast-feeding a baby",
    "horse racing": "a jockey racing on a horse",
    "Santa Claus": "Santa Claus",
    "Mrs. Claus": "Mrs. Claus",
    "Mx Claus": "Mx Claus",
    "baby angel": "a baby angel",
    "person in suit levitating": "a person in a suit, levitating",
    "person in tuxedo": "a person in a tuxedo",
    "index pointing at the viewer": "an index finger pointing at the viewer",
    "index pointing up": "an index finger pointing up",
    # one of its kind
    "sun": "the sun",
    "sun with face": "the sun with a face",
    "milky way": "the Milky Way",
    "mount fuji": "Mount Fuji",
    "Tokyo tower": "Tokyo Tower",
    "Statue of Liberty": "the Statue of Liberty",
    "kaaba": "the Kaaba",
    "globe showing Europe-Africa": "a globe showing Europe and Africa",
    "globe showing Americas": "a globe showing the Americas",
    "globe showing Asia-Australia": "a globe showing Asia and Australia",
    # places, sports and signs that are named by an activity or an adjective
    "camping": "a tent at a camping site",
    "foggy": "a city in fog",
    "wedding": "a chapel for a wedding",
    "hot springs": "a hot spring with steam",
    "building construction": "a building under construction",
    "construction": "a construction barrier",
    "station": "a train station",
    "airplane departure": "an airplane taking off",
    "airplane arrival": "an airplane landing",
    "tennis": "a tennis racket and ball",
    "bowling": "a bowling ball and pins",
    "cricket game": "a cricket bat and ball",
    "field hockey": "a field hockey stick and ball",
    "ice hockey": "an ice hockey stick and puck",
    "lacrosse": "a lacrosse stick and ball",
    "ping pong": "a ping pong paddle and ball",
    "badminton": "a badminton racket and shuttlecock",
    "cooking": "an egg cooking in a pan",
    "performing arts": "the masks of comedy and tragedy",
    "locked": "a locked padlock",
    "unlocked": "an unlocked padlock",
    "locked with pen": "a locked padlock with a pen",
    "locked with key": "a locked padlock with a key",
    "high voltage": "a lightning bolt",
    "hourglass done": "an hourglass that has run out",
    "hourglass not done": "an hourglass still running",
    "chart increasing": "a rising chart",
    "chart decreasing": "a falling chart",
    "chart increasing with yen": "a rising chart with a yen sign",
    "snowman without snow": "a snowman without snow",
    "umbrella on ground": "an umbrella on the ground",
    "leaf fluttering in wind": "a leaf fluttering in the wind",
    "flag in hole": "a golf flag in a hole",
    "bridge at night": "a bridge at night",
    "cityscape at dusk": "a city at dusk",
    "beach with umbrella": "a beach with an umbrella",
    "couch and lamp": "a couch and a lamp",
    "fork and knife with plate": "a fork and a knife with a plate",
    "litter in bin sign": "a sign of a person throwing litter in a bin",
    "no one under eighteen": "a sign forbidding entry under eighteen",
    "no entry": "a no entry sign",
    "prohibited": "a prohibition sign",
    "warning": "a warning sign",
    "radioactive": "a radioactivity sign",
    "biohazard": "a biohazard sign",
    "children crossing": "a children crossing sign",
    "potable water": "a drinking water sign",
    "non-potable water": "a sign for water not to drink",
    "information": "an information sign",
    "registered": "a registered trade mark sign",
    "copyright": "a copyright sign",
    "trade mark": "a trade mark sign",
    "multiply": "a multiplication sign",
    "plus": "a plus sign",
    "minus": "a minus sign",
    "divide": "a division sign",
    "infinity": "an infinity sign",
    "wireless": "a wireless sign",
    "cinema": "a cinema sign",
    "vibration mode": "a phone in vibration mode",
    "mobile phone off": "a mobile phone switched off",
    "circled M": "the letter M in a circle",
    "input latin uppercase": "uppercase latin letters",
    "input latin lowercase": "lowercase latin letters",
    "input numbers": "the numbers one two three four",
    "input symbols": "typing symbols",
    "input latin letters": "the letters abc",
    "om": "an om symbol",
    "place of worship": "a sign for a place of worship",
    "meat on bone": "meat on a bone",
    "currency exchange": "a currency exchange sign",
    "bell with slash": "a crossed out bell",
    "eye in speech bubble": "an eye in a speech bubble",
    "teacup without handle": "a teacup without a handle",
    "dna": "a DNA double helix",
    "x-ray": "an x-ray of bones",
    "ON! arrow": "an arrow that says ON!",
    "flag: European Union": "the flag of the European Union",
    "flag: United Nations": "the flag of the United Nations",
    "diamond with a dot": "a diamond with a dot",
}  # fmt: skip

# Labels and objects that take no article; a blank inside one is written _.
UNCOUNTED = _words("""
    fire butter salt cheese bacon broccoli garlic popcorn sushi fog sake ice chocolate bread rice shaved_ice
    cooked_rice curry_rice baguette_bread canned_food pouring_liquid spaghetti oden thread yarn wood
    coral soap money luggage sweat steam rain snow lightning love joy fear
""")
PLURAL = {"people", "men", "women", "children", "cherries", "sheep", "teeth"}
SINGULAR_IN_S = _words("""
    bus trolleybus minibus lotus cactus hibiscus octopus rhinoceros hippopotamus glass dress compass
    cross princess abacus claus grass tennis mattress brass chess eyeglass
""")
PREPOSITIONS = "with|in|behind|on|wearing|over|under|from|showing|facing"
THE_COUNTRY = re.compile(
    r"Islands|Territor|Republic|^United|Emirates|^Bahamas|^Gambia|Netherlands|^Philippines|^Comoros|"
    r"^Maldives|^Isle of"
)


def captions(label: str, subcategory: str, tags: Sequence[str]) -> tuple[str, ...]:
    """Two or three phrasings: the thing; an emoji of the thing; the thing as in its two telling tags."""
    thing = noun_phrase(label, subcategory)
    phrasings = [thing, f"an emoji of {thing}"]
    if tags:
        phrasings.append(f"{thing}, as in {' and '.join(tags)}")
    return tuple(phrasings)


def noun_phrase(label: str, subcategory: str) -> str:
    """The label with the articles, and the words, that English wants."""
    label = label.translate(str.maketrans("’“”", '\'""'))
    if label in SPECIAL:
        return SPECIAL[label]
    for pattern, phrase in PATTERNS:
        if match := re.fullmatch(pattern, label):
            return phrase(*match.groups())
    if subcategory == "zodiac":
        return f"the zodiac sign {label}"
    if subcategory == "transport-sign":
        return with_article(label if label.endswith(("sign", "symbol")) else f"{label} sign")
    head, *rest = re.split(f" ({PREPOSITIONS}) ", label)
    words = [with_article(head)]
    for preposition, thing in zip(rest[::2], rest[1::2], strict=True):
        words += [preposition, " and ".join(with_article(each) for each in thing.split(" and "))]
    return " ".join(words)


def with_article(noun: str) -> str:
    """a cat, an owl, cherries, rice"""
    words = noun.lower().split(" of ")[0].split()
    first, last = words[0], words[-1]
    if first not in ("person", "man", "woman", "face"):  # these may go on: a woman lifting weights
        plural = last in PLURAL or (last.endswith("s") and last not in SINGULAR_IN_S and last[-2] != "'")
        if plural or first in PLURAL or first == "the" or noun.replace(" ", "_") in UNCOUNTED:
            return noun
    sounds_like_vowel = re.match(r"[aeiou]|hour|x-|(?:sos|ng|id)\b", first) and not re.match(
        r"one\b|one-|uni|eu|ewe", first
    )
    return f"{'an' if sounds_like_vowel else 'a'} {noun}"


def _flag(country: str) -> str:
    country = country.replace("&", "and").replace(" SAR China", "")
    return f"the flag of {'the ' if THE_COUNTRY.search(country) else ''}{country}"


def _everyone(members: str) -> str:
    """man, man, boy -> two men and a boy"""
    plural = {"man": "men", "woman": "women", "child": "children"}
    counts = Counter(members.split(", "))
    people = [with_article(m) if n == 1 else f"two {plural.get(m, m + 's')}" for m, n in counts.items()]
    return people[0] if len(people) == 1 else f"{', '.join(people[:-1])} and {people[-1]}"


def _person_with(person: str, look: str) -> str:
    if look == "bald":
        return f"a bald {person}"
    return f"a {person} with {'a beard' if look == 'beard' else look}"


PATTERNS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"flag: (.+)", _flag),
    (r"family: (.+)", lambda members: f"a sign of a family of {_everyone(members)}"),
    (r"kiss: (.+)", lambda members: f"{_everyone(members)} kissing"),
    (r"couple with heart: (.+)", lambda members: f"{_everyone(members)} with a heart"),
    (r"(.+): facing right", lambda who: f"{noun_phrase(who, '')}, facing right"),
    (r"(person|man|woman): (.+)", _person_with),
    (
        r"(person|man|woman) (feeding|getting|rowing|bouncing|tipping|raising) (\w+)",
        lambda who, does, thing: f"a {who} {does} {with_article(thing)}",
    ),
    (r"keycap: #", lambda: "a keycap with a hash sign"),
    (r"keycap: \*", lambda: "a keycap with an asterisk"),
    (r"keycap: (\d+)", lambda number: f"a keycap with the number {number}"),
    (r"(\w+ o'clock|\w+-thirty)", lambda time: f"a clock showing {time}"),
    (r"no (.+)", lambda deed: f"a sign forbidding {deed}"),
    (r"(\w+) button \(blood type\)", lambda blood: f"a button with the blood type {blood}"),
    (r'Japanese (".+") button', lambda text: f"a Japanese button that means {text}"),
    (r"([A-Z!]+) (button|arrow)", lambda text, thing: f"{with_article(thing)} that says {text}"),
    (r"(up|down|left|right) arrow", lambda way: f"an arrow pointing {way}"),
    (r"(up|down)-(left|right) arrow", lambda y, x: f"an arrow pointing {y} and {x}"),
    (r"(up-down|left-right) arrow", lambda both: f"an arrow pointing both {both.replace('-', ' and ')}"),
    (r"(right|left) arrow curving (\w+)", lambda way, then: f"an arrow pointing {way} and curving {then}"),
    (r"sun behind (.+)", lambda cloud: f"the sun behind {with_article(cloud)}"),
    (r"(\w+) and (\w+) with (\w+)", lambda a, b, c: f"a {a} and a {b} with a {c}"),
    (r"(red triangle) pointed (up|down)", lambda shape, way: f"a {shape} pointing {way}"),
)

# Tags that say nothing about the picture, or that nobody wants on it.
NOT_TELLING = _words("""
    face comic shade tale feels hand body person people adult man woman men women gesture game tool bae
    ily xoxo lol omg fml smh bs wtf rofl lmao roflmao tbh idk turd sexy shit ass butt cussing pissed
    flags cya gtg ttyl ttfn yolo swag homie bro bruh slay dope rad lit fam legit muah adorbs haha hahaha
    hehe heh lmk tmi whatever girl boy gay male female not you the and for over full five time back mark
""")


def telling_tags(label: str, tags: Sequence[str], frequency: Counter[str], most: int = 2) -> list[str]:
    """Up to `most` tags that add to the label, the ones shared by most emoji first: saxophone -> music."""
    spoken = [word for word in re.findall(r"[a-z]+", label.lower()) if len(word) > 2]
    chosen: list[str] = []
    for tag in sorted(tags, key=lambda tag: (-frequency[tag], tag)):
        plain_word = tag.isalpha() and tag.islower() and len(tag) > 2 and tag not in NOT_TELLING
        said = any(_same_stem(tag, word) or tag in word for word in [*spoken, *chosen])
        if plain_word and not said and frequency[tag] > 1:
            chosen.append(tag)
    return chosen[:most]


def _same_stem(a: str, b: str) -> bool:
    return a[:4] == b[:4] or a.startswith(b) or b.startswith(a)

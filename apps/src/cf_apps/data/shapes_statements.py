"""What a caption of captioned_shapes says, read from its words alone, and whether that is true of a scene.

The way back from `shapes_captions.describe`. Captions that a model wrote are judged by the truth behind the picture,
not by a reader of pixels: every one is taken apart into statements, each of which is true or false by itself.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from cf_eval.composition import RELATIONS

from cf_apps.data.shapes_captions import COLUMNS, COUNTS, PREFIXES, RELATION_WORDS, ROWS
from cf_apps.data.shapes_scene import BACKGROUNDS, COLOURS, MAX_OBJECTS, SHAPES, SIZES, THIRDS, Scenes

KINDS = ("count", "shape", "colour", "size", "place", "relation", "ground")

# place in words -> (column, row) on the grid of thirds
PLACES = {"in the center": (1, 1), "in the middle": (1, 1)} | {
    (f"on the {column}" if row == "center" else f"at the {row}" + f" {column}" * (column != "center")): (i, j)
    for i, column in enumerate(COLUMNS)
    for j, row in enumerate(ROWS)
    if (column, row) != ("center", "center")
}
_RELATION_OF = {words: name for name, both in RELATION_WORDS.items() for words in both}
_AFTER_A_PLACE = {long for _, long in RELATION_WORDS.values()}
_NUMBERS = {"a": 1, "an": 1} | {word: count for count, word in COUNTS.items()}


def _any(words: Sequence[str] | dict[str, object]) -> str:
    """A pattern of any of these, the longest first, so that `at the top left` is not cut after `top`."""
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_PLACE = _any([*PLACES])
_NOUN = rf"({_any([*_NUMBERS])})(?: ({_any([*SIZES])}))?(?: ({_any([*COLOURS])}))? ({_any([*SHAPES])})s?"
_GROUP = re.compile(rf"{_NOUN}((?:(?: |, | and ){_PLACE})*)")
_BETWEEN = re.compile(rf", and |, | and | {_any([*_RELATION_OF])} ")
_PREFIXES = sorted({*PREFIXES, "there are "}, key=len, reverse=True)
_CAPTION = re.compile(rf"({'|'.join(_PREFIXES)})(.*?)(?: on a ({_any([*BACKGROUNDS])}) background)?")


@dataclass(frozen=True)
class Group:
    """Objects of one kind: "two small red circles at the top left and on the right"; None or () is what is not said."""

    count: int
    size: str | None
    colour: str | None
    shape: str
    places: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, str | None]:
        return self.shape, self.colour

    def __str__(self) -> str:
        words = [word for word in (self.size, self.colour, self.shape) if word is not None]
        article = "an" if words[0][0] in "aeiou" else "a"
        noun = " ".join([COUNTS.get(self.count, article), *words]) + "s" * (self.count > 1)
        return f"{noun} {_listed(self.places)}" if self.places else noun


@dataclass(frozen=True)
class Said:
    """A caption taken apart. relation: the words between the first two groups, where they are no listing."""

    prefix: str
    groups: tuple[Group, ...]
    relation: str | None
    ground: str | None

    def __str__(self) -> str:
        """The caption again, as the grammar writes it."""
        words = [str(group) for group in self.groups]
        clause = _listed(words)
        if self.relation is not None:
            clause = f"{words[0]} {self.relation} {words[1]}" + "".join(
                f", and {third}" for third in words[2:]
            )
        return self.prefix + clause + (f" on a {self.ground} background" if self.ground else "")

    @property
    def objects(self) -> int:
        """How many objects it speaks of."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True)
class Verdict:
    """One statement of a caption: its kind (one of KINDS), its words, and whether the scene bears it out."""

    kind: str
    words: str
    true: bool


def parse(text: str) -> Said | None:
    """The statements of a caption; None where the grammar cannot produce these very words."""
    said = _taken_apart(text)
    # written again, it shows a wrong article, a missing plural, a comma too many
    return said if said is not None and _can_be_said(said) and str(said) == text else None


def grammatical(text: str) -> bool:
    """Whether the grammar of `shapes_captions` can produce this string, of whatever objects in different cells."""
    return parse(text) is not None


def judge(text: str, scenes: Scenes, row: int) -> list[Verdict]:
    """Every statement of a caption with its verdict by the scene's truth; [] for what is not grammatical.

    Objects that are spoken of are matched with those of the scene so that as many statements as can be are true.
    A count is of its kind: "a red circle" is false of two red circles, and silent about a square beside it.
    A relation holds as in `cf_eval.composition`, which allows diagonals, where captions of scenes avoid them.
    """
    said = parse(text)
    if said is None:
        return []
    things = _things(scenes, row)
    spoken = [(group, place) for group in said.groups for place in group.places or (None,) * group.count]
    padded = [*things, *(None,) * (len(spoken) - len(things))]
    matched = (
        [*_of_objects(spoken, chosen), *_of_relation(said, chosen)]
        for chosen in permutations(padded, len(spoken))
    )
    best = max(matched, key=lambda verdicts: sum(verdict.true for verdict in verdicts))
    return [*_of_counts(said, things), *best, *_of_ground(said, scenes, row)]


def true_of(text: str, scenes: Scenes, row: int) -> bool:
    """Whether a caption is grammatical and all that it states is true of the scene."""
    verdicts = judge(text, scenes, row)
    return bool(verdicts) and all(verdict.true for verdict in verdicts)


def names_everything(text: str, scenes: Scenes, row: int) -> bool:
    """Whether a caption speaks of as many objects as there are; those of scenes always do."""
    said = parse(text)
    return said is not None and said.objects == sum(scenes.lists["present"][row])


# ---------------------------------------------------------------------------------- words -> statements


def _taken_apart(text: str) -> Said | None:
    """Prefix, groups and what stands between them, ground; None where some words are neither."""
    whole = _CAPTION.fullmatch(text)
    if whole is None:
        return None
    prefix, clause, ground = whole.groups()
    groups, between, at = [], [], 0
    while group := _GROUP.match(clause, at):
        count, size, colour, shape, places = group.groups()
        groups.append(Group(_NUMBERS[count], size, colour, shape, tuple(re.findall(_PLACE, places))))
        at = group.end()
        if (separator := _BETWEEN.match(clause, at)) is None:
            break
        between.append(separator.group().strip())
        at = separator.end()
    if not groups or at != len(clause) or len(between) != len(groups) - 1:
        return None
    relations = [words for words in between if words in _RELATION_OF]
    return Said(prefix, tuple(groups), relations[0] if relations else None, ground)


def _can_be_said(said: Said) -> bool:
    """The grammar's rules that reach beyond one group: what is said of one object is said of all, and no nonsense."""
    groups = said.groups
    cells = [PLACES[place] for group in groups for place in group.places]
    number_agrees = (said.prefix == "there are ") == (len(groups) == 1 and groups[0].count > 1)
    return (
        said.objects <= MAX_OBJECTS
        and (number_agrees or not said.prefix.startswith("there"))
        and len({group.colour is None for group in groups}) == 1
        and len(cells) in (0, said.objects)
        and all(len(group.places) in (0, group.count) for group in groups)
        and len(set(cells)) == len(cells)  # two objects stand at two places
        and (_can_be_related(said) if said.relation else len({g.kind for g in groups}) == len(groups))
    )


def _can_be_related(said: Said) -> bool:
    """Two single objects that can be told apart, and a relation that their places, where said, do not deny."""
    first, second = said.groups[:2]
    if any(group.count > 1 for group in said.groups) or first.kind == second.kind:
        return False
    if not first.places:
        return True
    return said.relation in _AFTER_A_PLACE and _fits(
        _RELATION_OF[said.relation], PLACES[first.places[0]], PLACES[second.places[0]]
    )


def _fits(relation: str, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether objects in the cells a and b can stand so that one axis clearly decides for this relation.

    Neighbours across a corner can, as objects do not stand in the middle of their cells; opposite corners cannot.
    """
    along, across = (
        (b[0] - a[0], b[1] - a[1]) if relation in ("left_of", "right_of") else (b[1] - a[1], b[0] - a[0])
    )
    along = along if relation in ("left_of", "above") else -along
    return along >= max(1, abs(across)) and (along, abs(across)) != (2, 2)


def _listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c" """
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


# ---------------------------------------------------------------------------------- statements -> verdicts


@dataclass(frozen=True)
class _Thing:
    """An object as it is."""

    shape: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def cell(self) -> tuple[int, int]:
        column, row = (min(range(3), key=lambda i: abs(THIRDS[i] - k)) for k in (self.x, self.y))
        return column, row


Spoken = tuple[Group, str | None]  # one object of a group, and the place said of it


def _things(scenes: Scenes, row: int) -> list[_Thing]:
    it = scenes.lists
    shapes, colours, sizes = [*SHAPES], [*COLOURS], [*SIZES]
    return [
        _Thing(shapes[shape], colours[colour], sizes[size], x, y)
        for present, shape, colour, size, x, y in zip(
            *(it[name][row] for name in ("present", "shape", "colour", "size", "x", "y")), strict=True
        )
        if present
    ]


def _of_counts(said: Said, things: Sequence[_Thing]) -> Iterator[Verdict]:
    """Of each kind that is named, there are as many as all groups of that kind hold together."""
    named = Counter[tuple[str, str | None]]()
    for group in said.groups:
        named[group.kind] += group.count
    for (shape, colour), count in named.items():
        there = sum(thing.shape == shape and colour in (None, thing.colour) for thing in things)
        yield Verdict("count", str(Group(count, None, colour, shape)), there == count)


def _of_objects(spoken: Sequence[Spoken], chosen: Sequence[_Thing | None]) -> Iterator[Verdict]:
    """Shape, colour, size and place of each object, where they are said."""
    for (group, place), thing in zip(spoken, chosen, strict=True):
        for kind, words in (("shape", group.shape), ("colour", group.colour), ("size", group.size)):
            if words is not None:
                yield Verdict(kind, words, thing is not None and getattr(thing, kind) == words)
        if place is not None:
            yield Verdict("place", place, thing is not None and thing.cell == PLACES[place])


def _of_relation(said: Said, chosen: Sequence[_Thing | None]) -> Iterator[Verdict]:
    if said.relation is not None:
        a, b = chosen[:2]
        holds = a is not None and b is not None and RELATIONS[_RELATION_OF[said.relation]](a, b)
        yield Verdict("relation", said.relation, holds)


def _of_ground(said: Said, scenes: Scenes, row: int) -> Iterator[Verdict]:
    if said.ground is not None:
        yield Verdict("ground", said.ground, [*BACKGROUNDS][scenes.lists["background"][row]] == said.ground)

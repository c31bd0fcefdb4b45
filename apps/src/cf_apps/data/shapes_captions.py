"""Captions for scenes: a small grammar with several phrasings, and what each caption promises.

A caption mentions some of the truth and leaves the rest open. `describe` returns the words together with the
`Expectation` that a picture drawn from them has to meet. Only of objects that stand where one expects them anyway may
it keep silent about where they stand.
"""

import random
from dataclasses import dataclass, replace

from cf_eval.composition import Expectation, Wanted

from cf_apps.data.shapes_scene import (
    BACKGROUNDS,
    COLOURS,
    LISTED,
    RELATED,
    SHAPES,
    SIZES,
    THIRDS,
    Layout,
    Scenes,
    area_border,
)

COUNTS = {2: "two", 3: "three"}
PREFIXES = ("", "", "", "a picture of ", "an image of ", "there is ")
RELATION_WORDS = {
    "left_of": ("left of", "to the left of"),
    "right_of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SHAPES, _COLOURS, _SIZES, _GROUNDS = (list(it) for it in (SHAPES, COLOURS, SIZES, BACKGROUNDS))
COLUMNS = {"left": (0.0, 0.40), "center": (0.30, 0.70), "right": (0.60, 1.0)}
ROWS = {"top": (0.0, 0.40), "center": (0.30, 0.70), "bottom": (0.60, 1.0)}


@dataclass(frozen=True)
class Caption:
    """Words, and what a picture must show to keep their promise."""

    text: str
    expectation: Expectation


@dataclass(frozen=True)
class Rates:
    """How often a caption speaks of each where it need not."""

    colour: float
    size: float
    place: float
    ground: float


# What no word says a model must decide from noise alone, and learns slowly.
STATED, OPEN = Rates(0.9, 0.8, 1.0, 0.95), Rates(0.9, 0.2, 0.0, 0.1)
OPEN_SHARE = 0.6  # of captions that may leave open where objects stand


@dataclass(frozen=True)
class _Says:
    """What one caption speaks of: all places or none, colours and sizes at a rate."""

    placed: bool
    rates: Rates


@dataclass(frozen=True)
class _Object:
    """One object of a scene in the grammar's terms."""

    shape: str
    colour: str
    size: str
    x: float
    y: float


def describe(
    scenes: Scenes, row: int, rng: random.Random, task: str | None = None, rates: Rates | None = None
) -> Caption | None:
    """A caption of one scene. task: one of `cf_eval.composition.TASKS`; None lets the scene and the dice decide.

    rates: how much it says; None throws dice between STATED and, where the layout allows it, OPEN.

    Returns None when the scene cannot serve the task (a counting caption of three different shapes, say), or the rates.
    """
    objects = _objects(scenes, row)
    background = _GROUNDS[scenes.lists["background"][row]]
    if task is None:
        possible = {t: c for t in _SENTENCES if (c := _sentence(t, objects, background, rng, rates))}
        # one object, one kind or several kinds: some sentence that states places always fits
        return rng.choice(list(possible.values())) if possible else None
    return _sentence(task, objects, background, rng, rates)


def _objects(scenes: Scenes, row: int) -> list[_Object]:
    it = scenes.lists
    return [
        _Object(_SHAPES[shape], _COLOURS[colour], _SIZES[size], x, y)
        for present, shape, colour, size, x, y in zip(
            *(it[name][row] for name in ("present", "shape", "colour", "size", "x", "y")), strict=True
        )
        if present
    ]


def _sentence(
    task: str, objects: list[_Object], background: str, rng: random.Random, rates: Rates | None
) -> Caption | None:
    """One whole caption: a prefix, the task's own clause, sometimes the ground."""
    if rates is None:
        terse = _sentence(task, objects, background, rng, OPEN) if rng.random() < OPEN_SHARE else None
        return terse or _sentence(task, objects, background, rng, STATED)
    clause = _SENTENCES[task](objects, rng, _Says(rng.random() < rates.place, rates))
    if clause is None:
        return None
    words, wanted, relations = clause
    named_ground = background if rng.random() < rates.ground else None
    ground = "" if named_ground is None else f" on a {named_ground} background"
    prefix = rng.choice(PREFIXES)
    if prefix == "there is " and task == "counting":
        prefix = "there are "
    exact = task == "counting"
    return Caption(prefix + words + ground, Expectation(task, wanted, relations, named_ground, exact))


Bounds = tuple[float, float]
Clause = tuple[str, tuple[Wanted, ...], tuple[tuple[int, str, int], ...]]


def _single_object(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """a large triangle at the top left"""
    if len(objects) != 1 or not (says.placed or _as_listed(objects)):
        return None
    noun, wanted = _group(objects, rng.random() < says.rates.colour, says, rng)
    return noun, wanted, ()


def _colours(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """a small red circle on the right"""
    if len(objects) != 1 or not (says.placed or _as_listed(objects)):
        return None
    noun, wanted = _group(objects, True, says, rng)
    return noun, wanted, ()


def _two_objects(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """a circle and a large square"""
    return _listing(objects, rng, says, colour=rng.random() < says.rates.colour)


def _attribute_binding(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """a red circle, a blue square and a green triangle"""
    return _listing(objects, rng, says, colour=True)


def _listing(objects: list[_Object], rng: random.Random, says: _Says, colour: bool) -> Clause | None:
    """Objects of one kind are named together: two red circles and a blue square."""
    kinds: dict[tuple[str, str | None], list[_Object]] = {}
    for it in objects:
        kinds.setdefault((it.shape, it.colour if colour else None), []).append(it)
    if len(kinds) < 2 or not (says.placed or _as_listed([it for alike in kinds.values() for it in alike])):
        return None
    groups = [_group(alike, colour, says, rng) for alike in kinds.values()]
    nouns = [noun for noun, _ in groups]
    return ", ".join(nouns[:-1]) + " and " + nouns[-1], tuple(w for _, wanted in groups for w in wanted), ()


def _counting(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """three small red circles at the top left, in the center and on the right"""
    if len(objects) < 2 or len({it.shape for it in objects}) > 1 or not (says.placed or _as_listed(objects)):
        return None
    same_colour = len({it.colour for it in objects}) == 1
    noun, wanted = _group(objects, same_colour and rng.random() < says.rates.colour, says, rng)
    return noun, wanted, ()


def _group(
    alike: list[_Object], colour: bool, says: _Says, rng: random.Random
) -> tuple[str, tuple[Wanted, ...]]:
    """ "two small red circles" or "a red circle", with places if they are said, and the promise of each object"""
    size = len({it.size for it in alike}) == 1 and rng.random() < says.rates.size
    noun, wanted = _noun(alike[0], colour, size)
    if len(alike) > 1:
        noun = f"{COUNTS[len(alike)]} {noun.split(' ', 1)[1]}s"
    if not says.placed:
        return noun, (wanted,) * len(alike)
    places = [_place(it, rng) for it in alike]
    words = [place for place, _, _ in places]
    where = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    return f"{noun} {where}", tuple(replace(wanted, x=x, y=y) for _, x, y in places)


def _position(objects: list[_Object], rng: random.Random, says: _Says) -> Clause | None:
    """a red circle at the top left, left of a blue square on the right (, and a triangle)"""
    if len(objects) < 2:
        return None
    relation = _relation(objects[0], objects[1])
    colour = rng.random() < says.rates.colour
    if relation is None or (objects[0].shape, objects[0].colour) == (objects[1].shape, objects[1].colour):
        return None
    if not colour and objects[0].shape == objects[1].shape:
        return None
    if not says.placed and _layout(objects) not in RELATED[len(objects)]:
        return None
    (first, second, *third), wanted = zip(*(_group([it], colour, says, rng) for it in objects), strict=True)
    short, long = RELATION_WORDS[relation]
    # the short form after a place would read "on the right right of"
    words = f"{first} {long if says.placed else rng.choice((short, long))} {second}"
    words += f", and {third[0]}" if third else ""
    return words, tuple(w for (w,) in wanted), ((0, relation, 1),)


def _noun(it: _Object, colour: bool, size: bool) -> tuple[str, Wanted]:
    """ "a small red circle" with its promise; colour and size say what is mentioned"""
    words = [it.size] * size + [it.colour] * colour + [it.shape]
    article = "an" if words[0][0] in "aeiou" else "a"
    wanted = Wanted(it.shape, it.colour if colour else None, _area(it) if size else None)
    return " ".join([article, *words]), wanted


def _area(it: _Object) -> tuple[float, float]:
    border = area_border(it.shape)
    return (0.0, border) if it.size == "small" else (border, 1.0)


def _place(it: _Object, rng: random.Random) -> tuple[str, Bounds, Bounds]:
    """ "at the top left" or "on the left" with the bounds on x and y"""
    column, row = list(COLUMNS)[_third(it.x)], list(ROWS)[_third(it.y)]
    x, y = COLUMNS[column], ROWS[row]
    if (row, column) == ("center", "center"):
        return rng.choice(("in the center", "in the middle")), x, y
    if column == "center":
        return f"at the {row}", x, y
    if row == "center":
        return f"on the {column}", x, y
    return f"at the {row} {column}", x, y


def _as_listed(objects: list[_Object]) -> bool:
    """Whether a caption may list objects, in this order, and keep silent about where they stand."""
    return _layout(objects) == LISTED[len(objects)]


def _layout(objects: list[_Object]) -> Layout:
    return tuple((_third(it.x), _third(it.y)) for it in objects)


def _third(value: float) -> int:
    return min(range(len(THIRDS)), key=lambda i: abs(value - THIRDS[i]))


def _relation(a: _Object, b: _Object) -> str | None:
    """How a lies to b, when one axis clearly decides."""
    dx, dy = b.x - a.x, b.y - a.y
    minor, major = sorted((abs(dx), abs(dy)))
    if major < 0.2 or major < 1.25 * minor:
        return None
    if abs(dx) > abs(dy):
        return "left_of" if dx > 0 else "right_of"
    return "above" if dy > 0 else "below"


_SENTENCES = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colours": _colours,
    "position": _position,
    "attribute_binding": _attribute_binding,
}

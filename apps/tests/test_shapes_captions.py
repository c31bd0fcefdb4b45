"""Captions promise only what is true, and read like English."""

import random
import re
from collections import Counter
from itertools import permutations
from unittest.mock import patch

import pytest
import torch
from cf_apps.data import shapes_captions
from cf_apps.data.captioned_shapes import held_out_captions, shapes_reader
from cf_apps.data.shapes_captions import OPEN, PREFIXES, STATED, Rates, describe
from cf_apps.data.shapes_render import render
from cf_apps.data.shapes_scene import (
    COLOURS,
    LISTED,
    RELATED,
    SHAPES,
    THIRDS,
    Scenes,
    draw_scenes,
    in_reading_order,
)
from cf_apps.t2i.presets import t2i_preset
from cf_encoders import Vocabulary
from cf_eval import TASKS, Detection, everything_right, satisfies

N = 360
SHAPE, COLOUR = list(SHAPES), list(COLOURS)
TRUE_PICTURES = 0.99  # the issue asks for 0.94; every one is read rightly today


def scenes_of(seed: int, n: int = N) -> Scenes:
    return draw_scenes(n, torch.Generator().manual_seed(seed))


def captions_of(scenes: Scenes, task: str | None, seed: int = 0) -> dict[int, object]:
    """row -> caption, where the scene can serve the task."""
    rng = random.Random(seed)
    found = {row: describe(scenes, row, rng, task) for row in range(len(scenes))}
    return {row: caption for row, caption in found.items() if caption is not None}


def scene(*objects: tuple[str, str, float, float], size: int = 0, background: int = 0) -> Scenes:
    """One scene of (shape, colour, x, y)."""
    slots = [*objects, *[("circle", "red", 0.5, 0.5)] * (3 - len(objects))]
    shape, colour, x, y = zip(*slots, strict=True)
    return Scenes(
        torch.arange(3)[None] < len(objects),
        torch.tensor([[SHAPE.index(name) for name in shape]]),
        torch.tensor([[COLOUR.index(name) for name in colour]]),
        torch.full((1, 3), size),
        torch.tensor([x]),
        torch.tensor([y]),
        torch.full((1, 3), 0.5),
        torch.tensor([background]),
    )


def texts_of(it: Scenes, task: str | None, tries: int = 3000) -> set[str]:
    """Every phrasing of a scene that turns up in many tries, where nothing is rare."""
    rng, even = random.Random(0), Rates(0.5, 0.5, 0.5, 0.5)
    with patch.multiple(shapes_captions, STATED=even, OPEN=even):
        return {caption.text for _ in range(tries) if (caption := describe(it, 0, rng, task)) is not None}


# ---------------------------------------------------------------------------------- the promise and the truth


@pytest.fixture(scope="module", params=[(32, N), (64, N // 2)], ids=["32px", "64px"])
def read_back(request):
    """(picture size, scenes, what the reader sees in their true pictures)"""
    image_size, n = request.param
    scenes = scenes_of(image_size, n)
    return image_size, scenes, shapes_reader()(render(scenes, image_size)[0])


def test_the_true_picture_keeps_every_promise_of_every_task(read_back):
    _, scenes, readings = read_back
    for task in TASKS:
        verdicts = [
            (
                satisfies(readings[row], caption.expectation),
                everything_right(readings[row], caption.expectation),
            )
            for row, caption in captions_of(scenes, task).items()
        ]
        assert len(verdicts) > 30
        for right in zip(*verdicts, strict=True):
            assert sum(right) / len(verdicts) >= TRUE_PICTURES, task


def test_the_reader_finds_each_true_object_where_it_stands(read_back):
    image_size, scenes, readings = read_back
    exact = 0
    for row, reading in enumerate(readings):
        slots = scenes.present[row].nonzero().flatten().tolist()
        exact += len(slots) == len(reading.objects) and any(
            all(_is_seen_as(scenes, row, i, it, 1 / image_size) for i, it in zip(slots, order, strict=True))
            for order in permutations(reading.objects)
        )
    assert exact / len(readings) >= TRUE_PICTURES


def _is_seen_as(scenes: Scenes, row: int, slot: int, it: Detection, pixel: float) -> bool:
    place = (float(scenes.x[row, slot]), float(scenes.y[row, slot]))
    names = (SHAPE[scenes.shape[row, slot]], COLOUR[scenes.colour[row, slot]])
    return names == (it.shape, it.colour) and abs(place[0] - it.x) < pixel and abs(place[1] - it.y) < pixel


@pytest.mark.parametrize("task", TASKS)
def test_another_scenes_picture_seldom_keeps_the_promise(read_back, task):
    """The scorer must be able to say no: chance is far from right."""
    _, scenes, readings = read_back
    verdicts = [
        satisfies(readings[row - 1], caption.expectation)
        for row, caption in captions_of(scenes, task).items()
    ]
    assert sum(verdicts) / len(verdicts) < 0.35


def test_what_is_mentioned_is_promised_and_what_is_promised_is_mentioned():
    scenes = scenes_of(11)
    for task in TASKS:
        for caption in captions_of(scenes, task).values():
            text, wanted = caption.text, caption.expectation.wanted
            assert caption.expectation.task == task
            for colour in COLOURS:
                assert (f" {colour} " in f" {text} ") == any(w.colour == colour for w in wanted)
            for shape in SHAPES:
                assert (shape in text) == any(w.shape == shape for w in wanted)
            assert ("small" in text or "large" in text) == any(w.area is not None for w in wanted)
            assert ("background" in text) == (caption.expectation.background is not None)
            places = (" at the ", " on the ", " in the ")
            assert any(p in text for p in places) == any(w.x or w.y for w in wanted)
            assert bool(caption.expectation.relations) == (task == "position")
            assert caption.expectation.exact == (task == "counting")


def test_most_captions_say_where_everything_stands_and_some_next_to_nothing():
    captions = captions_of(scenes_of(12, 4 * N), None).values()
    said = Counter(
        (bool(caption.expectation.wanted[0].x), caption.expectation.background is not None)
        for caption in captions
    )
    share = {key: count / sum(said.values()) for key, count in said.items()}
    assert share[(True, True)] == pytest.approx(0.86 * 0.95, abs=0.04)
    assert share[(False, False)] == pytest.approx(0.14 * 0.9, abs=0.04)


@pytest.mark.parametrize(("rates", "placed"), [(STATED, True), (OPEN, False)])
def test_captions_of_one_kind_can_be_asked_for(rates, placed):
    scenes, rng = scenes_of(14, 4 * N), random.Random(0)
    for task in (None, *TASKS):
        some = [c for row in range(4 * N) if (c := describe(scenes, row, rng, task, rates)) is not None]
        assert len(some) > 30
        assert {w.x is not None for caption in some for w in caption.expectation.wanted} == {placed}


@pytest.mark.parametrize("task", TASKS)
def test_only_where_objects_stand_as_expected_may_a_caption_keep_silent_about_it(task):
    scenes, rng = scenes_of(16, 4 * N), random.Random(0)
    grid = torch.tensor(THIRDS)
    cells = torch.stack([(k[..., None] - grid).abs().argmin(-1) for k in (scenes.x, scenes.y)], -1).tolist()
    silent = set()
    for row in range(len(scenes)):
        if describe(scenes, row, rng, task, OPEN) is not None:
            silent.add(
                tuple(
                    tuple(cell)
                    for cell, is_there in zip(cells[row], scenes.present[row], strict=True)
                    if is_there
                )
            )
    if task == "position":
        assert silent == {*RELATED[2], *RELATED[3]}
    elif task in ("single_object", "colours"):
        assert silent == {LISTED[1]}
    elif task == "counting":
        assert silent == {LISTED[2], LISTED[3]}
    else:  # of three, two of a kind are named together: the scene's own order may differ from the caption's
        assert {LISTED[2], LISTED[3]} <= silent
        assert {tuple(sorted(layout)) for layout in silent} == {tuple(sorted(LISTED[n])) for n in (2, 3)}


@pytest.mark.parametrize("count", [2, 3])
def test_the_expected_layouts_of_two_objects_show_the_four_relations(count):
    rng = random.Random(0)
    for layout, word in zip(RELATED[count], ("left of", "right of", "above", "below"), strict=True):
        places = [(THIRDS[column], THIRDS[row]) for column, row in layout]
        names = (("circle", "red"), ("square", "blue"), ("triangle", "green"))
        it = scene(*((*name, *place) for name, place in zip(names, places, strict=False)))
        silent = {c.text for _ in range(200) if (c := describe(it, 0, rng, "position", OPEN)) is not None}
        assert any(f"circle {word} a" in text for text in silent)
        assert not any(
            other in text for text in silent for other in {"left of", "right of", "above", "below"} - {word}
        )


# ---------------------------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.2, 0.2, "at the top left"),
        (0.8, 0.2, "at the top right"),
        (0.2, 0.8, "at the bottom left"),
        (0.8, 0.8, "at the bottom right"),
        (0.2, 0.5, "on the left"),
        (0.8, 0.5, "on the right"),
        (0.5, 0.2, "at the top"),
        (0.5, 0.8, "at the bottom"),
        (0.5, 0.5, "in the center"),
        (0.5, 0.5, "in the middle"),
    ],
)
def test_a_place_is_named_rightly(x, y, place):
    texts = texts_of(scene(("circle", "red", x, y)), "single_object")
    assert f"a circle {place}" in texts
    named = {text.split("circle", 1)[1].split(" on a ")[0].strip() for text in texts} - {""}
    assert named <= {place, "in the center", "in the middle"}


def test_a_named_place_leaves_the_true_centre_some_room():
    scenes = scenes_of(19)
    first = scenes.present.float().argmax(1)
    for row, caption in captions_of(scenes, "single_object").items():
        (wanted,) = caption.expectation.wanted
        centre = (float(scenes.x[row, first[row]]), float(scenes.y[row, first[row]]))
        for value, bounds in zip(centre, (wanted.x, wanted.y), strict=True):
            if bounds is not None:
                assert bounds[0] == 0.0 or value >= bounds[0] + 0.05
                assert bounds[1] == 1.0 or value <= bounds[1] - 0.05


@pytest.mark.parametrize(
    ("dx", "dy", "words"),
    [
        (0.5, 0.1, {"left of", "to the left of"}),
        (-0.5, 0.1, {"right of", "to the right of"}),
        (0.1, 0.5, {"above", "over"}),
        (0.1, -0.5, {"below", "under"}),
    ],
)
def test_a_relation_is_that_of_the_first_object_to_the_second(dx, dy, words):
    it = scene(("circle", "red", 0.5 - dx / 2, 0.5 - dy / 2), ("square", "blue", 0.5 + dx / 2, 0.5 + dy / 2))
    texts = texts_of(it, "position")
    plain = {f"a red circle {word} a blue square" for word in words}
    assert plain <= texts
    order = re.compile(
        f"circle.* ({'|'.join(words)}) an? .*square"
    )  # the first object, the relation, the second
    assert all(order.search(text) for text in texts)


def test_a_diagonal_or_near_pair_has_no_relation():
    for dx, dy in ((0.3, 0.3), (0.3, 0.27), (0.15, 0.0)):
        it = scene(("circle", "red", 0.4, 0.4), ("square", "blue", 0.4 + dx, 0.4 + dy))
        assert describe(it, 0, random.Random(0), "position") is None


def test_objects_that_cannot_be_told_apart_have_no_relation():
    twins = scene(("circle", "red", 0.2, 0.5), ("circle", "red", 0.8, 0.5))
    assert describe(twins, 0, random.Random(0), "position") is None
    colours = texts_of(scene(("circle", "red", 0.2, 0.5), ("circle", "blue", 0.8, 0.5)), "position")
    assert all("red" in text and "blue" in text for text in colours)


def test_counts_and_groups_are_written_as_words():
    three = scene(("square", "green", 0.5, 0.2), ("square", "green", 0.2, 0.8), ("square", "green", 0.8, 0.8))
    assert {"three squares", "three green squares", "three small green squares"} <= texts_of(
        three, "counting"
    )
    assert any(text.startswith("there are three") for text in texts_of(three, "counting"))
    mixed = scene(("circle", "red", 0.5, 0.2), ("circle", "red", 0.2, 0.8), ("square", "blue", 0.8, 0.8))
    assert "two red circles and a blue square" in texts_of(mixed, "attribute_binding")
    assert "two circles and a square" in texts_of(mixed, "two_objects")
    several = scene(
        ("circle", "red", 0.5, 0.2), ("square", "blue", 0.2, 0.8), ("triangle", "green", 0.8, 0.8)
    )
    assert "a red circle, a blue square and a green triangle" in texts_of(several, "attribute_binding")


def test_the_article_follows_the_sound():
    texts = texts_of(scene(("square", "orange", 0.5, 0.5)), "colours")
    assert "an orange square" in texts
    assert "a small orange square" in texts
    assert not any("a orange" in text for text in texts)


def test_a_scene_that_cannot_serve_a_task_says_so():
    one = scene(("circle", "red", 0.5, 0.5))
    two = scene(("circle", "red", 0.2, 0.2), ("square", "red", 0.8, 0.8))
    for task in ("two_objects", "counting", "position", "attribute_binding"):
        assert describe(one, 0, random.Random(0), task) is None
    for task in ("single_object", "colours", "counting"):
        assert describe(two, 0, random.Random(0), task) is None


# ---------------------------------------------------------------------------------- as a whole


def test_every_scene_has_some_caption_and_all_tasks_and_phrasings_turn_up():
    scenes = scenes_of(13, 1200)
    captions = captions_of(scenes, None)
    assert len(captions) == 1200
    tasks = Counter(caption.expectation.task for caption in captions.values())
    assert set(tasks) == set(TASKS)
    assert min(tasks.values()) > 20
    texts = [caption.text for caption in captions.values()]
    for prefix in set(PREFIXES) - {""}:
        assert any(text.startswith(prefix) for text in texts)


def test_a_caption_follows_from_its_dice():
    scenes = scenes_of(15, 40)
    assert captions_of(scenes, None, seed=3) == captions_of(scenes, None, seed=3)
    assert captions_of(scenes, None, seed=3) != captions_of(scenes, None, seed=4)


def test_captions_fit_into_what_tiny_reads():
    """<bos> and <eos> among the tokens. A held-out caption that is too long could not be drawn at all."""
    limit, length = t2i_preset("tiny").model.language.max_tokens, Vocabulary([]).length
    training = [length(caption.text) for caption in captions_of(scenes_of(17, 2000), None).values()]
    assert sum(n > limit for n in training) / len(training) < 0.01, Counter(training)
    assert max(length(caption.text) for caption in held_out_captions(84)) <= limit


# ---------------------------------------------------------------------------------- reading order


def test_in_reading_order_captions_go_row_after_row_from_the_left_and_the_pictures_stay():
    drawn = scenes_of(5)
    read = in_reading_order(drawn)
    assert all(map(torch.equal, render(drawn, 32), render(read, 32)))
    rows, columns = ("top", "middle", "bottom"), ("left", "middle", "right")
    seen = 0
    for caption in captions_of(read, "attribute_binding").values():
        if "two " in caption.text:  # objects of one kind are named together, wherever they stand
            continue
        phrases = re.findall(r"(?:at the|on the|in the) ([a-z ]*?)(?=,| and|$| on a)", caption.text)
        places = [tuple(_index(words, phrase) for words in (rows, columns)) for phrase in phrases]
        assert places == sorted(places), caption.text
        seen += len(places) > 1
    assert seen > 50


def _index(words: tuple[str, ...], phrase: str) -> int:
    """Which of the words a phrase has; 1, the middle one, for none."""
    return next((i for i, word in enumerate(words) if word in phrase), 1)


def test_reading_order_keeps_every_objects_properties_together():
    drawn = scenes_of(6)
    names = ("shape", "colour", "size", "x", "y", "depth")
    for scenes in (drawn, in_reading_order(drawn)):
        assert not (~scenes.present[:, :-1] & scenes.present[:, 1:]).any()  # absent ones last
    for a, b in zip(
        *(_objects_of(scenes, names) for scenes in (drawn, in_reading_order(drawn))), strict=True
    ):
        assert sorted(a) == sorted(b)


def _objects_of(scenes: Scenes, names: tuple[str, ...]) -> list[list[tuple[float, ...]]]:
    columns = zip(*(getattr(scenes, name).tolist() for name in names), strict=True)
    return [
        [object for object, there in zip(zip(*row, strict=True), present, strict=True) if there]
        for row, present in zip(columns, scenes.present.tolist(), strict=True)
    ]

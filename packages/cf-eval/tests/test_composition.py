"""What a caption promises, rule by rule: each holds on its picture and fails on one that breaks it alone."""

import itertools

import pytest
from cf_eval.composition import (
    ATTRIBUTES,
    TASKS,
    CompositionScore,
    Expectation,
    Wanted,
    everything_right,
    only,
    satisfies,
)
from cf_eval.scene_reader import Detection, SceneReading


def thing(shape="circle", colour="red", x=0.5, y=0.5, area=0.1) -> Detection:
    return Detection(shape, colour, x, y, area, fit=0.9)


def seen(*objects: Detection, background: str = "white") -> SceneReading:
    return SceneReading(objects, background)


def single(**promise) -> Expectation:
    return Expectation("single_object", (Wanted("circle", **promise),))


# ------------------------------------------------------------------------------------------- one object


def test_what_the_caption_leaves_open_is_free():
    for colour, x, area in itertools.product(("red", "blue"), (0.1, 0.9), (0.05, 0.4)):
        assert satisfies(seen(thing(colour=colour, x=x, area=area), background="black"), single())


@pytest.mark.parametrize(
    ("promise", "kept", "broken"),
    [
        ({}, {}, {"shape": "square"}),
        ({"colour": "red"}, {"colour": "red"}, {"colour": "blue"}),
        ({"area": (0.2, 1.0)}, {"area": 0.2}, {"area": 0.19}),
        ({"area": (0.0, 0.2)}, {"area": 0.2}, {"area": 0.21}),
        ({"x": (0.0, 0.4)}, {"x": 0.4, "y": 0.9}, {"x": 0.41}),
        ({"x": (0.6, 1.0)}, {"x": 0.6}, {"x": 0.59}),
        ({"y": (0.0, 0.4)}, {"y": 0.4, "x": 0.9}, {"y": 0.41}),
        ({"y": (0.6, 1.0)}, {"y": 0.6}, {"y": 0.59}),
    ],
)
def test_each_promise_is_kept_or_broken_on_its_own(promise, kept, broken):
    assert satisfies(seen(thing(**kept)), single(**promise))
    assert not satisfies(seen(thing(**broken)), single(**promise))


def test_nothing_seen_keeps_no_promise():
    assert not satisfies(seen(), single())


def test_the_background_counts_where_it_is_named():
    named = Expectation("single_object", (Wanted("circle"),), background="black")
    assert satisfies(seen(thing(), background="black"), named)
    assert not satisfies(seen(thing(), background="white"), named)


# --------------------------------------------------------------------------------------- several objects


def test_each_wanted_object_needs_one_of_its_own():
    two = Expectation("two_objects", (Wanted("circle"), Wanted("circle")))
    assert not satisfies(seen(thing()), two)
    assert not satisfies(seen(thing(), thing("square")), two)
    assert satisfies(seen(thing(), thing(x=0.1)), two)


def test_an_object_that_serves_two_wishes_is_given_to_the_one_that_has_no_other():
    wishes = (Wanted("circle"), Wanted("circle", "red"))  # the first could take the red one away
    for order in itertools.permutations((thing(colour="red"), thing(colour="blue"))):
        assert satisfies(seen(*order), Expectation("two_objects", wishes))
    assert not satisfies(seen(thing(colour="blue"), thing(colour="blue")), Expectation("two_objects", wishes))


def test_colours_stay_bound_to_their_shapes():
    binding = Expectation("attribute_binding", (Wanted("circle", "red"), Wanted("square", "blue")))
    assert satisfies(seen(thing("square", "blue"), thing("circle", "red")), binding)
    assert not satisfies(seen(thing("square", "red"), thing("circle", "blue")), binding)


def test_counting_is_exact_in_the_wanted_shape_alone():
    wanted = (Wanted("circle"), Wanted("circle"))
    exact, free = (Expectation("counting", wanted, exact=exact) for exact in (True, False))
    two, three = [thing(x=0.2), thing(x=0.8)], [thing(x=0.2), thing(x=0.8), thing(colour="blue")]
    assert satisfies(seen(*two), exact)
    assert satisfies(seen(*three), free)
    assert not satisfies(seen(*three), exact)
    assert not satisfies(seen(*two[:1]), exact)
    assert satisfies(seen(*two, thing("square")), exact)


# ------------------------------------------------------------------------------------------- relations


def related(relation: str) -> Expectation:
    return Expectation("position", (Wanted("circle"), Wanted("square")), ((0, relation, 1),))


OFFSETS = {"left_of": (-0.4, 0.0), "right_of": (0.4, 0.0), "above": (0.0, -0.4), "below": (0.0, 0.4)}


@pytest.mark.parametrize("stated", OFFSETS)
@pytest.mark.parametrize("true", OFFSETS)
def test_a_relation_holds_in_its_direction_only(stated, true):
    dx, dy = OFFSETS[true]
    reading = seen(thing("square"), thing("circle", x=0.5 + dx, y=0.5 + dy))
    assert satisfies(reading, related(stated)) == (stated == true)


@pytest.mark.parametrize(("relation", "axis"), [("left_of", 0), ("right_of", 0), ("above", 1), ("below", 1)])
def test_a_relation_needs_a_tenth_of_the_side_and_half_of_the_offset_across(relation, axis):
    sign = -1 if relation in ("left_of", "above") else 1

    def holds(along: float, across: float) -> bool:
        d = (sign * along, across) if axis == 0 else (across, sign * along)
        return satisfies(seen(thing(x=0.5 + d[0], y=0.5 + d[1]), thing("square")), related(relation))

    assert holds(0.11, 0.0)
    assert not holds(0.09, 0.0)
    assert holds(0.21, 0.4)
    assert holds(0.21, -0.4)
    assert not holds(0.19, 0.4)
    assert not holds(0.19, -0.4)


def test_a_relation_may_choose_among_alike_objects():
    objects = (thing(x=0.9), thing("square", x=0.5), thing(x=0.1))
    assert satisfies(seen(*objects), related("left_of"))
    assert satisfies(seen(*objects), related("right_of"))
    assert not satisfies(seen(*objects), related("above"))


def test_relation_and_colour_must_hold_of_the_same_object():
    wanted = (Wanted("circle", "red"), Wanted("square"))
    expectation = Expectation("position", wanted, ((0, "left_of", 1),))
    assert not satisfies(
        seen(thing(x=0.9), thing("square"), thing(colour="blue", x=0.1)),
        expectation,
    )


# ------------------------------------------------------------------------------------------- strictness


def test_everything_right_allows_no_further_object():
    one = seen(thing())
    more = seen(thing(), thing("square", x=0.1))
    assert everything_right(one, single())
    assert satisfies(more, single())
    assert not everything_right(more, single())


def test_everything_right_implies_satisfied():
    readings = [
        seen(*objects)
        for n in range(3)
        for objects in itertools.product((thing(), thing("square")), repeat=n)
    ]
    wishes = [single(), related("above"), Expectation("counting", (Wanted("square"),), exact=True)]
    strict = [(r, e) for r in readings for e in wishes if everything_right(r, e)]
    assert strict
    assert all(satisfies(r, e) for r, e in strict)


# ------------------------------------------------------------------------------------------- the score

PICTURES = [
    (seen(thing()), single()),  # right, strictly
    (seen(thing(), thing("square")), single()),  # right, with something too much
    (seen(thing("square")), single()),  # wrong
    (seen(thing(), thing()), Expectation("counting", (Wanted("circle"),) * 2, exact=True)),
    (seen(thing("square", x=0.9), thing(x=0.1)), related("left_of")),
    (seen(thing("square", x=0.1), thing(x=0.9)), related("left_of")),
]


def score_of(pictures) -> CompositionScore:
    score = CompositionScore()
    score.add_batch([reading for reading, _ in pictures], [expectation for _, expectation in pictures])
    return score


def test_overall_is_the_mean_of_the_tasks_not_of_the_pictures():
    found = score_of(PICTURES).compute()
    assert found["single_object"] == pytest.approx(2 / 3)
    assert (found["counting"], found["position"]) == (1.0, 0.5)
    assert found["overall"] == pytest.approx((2 / 3 + 1 + 0.5) / 3)
    assert found["everything_right"] == pytest.approx((1 / 3 + 1 + 0.5) / 3)
    assert found["count"] == 6
    assert "colours" not in found


def test_verdicts_come_back_in_order():
    verdicts = CompositionScore().add_batch(*map(list, zip(*PICTURES, strict=True)))
    assert verdicts == [True, True, False, True, True, False]


def test_merged_parts_are_the_score_of_one_pass_and_stay_as_they_were():
    parts = [score_of(PICTURES[:1]), score_of(PICTURES[1:4]), score_of(PICTURES[4:]), CompositionScore()]
    before = [dict(part.total) for part in parts]
    assert parts[0].merge(parts[1:]) == score_of(PICTURES)
    assert parts[0].merge(parts[1:]).compute() == parts[-1].merge(parts[:-1]).compute()
    assert [part.total for part in parts] == before


def test_an_empty_score_says_so():
    with pytest.raises(ValueError, match="no pictures were added"):
        CompositionScore().compute()


def test_readings_and_expectations_come_one_for_one():
    with pytest.raises(ValueError, match="2 readings for 1 expectations"):
        CompositionScore().add_batch([seen(), seen()], [single()])


def test_unknown_tasks_and_relations_list_the_known():
    with pytest.raises(ValueError, match=f"unknown task 'colors'; known: {', '.join(TASKS)}"):
        Expectation("colors", (Wanted("circle"),))
    with pytest.raises(ValueError, match="unknown relation 'behind'; known: left_of, right_of, above, below"):
        related("behind")


# ------------------------------------------------------------------------------------------- attributes

FULL = Expectation(
    "position",
    (
        Wanted("circle", "red", (0.0, 0.2), (0.0, 0.4), (0.3, 0.7)),
        Wanted("square", "blue", (0.0, 0.2), (0.6, 1.0), (0.3, 0.7)),
    ),
    ((0, "left_of", 1),),
    "white",
)
PICTURE = {"shape": "circle", "colour": "red", "x": 0.2}, {"shape": "square", "colour": "blue", "x": 0.8}
WRONG = {
    "number": (*PICTURE, {"shape": "circle", "colour": "red", "x": 0.2, "y": 0.9}),
    "shape": (PICTURE[0], {**PICTURE[1], "shape": "triangle"}),
    "colour": (PICTURE[0], {**PICTURE[1], "colour": "green"}),
    "size": (PICTURE[0], {**PICTURE[1], "area": 0.3}),
    "place": ({**PICTURE[0], "x": 0.55}, PICTURE[1]),
    "ground": PICTURE,
}


@pytest.mark.parametrize("broken", ATTRIBUTES)
def test_one_thing_wrong_is_wrong_in_its_own_attribute_alone(broken):
    picture = seen(
        *(thing(**it) for it in WRONG[broken]), background="black" if broken == "ground" else "white"
    )
    verdicts = {name: satisfies(picture, only(FULL, name)) for name in ATTRIBUTES}
    assert verdicts == {name: name != broken for name in ATTRIBUTES}


def test_a_relation_belongs_to_the_place_even_where_no_place_is_said():
    wanted = Wanted("circle"), Wanted("square")
    left = only(Expectation("position", wanted, ((0, "left_of", 1),)), "place")
    assert left is not None
    assert satisfies(seen(thing(x=0.2), thing("square", x=0.8)), left)
    assert not satisfies(seen(thing(x=0.5, y=0.2), thing("square", x=0.5, y=0.8)), left)


def test_swapped_colours_are_right_as_colours_and_wrong_as_a_picture():
    swapped = seen(thing(colour="blue", x=0.2), thing("square", "red", x=0.8))
    assert satisfies(swapped, only(FULL, "colour"))
    assert not satisfies(swapped, FULL)


def test_what_a_caption_does_not_say_is_not_counted():
    silent = Expectation("two_objects", (Wanted("circle"), Wanted("square")))
    assert [name for name in ATTRIBUTES if only(silent, name)] == ["number", "shape"]
    score = CompositionScore()
    score.add_batch([seen(thing()), seen(thing(), thing("square"))], [silent, silent])
    assert score.by_attribute() == {"number": 0.5, "shape": 0.5}
    assert CompositionScore().by_attribute() == {}


def test_attributes_merge_like_tasks():
    parts = [CompositionScore(), CompositionScore()]
    picture = seen(thing(x=0.2), thing("square", "green", x=0.8))
    for part in parts:
        part.add_batch([picture], [FULL])
    merged = parts[0].merge(parts[1:])
    assert merged.by_attribute() == dict.fromkeys(ATTRIBUTES, 1.0) | {"colour": 0.0}
    assert merged.attribute_total == dict.fromkeys(ATTRIBUTES, 2)

"""GenEval's prompts and rules: golden counts, hand-made scenes, and a plain reading of the rules on random ones."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from cf_eval.geneval.coco_classes import COCO_CLASSES, OTHER_NAMES, geneval_name
from cf_eval.geneval.judge import judge, relative_position
from cf_eval.geneval.objects import FoundObject, GenEvalRules, believed, overlap, without_overlaps
from cf_eval.geneval.prompts import COLOURS, RELATIONS, TAGS, GenEvalPrompt, Required, geneval_prompts


def thing(label: str, score: float = 0.95, box=(0.0, 0.0, 10.0, 10.0)) -> FoundObject:
    return FoundObject(label, score, tuple(float(x) for x in box))


def no_colours(things):
    raise AssertionError("the prompt names no colour")


def prompt(*include: Required, tag: str = "two_object", exclude=()) -> GenEvalPrompt:
    return GenEvalPrompt("a photo", tag, tuple(include), tuple(exclude))


def test_there_are_553_prompts_in_six_tasks():
    prompts = geneval_prompts()
    assert len(prompts) == 553
    assert Counter(p.tag for p in prompts) == TAGS
    assert {r.label for p in prompts for r in p.include} == set(COCO_CLASSES)
    assert {r.colour for p in prompts for r in p.include} - {None} == set(COLOURS)
    assert {r.position[0] for p in prompts for r in p.include if r.position} == set(RELATIONS)


def test_a_prompt_demands_what_its_words_say():
    by_text = {p.text: p for p in geneval_prompts()}
    dog = by_text["a photo of a dog right of a teddy bear"]
    assert dog.include == (Required("teddy bear", 1), Required("dog", 1, None, ("right of", 0)))
    clocks = by_text["a photo of two clocks"]
    assert (clocks.include, clocks.exclude) == ((Required("clock", 2),), (Required("clock", 3),))
    assert by_text["a photo of a blue fire hydrant"].include == (Required("fire hydrant", 1, "blue"),)


def test_every_counting_prompt_asks_for_an_exact_number():
    for p in geneval_prompts():
        if p.tag == "counting":
            assert [(r.label, r.count + 1) for r in p.include] == [(r.label, r.count) for r in p.exclude]
        else:
            assert not p.exclude


def test_labels_of_other_lists_become_genevals():
    assert len(set(COCO_CLASSES)) == 80
    assert geneval_name("tvmonitor") == "tv"
    assert geneval_name("zebra") == "zebra"
    assert set(OTHER_NAMES.values()) < set(COCO_CLASSES)
    assert not set(OTHER_NAMES) & set(COCO_CLASSES)


def test_a_score_must_exceed_its_threshold_and_counting_has_a_higher_one():
    found = [thing("cat", 0.3), thing("cat", 0.31), thing("cat", 0.9), thing("cat", 0.91)]
    assert [t.score for t in believed(found, "colors", GenEvalRules())["cat"]] == [0.91, 0.9, 0.31]
    assert [t.score for t in believed(found, "counting", GenEvalRules())["cat"]] == [0.91]
    assert "cat" not in believed(found[:1], "colors", GenEvalRules())


def test_at_most_sixteen_of_a_class_are_looked_at():
    found = [thing("cat", 0.95) for _ in range(20)] + [thing("dog", 0.95)]
    kept = believed(found, "counting", GenEvalRules())
    assert (len(kept["cat"]), len(kept["dog"])) == (16, 1)


def test_overlap_counts_the_pixels_at_both_ends():
    ten = (0.0, 0.0, 9.0, 9.0)
    assert overlap(ten, ten) == 1
    assert overlap(ten, (5.0, 0.0, 14.0, 9.0)) == pytest.approx(50 / 150)
    assert overlap(ten, (10.0, 0.0, 19.0, 9.0)) == 0
    assert overlap((3.0, 3.0, 3.0, 3.0), (3.0, 3.0, 3.0, 3.0)) == 1


def test_of_two_overlapping_objects_the_better_stays():
    best, lesser, away = (
        thing("cat", 0.99),
        thing("cat", 0.95, (1, 0, 11, 10)),
        thing("cat", 0.92, (50, 0, 60, 10)),
    )
    assert without_overlaps([best, lesser, away], 0.5) == [best, away]
    assert without_overlaps([best, lesser, away], 1.0) == [best, lesser, away]
    found = [lesser, away, best]
    assert believed(found, "counting", GenEvalRules(max_overlap=0.5))["cat"] == [best, away]


@pytest.mark.parametrize(
    ("n", "reasons"),
    [(1, ("expected clock>=2, found 1",)), (2, ()), (3, ("expected clock<3, found 3",))],
)
def test_a_count_is_exact_and_says_what_was_found(n, reasons):
    two = prompt(Required("clock", 2), tag="counting", exclude=[Required("clock", 3)])
    assert judge(two, [thing("clock")] * n, no_colours).reasons == reasons
    assert judge(two, [thing("clock")] * n, no_colours).correct == (n == 2)


def test_too_few_and_too_many_are_separate_reasons():
    both = prompt(Required("dog", 1), Required("cat", 1), exclude=[Required("cat", 2)])
    verdict = judge(both, [thing("cat"), thing("cat")], no_colours)
    assert verdict.reasons == ("expected dog>=1, found 0", "expected cat<2, found 2")


def test_only_the_best_objects_are_asked_for_their_colour():
    red = prompt(Required("bus", 1, "red"), tag="colors")
    found = [thing("bus", 0.5), thing("bus", 0.8)]
    asked = []

    def colours(things):
        asked.extend(t.score for t in things)
        return ["blue"]

    verdict = judge(red, found, colours)
    assert asked == [0.8]
    assert verdict.reasons == ("expected red bus>=1, found 0 red; and 1 blue",)
    assert judge(red, found, lambda things: ["red"]).correct


def test_all_of_several_objects_must_have_the_colour():
    red = prompt(Required("bus", 2, "red"), tag="color_attr")
    verdict = judge(red, [thing("bus"), thing("bus")], lambda things: ["red", "green"])
    assert verdict.reasons == ("expected red bus>=2, found 1 red; and 1 red, 1 green",)


@pytest.mark.parametrize(
    ("offset", "relations"),
    [
        ((-50, 0), ("left of",)),
        ((50, 0), ("right of",)),
        ((0, -50), ("above",)),
        ((0, 50), ("below",)),
        ((50, 50), ("right of", "below")),
        ((-50, -50), ("left of", "above")),
        ((1.9, 0), ()),
        ((0, 0), ()),
        # 0.1 x (10 + 10) = 2 goes off: (4 - 2) / 4 is half and not more, (4.1 - 2) / 4.1 is more
        ((4, 0), ()),
        ((-4, 0), ()),
        ((0, 4), ()),
        ((0, -4), ()),
        ((4.1, 0), ("right of",)),
        # along the axis the offset is long enough, but less than half of it lies across
        ((50, 20), ("right of",)),
    ],
)
def test_a_relation_needs_more_than_half_of_the_offset_after_the_margin(offset, relations):
    a = (100.0, 100.0, 110.0, 110.0)
    b = tuple(x + offset[i % 2] for i, x in enumerate(a))
    assert relative_position(b, a) == relations


def by_arrays(box, target, margin: float) -> set[str]:
    """The same rule on arrays."""
    a, b = (np.asarray(x, float).reshape(2, 2) for x in (box, target))
    offset = a.mean(0) - b.mean(0)
    shortened = np.sign(offset) * np.clip(np.abs(offset) - margin * (np.ptp(a, 0) + np.ptp(b, 0)), 0, None)
    if (np.abs(shortened) < 1e-3).all():
        return set()
    x, y = shortened / np.linalg.norm(offset)
    names = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {name for name, share in names.items() if share > 0.5}


def random_box(g: random.Random):
    x, y, w, h = g.uniform(0, 80), g.uniform(0, 80), g.uniform(1, 60), g.uniform(1, 60)
    return x, y, x + w, y + h


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.3])
def test_the_relation_is_that_of_the_same_rule_on_arrays(margin):
    g = random.Random(0)
    seen = Counter()
    for _ in range(500):
        a, b = random_box(g), random_box(g)
        there = relative_position(a, b, margin)
        assert set(there) == by_arrays(a, b, margin)
        seen.update(there or ("none",))
    assert min(seen[name] for name in RELATIONS) > 20


def test_turning_the_pair_round_turns_the_relation_round():
    g = random.Random(1)
    other = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for _ in range(100):
        a, b = random_box(g), random_box(g)
        assert set(relative_position(b, a)) == {other[name] for name in relative_position(a, b)}


def test_a_place_is_judged_against_the_target_and_says_where_it_was_seen():
    right = prompt(Required("cat", 1), Required("dog", 1, None, ("right of", 0)), tag="position")
    cat, dog = thing("cat"), thing("dog", box=(60, 0, 70, 10))
    assert judge(right, [cat, dog], no_colours).correct
    left = judge(right, [thing("cat", box=(60, 0, 70, 10)), thing("dog")], no_colours)
    assert left.reasons == ("expected dog right of target, found left of target",)
    same = judge(right, [cat, thing("dog")], no_colours)
    assert same.reasons == ("expected dog right of target, found no relation to target",)


def test_an_object_that_failed_is_no_target():
    right = prompt(Required("cat", 1), Required("dog", 1, None, ("right of", 0)), tag="position")
    verdict = judge(right, [thing("dog")], no_colours)
    assert verdict.reasons == ("expected cat>=1, found 0", "no target for dog to be right of")
    colour = prompt(Required("cat", 1, "red"), Required("dog", 1, None, ("right of", 0)), tag="position")
    verdict = judge(colour, [thing("cat"), thing("dog", box=(60, 0, 70, 10))], lambda things: ["blue"])
    assert verdict.reasons[1] == "no target for dog to be right of"


def plainly(p: GenEvalPrompt, found, colour_of, rules: GenEvalRules) -> bool:
    """Correct or not, by the rules read one sentence at a time."""
    floor = rules.counting_threshold if p.tag == "counting" else rules.threshold

    def of_class(label):
        return sorted((t for t in found if t.label == label and t.score > floor), key=lambda t: -t.score)[:16]

    fine = []
    for r in p.include:
        best = of_class(r.label)[: r.count]
        ok = len(best) == r.count and (r.colour is None or all(colour_of(t) == r.colour for t in best))
        if ok and r.position:
            relation, target = r.position
            ok = fine[target] and all(
                relation in by_arrays(t.box, u.box, rules.position_margin)
                for t in best
                for u in of_class(p.include[target].label)[: p.include[target].count]
            )
        fine.append(ok)
    return all(fine) and all(len(of_class(r.label)) < r.count for r in p.exclude)


def test_verdicts_on_random_scenes_are_those_of_a_plain_reading():
    g = random.Random(2)
    right = Counter()
    for p in geneval_prompts():
        labels = [r.label for r in p.include]
        found = [
            FoundObject(g.choice([*labels, "person"]), g.uniform(0.2, 1.0), random_box(g))
            for _ in range(g.randint(0, 6))
        ]
        wanted = {r.label: r.colour for r in p.include}

        def colour_of(t, wanted=wanted):
            # half of the objects, by their score, have the colour that is wanted
            return wanted.get(t.label) if int(t.score * 1e4) % 2 else "white"

        verdict = judge(p, found, lambda things, c=colour_of: [c(t) or "white" for t in things])
        assert verdict.correct == plainly(p, found, lambda t, c=colour_of: c(t) or "white", GenEvalRules())
        right[verdict.correct] += 1
    assert min(right.values()) > 50


def test_prompts_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="unknown GenEval task 'colours'; known: single_object"):
        prompt(Required("cat", 1), tag="colours")
    with pytest.raises(ValueError, match="unknown relation 'beside'; known: left of"):
        prompt(Required("cat", 1), Required("dog", 1, None, ("beside", 0)))
    with pytest.raises(ValueError, match="'dog' relates to requirement 1; it must come before 1"):
        prompt(Required("cat", 1), Required("dog", 1, None, ("above", 1)))


def test_masks_ride_along():
    mask = torch.zeros(4, 5, dtype=torch.bool)
    assert (
        believed([FoundObject("cat", 0.5, (0.0, 0.0, 1.0, 1.0), mask)], "colors", GenEvalRules())["cat"][
            0
        ].mask
        is mask
    )

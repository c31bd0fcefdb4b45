"""captioned_shapes: any index at any time, the same picture; held-out captions stay unseen."""

from collections import Counter

import pytest
import torch
from cf_apps.data.captioned import CaptionedImages
from cf_apps.data.captioned_shapes import (
    BLOCK,
    HELD_OUT_FRACTION,
    CaptionedShapes,
    held_out_captions,
    is_held_out,
    shapes_reader,
    split_of,
)
from cf_apps.data.shapes_captions import OPEN
from cf_apps.t2i.evaluate import PER_TASK, PER_TASK_OPEN
from cf_eval import TASKS

SIZE = 2 * BLOCK + 17


@pytest.fixture(scope="module")
def shapes() -> CaptionedShapes:
    return CaptionedShapes(SIZE, image_size=16)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------- the same for the same seed


def test_it_is_a_set_of_captioned_images(shapes):
    assert isinstance(shapes, CaptionedImages)
    assert (len(shapes), shapes.image_size, shapes.name) == (SIZE, 16, "captioned_shapes")
    batch = shapes.batch(torch.arange(5))
    assert (batch.images.shape, batch.images.dtype, len(batch.captions)) == ((5, 3, 16, 16), torch.uint8, 5)


def test_an_index_gives_its_scene_whatever_was_asked_before(shapes):
    asked = torch.tensor([SIZE - 1, 3, BLOCK, 0, BLOCK - 1])
    fresh = CaptionedShapes(SIZE, image_size=16)
    backwards = fresh.batch(asked.flip(0))
    forwards = shapes.batch(asked)
    assert torch.equal(backwards.images.flip(0), forwards.images)
    assert backwards.captions[::-1] == forwards.captions
    alone = CaptionedShapes(SIZE, image_size=16).batch(asked[2:3])
    assert torch.equal(alone.images[0], forwards.images[2])
    assert alone.captions[0] == forwards.captions[2]


def test_the_size_of_the_set_changes_no_scene(shapes):
    smaller = CaptionedShapes(7, image_size=16)
    assert torch.equal(smaller.batch(torch.arange(7)).images, shapes.batch(torch.arange(7)).images)


def test_seeds_and_blocks_differ(shapes):
    other = CaptionedShapes(BLOCK, image_size=16, seed=1)
    first = torch.arange(20)
    assert not torch.equal(other.batch(first).images, shapes.batch(first).images)
    assert not torch.equal(shapes.batch(first).images, shapes.batch(first + BLOCK).images)


def test_without_a_generator_a_scene_has_one_caption_and_with_one_it_has_many(shapes):
    indices = torch.arange(30)
    assert shapes.batch(indices).captions == shapes.batch(indices).captions
    drawn = [tuple(shapes.batch(indices, dice(seed)).captions) for seed in range(3)]
    assert len(set(drawn)) == 3
    assert drawn[0] == tuple(shapes.batch(indices, dice()).captions)


def test_the_pictures_do_not_depend_on_the_caption_dice(shapes):
    indices = torch.tensor([1, 5, 9])
    assert torch.equal(shapes.batch(indices, dice(4)).images, shapes.batch(indices).images)


def test_scenes_give_the_pictures_and_their_depth():
    shapes = CaptionedShapes(40, image_size=32, overlap=1.0)
    images, depth = shapes.scenes(torch.arange(40))
    assert torch.equal(images, shapes.batch(torch.arange(40)).images)
    assert depth.shape == (40, 32, 32)
    assert depth.amax() == 1.0
    assert 0.1 < depth.amin() < 0.75
    assert (depth.flatten(1).amin(1) < 1).all()


@pytest.mark.parametrize("index", [-1, SIZE])
def test_an_index_outside_is_refused(shapes, index):
    with pytest.raises(IndexError, match=f"scene {index} is outside"):
        shapes.batch(torch.tensor([index]))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least 1 scene, got 0"):
        CaptionedShapes(0)


# ---------------------------------------------------------------------------------- held out


def test_training_never_sees_a_held_out_caption(shapes):
    for seed in range(3):
        captions = shapes.batch(torch.arange(600), dice(seed)).captions
        assert not any(is_held_out(text) for text in captions)
    assert not any(is_held_out(text) for text in shapes.batch(torch.arange(600)).captions)


def test_about_one_text_in_seven_is_held_out():
    held_out = sum(is_held_out(f"caption {i}") for i in range(7000)) / 7000
    assert held_out == pytest.approx(HELD_OUT_FRACTION, abs=0.02)  # 4 standard deviations
    assert is_held_out("a red circle") == is_held_out("a red circle")


def test_held_out_captions_are_distinct_held_out_and_as_many_as_asked_in_each_task():
    captions = held_out_captions(40)
    assert Counter(caption.expectation.task for caption in captions) == dict.fromkeys(TASKS, 40)
    texts = [caption.text for caption in captions]
    assert all(is_held_out(text) for text in texts)
    assert len(set(texts)) == 6 * 40


def test_val_and_test_are_the_halves_of_what_is_held_out():
    sides = Counter(split_of(f"caption {i}") for i in range(7000))
    assert set(sides) == {"train", "val", "test"}
    assert sides["val"] / 7000 == pytest.approx(1 / 14, abs=0.02)
    assert sides["test"] / 7000 == pytest.approx(1 / 14, abs=0.02)
    for split in ("val", "test"):
        assert {split_of(caption.text) for caption in held_out_captions(20, split=split)} == {split}
    assert held_out_captions(3) == held_out_captions(3, split="test")


def test_held_out_captions_state_every_place_unless_those_that_leave_them_open_are_asked_for():
    said, unsaid = held_out_captions(PER_TASK), held_out_captions(PER_TASK_OPEN, rates=OPEN)
    assert all(w.x is not None for caption in said for w in caption.expectation.wanted)
    assert all(w.x is None for caption in unsaid for w in caption.expectation.wanted)
    assert all(split_of(caption.text) == "test" for caption in unsaid)
    assert not {caption.text for caption in said} & {caption.text for caption in unsaid}


def test_held_out_captions_are_always_the_same_and_other_seeds_give_others():
    first = [caption.text for caption in held_out_captions(5)]
    assert first == [caption.text for caption in held_out_captions(5)]
    assert first != [caption.text for caption in held_out_captions(5, seed=1)]


def test_the_reader_knows_this_worlds_names():
    reader = shapes_reader()
    assert set(reader.shapes) == {"circle", "square", "triangle"}
    assert "red" in reader.palette
    assert set(reader.backgrounds) == {"white", "gray", "black"}

"""What training can rely on, whatever the data source."""

import pytest
import torch
from cf_apps.data.captioned import CaptionedImages, DataError, ImageTextArrays, split_by_hash

KEYS = [f"key {i}" for i in range(2000)]


@pytest.fixture
def animals() -> ImageTextArrays:
    images = torch.arange(3 * 3 * 5 * 5).reshape(3, 3, 5, 5).to(torch.uint8)
    return ImageTextArrays(
        images, (("a cat",), ("a dog", "one dog", "a hound"), ("an owl", "a bird")), "animals"
    )


def test_arrays_are_captioned_images(animals):
    assert isinstance(animals, CaptionedImages)
    assert (len(animals), animals.image_size, animals.name) == (3, 5, "animals")


def test_a_batch_follows_its_indices_and_gives_first_phrasings_without_a_generator(animals):
    batch = animals.batch(torch.tensor([2, 0, 2]))
    assert batch.captions == ["an owl", "a cat", "an owl"]
    assert torch.equal(batch.images, animals.images[[2, 0, 2]])


def test_a_generator_draws_every_phrasing_equally_often_and_repeats_itself(animals):
    ones = torch.ones(6000, dtype=torch.int64)
    drawn = animals.batch(ones, torch.Generator().manual_seed(0)).captions
    assert drawn == animals.batch(ones, torch.Generator().manual_seed(0)).captions
    for phrasing in animals.captions[1]:
        assert drawn.count(phrasing) == pytest.approx(2000, abs=150)  # 4 standard deviations


def test_a_subset_keeps_images_and_captions_together(animals):
    reversed_pair = animals.subset(torch.tensor([2, 1]), "two")
    assert reversed_pair.captions == (animals.captions[2], animals.captions[1])
    assert torch.equal(reversed_pair.images, animals.images[[2, 1]])


def test_images_without_captions_are_refused():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(DataError, match="2 images but 1 captions"):
        ImageTextArrays(images, (("a",),), "odd")
    with pytest.raises(DataError, match="image 1 has no caption"):
        ImageTextArrays(images, (("a",), (" ",)), "odd")


def test_a_split_is_a_partition_of_about_the_asked_size():
    train, val = split_by_hash(KEYS, 0.2)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(2000))
    assert len(val) == pytest.approx(400, abs=72)  # 4 standard deviations of a binomial


def test_a_key_keeps_its_side_when_others_come_go_or_move():
    _, val = split_by_hash(KEYS, 0.2)
    held_out = {KEYS[i] for i in val}
    fewer = KEYS[1500:200:-1]
    _, val = split_by_hash(fewer, 0.2)
    assert {fewer[i] for i in val} == held_out & set(fewer)


def test_a_larger_fraction_only_adds_to_val():
    _, small = split_by_hash(KEYS, 0.1)
    _, large = split_by_hash(KEYS, 0.3)
    assert set(small.tolist()) < set(large.tolist())


def test_equal_keys_stay_together():
    train, val = split_by_hash(["a", "b", "c", "d"] * 5, 0.5)
    assert {i % 4 for i in train.tolist()}.isdisjoint({i % 4 for i in val.tolist()})


def test_the_split_is_the_same_on_every_machine():
    assert split_by_hash(KEYS[:20], 0.2)[1].tolist() == [1, 2, 7, 10, 14, 18, 19]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_tiny_set_still_has_something_to_train_and_something_to_validate_on(n):
    train, val = split_by_hash(KEYS[:n], 1e-9)
    assert len(val) == 1
    assert len(train) == n - 1


def test_one_sample_or_a_zero_fraction_leaves_everything_in_train():
    assert len(split_by_hash(["alone"], 0.9)[1]) == 0
    assert len(split_by_hash(KEYS, 0.0)[1]) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        split_by_hash(KEYS, fraction)

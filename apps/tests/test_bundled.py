"""The set that comes with the package."""

import re
from importlib.resources import files

import pytest
import torch
from cf_apps.data.bundled import load_emoji
from cf_apps.data.captioned import CaptionedImages, ImageTextArrays


@pytest.fixture(scope="module")
def train() -> ImageTextArrays:
    return load_emoji("train")


@pytest.fixture(scope="module")
def val() -> ImageTextArrays:
    return load_emoji("val")


def find(caption: str, *halves: ImageTextArrays) -> torch.Tensor:
    """The picture with this first phrasing."""
    hits = [h.images[i] for h in halves for i, texts in enumerate(h.captions) if texts[0] == caption]
    assert len(hits) == 1
    return hits[0]


def test_both_halves_are_captioned_images_of_the_counted_sizes(train, val):
    assert isinstance(train, CaptionedImages)
    assert (len(train), len(val)) == (1714, 191)
    assert train.image_size == val.image_size == 64


@pytest.mark.parametrize(
    ("caption", "colour"),
    [
        ("a red circle", (1, 0, 0)),
        ("a green square", (0, 1, 0)),
        ("a blue circle", (0, 0, 1)),
        ("a red heart", (1, 0, 0)),
        ("a green heart", (0, 1, 0)),
        ("a blue heart", (0, 0, 1)),
    ],
)
def test_captions_belong_to_their_pictures(train, val, caption, colour):
    """The channel the caption names is the brightest in the middle of the picture."""
    middle = find(caption, train, val)[:, 24:40, 24:40].float().mean((1, 2))
    assert middle.argmax() == torch.tensor(colour).argmax()
    assert middle.max() > middle.median() + 25


def test_backgrounds_are_white(train):
    assert (train.images[:, :, 0, 0] > 250).all(1).float().mean() > 0.9


def test_the_small_pictures_are_the_means_of_the_large_ones(val):
    small = load_emoji("val", 32)
    means = val.images.double().unflatten(2, (32, 2)).unflatten(4, (32, 2)).mean((3, 5))
    assert small.image_size == 32
    assert small.captions == val.captions
    assert (small.images.double() - means).abs().max() <= 0.5


def test_no_val_picture_has_a_twin_in_train(train, val):
    """At 16 x 16 the nearest train picture is at least 4 grey levels (rms) away."""
    small = [
        half.images.double().unflatten(2, (16, 4)).unflatten(4, (16, 4)).mean((3, 5)) for half in (train, val)
    ]
    distance = torch.cdist(small[1].flatten(1), small[0].flatten(1)) / small[0][0].numel() ** 0.5
    assert distance.min() > 4


def test_people_of_either_gender_stay_on_one_side(train, val):
    def without_gender(half: ImageTextArrays) -> set[str]:
        texts = [texts[0] for texts in half.captions if re.match(r"a (man|woman|person) \w+ing\b", texts[0])]
        return {re.sub(r"a (man|woman|person) |, facing right", "", text) for text in texts}

    assert without_gender(train)
    assert without_gender(val)
    assert without_gender(train).isdisjoint(without_gender(val))


def test_captions_read_like_captions(train, val):
    first = {texts[0] for half in (train, val) for texts in half.captions}
    assert len(first) == len(train) + len(val)  # no two pictures share their caption
    expected = {
        "a red heart",
        "an owl",
        "cherries",
        "a clock showing three o'clock",
        "the flag of the United States",
        "the flag of France",
        "a woman surfing",
        "two men kissing",
        "a man with a beard",
        "a face with a monocle",
        "the sun behind a cloud",
        "an arrow pointing up and left",
    }
    assert expected <= first
    assert not [
        text for text in first if re.search(r"\b(a|an) (a|an|the)\b|[:“”’]|\ba (?!ewe|eu|one-)[aeio]", text)
    ]


def test_every_picture_has_two_or_three_phrasings_that_hold_the_first(train):
    assert {len(texts) for texts in train.captions} == {2, 3}
    assert all(texts[0] in text for texts in train.captions for text in texts)


def test_the_set_is_small_and_carries_its_licences():
    folder = files("cf_apps") / "assets" / "emoji"
    sizes = {item.name: len(item.read_bytes()) for item in folder.iterdir() if item.is_file()}
    assert sum(sizes.values()) <= 6_000_000
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "Miles Johnson" in (folder / "NOTICE.md").read_text()


def test_unknown_splits_and_sizes_are_refused():
    with pytest.raises(ValueError, match="known: train, val"):
        load_emoji("test")
    with pytest.raises(ValueError, match="32 and 64, got 48"):
        load_emoji("val", 48)

import pytest
import torch
from cf_encoders.towers.preprocess import Preprocess

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SQUARE = Preprocess(12, (12, 12), MEAN, STD)
TRANSFORMERS = {
    "size": {"shortest_edge": 12},
    "crop_size": {"height": 12, "width": 12},
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
}
OPEN_CLIP = {"size": 12, "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}

# the peers resize images of bytes and round after each axis: up to a level of 255 each
LEVEL = 2.5 / 255 / min(STD)


def byte_image(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """No black and no white: PIL also cuts off what overshoots between the axes."""
    return torch.randint(40, 216, (3, height, width), generator=generator, dtype=torch.uint8)


def as_floats(image: torch.Tensor) -> torch.Tensor:
    """In [-1, 1], as a batch of one."""
    return (image.double() / 127.5 - 1).float()[None]


@pytest.mark.parametrize(("height", "width"), [(12, 12), (24, 24), (31, 47), (40, 25), (7, 9)])
def test_it_is_open_clips_own_transform(height, width, generator):
    from open_clip import image_transform
    from PIL import Image

    image = byte_image(height, width, generator)
    theirs = image_transform(12, is_train=False, mean=MEAN, std=STD)(
        Image.fromarray(image.permute(1, 2, 0).numpy())
    )
    ours = Preprocess.from_open_clip(OPEN_CLIP)(as_floats(image))[0]
    torch.testing.assert_close(ours, theirs, atol=LEVEL, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (31, 46), (40, 25), (7, 9)])
def test_it_is_transformers_image_processor(height, width, generator):
    from transformers import CLIPImageProcessor

    image = byte_image(height, width, generator)
    processor = CLIPImageProcessor(**TRANSFORMERS)
    theirs = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = Preprocess.from_transformers(processor.to_dict())(as_floats(image))[0]
    torch.testing.assert_close(ours, theirs, atol=LEVEL, rtol=0)


def test_an_image_of_the_right_size_is_only_normalised(generator):
    images = torch.rand(2, 3, 12, 12, generator=generator) * 2 - 1
    found = SQUARE(images)
    for channel in range(3):
        expected = ((images[:, channel] + 1) / 2 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(found[:, channel], expected)


def test_a_shrunk_checkerboard_is_grey_and_not_the_first_of_its_fields():
    board = torch.ones(1, 1, 48, 48)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1.0
    grey = SQUARE(torch.zeros(1, 3, 12, 12))
    found = SQUARE(board.expand(1, 3, 48, 48))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], grey[..., 2:-2, 2:-2], atol=0.05, rtol=0)


def test_what_overshoots_at_an_edge_is_cut_off_at_black_and_white():
    edge = torch.full((1, 3, 24, 24), -1.0)
    edge[..., 11:] = 1.0
    found, black, white = SQUARE(edge), SQUARE(-torch.ones(1, 3, 12, 12)), SQUARE(torch.ones(1, 3, 12, 12))
    assert (found >= black).all()
    assert (found <= white).all()


def test_the_shorter_side_fits_and_the_middle_of_the_longer_is_kept():
    images = torch.full((1, 3, 12, 36), -1.0)
    images[..., 12:24] = 1.0
    assert SQUARE.resized(24, 72) == (12, 36)
    assert SQUARE.resized(72, 24) == (36, 12)
    white = SQUARE(torch.ones(1, 3, 12, 12))
    torch.testing.assert_close(SQUARE(images), white)


def test_squash_keeps_all_of_the_image_and_not_its_shape(generator):
    squash = Preprocess.from_open_clip({**OPEN_CLIP, "resize_mode": "squash"})
    assert squash.resized(24, 72) == (12, 12)
    images = torch.rand(1, 3, 24, 72, generator=generator) * 2 - 1
    # the mean of an image survives a resize
    torch.testing.assert_close(squash(images).mean(), SQUARE(images[..., 24:48]).mean(), atol=0.2, rtol=0)
    assert squash(images).shape == (1, 3, 12, 12)


def test_old_and_new_configs_of_transformers_say_the_same():
    old = {**TRANSFORMERS, "size": 12, "crop_size": 12}
    assert Preprocess.from_transformers(old) == Preprocess.from_transformers(TRANSFORMERS) == SQUARE
    both = {**TRANSFORMERS, "size": {"height": 9, "width": 12}, "do_center_crop": False}
    assert Preprocess.from_transformers(both) == Preprocess((9, 12), (9, 12), MEAN, STD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize off"),
        ({"resample": 1}, r"unknown resample 1; known: .*bicubic"),
        ({"crop_size": {"longest_edge": 12}}, "height and width"),
        ({"crop_size": 13}, r"\(13, 13\) does not fit"),
    ],
)
def test_other_steps_of_transformers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Preprocess.from_transformers({**TRANSFORMERS, **change})


def test_a_config_says_what_it_lacks():
    with pytest.raises(ValueError, match="lacks image_mean, image_std"):
        Preprocess.from_transformers({"size": 12})


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="'nearest'; known: bicubic, bilinear"):
        Preprocess.from_open_clip({**OPEN_CLIP, "interpolation": "nearest"})


def test_a_resize_mode_of_open_clip_that_pads_is_refused():
    with pytest.raises(ValueError, match=r"'longest' to \(12, 12\)"):
        Preprocess.from_open_clip({**OPEN_CLIP, "resize_mode": "longest"})


def test_images_of_one_channel_are_refused():
    with pytest.raises(
        ValueError, match=r"\(b, 3, H, W\) in \[-1, 1\], got torch.float32 of \(1, 1, 12, 12\)"
    ):
        SQUARE(torch.zeros(1, 1, 12, 12))

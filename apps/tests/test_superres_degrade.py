"""Small pictures and enlarged ones are Pillow's bicubic."""

import numpy as np
import pytest
import torch
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_eval.images.resize import pil_bicubic
from PIL import Image

ONE_LEVEL = 1  # Pillow rounds after each of its two passes


def noise(*shape: int, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "factor"), [((32, 32), 4), ((12, 20), 2), ((21, 9), 3), ((8, 8), 8), ((5, 7), 1)]
)
def test_the_small_picture_is_pillows_antialiased_bicubic(size, factor):
    pictures = noise(2, 3, *size, low=60, high=196)  # a middle range, where nothing is clipped on the way
    small = shrunk(pictures, factor)
    for picture, ours in zip(pictures, small, strict=True):
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        theirs = np.array(image.resize((size[1] // factor, size[0] // factor), Image.Resampling.BICUBIC))
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= ONE_LEVEL


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 4), ((3, 5), 2), ((1, 1), 4), ((1, 6), 3)])
def test_the_enlarged_picture_is_keys_cubic_convolution(size, factor):
    pictures = noise(2, 3, *size)
    expected = pil_bicubic(pictures.double(), (size[0] * factor, size[1] * factor)) / 255
    assert torch.allclose(enlarged(pictures, factor).double(), expected, atol=1e-5)


def test_a_picture_of_one_colour_keeps_it_both_ways():
    colour = torch.tensor([0, 77, 255], dtype=torch.uint8)[None, :, None, None]
    assert torch.equal(shrunk(colour.expand(1, 3, 12, 8), 4), colour.expand(1, 3, 3, 2))
    assert torch.equal(to_bytes(enlarged(colour.expand(1, 3, 3, 2), 4)), colour.expand(1, 3, 12, 8))


def test_an_enlarged_picture_overshoots_an_edge_and_is_clipped_there():
    edge = torch.zeros(1, 3, 4, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    large = enlarged(edge, 4)
    assert large.min() == 0
    assert large.max() == 1


@pytest.mark.parametrize("factor", [0, 3, 5, 32])
def test_a_factor_that_leaves_part_of_a_pixel_is_refused(factor):
    with pytest.raises(ValueError, match="divide both sides of 16 x 16"):
        shrunk(noise(1, 3, 16, 16), factor)


def test_bytes_are_rounded_and_clipped():
    values = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0, 7.0]).expand(1, 3, 1, 7)
    assert to_bytes(values)[0, 0, 0].tolist() == [0, 0, 0, 1, 254, 255, 255]

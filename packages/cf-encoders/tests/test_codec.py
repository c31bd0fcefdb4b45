import pytest
import torch
from cf_encoders import PatchDCTCodec, PixelCodec
from cf_encoders.codec import ImageCodec, require_float, require_unit_range


@pytest.mark.parametrize("std", [1.0, 0.5])
def test_pixels_come_back_and_span_minus_one_to_one_over_std(std, generator):
    codec, images = PixelCodec(std), torch.rand(2, 3, 5, 7, generator=generator)
    latent = codec.encode(images)
    assert tuple(latent.shape[1:]) == codec.latent_shape(5, 7)
    torch.testing.assert_close(codec.decode(latent), images)
    torch.testing.assert_close(codec.encode(torch.ones(1, 3, 1, 1)), torch.full((1, 3, 1, 1), 1 / std))
    torch.testing.assert_close(codec.encode(torch.zeros(1, 3, 1, 1)), torch.full((1, 3, 1, 1), -1 / std))


def test_decoded_pixels_stay_in_range():
    images = PixelCodec().decode(torch.tensor([-9.0, 0.0, 9.0]).reshape(1, 3, 1, 1))
    assert images.flatten().tolist() == [0, 0.5, 1]


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="std must be > 0, got 0"):
        PixelCodec(0.0)


def test_the_codecs_without_a_network_are_codecs():
    assert isinstance(PixelCodec(), ImageCodec)
    assert isinstance(PatchDCTCodec(), ImageCodec)


def test_whole_numbers_are_refused_and_told_what_to_do():
    with pytest.raises(
        ValueError, match=r"X takes floats in \[0, 1\], got torch\.uint8; give images\.float\(\) / 255"
    ):
        require_float(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "X")


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), float("-inf")])
def test_one_pixel_outside_zero_to_one_is_enough(value):
    images = torch.full((2, 3, 4, 5), 0.5)
    require_unit_range(images, "X")
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"X takes images in \[0, 1\], got"):
        require_unit_range(images, "X")


def test_both_ends_of_the_range_their_rounding_and_no_pictures_at_all_are_fine():
    require_unit_range(torch.tensor([0.0, 1.0, -1e-4, 1.0001]).reshape(1, 1, 2, 2), "X")
    require_unit_range(torch.zeros(0, 3, 8, 8), "X")

import pytest
import torch
from cf_encoders import PixelCodec


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

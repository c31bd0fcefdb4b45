"""The feature space sees blur and noise, and calls equal sets equal."""

import pytest
import torch
import torch.nn.functional as F
from cf_apps.data.bundled import load_emoji
from cf_apps.superres.degrade import enlarged, shrunk, to_bytes
from cf_apps.superres.sharpness import BANDS, LEVEL, dct_matrix, sharpness
from cf_eval import frechet_distance
from torch import Tensor


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return load_emoji("train", 32).images[:400]


def distance(a: Tensor, b: Tensor) -> float:
    return frechet_distance(sharpness(a), sharpness(b))


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur."""
    place = torch.arange(-6, 7).float()
    weights = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = (weights / weights.sum())[None].T @ (weights / weights.sum())[None]
    padded = F.pad(pictures.float(), (6, 6, 6, 6), mode="replicate")
    return to_bytes(F.conv2d(padded, kernel.expand(3, 1, 13, 13), groups=3) / 255)


def test_the_dct_is_scipys():
    scipy_fft = pytest.importorskip("scipy.fft")
    x = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m = dct_matrix(8)
    assert torch.allclose(m @ x @ m.T, torch.from_numpy(scipy_fft.dctn(x.numpy(), norm="ortho")), atol=1e-12)
    assert torch.allclose(m @ m.T, torch.eye(8, dtype=torch.float64), atol=1e-12)


def test_a_wave_puts_its_energy_into_its_own_band():
    """cos along a row of frequency u is one coefficient of every block: its square, over the band's size."""
    place = torch.arange(32) + 0.5
    for u in range(1, 8):
        wave = 0.5 + 0.4 * torch.cos(torch.pi * u * (place % 8) / 8)
        features = sharpness(to_bytes(wave.expand(1, 3, 32, 32)))[0, :6]
        band = next(k for k, (low, high) in enumerate(BANDS) if low <= u <= high)
        assert features.argmax() == band
        count = sum(low <= a + b <= high for low, high in [BANDS[band]] for a in range(8) for b in range(8))
        expected = (0.4 * 0.5**0.5 * 8) ** 2 / count  # of the orthonormal coefficient, spread over its band
        assert features[band].exp().item() == pytest.approx(expected, rel=0.02)


def test_a_flat_picture_has_the_floor_in_every_band_and_its_colour():
    flat = torch.tensor([51, 102, 255], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 16, 24)
    features = sharpness(flat)[0]
    assert torch.allclose(features[:6].exp().sqrt(), torch.full((6,), LEVEL).double(), rtol=1e-6)
    assert torch.allclose(
        features[6:].reshape(3, 4), torch.tensor([0.2, 0.4, 1.0]).double()[:, None].expand(3, 4)
    )


def test_identical_sets_are_at_no_distance_and_two_halves_of_one_set_nearly_so(pictures):
    assert distance(pictures, pictures) < 1e-9
    halves = distance(pictures[::2], pictures[1::2])
    assert halves < 0.02 * distance(pictures[::2], blurred(pictures[1::2], 1.0))


def test_blur_raises_the_distance_the_more_the_stronger_it_is(pictures):
    distances = [distance(pictures, blurred(pictures, sigma)) for sigma in (0.3, 0.6, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert distances[-1] > 5 * distances[1]


def test_noise_and_bicubic_enlarging_raise_the_distance(pictures):
    grain = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    distances = [distance(pictures, to_bytes((pictures + s * grain) / 255)) for s in (0.0, 2.0, 8.0, 32.0)]
    assert distances == sorted(distances)
    assert distance(pictures, to_bytes(enlarged(shrunk(pictures, 4), 4))) > distances[2]


def test_a_shift_of_colour_is_seen_where_detail_is_not(pictures):
    redder = pictures.clone()
    redder[:, 0] = (redder[:, 0].int() + 40).clamp(max=255).to(torch.uint8)
    assert distance(pictures, redder) > 0.01


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (40, 16), (128, 96)])
def test_pictures_of_any_size_have_as_many_features(size):
    picture = torch.randint(256, (2, 3, *size), dtype=torch.uint8)
    features = sharpness(picture)
    assert features.shape == (2, 18)
    assert features.isfinite().all()


def test_pictures_of_less_than_two_blocks_are_refused():
    with pytest.raises(ValueError, match="at least 16 x 16"):
        sharpness(torch.zeros(1, 3, 15, 32, dtype=torch.uint8))

import numpy as np
import pytest
import torch
from cf_encoders import PatchDCTCodec
from cf_encoders.codecs.patch_dct import dct_components


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 8])
def test_components_are_orthonormal(patch):
    components = dct_components(patch)
    torch.testing.assert_close(components @ components.T, torch.eye(3 * patch**2, dtype=torch.float64))


def dct(signal: np.ndarray) -> np.ndarray:
    """Orthonormal DCT-II of the rows, from the Fourier transform of each row and its mirror image."""
    n = signal.shape[1]
    k = np.arange(n)
    mirrored = np.fft.fft(np.concatenate([signal, signal[:, ::-1]], axis=1))[:, :n]
    raw = (np.exp(-0.5j * np.pi * k / n) * mirrored).real / 2
    return raw * np.sqrt(np.where(k == 0, 1, 2) / n)


def test_grey_components_are_the_dct_by_fourier_transform(generator):
    patch = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    grey = patch.expand(3, 5, 5) / 3**0.5
    found = (dct_components(5) @ grey.flatten())[:25].reshape(5, 5)
    torch.testing.assert_close(found, torch.from_numpy(dct(dct(patch.numpy()).T).T))


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_all_components_give_the_image_back(patch, generator):
    codec = PatchDCTCodec(patch, 3 * patch**2)
    images = torch.rand(2, 3, 3 * patch, 5 * patch, generator=generator)
    latent = codec.encode(images)
    assert tuple(latent.shape[1:]) == codec.latent_shape(3 * patch, 5 * patch) == (3 * patch**2, 3, 5)
    torch.testing.assert_close(codec.decode(latent), images)


def test_the_error_of_fewer_components_is_the_energy_of_those_left_out(generator):
    images = 0.5 + 0.1 * torch.randn(2, 3, 8, 8, generator=generator)
    full = PatchDCTCodec(4, 48, std=(1.0,) * 48)
    left_out = full.encode(images)[:, 20:].double().square().sum()
    codec = PatchDCTCodec(4, 20)
    error = (2 * (codec.decode(codec.encode(images)) - images)).double().square().sum()
    torch.testing.assert_close(error, left_out, rtol=1e-4, atol=0)


def test_the_first_component_is_the_mean_grey_of_the_patch(generator):
    images = torch.rand(1, 3, 4, 4, generator=generator)
    latent = PatchDCTCodec(4, 1, std=(1.0,)).encode(images)
    torch.testing.assert_close(latent.flatten(), (2 * images - 1).sum().reshape(1) / 48**0.5)


def test_a_fitted_codec_gives_latents_of_mean_zero_and_variance_one(generator):
    images = torch.rand(16, 3, 16, 16, generator=generator).cumsum(dim=3) / 16  # neighbours alike
    latent = PatchDCTCodec.fitted(images, patch=4, keep=10).encode(images)
    torch.testing.assert_close(latent.mean(dim=(0, 2, 3)), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(latent.std(dim=(0, 2, 3)), torch.ones(10), atol=1e-4, rtol=0)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_sets_the_proportions_and_leaves_the_mean_square_at_one(generator, whitening):
    images = torch.rand(64, 3, 16, 16, generator=generator)
    images = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)  # less detail than colour
    plain = PatchDCTCodec(4, 24, std=(1.0,) * 24).encode(images).std(dim=(0, 2, 3))
    fitted = PatchDCTCodec.fitted(images, 4, 24, whitening=whitening)
    spread = fitted.encode(images).std(dim=(0, 2, 3))
    torch.testing.assert_close(spread / spread[0], (plain / plain[0]) ** (1 - whitening), rtol=1e-3, atol=0)
    assert spread.square().mean().item() == pytest.approx(1.0, rel=1e-3)


def test_a_flat_data_set_is_not_divided_by_its_tiny_std():
    flat = torch.full((4, 3, 8, 8), 0.5)
    assert PatchDCTCodec.fitted(flat).std.min().item() == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 4, "keep": 49}, r"3 patch\^2 = 48\], got 49"),
        ({"keep": 3, "std": (1.0, 1.0)}, "keep=3 numbers, std > 0; got 3, 2"),
        ({"keep": 2, "std": (1.0, 0.0)}, "std > 0"),
    ],
)
def test_wrong_constants_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchDCTCodec(**arguments)


def test_an_image_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"patch=4\) needs.*by 4, got 30 x 32"):
        PatchDCTCodec(4).latent_shape(30, 32)

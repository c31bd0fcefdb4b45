"""PSNR and SSIM against skimage and torchmetrics, each variant with the tool it is named after."""

import math

import numpy as np
import pytest
import torch
from cf_eval.images.paired_quality import PairedQuality
from cf_eval.images.psnr import luma, psnr
from cf_eval.images.ssim import ssim

EXACT = 1e-12
SIZE = (19, 27)


def pairs(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures of 8 bits and noisy copies."""
    draw = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 3, 4, 5, generator=draw)
    target = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear") * 255
    generated = target + 9 * torch.randn(target.shape, generator=draw)
    return tuple(x.round().clamp(0, 255).to(torch.uint8) for x in (generated, target))


def skimage_metrics():
    return pytest.importorskip("skimage.metrics")


def as_arrays(x: torch.Tensor) -> list[np.ndarray]:
    return list(x.movedim(1, 3).numpy())


def test_psnr_of_each_picture_is_skimage_s():
    x, y = pairs()
    peer = skimage_metrics().peak_signal_noise_ratio
    expected = [peer(b, a, data_range=255) for a, b in zip(as_arrays(x), as_arrays(y), strict=True)]
    np.testing.assert_allclose(psnr(x.double(), y.double(), 255.0), expected, rtol=EXACT)


def test_psnr_of_equal_pictures_is_infinite_and_falls_20_db_for_ten_times_the_error():
    x = torch.zeros(1, 3, 4, 5)
    assert psnr(x, x, 1.0).item() == math.inf
    assert psnr(x, x + 0.1, 1.0).item() == pytest.approx(20, rel=1e-6)
    assert psnr(x, x + 0.01, 1.0).item() == pytest.approx(40, rel=1e-6)


SKIMAGE = {
    "wang": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform7": {},
}


@pytest.mark.parametrize("variant", SKIMAGE)
def test_ssim_of_each_picture_is_skimage_s(variant):
    x, y = pairs()
    peer = skimage_metrics().structural_similarity
    expected = [
        peer(a.astype(float), b.astype(float), data_range=255, channel_axis=2, **SKIMAGE[variant])
        for a, b in zip(as_arrays(x), as_arrays(y), strict=True)
    ]
    np.testing.assert_allclose(ssim(x.double(), y.double(), 255.0, variant), expected, rtol=1e-10)


def test_the_torchmetrics_variant_is_torchmetrics():
    peer = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    x, y = (z.double() / 255 for z in pairs())
    expected = peer(x, y, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(x, y, 1.0, "torchmetrics"), expected, rtol=1e-9, atol=0)


def test_the_variants_differ_where_the_field_says_they_do():
    x, y = (z.double() for z in pairs())
    means = [float(ssim(x, y, 255.0, variant).mean()) for variant in ("wang", "torchmetrics", "uniform7")]
    assert min(abs(a - b) for a, b in [means[:2], means[1:], means[::2]]) > 1e-4


def test_ssim_of_equal_pictures_is_1_and_it_is_symmetric():
    x, y = (z.double() for z in pairs())
    torch.testing.assert_close(ssim(x, x, 255.0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(ssim(x, y, 255.0), ssim(y, x, 255.0))


def test_a_picture_smaller_than_the_window_and_an_unknown_variant_are_refused():
    with pytest.raises(ValueError, match="images of 10 x 30 are smaller than the 11 x 11 SSIM window"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30), 1.0)
    with pytest.raises(ValueError, match="unknown SSIM variant 'ms'; known: wang, uniform7, torchmetrics"):
        PairedQuality("ms")


def test_luma_runs_from_16_to_235_and_grey_is_between():
    grey = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    np.testing.assert_allclose(luma(grey).flatten(), [16, 125.5, 235], atol=1e-9)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert luma(red).item() == pytest.approx(16 + 65.481)


def test_the_stream_gives_means_over_pictures_and_the_psnr_of_the_mean_error():
    x, y = pairs(5)
    metric = PairedQuality()
    found = [pair for a, b in zip(x.split(2), y.split(2), strict=True) for pair in metric.add_batch(a, b)]
    result = metric.compute()
    single = psnr(x.double(), y.double(), 255.0)
    assert result.values["psnr"] == pytest.approx(float(single.mean()), rel=EXACT)
    mse = (x.double() - y.double()).square().mean()
    assert result.values["psnr_of_mean"] == pytest.approx(float(10 * torch.log10(255**2 / mse)), rel=EXACT)
    assert result.values["ssim"] == pytest.approx(float(ssim(x.double(), y.double(), 255.0).mean()), rel=1e-9)
    assert [pair.ssim for pair in found] == pytest.approx(ssim(x.double(), y.double(), 255.0).tolist())
    assert result.count == 5


@pytest.mark.parametrize(("value_range", "low", "high"), [("0..1", 0, 1), ("-1..1", -1, 1)])
def test_the_value_range_does_not_move_the_numbers(value_range, low, high):
    x, y = pairs()
    as_bytes, as_floats = PairedQuality(), PairedQuality()
    as_bytes.add_batch(x, y)
    as_floats.add_batch(*(low + z.double() / 255 * (high - low) for z in (x, y)), value_range=value_range)
    assert as_floats.compute().values == pytest.approx(as_bytes.compute().values, rel=1e-9)


def test_luma_and_a_crop_are_measured_as_super_resolution_does():
    x, y = pairs()
    metric = PairedQuality(planes="y", crop=4)
    metric.add_batch(x, y)
    a, b = (luma(z[:, :, 4:-4, 4:-4] / 255) for z in (x, y))
    result = metric.compute()
    assert result.values["psnr"] == pytest.approx(float(psnr(a, b, 255.0).mean()), rel=1e-6)
    assert result.values["ssim"] == pytest.approx(float(ssim(a, b, 255.0).mean()), rel=1e-6)
    assert "luma BT.601" in result.protocol
    assert "crop 4" in result.protocol


def test_equal_pictures_are_left_out_of_the_mean_and_counted():
    x, y = pairs()
    x[1] = y[1]
    metric = PairedQuality()
    metric.add_batch(x, y)
    result = metric.compute()
    rest = psnr(x.double(), y.double(), 255.0)[[0, 2, 3]]
    assert result.values["psnr"] == pytest.approx(float(rest.mean()), rel=EXACT)
    assert result.details["identical"] == 1
    same = PairedQuality()
    same.add_batch(y, y)
    with pytest.raises(ValueError, match="all 4 images equal their targets"):
        same.compute()


def test_shards_merge_to_the_last_digit_and_a_picture_counts_once():
    x, y = pairs(7)
    whole = PairedQuality()
    whole.add_batch(x, y, ids=list(range(7)))
    shards = [PairedQuality() for _ in range(3)]
    for shard, ids in zip(shards, ([5, 0], [], [1, 6, 2, 3, 4, 0]), strict=True):
        shard.add_batch(x[ids], y[ids], ids=ids)
    shards[1].merge(shards[2])
    shards[1].merge(shards[0])
    found, expected = shards[1].compute(), whole.compute()
    assert (found.values, found.count) == (expected.values, 7)
    assert found.details["duplicates_dropped"] == 1


def test_misuse_is_named():
    x, y = pairs()
    metric = PairedQuality()
    with pytest.raises(ValueError, match="no pictures were added"):
        metric.compute()
    with pytest.raises(ValueError, match=r"\(4, 3, 19, 27\), targets \(4, 3, 19, 26\); resize one"):
        metric.add_batch(x, y[..., :-1])
    with pytest.raises(ValueError, match="image 0 has values"):
        metric.add_batch(x.float(), y.float(), "0..1")
    with pytest.raises(ValueError, match=r"torch\.float32 with value_range 'uint8'"):
        metric.add_batch(x.float(), y.float())
    with pytest.raises(ValueError, match="1 ids for 4 images"):
        metric.add_batch(x, y, ids=[1])
    metric.add_batch(x, y)
    with pytest.raises(ValueError, match="give ids always or never"):
        metric.add_batch(x, y, ids=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="cannot merge"):
        metric.merge(PairedQuality(crop=1))
    with pytest.raises(ValueError, match="a crop of 10 leaves nothing of 19 x 27"):
        PairedQuality(crop=10).add_batch(x, y)
    with pytest.raises(ValueError, match="unknown planes 'u'; known: rgb, y"):
        PairedQuality(planes="u")
    with pytest.raises(ValueError, match="crop must not be negative, got -1"):
        PairedQuality(crop=-1)

"""Crops against golden windows; alignments against known scales, numpy and Marigold's resolution quirk."""

import numpy as np
import pytest
import torch
from cf_eval.depth.alignment import Alignment
from cf_eval.depth.crops import crop_mask, kb_crop, kb_paste

EXACT = 1e-10


def window(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        ("none", (7, 5), (0, 7, 0, 5)),
        ("garg", (352, 1216), (143, 349, 43, 1172)),
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("eigen", (352, 1216), (117, 321, 43, 1172)),
        ("eigen", (375, 1242), (124, 342, 44, 1197)),
        ("nyu", (480, 640), (45, 471, 41, 601)),
    ],
)
def test_a_crop_is_the_window_of_its_paper(crop, size, expected):
    mask = crop_mask(crop, *size)
    top, bottom, left, right = expected
    assert window(mask) == expected
    assert int(mask.sum()) == (bottom - top) * (right - left)


def test_the_benchmark_window_stands_at_the_bottom_in_the_middle():
    picture = torch.arange(375 * 1241).reshape(375, 1241)
    assert torch.equal(kb_crop(picture), picture[23:, 12 : 12 + 1216])
    assert torch.equal(kb_crop(kb_crop(picture)), kb_crop(picture))


def test_pasting_the_window_back_leaves_zeros_around_it():
    picture = torch.ones(375, 1242)
    pasted = kb_paste(kb_crop(picture), 375, 1242)
    assert window(pasted > 0) == (23, 375, 13, 13 + 1216)
    assert torch.equal(kb_crop(pasted), kb_crop(picture))


def test_crops_that_do_not_exist_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="unknown crop 'grag'; known: none, eigen, garg, nyu"):
        crop_mask("grag", 4, 4)
    with pytest.raises(ValueError, match=r"480 x 640 depth map, got 240 x 320"):
        crop_mask("nyu", 240, 320)
    with pytest.raises(ValueError, match=r"at least 352 x 1216 pixels, got 352 x 1215"):
        kb_crop(torch.zeros(352, 1215))


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction, truth = 3 p + 2 plus noise, mask of about two thirds."""
    g = torch.Generator().manual_seed(0)
    p = torch.rand(23, 31, generator=g, dtype=torch.float64)
    truth = 3 * p + 2 + 0.1 * torch.randn(23, 31, generator=g, dtype=torch.float64)
    return p, truth, torch.rand(23, 31, generator=g) > 0.3


def test_metric_depth_stays_as_it_is(scene):
    p, truth, mask = scene
    assert torch.equal(Alignment("metric")(p, truth, mask), p)


def test_median_scaling_brings_the_median_over_the_mask_to_that_of_the_truth(scene):
    p, truth, mask = scene
    aligned = Alignment("median")(p, truth, mask)
    assert np.median(aligned[mask]) == pytest.approx(np.median(truth[mask]), rel=EXACT)
    assert torch.allclose(aligned / p, (aligned / p)[0, 0].expand_as(p))
    even = torch.tensor([[True, True, False]])
    aligned = Alignment("median")(
        torch.tensor([[1.0, 3.0, 9.0]]).double(), torch.full((1, 3), 4.0).double(), even
    )
    assert aligned.tolist() == [[2.0, 6.0, 18.0]]


def test_an_exact_scale_and_shift_are_found_whatever_stands_outside_the_mask(scene):
    p, _, mask = scene
    truth = torch.where(mask, 3 * p + 2, 1e4)
    aligned = Alignment("least_squares_depth")(p, truth, mask)
    assert torch.allclose(aligned, 3 * p + 2, rtol=EXACT, atol=EXACT)


def test_least_squares_is_numpys_line_and_no_other_line_is_better(scene):
    p, truth, mask = scene
    aligned = Alignment("least_squares_depth")(p, truth, mask)
    scale, shift = np.polyfit(p[mask].numpy(), truth[mask].numpy(), 1)
    assert torch.allclose(aligned, scale * p + shift, rtol=EXACT, atol=EXACT)
    best = (aligned - truth)[mask].square().sum()
    for other in (1.001 * aligned, aligned + 0.001):
        assert (other - truth)[mask].square().sum() > best


def test_an_exact_disparity_gives_the_depth_back(scene):
    p, _, mask = scene
    truth = 1 / (0.2 * p + 0.1)
    truth[0, 0], mask[0, 0] = 0, True  # a hole in the truth is no disparity
    aligned = Alignment("least_squares_disparity")(p, truth, mask)
    assert torch.allclose(aligned[1:], truth[1:], rtol=EXACT)


def test_disparity_is_fitted_where_the_prediction_is_positive_and_held_above_a_thousandth(scene):
    p, _, _ = scene
    truth, mask = 1 / (0.2 * p + 0.1), torch.ones(23, 31, dtype=torch.bool)
    p[0, :5] = -7
    aligned = Alignment("least_squares_disparity")(p, truth, mask)
    assert torch.allclose(aligned[1:], truth[1:], rtol=EXACT)
    assert torch.equal(aligned[0, :5], torch.full((5,), 1000.0, dtype=torch.float64))


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_a_constant_prediction_takes_the_least_norm_fit_and_becomes_the_mean(scene, constant):
    _, truth, mask = scene
    flat = torch.full_like(truth, constant)
    scale, shift = Alignment("least_squares_depth").fit(flat, truth, mask)
    mean = float(truth[mask].mean())
    assert scale == pytest.approx(constant * mean / (constant**2 + 1), abs=EXACT)
    assert shift == pytest.approx(mean / (constant**2 + 1), rel=EXACT)


def test_marigold_shrinks_the_width_alone(scene):
    """The factor comes from both sides, 10 / 31; of 23 x 31 pixels it leaves 23 x 10, not 7 x 10."""
    p, truth, mask = scene
    factor = 10 / 31
    columns = [int(i / factor) for i in range(10)]
    rows = [int(i / factor) for i in range(7)]
    ours = Alignment("least_squares_depth", 10).fit(p, truth, mask)
    kept = mask[:, columns]
    quirk = np.polyfit(p[:, columns][kept].numpy(), truth[:, columns][kept].numpy(), 1)
    assert ours == pytest.approx(tuple(quirk), rel=1e-9)
    kept = mask[rows][:, columns]
    meant = np.polyfit(p[rows][:, columns][kept].numpy(), truth[rows][:, columns][kept].numpy(), 1)
    assert Alignment("least_squares_depth", 10, "both_sides").fit(p, truth, mask) == pytest.approx(
        tuple(meant), rel=1e-9
    )
    assert abs(quirk[0] - meant[0]) > 1e-3


@pytest.mark.parametrize("shrink", ["marigold_width_only", "both_sides"])
def test_a_map_below_the_resolution_is_fitted_whole_and_the_result_keeps_its_size(scene, shrink):
    p, truth, mask = scene
    whole = Alignment("least_squares_depth")(p, truth, mask)
    assert torch.equal(Alignment("least_squares_depth", 31, shrink)(p, truth, mask), whole)
    assert Alignment("least_squares_depth", 10, shrink)(p, truth, mask).shape == (23, 31)


def test_alignments_that_mean_nothing_are_refused(scene):
    _, truth, mask = scene
    with pytest.raises(
        ValueError, match="unknown alignment 'lsq'; known: metric, median, least_squares_depth"
    ):
        Alignment("lsq")
    with pytest.raises(ValueError, match="unknown shrink 'height'; known: marigold_width_only, both_sides"):
        Alignment("metric", 5, "height")
    with pytest.raises(ValueError, match="max_resolution must be positive, got 0"):
        Alignment("metric", 0)
    with pytest.raises(ValueError, match=r"median of the prediction is 0\.0"):
        Alignment("median")(torch.zeros_like(truth), truth, mask)

"""Depth scores by protocol: which pixels count, how pictures are averaged, and what bad input does."""

import csv
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cf_eval.depth.crops import crop_mask, kb_crop
from cf_eval.depth.errors import ERRORS, depth_errors
from cf_eval.depth.protocols import PROTOCOLS, DepthProtocol, depth_protocol
from cf_eval.depth.score import DepthMetrics, score_depth
from cf_eval.depth.tables import DepthPair, table_5, table_8

EXACT = 1e-12
SMALL = DepthProtocol(0.1, 10.0)


def scenes(n: int, h: int = 9, w: int = 11, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    truth = 0.5 + 11 * torch.rand(n, h, w, generator=g, dtype=torch.float64)
    return truth * (0.3 * torch.randn(n, h, w, generator=g, dtype=torch.float64)).exp(), truth


def test_pictures_are_averaged_not_pixels():
    predictions, truths = scenes(2)
    truths[0, 1:] = 0
    metrics = DepthMetrics(SMALL)
    metrics.add_batch(predictions, truths)
    values = metrics.compute().values
    one, two = (
        depth_errors(p.clamp(0.1, 10)[m], g[m])
        for p, g, m in zip(predictions, truths, (truths > 0.1) & (truths < 10), strict=True)
    )
    assert metrics.rows[0].pixels < metrics.rows[1].pixels
    for name in ERRORS:
        assert values[name] == pytest.approx((one[name] + two[name]) / 2, rel=EXACT)


def test_truth_counts_strictly_between_the_caps_and_predictions_are_clipped_to_them():
    truth = np.array([[0.1, 10.0, 0.100001, 9.999999, math.inf, math.nan, 0.0, 5.0]])
    prediction = np.array([[1.0, 1.0, 1.0, 99.0, 1.0, 1.0, 1.0, -3.0]])
    row = score_depth(prediction, truth, SMALL)
    assert row.pixels == 3
    kept = torch.tensor([0.100001, 9.999999, 5.0], dtype=torch.float64)
    clipped = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)
    assert row.errors == pytest.approx(dict(depth_errors(clipped, kept)), rel=EXACT)


def test_the_mask_that_is_given_narrows_the_range_or_replaces_it():
    predictions, truths = scenes(1)
    mask = torch.zeros(9, 11)
    mask[2:5] = 1
    narrowed = score_depth(predictions[0], truths[0], SMALL, mask)
    assert narrowed.pixels == int(((truths[0] < 10) & (mask > 0)).sum())
    replaced = score_depth(predictions[0], truths[0], replace(SMALL, mask="given"), mask)
    assert replaced.pixels == 33 > narrowed.pixels
    with pytest.raises(ValueError, match="takes its mask from the data set; pass mask="):
        score_depth(predictions[0], truths[0], replace(SMALL, mask="given"))


@pytest.mark.parametrize("name", ["kitti_adabins", "kitti_marigold"])
def test_kitti_is_scored_in_the_benchmark_window_whatever_the_size_of_the_prediction(name):
    predictions, truths = scenes(1, 375, 1242)
    protocol = depth_protocol(name)
    whole = score_depth(predictions[0], truths[0], protocol)
    assert whole == score_depth(kb_crop(predictions[0]), truths[0], protocol)
    assert whole == score_depth(kb_crop(predictions[0]), kb_crop(truths[0]), protocol)
    inside = crop_mask(protocol.crop, 352, 1216)
    assert whole.pixels == int(inside.sum())


def test_bts_scores_the_full_frame_and_counts_pixels_outside_the_window_as_the_least_depth():
    predictions, truths = scenes(1, 400, 1300)
    row = score_depth(kb_crop(predictions[0]), truths[0], depth_protocol("kitti_bts"))
    full = crop_mask("garg", 400, 1300)
    assert row.pixels == int(full.sum())
    pasted = torch.full((400, 1300), 1e-3, dtype=torch.float64)
    pasted[48:, 42 : 42 + 1216] = kb_crop(predictions[0])
    assert row.errors == pytest.approx(dict(depth_errors(pasted[full], truths[0][full])), rel=EXACT)
    assert row == score_depth(predictions[0], truths[0], depth_protocol("kitti_bts"))


def test_the_three_readings_of_the_kitti_crop_score_three_different_pixel_sets():
    predictions, truths = scenes(1, 375, 1242)
    counts = {
        score_depth(predictions[0], truths[0], depth_protocol(name)).pixels
        for name in ("kitti_adabins", "kitti_bts", "kitti_marigold")
    }
    assert len(counts) == 3


def marigold(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, least: float, most: float) -> float:
    """abs_rel as Marigold's evaluation computes it, in float32, written out."""
    p, g = prediction.astype(np.float32), truth.astype(np.float32)
    columns = np.stack([p[mask], np.ones(mask.sum(), np.float32)], 1)
    scale, shift = np.linalg.lstsq(columns, g[mask][:, None], rcond=None)[0]
    aligned = np.clip(np.clip(p * scale + shift, least, most), 1e-6, None)
    return float(np.mean(np.abs(aligned - g)[mask] / g[mask]))


def test_table_8_is_marigolds_evaluation():
    predictions, truths = scenes(2, 480, 640)
    unit = (predictions / predictions.max()).float()
    diode_mask = torch.rand(480, 640, generator=torch.Generator().manual_seed(1)) > 0.5
    results = table_8(
        {
            "nyu": [DepthPair(unit[0], truths[0].float())],
            "scannet": [DepthPair(unit[1].numpy(), truths[1].float().numpy())],
            "diode": [DepthPair(unit[1], truths[1].float(), diode_mask, "a")],
        }
    )
    truth = truths.numpy()
    ranged = (truth > 1e-3) & (truth < 10)
    nyu = ranged[0] & crop_mask("nyu", 480, 640).numpy()
    expected = {
        "nyu": marigold(unit[0].numpy(), truth[0], nyu, 1e-3, 10),
        "scannet": marigold(unit[1].numpy(), truth[1], ranged[1], 1e-3, 10),
        "diode": marigold(unit[1].numpy(), truth[1], diode_mask.numpy(), 0.6, 350),
    }
    # the peer works in float32
    assert {k: r.values["abs_rel"] for k, r in results.items()} == pytest.approx(expected, rel=1e-5)
    assert results["diode"].details["images_in_the_paper"] == 771
    assert "least_squares_depth" in results["nyu"].protocol


def test_a_zero_shot_score_does_not_depend_on_the_unit_of_the_prediction():
    predictions, truths = scenes(1, 480, 640)
    one, other = (
        table_8({"nyu": [DepthPair(p, truths[0])]})["nyu"].values
        for p in (predictions[0], 40 - 3 * predictions[0])
    )
    assert dict(one) == pytest.approx(dict(other), rel=1e-9)


def test_table_5_scores_metres_and_takes_the_kitti_protocol_by_name():
    predictions, truths = scenes(1, 375, 1242)
    pair = DepthPair(predictions[0], truths[0], id="0")
    assert table_5({"kitti": [pair]})["kitti"].values == pytest.approx(
        score_depth(pair.prediction, pair.truth, depth_protocol("kitti_adabins")).errors
    )
    eigen = table_5({"kitti": [pair]}, kitti="kitti_eigen")["kitti"]
    assert "crop eigen" in eigen.protocol
    assert eigen.values["abs_rel"] != table_5({"kitti": [pair]})["kitti"].values["abs_rel"]
    with pytest.raises(ValueError, match=r"unknown depth sets \['scannet'\]; this table has: kitti, nyu"):
        table_5({"scannet": [pair]})


def test_a_picture_without_a_pixel_is_skipped_and_counted():
    predictions, truths = scenes(3)
    truths[1] = 0
    metrics = DepthMetrics(SMALL)
    metrics.add_batch(predictions, truths, ids=["a", "b", "c"])
    without = DepthMetrics(SMALL)
    without.add_batch(predictions[[0, 2]], truths[[0, 2]])
    result = metrics.compute()
    assert result.values == without.compute().values
    assert (result.count, result.details["skipped_empty"]) == (2, 1)
    assert metrics.rows[1].errors is None


def test_nothing_but_empty_masks_is_no_score():
    metrics = DepthMetrics("scannet_marigold")
    with pytest.raises(ValueError, match="0 depth maps were added"):
        metrics.compute()
    metrics.add_batch([np.ones((2, 3))], [np.zeros((2, 3))])
    with pytest.raises(ValueError, match="1 depth maps were added and none had a pixel to score"):
        metrics.compute()


def test_a_prediction_of_zeros_has_a_value():
    """Metric depth clips it to the lower cap; a fit turns it into the mean of the truth."""
    _, truths = scenes(1)
    zeros = torch.zeros(9, 11)
    kept = (truths[0] > 0.1) & (truths[0] < 10)
    clipped = score_depth(zeros, truths[0], SMALL)
    assert clipped.errors is not None
    assert clipped.errors["abs_rel"] == pytest.approx(float((1 - 0.1 / truths[0][kept]).mean()), rel=EXACT)
    fitted = score_depth(zeros, truths[0], replace(depth_protocol("scannet_marigold"), min_depth=0.1))
    assert fitted.errors is not None
    assert fitted.errors["rmse"] == pytest.approx(float(truths[0][kept].std(correction=0)), rel=EXACT)


@pytest.mark.parametrize(("bad", "becomes"), [(math.nan, 1e-3), (math.inf, 10.0), (-math.inf, 1e-3)])
def test_a_prediction_that_is_no_number_is_refused_by_name_or_taken_to_the_caps(bad, becomes):
    predictions, truths = scenes(1, 480, 640)
    predictions[0, 100, 200] = bad
    truths[0, 100, 200] = 3
    with pytest.raises(
        ValueError, match=r"depth map 'x': the prediction is -?(nan|inf) at row 100, column 200"
    ):
        score_depth(predictions[0], truths[0], depth_protocol("nyu_marigold"), id="x")
    capped = score_depth(predictions[0], truths[0], depth_protocol("nyu"))
    predictions[0, 100, 200] = becomes
    assert capped == score_depth(predictions[0], truths[0], depth_protocol("nyu"))


def test_what_stands_outside_the_mask_does_not_matter():
    predictions, truths = scenes(1, 480, 640)
    expected = score_depth(predictions[0], truths[0], depth_protocol("nyu_marigold"))
    predictions[0, 0, :], truths[0, -1, :] = math.nan, 7.0
    assert score_depth(predictions[0], truths[0], depth_protocol("nyu_marigold")) == expected


def test_ranks_merge_to_the_whole_exactly_uneven_and_empty_ones_too():
    predictions, truths = scenes(13)
    names = [f"{i}" for i in range(13)]
    whole = DepthMetrics(SMALL)
    whole.add_batch(predictions, truths, ids=names)
    for cuts in ([0, 13], [0, 2, 13], [0, 7, 7, 13]):
        parts = [DepthMetrics(SMALL) for _ in cuts[1:]]
        for part, a, b in zip(parts, cuts, cuts[1:], strict=False):
            part.add_batch(predictions[a:b], truths[a:b], ids=names[a:b])
        random.Random(0).shuffle(parts)
        for part in parts[1:]:
            parts[0].merge(part)
        assert parts[0].compute() == whole.compute()
        assert parts[0].gathered().compute() == whole.compute()


def test_an_id_is_scored_once_within_a_rank_and_across_ranks():
    predictions, truths = scenes(3)
    one, two = DepthMetrics(SMALL), DepthMetrics(SMALL)
    one.add_batch(predictions, truths, ids=["a", "b", "a"])
    two.add_batch(predictions[1:], truths[1:], ids=["b", "c"])
    one.merge(two)
    assert [row.id for row in one.rows] == ["a", "b", "c"]
    assert one.compute().details["duplicates_dropped"] == 2
    with pytest.raises(ValueError, match="cannot merge depth scores"):
        one.merge(DepthMetrics("nyu"))


def test_the_table_has_a_line_per_picture(tmp_path: Path):
    predictions, truths = scenes(2)
    truths[1] = 0
    metrics = DepthMetrics(SMALL)
    metrics.add_batch(predictions, truths, ids=["kitchen, left", "hall"])
    metrics.save_table(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == ["kitchen, left", "hall"]
    assert float(lines[0]["silog"]) == metrics.compute().values["silog"]
    assert (lines[1]["pixels"], lines[1]["abs_rel"]) == ("0", "")


def test_sizes_and_names_that_do_not_fit_are_named():
    a, b = np.ones((4, 5)), np.ones((4, 6))
    with pytest.raises(ValueError, match=r"depth map 'k': the prediction is \(4, 5\), the truth \(4, 6\)"):
        score_depth(a, b, SMALL, id="k")
    with pytest.raises(ValueError, match=r"the mask is \(4, 6\), the truth \(4, 5\)"):
        score_depth(a, a, SMALL, b)
    with pytest.raises(ValueError, match=r"must be \(h, w\), got \(1, 4, 5\)"):
        score_depth(a[None], a, SMALL)
    with pytest.raises(ValueError, match=r"must have the size of the truth, \(400, 1300\)"):
        score_depth(a, np.ones((400, 1300)), depth_protocol("kitti_adabins"))
    with pytest.raises(ValueError, match="2 predictions, 1 truths, 1 masks; give one"):
        DepthMetrics(SMALL).add_batch([a, a], [a])
    with pytest.raises(ValueError, match="2 ids for 1 samples"):
        DepthMetrics(SMALL).add_batch([a], [a], ids=["a", "b"])
    with pytest.raises(ValueError, match="unknown depth protocol 'kiti'; known: kitti_adabins"):
        DepthMetrics("kiti")
    with pytest.raises(ValueError, match="unknown frame 'full'; known: whole, kb, kb_pasted"):
        DepthProtocol(0.1, 1.0, frame="full")
    with pytest.raises(ValueError, match=r"caps must be .* got 2\.0 and 1\.0"):
        DepthProtocol(2.0, 1.0)


def test_every_protocol_says_what_it_does_in_one_line():
    lines = {name: str(protocol) for name, protocol in PROTOCOLS.items()}
    assert len(set(lines.values())) == len(lines)
    assert "1024 px (marigold_width_only)" in lines["eth3d_marigold"]


needs_rgbd = pytest.mark.skipif(
    "CF_RGBD" not in os.environ, reason="CF_RGBD names no folder with pairs_320x240.npz (real RGB-D pairs)"
)


@needs_rgbd
def test_real_depth_maps_with_holes_score_as_the_plain_loop_does():
    with np.load(Path(os.environ["CF_RGBD"]) / "pairs_320x240.npz") as file:
        depth = next(file[name] for name in file if file[name].dtype == np.uint16) / 1000.0
    g = np.random.default_rng(0)
    predictions = [d * np.exp(0.2 * g.standard_normal(d.shape)) + 0.05 for d in depth[:9]]
    metrics = DepthMetrics("scannet_marigold")
    metrics.add_batch(predictions, list(depth[:9]))
    expected = [
        marigold(p, d, (d > 1e-3) & (d < 10), 1e-3, 10) for p, d in zip(predictions, depth, strict=False)
    ]
    assert metrics.compute().values["abs_rel"] == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert min(row.pixels for row in metrics.rows) < 240 * 320

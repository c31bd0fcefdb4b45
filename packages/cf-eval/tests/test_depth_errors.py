"""Depth errors against plain loops, torchmetrics and cases known by hand."""

import math

import numpy as np
import pytest
import torch
from cf_eval.depth.errors import ERRORS, depth_errors

EXACT = 1e-12  # float64 sums of a few hundred terms of order one


def pixels(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    truth = 0.5 + 9 * torch.rand(n, generator=g, dtype=torch.float64)
    return truth * (0.4 * torch.randn(n, generator=g, dtype=torch.float64)).exp(), truth


def by_hand(prediction: list[float], truth: list[float]) -> dict[str, float]:
    """The formulas, pixel by pixel, as a paper prints them."""
    n = len(truth)
    pairs = list(zip(prediction, truth, strict=True))
    logs = [math.log(p / g) for p, g in pairs]
    return {
        "abs_rel": sum(abs(p - g) / g for p, g in pairs) / n,
        "sq_rel": sum((p - g) ** 2 / g for p, g in pairs) / n,
        "rmse": math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "log10": sum(abs(math.log10(p) - math.log10(g)) for p, g in pairs) / n,
        "silog": 100 * math.sqrt(sum(e * e for e in logs) / n - (sum(logs) / n) ** 2),
        "delta_1": sum(max(p / g, g / p) < 1.25 for p, g in pairs) / n,
        "delta_2": sum(max(p / g, g / p) < 1.25**2 for p, g in pairs) / n,
        "delta_3": sum(max(p / g, g / p) < 1.25**3 for p, g in pairs) / n,
    }


@pytest.mark.parametrize("n", [1, 2, 7, 301])
def test_every_error_is_the_papers_formula(n):
    prediction, truth = pixels(n, n)
    expected = by_hand(prediction.tolist(), truth.tolist())
    assert dict(depth_errors(prediction, truth)) == pytest.approx(expected, rel=EXACT, abs=1e-7)


@pytest.mark.peer
def test_abs_rel_and_rmse_are_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional")
    prediction, truth = pixels(301, 3)
    errors = depth_errors(prediction, truth)
    assert errors["abs_rel"] == pytest.approx(
        float(functional.mean_absolute_percentage_error(prediction, truth)), rel=EXACT
    )
    rmse = functional.mean_squared_error(prediction, truth, squared=False)
    assert errors["rmse"] == pytest.approx(float(rmse), rel=EXACT)
    log_rmse = functional.mean_squared_error(prediction.log(), truth.log(), squared=False)
    assert errors["rmse_log"] == pytest.approx(float(log_rmse), rel=EXACT)


def test_a_perfect_prediction_has_no_error():
    _, truth = pixels(50, 4)
    errors = depth_errors(truth, truth)
    assert [errors[name] for name in ERRORS] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_a_wrong_scale_leaves_silog_at_zero_and_nothing_else():
    _, truth = pixels(50, 5)
    errors = depth_errors(1.5 * truth, truth)
    assert errors["silog"] == pytest.approx(0, abs=1e-6)
    assert errors["abs_rel"] == pytest.approx(0.5, rel=EXACT)
    assert errors["rmse_log"] == pytest.approx(math.log(1.5), rel=EXACT)
    assert errors["log10"] == pytest.approx(math.log10(1.5), rel=EXACT)
    assert (errors["delta_1"], errors["delta_2"]) == (0, 1)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_ratio_of_exactly_the_threshold_fails(k):
    """The comparison is strict, whichever of the two is the larger."""
    one, edge = torch.ones(1, dtype=torch.float64), torch.tensor([1.25**k], dtype=torch.float64)
    assert depth_errors(edge, one)[f"delta_{k}"] == 0
    assert depth_errors(one, edge)[f"delta_{k}"] == 0
    assert depth_errors(edge - 1e-9, one)[f"delta_{k}"] == 1


def test_relative_errors_are_relative_to_the_truth():
    two, one = torch.tensor([2.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    assert depth_errors(two, one)["abs_rel"] == 1
    assert depth_errors(one, two)["abs_rel"] == 0.5
    assert depth_errors(one, two)["sq_rel"] == 0.5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_has_no_logarithm_is_refused(bad):
    good = torch.ones(3, dtype=torch.float64)
    wrong = torch.tensor([1.0, bad, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=f"prediction has depth {bad}"):
        depth_errors(wrong, good)
    with pytest.raises(ValueError, match=f"ground truth has depth {bad}"):
        depth_errors(good, wrong)


def test_no_pixels_are_no_score():
    none = torch.from_numpy(np.zeros(0))
    with pytest.raises(ValueError, match="the mask is empty"):
        depth_errors(none, none)

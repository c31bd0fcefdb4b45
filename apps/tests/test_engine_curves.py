"""Loss curves: smoothed as the formula says, one panel a loss and one for the bins of t."""

import numpy as np
import pytest
from cf_apps.engine import RunError
from cf_apps.engine.curves import _bins, curves, smoothed
from PIL import Image


def record(step, **stats):
    return {"step": step, "losses": {"fm": 1.0 / step, "total": 2.0 / step}, "stats": stats}


def test_smoothing_is_the_weighted_mean_of_the_past():
    values, keep = np.array([3.0, -1.0, 4.0, 1.0, 5.0]), 1 - 1 / 2.5
    for n, mean in enumerate(smoothed(values, span=0.5), start=1):
        weights = keep ** np.arange(n)[::-1]
        assert mean == pytest.approx((weights * values[:n]).sum() / weights.sum(), rel=1e-12)


def test_smoothing_leaves_a_constant_alone():
    assert smoothed(np.full(50, 7.0)) == pytest.approx(np.full(50, 7.0))


def test_bins_of_t_are_found_in_order_and_other_statistics_are_not_bins():
    names = [f"fm_t{k}" for k in range(12)] + ["sigma", "enc_t0", "fm_test"]
    assert _bins([record(1, **dict.fromkeys(names, 1.0))]) == {
        "enc": ["enc_t0"],
        "fm": [f"fm_t{k}" for k in range(12)],
    }


def test_the_picture_has_a_row_for_three_panels_and_is_written_whole(tmp_path):
    log = [record(step, fm_t0=1.0, sigma=0.5) if step % 2 else record(step) for step in range(1, 30)]
    path = curves(log, tmp_path / "new" / "loss.png")
    width, height = Image.open(path).size
    assert width / height == pytest.approx(3 * 4.2 / 3.0, rel=0.01)
    assert [p.name for p in path.parent.iterdir()] == ["loss.png"]


def test_one_record_is_enough_and_none_is_an_error(tmp_path):
    curves([record(1)], tmp_path / "loss.png")
    with pytest.raises(RunError, match="no line yet"):
        curves([], tmp_path / "none.png")

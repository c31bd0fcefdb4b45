"""Loss curves: smoothed as the formula says, one panel a loss and one for the bins of t."""

import numpy as np
import pytest
from cf_apps.engine import RunError
from cf_apps.engine.watching.curves import (
    _bins,
    curves,
    draw,
    evaluation_panels,
    health_panels,
    loss_panels,
    smoothed,
)
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


def test_a_loss_of_an_earlier_stage_keeps_its_panel_and_the_total_comes_last():
    log = [
        {"step": 1, "losses": {"encoder": 3.0, "total": 3.0}, "stats": {}},
        {"step": 2, "losses": {"flow": 2.0, "total": 2.0}},
    ]
    panels = loss_panels(log)
    assert [panel.title for panel in panels] == ["encoder", "flow", "total (weighted)"]
    (encoder,) = panels[0].lines.values()
    assert (encoder.steps.tolist(), encoder.values.tolist()) == ([1.0], [3.0])


def test_what_is_not_a_finite_number_is_left_out_of_a_line():
    values = [1.0, float("nan"), None, "3", float("inf"), True, 2]
    log = [{"step": step, "losses": {"fm": value}} for step, value in enumerate(values)]
    (line,) = loss_panels(log)[0].lines.values()
    assert (line.steps.tolist(), line.values.tolist()) == ([0.0, 6.0], [1.0, 2.0])
    assert loss_panels(log[1:6]) == []


def test_health_shows_the_run_and_the_statistics_and_the_rate_that_was_set_stays_as_it_is():
    log = [
        {
            "step": step,
            "losses": {},
            "stats": {"mean_abs": 0.1, "fm_t0": 1.0},
            "lr": 1e-3 / step,
            "grad_norm": 2.0,
        }
        for step in range(1, 60)
    ]
    panels = health_panels(log)
    assert [panel.title for panel in panels] == ["learning rate", "gradient norm before clipping", "mean abs"]
    (rate,) = panels[0].lines.values()
    assert smoothed(rate.values, panels[0].span).tolist() == [1e-3 / step for step in range(1, 60)]


def test_scores_have_a_panel_each_over_the_steps_that_were_evaluated(tmp_path):
    log = [
        {"step": 50, "evaluation": {"fid_10k": 30.0}},
        {"step": 100, "evaluation": {"fid_10k": 20.0, "clip": 0.3}},
    ]
    panels = evaluation_panels(log)
    assert {panel.title: panel.lines[panel.title].steps.tolist() for panel in panels} == {
        "fid 10k": [50.0, 100.0],
        "clip": [100.0],
    }
    assert Image.open(draw(panels, tmp_path / "scores.png")).width > 0

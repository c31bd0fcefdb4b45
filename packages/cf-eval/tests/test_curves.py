"""Quality curves: reading them between points, comparing them, keeping them."""

from dataclasses import replace
from pathlib import Path

import pytest
from cf_eval.curves import QualityCurve, QualityPoint, load_curves, plot_curves, save_curves


def curve(*values: tuple[int, float], name: str = "FM-OT, midpoint", lower: bool = True, error: float = 0.0):
    points = tuple(QualityPoint(nfe, value, 256, error) for nfe, value in values)
    return QualityCurve(name, "mse", "pixels, against 1000 NFE", lower, points)


def test_a_curve_that_gets_no_worse_is_monotone_whichever_way_is_better():
    assert curve((2, 5.0), (4, 3.0), (8, 3.0)).is_monotone()
    assert not curve((2, 5.0), (4, 3.0), (8, 3.1)).is_monotone()
    assert curve((2, 0.1), (4, 0.3), lower=False).is_monotone()
    assert not curve((2, 0.3), (4, 0.1), lower=False).is_monotone()


def test_a_setback_within_the_errors_is_none():
    assert curve((2, 3.0), (4, 3.19), error=0.1).is_monotone()
    worse = curve((2, 3.0), (4, 3.21), (8, 1.0), error=0.1)
    assert [(a.nfe, b.nfe) for a, b in worse.setbacks()] == [(2, 4)]


def test_between_points_the_value_is_linear_in_the_logarithm_of_nfe():
    c = curve((4, 8.0), (16, 2.0), (64, 1.0))
    assert c.nfe_for(5.0) == pytest.approx(8)
    assert c.nfe_for(2.0) == pytest.approx(16)
    assert c.nfe_for(1.25) == pytest.approx(16 * 4**0.75)
    assert c.nfe_for(9.0) == 4
    assert c.nfe_for(0.9) is None
    rising = curve((4, 0.2), (16, 0.6), lower=False)
    assert rising.nfe_for(0.4) == pytest.approx(8)
    assert rising.nfe_for(0.7) is None


def test_the_first_crossing_counts():
    assert curve((2, 4.0), (8, 1.0), (16, 3.0), (32, 1.0)).nfe_for(1.0) == 8


def test_the_share_of_evaluations_is_that_of_the_paper():
    """Lipman et al. figure 7: FM-OT needs about 60 % of the evaluations of a diffusion model for the same error."""
    ours = curve((6, 8.0), (60, 1.0))
    theirs = curve((10, 8.0), (100, 1.0), name="diffusion")
    for value in (7.0, 3.0, 1.0):
        assert ours.relative_nfe(theirs, value) == pytest.approx(0.6)
        assert theirs.relative_nfe(ours, value) == pytest.approx(1 / 0.6)
    assert ours.relative_nfe(theirs, 0.5) is None


def test_better_everywhere_means_at_every_shared_nfe():
    ours, theirs = curve((4, 3.0), (8, 2.0)), curve((2, 0.1), (4, 3.5), (8, 2.1), name="other")
    assert ours.is_better_everywhere(theirs)
    assert not theirs.is_better_everywhere(ours)
    assert not ours.is_better_everywhere(ours)
    with pytest.raises(ValueError, match="share no nfe"):
        ours.is_better_everywhere(curve((5, 1.0)))


def test_curves_of_different_metrics_do_not_compare():
    ours = curve((4, 3.0))
    with pytest.raises(ValueError, match="do not compare"):
        ours.relative_nfe(replace(ours, protocol="another"), 3.0)
    with pytest.raises(ValueError, match="do not compare"):
        ours.is_better_everywhere(replace(ours, lower_is_better=False))


def test_a_file_gives_the_same_curves_back(tmp_path: Path):
    curves = [curve((4, 3.0), (8, 2.0)), curve((4, 1 / 3), name="a\u2028b")]
    curves[0] = replace(curves[0], details={"seed": 0, "commit": None})
    save_curves(curves, tmp_path / "curves.jsonl")
    assert load_curves(tmp_path / "curves.jsonl") == curves
    assert [p.name for p in tmp_path.iterdir()] == ["curves.jsonl"]


def test_what_is_no_curve_is_refused():
    with pytest.raises(ValueError, match="nfe must increase, got 8 then 4"):
        curve((8, 1.0), (4, 2.0))
    with pytest.raises(ValueError, match="nfe must increase, got 8 then 8"):
        curve((8, 1.0), (8, 2.0))
    with pytest.raises(ValueError, match="at least one point"):
        curve()
    with pytest.raises(ValueError, match="one of them is empty"):
        curve((4, 1.0), name="")
    with pytest.raises(ValueError, match="at nfe 4: value nan"):
        curve((4, float("nan")))
    with pytest.raises(ValueError, match="got 0 and 256"):
        curve((0, 1.0))


def test_curves_are_drawn_into_a_file(tmp_path: Path):
    pytest.importorskip("matplotlib")
    plot_curves([curve((4, 3.0), (8, 2.0)), curve((4, 4.0), name="other")], tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    assert "function evaluations" in text or "<svg" in text
    with pytest.raises(ValueError, match="no curves to draw"):
        plot_curves([], tmp_path / "none.svg")

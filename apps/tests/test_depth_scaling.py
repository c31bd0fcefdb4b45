"""Depth in [-1, 1] and back."""

import math

import pytest
import torch
from cf_apps.data.depth_sets.normalise import affine_normalised
from cf_apps.depth.scaling import ScalingConfig, measured
from cf_apps.engine.errors import ConfigError

NEAR, FAR = 0.5, 80.0


def depths() -> torch.Tensor:
    return torch.linspace(NEAR, FAR, 2 * 3 * 5, dtype=torch.float64).reshape(2, 3, 5)


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_scaling_is_undone_exactly_and_fills_the_range(kind):
    scaling, depth = ScalingConfig(kind, NEAR, FAR), depths()
    x_1 = scaling.to_x_1(depth, torch.ones_like(depth, dtype=torch.bool))
    assert x_1.shape == (2, 1, 3, 5)
    torch.testing.assert_close(x_1.aminmax().min, torch.tensor(-1.0, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(x_1.aminmax().max, torch.tensor(1.0, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaling.to_depth(x_1), depth, rtol=1e-6, atol=0)


def test_equal_steps_of_log_are_equal_ratios_and_of_linear_equal_metres():
    x = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)[:, None, None, None]
    log = ScalingConfig("log", NEAR, FAR).to_depth(x).flatten()
    linear = ScalingConfig("linear", NEAR, FAR).to_depth(x).flatten()
    assert math.isclose(log[1] / log[0], log[2] / log[1], rel_tol=1e-6)
    assert math.isclose(log[1], math.sqrt(NEAR * FAR), rel_tol=1e-6)
    assert math.isclose(linear[1] - linear[0], linear[2] - linear[1], rel_tol=1e-6)
    assert math.isclose(linear[1], (NEAR + FAR) / 2, rel_tol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_what_lies_outside_is_clipped_both_ways(kind):
    scaling = ScalingConfig(kind, NEAR, FAR)
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    x_1 = scaling.to_x_1(torch.tensor([[[0.0, 1e4]]]), everywhere)
    torch.testing.assert_close(x_1.flatten(), torch.tensor([-1.0, 1.0]))
    found = scaling.to_depth(torch.tensor([[[[-3.0, 3.0]]]]))
    torch.testing.assert_close(found.flatten(), torch.tensor([NEAR, FAR]))


def test_affine_is_marigold_s_normalisation_and_gives_depth_up_to_scale_and_shift():
    depth = depths()
    valid = torch.ones_like(depth, dtype=torch.bool)
    scaling = ScalingConfig("affine")
    x_1 = scaling.to_x_1(depth, valid)
    assert x_1[:, 0].equal(affine_normalised(depth, valid))
    found = scaling.to_depth(x_1)
    inside = x_1[:, 0].abs() < 1
    for f, d, i in zip(found, depth, inside, strict=True):
        slopes = (f[i][1:] - f[i][:-1]) / (d[i][1:] - d[i][:-1])
        torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes))
        assert slopes[0] > 0


def test_near_and_far_are_measured_on_readings():
    readings = torch.arange(1, 1002, dtype=torch.float32)  # quantile q is 1 + 1000 q
    found = measured(ScalingConfig("log"), readings)
    assert (found.kind, found.near, found.far) == ("log", 6.0, 996.0)
    assert ScalingConfig("log").is_measured
    assert not found.is_measured
    assert not ScalingConfig("affine").is_measured
    with pytest.raises(ConfigError, match=r"got near 3\.0, far 3\.0"):
        measured(ScalingConfig("linear"), torch.full((9,), 3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cubic",), "unknown scaling.kind 'cubic'; known: linear, log, affine"),
        (("linear", 1.0), "give both or none"),
        (("affine", 1.0, 2.0), "none for affine"),
        (("linear", 2.0, 1.0), "near < far"),
        (("log", 0.0, 1.0), "0 < near for log"),
        (("linear", 0.0, math.inf), "near < far"),
    ],
)
def test_a_scaling_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ScalingConfig(*arguments)


def test_scaling_before_it_is_measured_says_so():
    with pytest.raises(ConfigError, match="not measured yet"):
        ScalingConfig("log").to_depth(torch.zeros(1, 1, 2, 2))

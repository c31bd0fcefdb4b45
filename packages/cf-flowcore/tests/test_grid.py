import math
from itertools import pairwise

import pytest
import torch
from cf_flowcore import VE, VP, CondOT, Cosine, karras_grid, shifted_grid, solve
from cf_flowcore.grid import checked_grid, even_grid


@pytest.mark.parametrize(("t_0", "t_1"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7)])
def test_n_steps_are_n_steps_for_every_n_with_exact_ends(t_0, t_1):
    for n in range(1, 1001):
        grid = even_grid(n, t_0, t_1)
        assert len(grid) == n + 1
        assert (grid[0], grid[-1]) == (t_0, t_1)
        assert checked_grid(grid, t_0, t_1) == grid


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([0.0, 0.6, 0.4, 1.0], "strictly one way"),
        ([0.0, 0.5, 0.5, 1.0], "strictly one way"),
        ([0.0, 0.5], r"from t_0=0\.0 to t_1=1\.0, got 0\.0 to 0\.5"),
        ([1.0, 0.0], "from t_0="),
        ([0.0, float("nan"), 1.0], "finite"),
        ([0.0], "at least two"),
    ],
)
def test_a_grid_that_does_not_lead_from_t_0_to_t_1_is_refused_by_value(grid, message):
    with pytest.raises(ValueError, match=message):
        checked_grid(grid, 0.0, 1.0)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        even_grid(0, 0.0, 1.0)


@pytest.mark.parametrize("steps", [1, 2, 25])
def test_a_shifted_grid_has_shorter_steps_near_the_source_and_exact_ends(steps):
    grid = shifted_grid(steps, 3.0)
    assert checked_grid(grid, 0.0, 1.0) == grid
    assert len(grid) == steps + 1
    lengths = [b - a for a, b in pairwise(grid)]
    assert lengths == sorted(lengths)
    assert shifted_grid(steps, 1.0) == pytest.approx(even_grid(steps, 0.0, 1.0))


@pytest.mark.parametrize("path", [CondOT(sigma_min=0.0), Cosine(), VP(), VE(0.002, 80.0, ends_at_zero=True)])
def test_a_karras_grid_has_their_noise_levels(path):
    steps, rho = 7, 7.0
    grid = karras_grid(steps, path, sigma_min=0.02, sigma_max=60.0)
    assert checked_grid(grid, 0.0, path.t_max) == grid
    a, b, _, _ = path.coefficients(torch.tensor(grid[1:-1], dtype=torch.float64))
    wanted = [  # Karras et al. 2022, eq. 5, levels 1 to N - 1 of 0 to N - 1
        (60.0 ** (1 / rho) + i / (steps - 1) * (0.02 ** (1 / rho) - 60.0 ** (1 / rho))) ** rho
        for i in range(1, steps)
    ]
    assert (b / a).tolist() == pytest.approx(wanted, rel=1e-6)


def test_a_karras_grid_of_one_step_goes_all_the_way():
    assert karras_grid(1, CondOT()) == [0.0, 1.0]


def test_a_grid_is_solved_as_it_is():
    seen = []
    grid = shifted_grid(4, 3.0)
    x_0 = torch.zeros(2, 1, dtype=torch.float64)
    solve(lambda x, t: seen.append(t[0].item()) or x, x_0, method="euler", grid=grid)
    assert seen == grid[:-1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: karras_grid(0, CondOT()), "at least 1, got 0"),
        (
            lambda: karras_grid(5, CondOT(), sigma_min=3.0, sigma_max=2.0),
            "sigma_min < sigma_max and rho > 0, got 3.0",
        ),
        (lambda: shifted_grid(5, -1.0), "must be positive, got -1.0"),
        (lambda: shifted_grid(5, math.inf), "must be positive, got inf"),
    ],
)
def test_grids_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

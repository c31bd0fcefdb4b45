import pytest
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

"""The other solver behind the same kind of call: same answers, calls counted, refusals by name."""

import math
import sys
from unittest.mock import patch

import pytest
import torch
from cf_flowcore import solve, solve_torchdiffeq
from cf_flowcore.control import I_CONTROL


def turn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Not autonomous: the angle at t = 1 is 1.5."""
    rate = (1 + t)[:, None]
    return torch.stack([-x[:, 1], x[:, 0]], 1) * rate


@pytest.fixture
def x_0(generator):
    return torch.randn(5, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("method", "theirs"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2")]
)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.9, 0.2)])
def test_fixed_methods_take_the_same_steps_as_ours(method, theirs, ends, x_0):
    t_0, t_1 = ends
    own = solve(turn, x_0, t_0=t_0, t_1=t_1, method=method, steps=7, save="grid")
    other = solve_torchdiffeq(turn, x_0, t_0=t_0, t_1=t_1, method=theirs, steps=7, save="grid")
    torch.testing.assert_close(other.x, own.x)
    torch.testing.assert_close(other.trajectory, own.trajectory)
    assert torch.equal(other.t, own.t)
    assert (other.nfe, other.rows, other.ok) == (own.nfe, own.rows, True)


def test_dopri5_kept_inside_needs_as_many_calls_as_ours_with_its_rule(x_0):
    inside = {"step_t": torch.tensor([1.0], dtype=torch.float64)}
    other = solve_torchdiffeq(turn, x_0, options=inside)
    own = solve(turn, x_0, method="dopri5-shampine", control=I_CONTROL)
    assert abs(other.nfe - own.nfe) <= 6
    angle = torch.tensor(1.5, dtype=torch.float64)
    truth = torch.stack(
        [
            x_0[:, 0] * angle.cos() - x_0[:, 1] * angle.sin(),
            x_0[:, 0] * angle.sin() + x_0[:, 1] * angle.cos(),
        ],
        1,
    )
    torch.testing.assert_close(other.x, truth, atol=1e-4, rtol=0)


def test_a_grid_is_a_grid_of_states_for_adaptive_methods(x_0):
    grid = [0.0, 0.3, 1.0]
    other = solve_torchdiffeq(turn, x_0, grid=grid, save="grid", rtol=1e-8, atol=1e-8)
    own = solve(turn, x_0, grid=grid, save="grid", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(other.trajectory, own.trajectory, atol=1e-6, rtol=0)
    assert other.t.tolist() == grid


def test_time_comes_as_one_number_for_each_sample_in_float32_or_better(x_0):
    seen = []

    def v(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((t.shape, t.dtype))
        return turn(x, t)

    solve_torchdiffeq(v, x_0.float(), method="euler", steps=3)
    assert set(seen) == {(torch.Size([5]), torch.float32)}


def test_gradients_only_on_request(x_0):
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    field = lambda x, t: rate * x  # noqa: E731
    assert not solve_torchdiffeq(field, x_0, method="midpoint", steps=3).x.requires_grad
    end = solve_torchdiffeq(field, x_0, rtol=1e-9, atol=1e-9, grad="direct").x
    (slope,) = torch.autograd.grad(end.sum(), rate)
    assert slope.item() == pytest.approx(x_0.sum().item() * math.exp(0.5), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "euler"}, "euler needs steps= or grid="),
        ({"method": "dopri5", "steps": 4}, "dopri5 chooses its steps"),
        ({"save": "dense"}, "unknown save 'dense'"),
        ({"grad": "adjoint"}, "unknown grad 'adjoint'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words, x_0):
    with pytest.raises(ValueError, match=words):
        solve_torchdiffeq(turn, x_0, **options)


def test_without_torchdiffeq_it_says_what_to_install(x_0):
    with (
        patch.dict(sys.modules, {"torchdiffeq": None}),
        pytest.raises(ModuleNotFoundError, match=r"cf-flowcore\[torchdiffeq\]"),
    ):
        solve_torchdiffeq(turn, x_0)

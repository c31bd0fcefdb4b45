"""Steps of each sample's own: right, independent of the batch, and no more rows than needed."""

import math

import pytest
import torch
from cf_flowcore import NonFiniteVelocity, StepUnderflow, TooManyEvaluations, solve
from cf_flowcore.adaptive import first_step_size
from cf_flowcore.control import I_CONTROL, PI_CONTROL, Tolerance
from cf_flowcore.per_sample import _first_steps
from cf_flowcore.step import Field
from cf_flowcore.tableaus import DOPRI5, TABLEAUS

ADAPTIVE = [name for name, rule in TABLEAUS.items() if rule.error is not None]
RATES = torch.tensor([0.5, 1.0, 40.0, 3.0, 12.0], dtype=torch.float64)


def start(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spiral(x, t):
    """Each sample turns at the rate it carries as its third number, faster with time."""
    rate = (x[:, 2] * (1 + t))[:, None]
    return torch.cat([-rate * x[:, 1:2], rate * x[:, :1], torch.zeros_like(rate)], 1)


def spirals(rates=RATES) -> torch.Tensor:
    return torch.cat([start(len(rates), 2), rates[:, None]], 1)


def turned(x_0, t_0=0.0, t_1=1.0):
    angle = x_0[:, 2] * (t_1 - t_0 + (t_1**2 - t_0**2) / 2)
    c, s = torch.cos(angle), torch.sin(angle)
    return torch.stack([c * x_0[:, 0] - s * x_0[:, 1], s * x_0[:, 0] + c * x_0[:, 1], x_0[:, 2]], 1)


@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_every_sample_arrives_within_its_tolerance(method, direction):
    t_0, t_1 = direction
    x_0 = spirals()
    tolerance = 1e-5 if method == "bosh3" else 1e-7  # a third-order method needs thousands of steps for that
    found = solve(
        spiral, x_0, method=method, per_sample=True, rtol=tolerance, atol=tolerance, t_0=t_0, t_1=t_1
    )
    assert (found.x - turned(x_0, t_0, t_1)).abs().max() < 1000 * tolerance
    assert found.ok
    assert found.status == "ok"
    assert (found.reached == t_1).all()


def test_a_sample_gets_the_same_answer_alone_and_in_any_company():
    x_0 = spirals()
    together = solve(spiral, x_0, per_sample=True)
    for i in range(len(x_0)):
        alone = solve(spiral, x_0[i : i + 1], per_sample=True)
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-12, atol=1e-12)
        assert alone.accepted[0] == together.accepted[i]
        assert alone.rejected[0] == together.rejected[i]


def test_one_sample_alone_takes_the_steps_of_the_whole_batch_solver():
    x_0 = spirals(RATES[2:3])
    own, whole = (solve(spiral, x_0, per_sample=flag) for flag in (True, False))
    torch.testing.assert_close(own.x, whole.x, rtol=1e-9, atol=1e-9)
    assert (int(own.accepted[0]), int(own.rejected[0]), own.nfe) == (
        whole.accepted,
        whole.rejected,
        whole.nfe,
    )


def test_rows_are_no_more_than_the_samples_need_by_themselves():
    x_0 = spirals(torch.linspace(0.1, 40.0, 64, dtype=torch.float64))
    seen = []

    def counting(x, t):
        seen.append(len(x))
        return spiral(x, t)

    found = solve(counting, x_0, per_sample=True)
    assert found.rows == sum(seen)
    assert found.nfe == len(seen)
    by_themselves = sum(solve(spiral, x_0[i : i + 1], per_sample=True).rows for i in range(64))
    assert found.rows == by_themselves
    assert found.rows < 0.6 * 64 * found.nfe  # what it would be without dropping any
    assert seen == sorted(seen, reverse=True)


def test_hard_samples_of_a_batch_keep_their_tolerance_where_a_mean_would_hide_them():
    rates = torch.cat([torch.full((63,), 0.1), torch.tensor([60.0])]).double()
    x_0 = spirals(rates)
    own, whole = (
        (solve(spiral, x_0, per_sample=flag, rtol=1e-5, atol=1e-5).x - turned(x_0)).abs().amax(1)
        for flag in (True, False)
    )
    assert own[63] < 0.5 * whole[63]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4), (0, 2)])
def test_states_of_any_rank(shape):
    x_0 = start(*shape)
    found = solve(lambda x, t: -x, x_0, per_sample=True)
    torch.testing.assert_close(found.x, x_0 * math.exp(-1), rtol=1e-4, atol=1e-5)


def test_v_sees_each_sample_at_its_own_time_inside_the_interval():
    seen = []

    def v(x, t):
        seen.append(t)
        assert t.shape == (len(x),)
        assert t.dtype == torch.float64
        return spiral(x, t)

    solve(v, spirals(), per_sample=True, t_0=0.2, t_1=0.7)
    times = torch.cat(seen)
    assert (times >= 0.2).all()
    assert (times <= 0.7).all()
    assert any(len(t.unique()) > 1 for t in seen)


def test_every_sample_lands_on_every_stop_of_the_grid():
    x_0, grid = spirals(), [0.0, 0.1, 0.35, 1.0]
    found = solve(spiral, x_0, per_sample=True, grid=grid, save="grid", rtol=1e-8, atol=1e-8)
    assert found.t.tolist() == grid
    assert found.trajectory.shape == (4, 5, 3)
    for t, state in zip(grid, found.trajectory, strict=True):
        torch.testing.assert_close(state, turned(x_0, 0.0, t), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.trajectory[-1], found.x)


def test_options_of_the_adaptive_solver_hold():
    x_0 = spirals(RATES[:2])
    few, many = (solve(spiral, x_0, per_sample=True, max_step=s).accepted for s in (1.0, 0.01))
    assert (many >= 100).all()
    assert (few < 50).all()
    own = solve(spiral, x_0, per_sample=True, control=I_CONTROL, method="dopri5-shampine", first_step=0.01)
    assert own.ok


def test_the_vector_rule_of_the_next_step_is_the_scalar_one():
    errors = [0.0, 1e-12, 1e-3, 0.5, 1.0, 1.1, 30.0, 1e9, math.inf, math.nan]
    for control in (PI_CONTROL, I_CONTROL):
        for previous in (1e-9, 0.2, 1.0):
            error = torch.tensor(errors, dtype=torch.float64)
            found = control.factors(error, error <= 1.0, torch.full_like(error, previous), 5)
            for error, factor in zip(errors, found.tolist(), strict=True):
                error = math.inf if math.isnan(error) else error
                if error <= 1:
                    assert factor == pytest.approx(control.after_accepted(error, previous, 5))
                else:
                    assert factor == pytest.approx(control.after_rejected(error, 5))


def test_the_first_step_of_each_sample_is_that_of_a_batch_of_one():
    x_0, times = spirals(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    field, tolerance = Field(spiral, x_0), Tolerance(1e-5, 1e-5)
    found = _first_steps(field, x_0, field(x_0, 0.0), times, DOPRI5, tolerance)
    for i in range(len(x_0)):
        one = x_0[i : i + 1]
        by_itself = first_step_size(field, one, field(one, 0.0), 0.0, 1.0, DOPRI5, tolerance)
        assert found[i].item() == pytest.approx(by_itself, rel=1e-6)


def test_gradients_go_through_the_steps():
    x_0 = spirals(RATES[:2]).requires_grad_()
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    how = {"per_sample": True, "rtol": 1e-9, "atol": 1e-9}
    found = solve(lambda x, t: scale * spiral(x, t), x_0, grad="direct", **how)
    exact = turned(torch.cat([x_0[:, :2], scale * x_0[:, 2:]], 1))[:, :2].sum()
    wanted = torch.autograd.grad(exact, (x_0, scale))
    gradients = torch.autograd.grad(found.x[:, :2].sum(), (x_0, scale))
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not solve(spiral, x_0, per_sample=True).x.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_states_keep_their_dtype(dtype):
    x_0 = start(4, 3).to(dtype)
    found = solve(lambda x, t: -x, x_0, per_sample=True, rtol=1e-2, atol=1e-2)
    assert found.x.dtype == dtype
    torch.testing.assert_close(found.x.double(), x_0.double() * math.exp(-1), rtol=0, atol=0.02)


# ----------------------------------------------------------------------------------------------------- failures


def broken(x, t):
    """NaN in the sample that starts at 2 once t > 1/2."""
    return torch.where((t > 0.5)[:, None] & (x > 1.5), torch.nan, torch.zeros_like(x))


def test_a_nan_ends_its_own_sample_and_the_others_go_on():
    x_0 = torch.tensor([[0.0], [2.0], [1.0]], dtype=torch.float64)
    with pytest.raises(NonFiniteVelocity, match=r"not finite for sample 1 at t=0\.5") as error:
        solve(broken, x_0, per_sample=True)
    assert error.value.sample == 1
    found = solve(broken, x_0, per_sample=True, on_fail="return")
    assert found.status == "NonFiniteVelocity"
    assert found.reached[[0, 2]].tolist() == [1.0, 1.0]
    assert found.reached[1].item() == pytest.approx(0.5, abs=1e-6)
    assert torch.equal(found.x, x_0)


def test_a_nan_at_the_very_first_call_is_reported_too():
    with pytest.raises(NonFiniteVelocity, match="sample 0 at t=0;"):
        solve(lambda x, t: x * torch.nan, start(2, 2), per_sample=True)


def test_a_jump_underflows_the_step_of_its_sample():
    def v(x, t):  # the sample that starts at 1 jumps
        return torch.where((t > 0.3)[:, None] & (x > 0.5), 1e12, 0.0)

    x_0 = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(StepUnderflow, match="sample 1") as error:
        solve(v, x_0, per_sample=True, rtol=1e-15, atol=1e-15)
    assert error.value.t == pytest.approx(0.3)


def test_too_many_calls_return_what_there_is():
    x_0 = spirals(torch.tensor([0.1, 3000.0], dtype=torch.float64))
    with pytest.raises(TooManyEvaluations, match=r"max_nfe=60.*sample 1"):
        solve(spiral, x_0, per_sample=True, max_nfe=60)
    found = solve(spiral, x_0, per_sample=True, max_nfe=60, on_fail="return")
    assert found.reached[0] == 1.0
    assert 0.0 < found.reached[1] < 1.0
    assert found.nfe <= 60


def test_a_fixed_method_has_no_steps_of_its_own():
    with pytest.raises(
        ValueError, match="per_sample=True is for adaptive methods; euler takes the same steps"
    ):
        solve(spiral, spirals(), method="euler", steps=4, per_sample=True)

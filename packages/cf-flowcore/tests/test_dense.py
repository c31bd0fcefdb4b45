"""Between the steps: right values, right slopes, the order that is claimed."""

import math

import pytest
import torch
from cf_flowcore import solve
from cf_flowcore.tableaus import TABLEAUS
from scipy.integrate import RK45

X_0 = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FIXED = [name for name, rule in TABLEAUS.items() if rule.error is None]
DENSE = [name for name in TABLEAUS if name != "dopri8"]
ADAPTIVE = [name for name, rule in TABLEAUS.items() if rule.error is not None]


def growth(x, t):
    return x * (1 + t)[:, None]


def grown(t):
    return X_0 * math.exp(t + t**2 / 2)


def how(method):
    return {"steps": 10} if method in FIXED else {"rtol": 1e-6, "atol": 1e-6}


@pytest.mark.parametrize("method", DENSE)
def test_between_the_steps_it_is_about_as_right_as_at_them(method):
    solution = solve(growth, X_0, method=method, save="dense", **how(method))
    times = [i / 37 for i in range(38)]
    between = max((x - grown(t)).abs().max() for t, x in zip(times, solution.dense(times), strict=True))
    at_the_end = (solution.x - grown(1.0)).abs().max()
    assert between < 3 * float(at_the_end) + 6e-5


@pytest.mark.parametrize(
    ("method", "order"), [("dopri5", 4), ("dopri5-shampine", 4), ("tsit5", 4), ("rk4", 3)]
)
def test_its_order_is_the_one_it_claims(method, order):
    errors = []
    for n in (8, 16):
        grid = [i / n for i in range(n + 1)]
        loose = {"rtol": 10.0} if method in ADAPTIVE else {}
        dense = solve(growth, X_0, method=method, grid=grid, save="dense", **loose).dense
        middles = [(i + 0.37) / n for i in range(n)]
        errors.append(max((x - grown(t)).abs().max() for t, x in zip(middles, dense(middles), strict=True)))
    # the local error of one step: order + 1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.4)


def test_dopri5s_quartic_is_scipys():
    solver = RK45(
        lambda t, x: x * (1 + t), 0.0, X_0.flatten().numpy(), 1.0, first_step=0.2, rtol=1e-3, max_step=0.2
    )
    solver.step()
    ours = solve(growth, X_0, grid=[0.0, 0.2], t_1=0.2, first_step=0.2, rtol=1e-3, save="dense").dense
    for t in (0.03, 0.1, 0.17):
        theirs = torch.from_numpy(solver.dense_output()(t)).reshape(4, 2)
        torch.testing.assert_close(ours([t])[0], theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["rk4", "dopri5", "bosh3"])
def test_at_the_steps_it_is_exactly_their_states_with_their_slopes(method):
    solution = solve(growth, X_0, method=method, save="dense", **how(method))
    for s in solution.dense.segments:
        assert torch.equal(solution.dense([s.t])[0], s.x)
        torch.testing.assert_close(s.k, growth(s.x, torch.full((4,), s.t, dtype=torch.float64)))
        h = 1e-6 * (s.t_next - s.t)
        slope = (s.at(s.t_next) - s.at(s.t_next - h)) / h
        torch.testing.assert_close(slope, s.k_next, rtol=1e-4, atol=1e-4)
    assert torch.equal(solution.dense([1.0])[0], solution.x)


def test_backwards_too():
    x_1 = grown(1.0)
    dense = solve(growth, x_1, t_0=1.0, t_1=0.0, save="dense", rtol=1e-8, atol=1e-8).dense
    for t in (0.0, 0.3, 1.0):
        torch.testing.assert_close(dense([t])[0], grown(t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_a_fixed_solve_pays_one_more_call_and_stays_the_same(method):
    plain, dense = (solve(growth, X_0, method=method, steps=5, save=save) for save in ("end", "dense"))
    assert torch.equal(plain.x, dense.x)
    assert dense.nfe == plain.nfe + 1
    assert plain.dense is None


def test_an_adaptive_solve_pays_nothing():
    plain, dense = (solve(growth, X_0, save=save) for save in ("end", "dense"))
    assert torch.equal(plain.x, dense.x)
    assert dense.nfe == plain.nfe


def test_gradients_go_through_it():
    x_0 = X_0.clone().requires_grad_()
    state = solve(growth, x_0, save="dense", grad="direct", rtol=1e-8, atol=1e-8).dense([0.4])
    (gradient,) = torch.autograd.grad(state.sum(), x_0)
    torch.testing.assert_close(gradient, torch.full_like(x_0, math.exp(0.4 + 0.08)), rtol=1e-5, atol=1e-6)


def test_times_outside_are_refused_and_so_is_per_sample():
    dense = solve(growth, X_0, save="dense").dense
    with pytest.raises(ValueError, match=r"t=1\.2 lies outside what was solved, 0 to 1"):
        dense([1.2])
    with pytest.raises(ValueError, match="dopri8 takes steps too long for a cubic"):
        solve(growth, X_0, method="dopri8", save="dense")
    with pytest.raises(ValueError, match='instead of save="dense" pass grid= and save="grid"'):
        solve(growth, X_0, save="dense", per_sample=True)

"""What every solver promises. Fields with exact solutions, in float64."""

import math
import os
from unittest.mock import patch

import pytest
import torch
import torchdiffeq
from cf_flowcore import CondOT, solve
from cf_flowcore.adaptive import error_ratios
from cf_flowcore.control import I_CONTROL, Tolerance, rms
from cf_flowcore.step import Field, runge_kutta_step
from cf_flowcore.tableaus import TABLEAUS, tableau
from jaxtyping import TypeCheckError
from scipy.integrate import solve_ivp
from torch.utils._python_dispatch import TorchDispatchMode

FIXED = ["euler", "midpoint", "heun", "rk4"]
ADAPTIVE = [name for name, rule in TABLEAUS.items() if rule.error is not None]
EVERY = [*FIXED, *ADAPTIVE]
PEER = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2"}  # torchdiffeq's rk4 is the 3/8 rule


def growth(x, t):
    """x' = (1 + t) x, with x(t) = x_0 exp(t + t^2 / 2)."""
    return x * (1.0 + t)[:, None]


def growth_solution(x_0, t_0, t_1):
    return x_0 * math.exp((t_1 - t_0) + (t_1**2 - t_0**2) / 2)


def swirl(x, t):
    """A nonlinear field without a closed solution."""
    x_1, x_2 = x[:, 0], x[:, 1]
    return torch.stack([torch.sin(x_2) * (1 + t), torch.cos(x_1) - t * x_2**2], dim=1)


def time_first(v):
    """v as torchdiffeq calls it: f(t, x) with one t."""
    return lambda t, x: v(x, t.expand(len(x)))


def start(b=5, d=2, dtype=torch.float64):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def options(method, steps=20, **adaptive):
    return {"method": method, **({"steps": steps} if method in FIXED else adaptive)}


# --- accuracy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", FIXED)
def test_halving_the_step_divides_the_error_by_two_to_the_order(method, direction):
    t_0, t_1 = direction
    x_0 = start()
    exact = growth_solution(x_0, t_0, t_1)
    errors = [
        (solve(growth, x_0, method=method, steps=n, t_0=t_0, t_1=t_1).x - exact).abs().max() for n in (40, 80)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUS[method].order, abs=0.12)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_have_their_order_at_fixed_steps(method):
    x_0, errors, order = start(), [], TABLEAUS[method].order
    for n in (2, 4) if order == 8 else (10, 20):  # a tolerance so loose that only max_step decides
        solution = solve(growth, x_0, method=method, max_step=1 / n, first_step=1 / n, rtol=10.0)
        assert solution.accepted in (n, n + 1)
        errors.append((solution.x - growth_solution(x_0, 0.0, 1.0)).abs().max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_adaptive_error_follows_the_tolerance(method, tolerance):
    x_0 = start()
    solution = solve(growth, x_0, method=method, rtol=tolerance, atol=tolerance)
    error = (solution.x - growth_solution(x_0, 0.0, 1.0)).abs().max()
    assert error < 20 * tolerance  # local control: a few steps' worth
    assert solution.ok


def test_a_straight_flow_is_exact_in_one_euler_step():
    x_0, x_1 = start(), start().flip(0) + 3
    path = CondOT(sigma_min=0.01)
    solution = solve(lambda x, t: path.v(x_0, x_1, t), x_0, method="euler", steps=1)
    torch.testing.assert_close(solution.x, x_1 + 0.01 * x_0, atol=1e-14, rtol=0)


@pytest.mark.parametrize("method", EVERY)
def test_gaussian_noise_is_carried_to_a_gaussian_by_its_exact_velocity(method):
    # x_0 ~ N(0, 1), x_1 ~ N(m, s^2) independent: x_t ~ N(t m, q) with q = t^2 s^2 + (1 - t)^2, and
    # v(x, t) = m + (t s^2 - (1 - t)) / q (x - t m), and the flow maps x_0 to m + s x_0
    m, s = 1.5, 0.4

    def v(x, t):
        t = t[:, None]
        q = t**2 * s**2 + (1 - t) ** 2
        return m + (t * s**2 - (1 - t)) / q * (x - t * m)

    x_0 = start(33, 1)
    solution = solve(v, x_0, **options(method, steps=400))
    tolerance = {"euler": 2e-2, "midpoint": 1e-4, "heun": 1e-4, "rk4": 1e-8}.get(method, 1e-3)
    torch.testing.assert_close(solution.x, m + s * x_0, atol=tolerance, rtol=0)


@pytest.mark.parametrize("method", EVERY)
def test_solving_there_and_back_returns_to_the_start(method):
    x_0 = start()
    how = options(method, steps=200, rtol=1e-8, atol=1e-8)
    x_1 = solve(swirl, x_0, **how).x
    back = solve(swirl, x_1, t_0=1.0, t_1=0.0, **how)
    tolerance = {"euler": 5e-2, "midpoint": 2e-5, "heun": 2e-5}.get(method, 1e-6)
    torch.testing.assert_close(back.x, x_0, atol=tolerance, rtol=0)
    assert back.t.tolist() == [0.0]


# --- the peers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PEER)
def test_fixed_steps_are_those_of_torchdiffeq(method):
    x_0, grid = start(), [0.0, 0.1, 0.35, 0.6, 1.0]
    solution = solve(swirl, x_0, method=method, grid=grid, save="grid")
    times = torch.tensor(grid, dtype=torch.float64)
    peer = torchdiffeq.odeint(time_first(swirl), x_0, times, method=PEER[method])
    torch.testing.assert_close(solution.trajectory, peer, atol=1e-12, rtol=0)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_with_shampines_weights_and_the_i_rule_dopri5_is_torchdiffeqs_step_for_step(tolerance):
    x_0, calls = start(), []

    def v(x, t):
        calls.append(t)
        return swirl(x, t)

    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    lands = {"step_t": ends[1:]}  # without it torchdiffeq steps past t_1 and interpolates back
    peer = torchdiffeq.odeint(time_first(v), x_0, ends, rtol=tolerance, atol=tolerance, options=lands)[-1]
    ours = solve(swirl, x_0, method="dopri5-shampine", control=I_CONTROL, rtol=tolerance, atol=tolerance)
    assert ours.nfe == len(calls)
    torch.testing.assert_close(ours.x, peer, atol=1e-10, rtol=0)


def test_scipy_agrees_on_the_solution():
    x_0 = start()

    def v(t, x):
        times = torch.full((5,), t, dtype=torch.float64)
        return swirl(torch.from_numpy(x).view(5, 2), times).flatten().numpy()

    reference = solve_ivp(v, (0.0, 1.0), x_0.flatten().numpy(), rtol=1e-11, atol=1e-11)
    x_1 = torch.from_numpy(reference.y[:, -1]).view(5, 2)
    torch.testing.assert_close(solve(swirl, x_0, rtol=1e-9, atol=1e-9).x, x_1, atol=1e-7, rtol=0)
    torch.testing.assert_close(solve(swirl, x_0, method="rk4", steps=400).x, x_1, atol=1e-8, rtol=0)


# --- the contract with the field --------------------------------------------------------------------------


@pytest.mark.parametrize(("t_0", "t_1"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (0.7, 0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", EVERY)
def test_the_field_is_never_called_outside_the_interval_and_t_is_per_sample(method, t_0, t_1, dtype):
    seen = []

    def flat_then_steep(x, t):  # flat enough at the start that an unclamped probe would jump out
        seen.append(t)
        return 1e-4 * x * (1 + 50 * t[:, None] ** 8)

    solution = solve(flat_then_steep, start(3, 4, dtype), t_0=t_0, t_1=t_1, **options(method))
    low, high = torch.tensor(sorted([t_0, t_1]), dtype=dtype)
    assert all(t.shape == (3,) and t.dtype == dtype for t in seen)
    assert all(((low <= t) & (t <= high)).all() for t in seen)
    assert seen[0][0] == t_0
    assert solution.t.tolist() == [t_1]
    assert solution.nfe == len(seen)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_state_stays_half_and_its_time_is_float32(method, dtype):
    seen = []

    def v(x, t):
        seen.append(t.dtype)
        return (x.float() * t[:, None]).to(dtype)

    x_0 = start(dtype=dtype)
    solution = solve(v, x_0, **options(method, rtol=1e-1, atol=1e-1))
    assert solution.x.dtype == dtype
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(solution.x.double(), x_0.double() * math.exp(0.5), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), (3, 2, 5, 7)])
def test_any_state_shape_is_solved_and_x_0_is_left_alone(method, shape):
    x_0 = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = x_0.clone()
    x_1 = solve(lambda x, t: -x, x_0, **options(method)).x
    torch.testing.assert_close(x_1, math.exp(-1) * before, atol=0, rtol=3e-2)
    assert torch.equal(x_0, before)


def test_a_field_that_returns_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape of x, \(5, 2\), got \(5, 1\)"):
        solve(lambda x, t: x[:, :1], start(), method="euler", steps=2)


# --- counting and saving ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "stages"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
@pytest.mark.parametrize("steps", [1, 7, 49])
def test_fixed_methods_take_exactly_the_steps_asked(method, stages, steps):
    solution = solve(growth, start(), method=method, steps=steps)
    assert (solution.nfe, solution.accepted, solution.rejected) == (steps * stages, steps, 0)


def test_dopri5_reuses_its_last_stage_and_counts_probe_and_rejections():
    solution = solve(growth, start(), first_step=1.0, rtol=1e-9, atol=1e-9)
    assert solution.rejected > 0
    assert solution.nfe == 1 + 6 * (solution.accepted + solution.rejected)  # no probe: first_step was given
    probed = solve(growth, start(), rtol=1e-9, atol=1e-9)
    assert probed.nfe == 2 + 6 * (probed.accepted + probed.rejected)


@pytest.mark.parametrize("method", EVERY)
def test_the_trajectory_is_the_solution_at_every_time_of_the_grid(method):
    x_0, grid = start(), [1.0, 0.8, 0.55, 0.1, 0.0]
    how = {"method": method, "t_0": 1.0, "t_1": 0.0}
    solution = solve(growth, x_0, grid=grid, save="grid", **how)
    assert solution.t.tolist() == grid
    assert torch.equal(solution.trajectory[0], x_0)
    assert torch.equal(solution.trajectory[-1], solution.x)
    tolerance = {"euler": 0.7, "midpoint": 0.2, "heun": 0.2, "rk4": 5e-3}.get(method, 1e-4)
    for t, x in zip(grid, solution.trajectory, strict=True):
        torch.testing.assert_close(x, growth_solution(x_0, 1.0, t), atol=0, rtol=tolerance)
    assert torch.equal(solve(growth, x_0, grid=grid, **how).x, solution.x)


def test_without_inner_times_an_adaptive_trajectory_has_every_accepted_step():
    solution = solve(growth, start(), save="grid")
    assert len(solution.t) == len(solution.trajectory) == solution.accepted + 1
    assert (solution.t[1:] > solution.t[:-1]).all()
    assert solve(growth, start()).trajectory is None


def test_max_step_limits_every_step():
    solution = solve(lambda x, t: torch.zeros_like(x), start(), max_step=0.125, save="grid")
    assert solution.t.diff().max() <= 0.125


# --- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY)
def test_direct_gradients_are_those_of_finite_differences(method):
    theta, grid = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True), [0.0, 0.3, 1.0]

    def end(x_0, theta):
        # the steps' lengths depend on theta too, which only finite differences see: so small that it cannot matter
        how = {} if method in FIXED else {"rtol": 1e-8, "atol": 1e-8}
        return solve(lambda x, t: torch.sin(theta * x), x_0, method=method, grid=grid, grad="direct", **how).x

    assert torch.autograd.gradcheck(end, (start(3).requires_grad_(), theta), eps=1e-6, atol=1e-6)


def test_gradients_are_off_by_default():
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not solve(lambda x, t: weight * x, start()).x.requires_grad


@pytest.mark.parametrize("method", FIXED)
def test_forward_mode_and_vmap_go_through_a_fixed_solve(method):
    x_0 = start(3)

    def end(rate):
        return solve(lambda x, t: rate * x, x_0, method=method, steps=3, grad="direct").x

    rate = torch.tensor(0.5, dtype=torch.float64)
    _, tangent = torch.func.jvp(end, (rate,), (torch.ones_like(rate),))
    torch.testing.assert_close(tangent, torch.func.jacrev(end)(rate))
    rates = torch.tensor([0.5, -1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(end)(rates), torch.stack([end(rate) for rate in rates]))


# --- cost -------------------------------------------------------------------------------------------------


class CountOps(TorchDispatchMode):
    """Counts dispatched operations, and those that read a value back to the host."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.ops, self.reads = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops += 1
        self.reads += func.overloadpacket.__name__ in self.READS
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        def tolist(
            x, whole=torch.Tensor.tolist
        ):  # one read, whatever is in it; on the CPU it dispatches nothing
            self.reads += 1
            return whole(x)

        self.patched = patch.object(torch.Tensor, "tolist", tolist)
        self.patched.start()
        return super().__enter__()

    def __exit__(self, *error):
        self.patched.stop()
        return super().__exit__(*error)


def counted(**how):
    x_0, k = start(dtype=torch.float32), start(dtype=torch.float32)
    with CountOps() as count:
        solution = solve(lambda x, t: k, x_0, **how)  # a field without operations: all of them are ours
    return solution, count


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_never_read_from_the_device_and_cost_few_operations(method):
    solution, count = counted(method=method, steps=20)
    assert count.reads == 0
    assert count.ops / solution.nfe <= 4


def test_an_adaptive_step_reads_from_the_device_once_and_costs_few_operations():
    solution, count = counted(max_step=0.05)
    assert count.reads == solution.accepted + solution.rejected + 2  # two more for the first step
    assert count.ops / solution.nfe <= 12


@pytest.mark.compile
@pytest.mark.skipif(
    os.environ.get("CF_NO_TYPECHECK") != "1", reason="needs CF_NO_TYPECHECK=1: checks break compile"
)
@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_solve_compiles_without_a_graph_break(method):
    def end(x_0):
        return solve(lambda x, t: torch.sin(x) * t[:, None], x_0, method=method, steps=3).x

    x_0 = start(dtype=torch.float32)
    torch.testing.assert_close(torch.compile(end, fullgraph=True)(x_0), end(x_0))


@pytest.mark.compile
@pytest.mark.skipif(
    os.environ.get("CF_NO_TYPECHECK") != "1", reason="needs CF_NO_TYPECHECK=1: checks break compile"
)
def test_an_adaptive_step_with_its_error_compiles_without_a_graph_break():
    """All that an adaptive solve does between two looks at the error; the looks are its one host read a step."""
    rule, x_0 = tableau("dopri5"), start(dtype=torch.float32)

    def step(x, k):
        field = Field(lambda x, t: torch.sin(x) * t[:, None], x)
        x_next, ks = runge_kutta_step(field, rule, x, 0.25, 0.5, k)
        ratios, factor = error_ratios(rule, ks, x, x_next, Tolerance(1e-5, 1e-5))
        return x_next, 0.25 * factor * rms(ratios)

    k = torch.sin(x_0) * 0.25
    compiled, eager = torch.compile(step, fullgraph=True)(x_0, k), step(x_0, k)
    torch.testing.assert_close(compiled, eager)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"method": "eular"}, "unknown solver 'eular'; known: euler, "),
        ({"method": "euler"}, "euler needs steps= or grid="),
        ({"method": "euler", "steps": 2, "grid": [0.0, 1.0]}, "one of the two"),
        ({"method": "euler", "steps": 0}, "at least 1, got 0"),
        ({"method": "rk4", "steps": 3, "max_step": 0.1}, "first_step and max_step are for adaptive"),
        ({"steps": 10}, "dopri5 chooses its steps"),
        ({"t_0": 1.0}, "strictly one way"),
        ({"grid": [1.0, 0.0]}, "got 1.0 to 0.0"),
        ({"save": "all"}, "unknown save 'all'; known: end, grid"),
        ({"grad": "adjont"}, "unknown grad 'adjont'"),
        ({"on_fail": "ignore"}, "unknown on_fail 'ignore'"),
        ({"first_step": -0.1}, "first_step is a length"),
        ({"rtol": 0.0, "atol": 0.0}, "not both 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_value(how, message):
    with pytest.raises(ValueError, match=message):
        solve(growth, start(), **how)


def test_integer_states_are_refused():
    with pytest.raises((ValueError, TypeCheckError)):
        solve(growth, torch.ones(3, 2, dtype=torch.uint8), method="euler", steps=2)

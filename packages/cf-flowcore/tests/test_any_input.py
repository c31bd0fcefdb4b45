"""What must hold for every shape, precision and pair of ends: drawn by hypothesis, one property a test."""

import torch
from cf_flowcore import (
    VP,
    CondOT,
    Cosine,
    Polynomial,
    convert,
    flow_matching_loss,
    null_targets,
    optimal_transport,
    solve,
)
from cf_flowcore.tableaus import TABLEAUS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

ADAPTIVE = [name for name, rule in TABLEAUS.items() if rule.error is not None]
FIXED = [name for name in TABLEAUS if name not in ADAPTIVE]
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 10_000)
ends = st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
paths = st.sampled_from([CondOT(), CondOT(0.2), Cosine(), Polynomial(2.0), VP()])
thrifty = settings(max_examples=30, deadline=None, derandomize=True)  # the same examples in every run


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def inner_times(b: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 0.9 * torch.rand(b, generator=generator, dtype=torch.float64)


class Slope:
    """x' = 1 + 2 t, whatever x; notes when it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, x, t):
        assert t.shape == (len(x),)
        assert t.dtype in ROUNDING
        self.asked += t.tolist()
        return (1 + 2 * t.to(x.dtype)).reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)


def risen(t_0: float, t_1: float) -> float:
    return t_1 - t_0 + t_1**2 - t_0**2


@thrifty
@given(
    shape=shapes,
    dtype=dtypes,
    ends=ends,
    method=st.sampled_from(list(TABLEAUS)),
    per_sample=st.booleans(),
    seed=seeds,
)
def test_no_solver_asks_outside_its_ends_and_every_one_arrives(shape, dtype, ends, method, per_sample, seed):
    t_0, t_1 = ends
    assume(abs(t_1 - t_0) > 1e-3)
    slope, x_0 = Slope(), normal(shape, seed, dtype)
    options = {"steps": 7} if method in FIXED else {"per_sample": per_sample}
    solution = solve(slope, x_0, t_0=t_0, t_1=t_1, method=method, **options)
    assert min(slope.asked) >= min(t_0, t_1)
    assert max(slope.asked) <= max(t_0, t_1)
    assert solution.x.dtype == dtype
    if TABLEAUS[method].order >= 2:  # exact on a parabola
        assert (solution.x - x_0 - risen(t_0, t_1)).abs().max() < 20 * ROUNDING[dtype]


@thrifty
@given(shape=shapes, steps=st.integers(1, 9), ends=ends, seed=seeds)
def test_euler_makes_its_own_error_and_no_other(shape, steps, ends, seed):
    """On x' = 1 + 2 t, N left-hand steps miss (t_1 - t_0)^2 / N."""
    t_0, t_1 = ends
    assume(abs(t_1 - t_0) > 1e-3)
    x_0 = normal(shape, seed)
    x = solve(Slope(), x_0, t_0=t_0, t_1=t_1, method="euler", steps=steps).x
    assert (x - x_0 - risen(t_0, t_1) + (t_1 - t_0) ** 2 / steps).abs().max() < 1e-11


@thrifty
@given(shape=shapes, path=paths, seed=seeds, kinds=st.permutations(["velocity", "data", "noise"]))
def test_a_conversion_there_and_back_is_nothing(shape, path, seed, kinds):
    first, second, third = kinds
    x_0, x_1, t = normal(shape, seed), normal(shape, seed + 1), inner_times(shape[0], seed)
    x_t = path.x_t(x_0, x_1, t)
    known = {"velocity": path.v(x_0, x_1, t), "data": x_1, "noise": x_0}
    there = convert(known[first], x_t, t, path=path, source=first, target=second)
    torch.testing.assert_close(there, known[second], rtol=1e-7, atol=1e-7)
    on = convert(there, x_t, t, path=path, source=second, target=third)
    back = convert(on, x_t, t, path=path, source=third, target=first)
    torch.testing.assert_close(back, known[first], rtol=1e-6, atol=1e-6)


@thrifty
@given(shape=shapes, path=paths, seed=seeds)
def test_the_loss_of_the_right_answer_is_zero_for_each_sample(shape, path, seed):
    x_0, x_1, t = normal(shape, seed), normal(shape, seed + 1), inner_times(shape[0], seed)
    v_t = path.v(x_0, x_1, t)
    off = torch.arange(shape[0], dtype=torch.float64)
    wrong = v_t + off.reshape(-1, *[1] * (len(shape) - 1))
    loss = flow_matching_loss(lambda x, t: wrong, x_0, x_1, path=path, t=t)
    torch.testing.assert_close(loss, off.square())


@thrifty
@given(
    b=st.integers(2, 12),
    rest=st.lists(st.integers(1, 3), max_size=3),
    seed=seeds,
    nulls=st.integers(0, 2**12),
)
def test_null_rows_take_the_data_of_others_each_from_another(b, rest, seed, nulls):
    x_1 = torch.arange(b, dtype=torch.float64).reshape(-1, *[1] * len(rest)).expand(b, *rest)
    is_null = torch.tensor([bool(nulls >> i & 1) for i in range(b)])
    kept = x_1.clone()
    x = null_targets(x_1, is_null, generator=torch.Generator().manual_seed(seed))
    taken = x.flatten(1)[:, 0] if rest else x
    own = torch.arange(b, dtype=torch.float64)
    assert torch.equal(taken[~is_null], own[~is_null])
    assert (taken[is_null] != own[is_null]).all()
    assert len(set(taken[is_null].tolist())) == int(is_null.sum())
    assert torch.equal(x_1, kept)


@thrifty
@given(shape=shapes, seed=seeds)
def test_optimal_transport_undoes_a_shuffle(shape, seed):
    x_1 = normal(shape, seed)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed + 1))
    assume(shape[0] == 1 or torch.pdist(x_1.flatten(1) if x_1.ndim > 1 else x_1[:, None]).min() > 1e-3)
    perm = optimal_transport(x_1[order], x_1)
    assert torch.equal(perm, order)

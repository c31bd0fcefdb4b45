import math

import pytest
import torch
from cf_flowcore import VE, VP, AffinePath, CondOT, Cosine, Polynomial, expand_like
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

ROUNDING = 1e-12  # float64, values of order 1
F32 = 2e-7  # two units in the last place of float32

TRIGONOMETRIC = AffinePath(
    a=lambda t: torch.sin(t * math.pi / 2), b=lambda t: torch.sin((1.0 - t) * math.pi / 2)
)
DIFFUSION = [VP(), VP(0.2, 3.0), VE(), VE(0.1, 5.0, ends_at_zero=True)]
PATHS = [
    CondOT(),
    CondOT(sigma_min=0.0),
    CondOT(sigma_min=0.3),
    TRIGONOMETRIC,
    Cosine(),
    Polynomial(1.0),
    Polynomial(3.0),
    *DIFFUSION,
]
shapes = st.sampled_from([(1,), (3, 3), (2, 5), (4, 1, 3), (3, 2, 5, 7)])


def pair(shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=g, dtype=torch.float64).to(dtype).unbind()


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_v_is_the_time_derivative_of_x_t(path, shape, seed):
    x_0, x_1 = pair(shape, seed)
    t = 0.999 * torch.rand(shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda t: path.x_t(x_0, x_1, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.v(x_0, x_1, t), derivative, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("sigma_min", [0.0, 1e-5, 0.3])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_condot_is_equations_1_and_2_of_crossflow(sigma_min, shape, seed):
    x_0, x_1 = pair(shape, seed)
    t = torch.rand(shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    path = CondOT(sigma_min)
    for i in range(shape[0]):
        x_t = t[i] * x_1[i] + (1 - (1 - sigma_min) * t[i]) * x_0[i]
        v_t = x_1[i] - (1 - sigma_min) * x_0[i]
        torch.testing.assert_close(path.x_t(x_0, x_1, t)[i], x_t, atol=ROUNDING, rtol=ROUNDING)
        torch.testing.assert_close(path.v(x_0, x_1, t)[i], v_t, atol=ROUNDING, rtol=ROUNDING)


def test_condot_starts_at_the_source_and_ends_at_the_data_plus_sigma_min_of_the_source():
    x_0, x_1 = pair((3, 2, 5))
    path = CondOT(sigma_min=0.01)
    assert torch.equal(path.x_t(x_0, x_1, torch.zeros(3, dtype=torch.float64)), x_0)
    end = path.x_t(x_0, x_1, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(end, x_1 + 0.01 * x_0, atol=ROUNDING, rtol=ROUNDING)


def test_v_at_x_t_is_the_conditional_velocity_of_lipman_equation_21():
    x_0, x_1 = pair((5, 3))
    t, s = torch.linspace(0, 0.99, 5, dtype=torch.float64), 0.05
    x = CondOT(s).x_t(x_0, x_1, t)
    u_t = (x_1 - (1 - s) * x) / (1 - (1 - s) * t)[:, None]
    torch.testing.assert_close(CondOT(s).v(x_0, x_1, t), u_t, atol=1e-10, rtol=1e-10)


def test_the_source_coefficient_keeps_its_digits_near_t_1_in_float32():
    t = 1.0 - 2.0 ** -torch.arange(1.0, 24.0)
    exact = 1.0 - (1.0 - 1e-5) * t.double()
    _, b, _, _ = CondOT().coefficients(t)
    assert ((b.double() - exact) / exact).abs().max() < F32


def test_the_derivatives_of_any_affine_path_are_exact():
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    a, b, da, db = TRIGONOMETRIC.coefficients(t)
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(t), atol=ROUNDING, rtol=ROUNDING)
    torch.testing.assert_close(da, math.pi / 2 * b, atol=ROUNDING, rtol=ROUNDING)
    torch.testing.assert_close(db, -math.pi / 2 * a, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_state_keeps_its_dtype_and_is_computed_in_float32_or_better(dtype):
    x_0, x_1 = pair((3, 4), dtype=dtype)
    t = torch.tensor([0.1, 0.5, 0.9])
    x_t = CondOT().x_t(x_0, x_1, t)
    assert x_t.dtype == CondOT().v(x_0, x_1, t).dtype == dtype
    exact = CondOT().x_t(x_0.double(), x_1.double(), t.double())
    torch.testing.assert_close(x_t, exact.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_t_multiplies_samples_and_never_dimensions_even_where_b_equals_d():
    t, x = torch.arange(3.0), torch.ones(3, 3)
    assert torch.equal((expand_like(t, x) * x)[:, 0], t)
    assert expand_like(t, torch.ones(3, 2, 5, 7)).shape == (3, 1, 1, 1)
    assert expand_like(t, torch.ones(3)).shape == (3,)


@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.ones(2), torch.ones(3, 1)])
def test_a_t_that_is_not_one_number_per_sample_is_refused(t):
    with pytest.raises((ValueError, TypeCheckError)):
        CondOT().x_t(torch.ones(3, 2), torch.ones(3, 2), t)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.0, math.nan])
def test_sigma_min_outside_its_range_is_refused_by_value(sigma_min):
    with pytest.raises(ValueError, match=f"sigma_min must lie in .*got {sigma_min}"):
        CondOT(sigma_min)


# ------------------------------------------------------------------------------------------- the other paths


def integral_of_beta(path: VP, t: torch.Tensor) -> torch.Tensor:
    """T(1 - t) by the trapezoid rule, exact for a straight beta: nothing of the closed form is used."""
    s = torch.linspace(0, 1, 11, dtype=torch.float64)[None] * (1 - t)[:, None]
    return torch.trapezoid(path.beta_min + s * (path.beta_max - path.beta_min), s, dim=1)


def test_vp_is_equations_18_and_19_of_lipman():
    path, t = VP(0.1, 20.0), torch.linspace(0, 0.999, 9, dtype=torch.float64)
    a, b, _, _ = path.coefficients(t)
    alpha = torch.exp(-integral_of_beta(path, t) / 2)
    torch.testing.assert_close(a, alpha, atol=ROUNDING, rtol=1e-10)
    torch.testing.assert_close(b, torch.sqrt(1 - alpha**2), atol=ROUNDING, rtol=1e-10)
    torch.testing.assert_close(path.beta(t), 0.1 + (1 - t) * 19.9)
    # eq. 19: u_t(x | x_1) = -T'(1-t)/2 [e^-T x - e^(-T/2) x_1] / (1 - e^-T), here at x_t
    x_0, x_1 = pair((9, 2))
    x = path.x_t(x_0, x_1, t)
    total = integral_of_beta(path, t)[:, None]
    u = (
        -path.beta(t)[:, None]
        / 2
        * (torch.exp(-total) * x - torch.exp(-total / 2) * x_1)
        / -torch.expm1(-total)
    )
    torch.testing.assert_close(path.v(x_0, x_1, t), u, atol=1e-8, rtol=1e-8)


def test_ve_is_equations_16_and_17_of_lipman():
    t = torch.linspace(0, 0.999, 9, dtype=torch.float64)
    x_0, x_1 = pair((9, 2))
    for path in (VE(0.01, 50.0), VE(0.01, 50.0, ends_at_zero=True)):
        a, b, _, _ = path.coefficients(t)
        assert torch.equal(a, torch.ones_like(t))
        sigma = 0.01 * 5000.0 ** (1 - t)
        wanted = torch.sqrt(sigma**2 - 0.01**2) if path.ends_at_zero else sigma
        torch.testing.assert_close(b, wanted, atol=ROUNDING, rtol=1e-9)
        # eq. 17: u_t(x | x_1) = -sigma'(1-t)/sigma(1-t) (x - x_1), the derivative by central differences
        h = 1e-6
        later, earlier = (path.coefficients(t + d)[1] for d in (h, -h))
        u = ((later - earlier) / (2 * h) / b)[:, None] * (path.x_t(x_0, x_1, t) - x_1)
        torch.testing.assert_close(path.v(x_0, x_1, t), u, rtol=1e-4, atol=1e-4)


def test_cosine_and_polynomial_are_their_formulas():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    for path, a, b in (
        (Cosine(), torch.sin(t * math.pi / 2), torch.cos(t * math.pi / 2)),
        (Polynomial(3.0), t**3, 1 - t**3),
        (Polynomial(1.0), t, 1 - t),
    ):
        found = path.coefficients(t)
        torch.testing.assert_close(found[0], a, atol=ROUNDING, rtol=ROUNDING)
        torch.testing.assert_close(found[1], b, atol=ROUNDING, rtol=ROUNDING)


NEAR_ONE = 1.0 - 2.0 ** -torch.arange(1.0, 20.0)  # 1 - t exact in float32
NEAR_ZERO = 2.0 ** -torch.arange(1.0, 20.0)


@pytest.mark.parametrize("path", [Cosine(), Polynomial(3.0), *DIFFUSION])
@pytest.mark.parametrize("t", [NEAR_ONE, NEAR_ZERO], ids=["near 1", "near 0"])
def test_float32_keeps_its_digits_near_both_ends(path, t):
    for found, exact in zip(path.coefficients(t), path.coefficients(t.double()), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=5e-6, atol=0.0)


@pytest.mark.parametrize("path", PATHS)
def test_the_time_of_a_ratio_is_found_whatever_the_common_factor(path):
    t = torch.linspace(0.0, 1.0 if path.t_max == 1.0 else 0.999, 11, dtype=torch.float64)
    a, b, _, _ = path.coefficients(t)
    for factor in (1.0, 3.0):
        torch.testing.assert_close(path.t_of(factor * a, factor * b), t, atol=1e-8, rtol=0)


def test_a_ratio_that_a_path_does_not_reach_gives_its_nearer_end():
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    for path in (VP(), VE(), CondOT(sigma_min=0.3), Cosine(), Polynomial(2.0), TRIGONOMETRIC):
        torch.testing.assert_close(path.t_of(a, b), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_derivatives_that_are_given_are_used():
    given = AffinePath(a=lambda t: t, b=lambda t: 1 - t, da=lambda t: 0 * t + 7, db=lambda t: 0 * t - 5)
    _, _, da, db = given.coefficients(torch.tensor([0.3]))
    assert (da.item(), db.item()) == (7.0, -5.0)


def test_only_paths_with_an_unbounded_velocity_end_early():
    assert [path.t_max for path in (CondOT(), Cosine(), Polynomial(2.0), VE())] == [1.0] * 4
    assert VP().t_max == VE(ends_at_zero=True).t_max == 1.0 - 1e-5
    x_0, x_1 = pair((1, 2), dtype=torch.float32)
    for path in DIFFUSION:
        assert path.v(x_0, x_1, torch.tensor([path.t_max])).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(0.0, 1.0), "0 < beta_min <= beta_max, got 0.0 and 1.0"),
        (lambda: VP(2.0, 1.0), "beta_min <= beta_max, got 2.0 and 1.0"),
        (lambda: VE(1.0, 0.5), "sigma_min < sigma_max, got 1.0 and 0.5"),
        (lambda: Polynomial(0.5), "degree must be at least 1, got 0.5"),
    ],
)
def test_paths_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

import math

import pytest
import torch
from cf_flowcore import AffinePath, CondOT, expand_like
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

ROUNDING = 1e-12  # float64, values of order 1
F32 = 2e-7  # two units in the last place of float32

TRIGONOMETRIC = AffinePath(
    a=lambda t: torch.sin(t * math.pi / 2), b=lambda t: torch.sin((1.0 - t) * math.pi / 2)
)
PATHS = [CondOT(), CondOT(sigma_min=0.0), CondOT(sigma_min=0.3), TRIGONOMETRIC]
shapes = st.sampled_from([(1,), (3, 3), (2, 5), (4, 1, 3), (3, 2, 5, 7)])


def pair(shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=g, dtype=torch.float64).to(dtype).unbind()


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=15, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_v_is_the_time_derivative_of_x_t(path, shape, seed):
    x_0, x_1 = pair(shape, seed)
    t = torch.rand(shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda t: path.x_t(x_0, x_1, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.v(x_0, x_1, t), derivative, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize("sigma_min", [0.0, 1e-5, 0.3])
@settings(max_examples=15, deadline=None)
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

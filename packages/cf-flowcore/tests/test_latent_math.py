import pytest
import torch
from cf_flowcore import add, combine, interpolate, interpolate_spherical, restandardise, subtract


def latents(n, *shape):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


@pytest.mark.parametrize("between", [interpolate, interpolate_spherical])
@pytest.mark.parametrize("steps", [2, 5])
def test_interpolation_starts_at_a_and_ends_at_b(between, steps):
    a, b = latents(2, 4, 3, 5)
    path = between(a, b, steps)
    assert path.shape == (steps, 4, 3, 5)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)


def test_linear_interpolation_is_linear():
    a, b = latents(2, 7)
    torch.testing.assert_close(interpolate(a, b, 5)[1], 0.75 * a + 0.25 * b)


def test_spherical_interpolation_keeps_the_length_and_turns_evenly():
    a, b = (x / x.norm() for x in latents(2, 3, 5))
    path = interpolate_spherical(a, b, 7)
    torch.testing.assert_close(path.flatten(1).norm(dim=1), torch.ones(7, dtype=torch.float64))
    steps = (path[1:] * path[:-1]).flatten(1).sum(dim=1)
    torch.testing.assert_close(steps, steps[0].expand(6))


def test_spherical_interpolation_between_parallel_latents_is_the_line_and_between_opposite_ones_refused():
    (a,) = latents(1, 6)
    torch.testing.assert_close(interpolate_spherical(a, 2 * a, 4), interpolate(a, 2 * a, 4))
    with pytest.raises(ValueError, match="opposite"):
        interpolate_spherical(a, -a, 4)


def test_one_step_is_no_interpolation():
    a, b = latents(2, 3)
    with pytest.raises(ValueError, match="got 1"):
        interpolate(a, b, 1)


def test_a_restandardised_latent_has_mean_0_and_std_1_over_each_sample():
    (x,) = latents(1, 3, 4, 5, 7)
    y = restandardise(5 * x - 3)
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(y.std(dim=(1, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(y, restandardise(x))  # scale and shift are forgotten, the pattern is not


def test_arithmetic_is_restandardised_once_at_the_end():
    a, b, c = latents(3, 2, 9)
    torch.testing.assert_close(add(a, b), restandardise(a + b))
    torch.testing.assert_close(subtract(a, b), restandardise(a - b))
    torch.testing.assert_close(combine([a, b], [c]), restandardise(a + b - c))


def test_a_latent_minus_itself_is_refused():
    (a,) = latents(1, 2, 3)
    with pytest.raises(ValueError, match="constant latent"):
        subtract(a, a)
    with pytest.raises(ValueError, match="plus was empty"):
        combine([])

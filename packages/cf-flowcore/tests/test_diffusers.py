"""diffusers' flow-matching scheduler as an oracle: the same grids, states and samples, once its time is turned round.

There time is the noise level s = 1 - t, from 1 down to 0, and the model gives noise - data, our -v.
"""

import pytest
import torch
from cf_flowcore import VE, CondOT, LogitNormal, Mode, karras_grid, shifted_grid, solve
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

STEPS = 12


def even_levels(steps: int = STEPS) -> list[float]:
    return [1 - i / steps for i in range(steps)]


def bend(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.sin(3 * x) * (1 + t)[:, None]


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.5])
def test_a_shifted_grid_is_their_shift_of_the_noise_levels(factor):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=factor)
    scheduler.set_timesteps(sigmas=even_levels())
    ours = 1 - torch.tensor(shifted_grid(STEPS, factor))
    torch.testing.assert_close(scheduler.sigmas, ours, atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_their_loop_and_our_euler_draw_the_same(factor, generator):
    x = x_0 = torch.randn(5, 4, generator=generator)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=factor)
    scheduler.set_timesteps(sigmas=even_levels())
    for time in scheduler.timesteps:
        t = (1 - time / 1000).expand(len(x))
        x = scheduler.step(-bend(x, t), time, x).prev_sample
    ours = solve(bend, x_0, method="euler", grid=shifted_grid(STEPS, factor))
    torch.testing.assert_close(ours.x, x, atol=1e-5, rtol=0)


def test_a_noised_picture_is_the_same_state_and_the_target_its_opposite(generator):
    noise, data = torch.randn(2, 6, 3, 4, 4, generator=generator)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=even_levels(6))
    t = 1 - scheduler.timesteps / 1000
    path = CondOT(sigma_min=0.0)
    theirs = scheduler.scale_noise(data, scheduler.timesteps, noise)
    torch.testing.assert_close(path.x_t(noise, data, t), theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(path.v(noise, data, t), -(noise - data))


def test_karras_levels_are_theirs():
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    theirs = torch.as_tensor(
        scheduler._convert_to_karras(in_sigmas=torch.tensor([80.0, 0.002]), num_inference_steps=STEPS),
        dtype=torch.float64,
    )
    path = VE(0.002, 80.0, ends_at_zero=True)
    t = torch.tensor(karras_grid(STEPS, path)[1:-1], dtype=torch.float64)
    _, b, _, _ = path.coefficients(t)  # a is 1
    torch.testing.assert_close(b, theirs[1:], rtol=1e-4, atol=0)  # the first gives way to pure source


@pytest.mark.parametrize(
    ("law", "theirs"),
    [
        (LogitNormal(0.0, 1.0), {"weighting_scheme": "logit_normal", "logit_mean": 0.0, "logit_std": 1.0}),
        (LogitNormal(-0.5, 0.7), {"weighting_scheme": "logit_normal", "logit_mean": 0.5, "logit_std": 0.7}),
        (Mode(1.29), {"weighting_scheme": "mode", "mode_scale": 1.29}),
    ],
    ids=["logit-normal", "logit-normal, moved", "mode"],
)
def test_our_densities_are_those_of_their_draws(law, theirs, generator):
    """Kolmogorov-Smirnov against our density, added up. Their u is the noise level: t = 1 - u."""
    n = 20_000
    draws = 1 - compute_density_for_timestep_sampling(batch_size=n, generator=generator, **theirs)
    edges = torch.linspace(0, 1, 4001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    below = torch.cumsum(law.log_density(middles).exp(), 0) / 4000
    assert below[-1] == pytest.approx(1, abs=1e-3)
    found = torch.searchsorted(draws.double().sort().values, edges[1:]) / n
    assert (found - below).abs().max() < 1.63 / n**0.5  # 1 in 100 at worst; the seed is fixed

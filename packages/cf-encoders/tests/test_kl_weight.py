import math

import pytest
import torch
from cf_encoders import DiagonalGaussian
from cf_encoders.kl_weight import balanced_sigma, kl_weight, kl_weight_for_sigma, kl_weight_warning

PAPER = (4, 32, 32)
LATENTS = [(4, 32, 32), (24, 8, 8), (3, 5, 7), (77,)]


def flow_loss(sigma: torch.Tensor, spread: float, steps: int = 20_000) -> torch.Tensor:
    """The best velocity's error over uniform t, from the covariance of (x_0, x_1): Schur complement, midpoint rule."""
    t = (torch.arange(steps).double() + 0.5) / steps
    covariance = torch.diag(torch.stack([sigma.square(), torch.tensor(spread).double() ** 2]))
    point, velocity = torch.stack([1 - t, t]), torch.tensor([-1.0, 1.0]).double()
    cross = velocity @ covariance @ point
    return (velocity @ covariance @ velocity - cross**2 / (point * (covariance @ point)).sum(dim=0)).mean()


@pytest.mark.parametrize(("sigma", "spread"), [(0.3, 1.0), (0.9, 0.2), (0.5, 0.5)])
def test_the_flow_loss_of_independent_gaussians_is_half_pi_sigma_spread(sigma, spread):
    found = flow_loss(torch.tensor(sigma).double(), spread).item()
    assert found == pytest.approx(math.pi / 2 * sigma * spread, rel=1e-6)


@pytest.mark.parametrize("per_dimension", [0.03, 0.41, 5.0])
@pytest.mark.parametrize("spread", [0.2, 1.0])
@pytest.mark.parametrize("latent", [(3, 5, 7), (77,)])
def test_the_balanced_sigma_minimises_flow_loss_and_weighted_kl(per_dimension, spread, latent):
    weight = per_dimension / math.prod(latent)
    sigma = torch.tensor(balanced_sigma(weight, latent, spread=spread)).double().requires_grad_()
    logvar = (2 * sigma.log()).expand(1, *latent)
    kl = DiagonalGaussian(torch.zeros(1, *latent).double(), logvar).kl().sum()
    (slope,) = torch.autograd.grad(flow_loss(sigma, spread) + weight * kl, sigma, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, sigma)
    assert slope.item() == pytest.approx(0, abs=1e-5)
    assert curvature > 0


def test_at_the_balance_the_flow_loss_is_the_weight_per_dimension_times_one_minus_variance():
    sigma = balanced_sigma(0.2, (1,), spread=0.7)
    assert math.pi / 2 * 0.7 * sigma == pytest.approx(0.2 * (1 - sigma**2), rel=1e-12)


@pytest.mark.parametrize("sigma", [1e-3, 0.245, 0.6, 0.999])
def test_weight_for_sigma_and_balanced_sigma_are_inverses(sigma):
    weight = kl_weight_for_sigma(sigma, (3, 5, 7), spread=0.4)
    assert balanced_sigma(weight, (3, 5, 7), spread=0.4) == pytest.approx(sigma, rel=1e-9)


def test_the_limits_are_a_dead_source_and_the_prior():
    assert balanced_sigma(1e-9, (1,)) == pytest.approx(2e-9 / math.pi)  # 2 lambda D / (pi spread)
    assert balanced_sigma(1e9, (1,)) == pytest.approx(1.0)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize(("form", "published"), [("paper", 1e-4), ("released", 1e-2)])
def test_a_carried_weight_is_the_published_one_per_dimension(latent, form, published):
    assert kl_weight(PAPER, form) == pytest.approx(published, rel=1e-12)
    carried = kl_weight(latent, form)
    assert carried * math.prod(latent) == pytest.approx(published * 4096, rel=1e-12)
    assert balanced_sigma(carried, latent) == pytest.approx(balanced_sigma(published, PAPER), rel=1e-12)


@pytest.mark.parametrize("latent", LATENTS)
def test_sum_and_mean_with_their_own_weights_are_one_loss(latent, generator):
    mean, logvar = torch.randn(2, 3, *latent, generator=generator, dtype=torch.float64)
    q = DiagonalGaussian(mean, logvar)
    by_mean = kl_weight(latent, reduction="mean")
    torch.testing.assert_close(kl_weight(latent) * q.kl("sum"), by_mean * q.kl("mean"))
    assert balanced_sigma(by_mean, latent, reduction="mean") == pytest.approx(
        balanced_sigma(kl_weight(latent), latent)
    )


def test_a_reference_of_ones_own_takes_the_published_weight_there():
    assert kl_weight((2, 8, 8), reference=(2, 4, 4)) == pytest.approx(1e-4 / 4)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_carried_weight_is_in_range_and_one_far_off_is_told_the_remedy(latent, reduction):
    good = kl_weight(latent, reduction=reduction)
    assert kl_weight_warning(good, latent, reduction=reduction) is None
    low = kl_weight_warning(good / 100, latent, reduction=reduction)
    high = kl_weight_warning(good * 100, latent, reduction=reduction)
    assert low is not None
    assert high is not None
    assert f"take {good:.2g}" in low
    assert "hardly a distribution" in low
    assert f"take {good:.2g}" in high
    assert "mostly noise" in high


def test_the_papers_number_on_a_small_latent_draws_a_warning():
    warning = kl_weight_warning(1e-4, (12, 4, 4))
    assert warning is not None
    assert "0.0192 per dimension of 192" in warning
    assert "take 0.0021" in warning


def test_the_released_form_may_weigh_much_but_not_little():
    assert kl_weight_warning(1e-2, PAPER, "released") is None
    assert kl_weight_warning(1e-6, PAPER, "released") is not None


def test_what_makes_no_sense_is_refused_with_its_value():
    with pytest.raises(ValueError, match=r"\(3, 0, 2\)"):
        kl_weight((3, 0, 2))
    with pytest.raises(ValueError, match=r"weight must be > 0.*-1"):
        balanced_sigma(-1.0, (3,))
    with pytest.raises(ValueError, match=r"\(0, 1\), got 1\.0"):
        kl_weight_for_sigma(1.0, (3,))

import pytest
import torch
from cf_encoders import DiagonalGaussian
from cf_encoders.gaussian import KL_FORMS
from torch.distributions import Normal, kl_divergence

SHAPES = [(3, 4, 5, 7), (2, 1), (1, 3, 2)]
MILLION_DRAWS = 0.005  # five standard errors of a mean over 10^6 draws


def gaussian(shape: tuple[int, ...], generator: torch.Generator) -> DiagonalGaussian:
    mean, logvar = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(mean, logvar)


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_is_that_of_torch_distributions(shape, generator):
    q = gaussian(shape, generator)
    prior = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))
    expected = kl_divergence(Normal(q.mean, q.std), prior).flatten(1)
    torch.testing.assert_close(q.kl(), expected.sum(dim=1))
    torch.testing.assert_close(q.kl("mean"), expected.mean(dim=1))


def test_both_divergences_vanish_at_the_prior_only():
    prior = DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3))
    assert prior.kl().tolist() == [0, 0]
    assert prior.kl_sextic().tolist() == [0, 0]
    elsewhere = DiagonalGaussian(torch.zeros(2, 3), torch.tensor([[0.1] * 3, [-0.1] * 3]))
    assert (elsewhere.kl() > 0).all()


@pytest.mark.parametrize(
    ("mean", "standard", "sextic"),
    # the table of the paper-to-code comparison: |mean|, mean^2 / 2, (0.3 mean)^6 / 2
    [(1, 0.50, 0.0004), (2, 2.0, 0.023), (3, 4.5, 0.27), (4, 8.0, 1.5), (5, 12.5, 5.7), (7, 24.5, 42.9)],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_mean_penalties_are_the_published_table(mean, standard, sextic, sign):
    q = DiagonalGaussian(torch.full((1, 1), sign * mean, dtype=torch.float64), torch.zeros(1, 1).double())
    assert q.kl().item() == pytest.approx(standard, rel=1e-12)
    assert q.kl_sextic().item() == pytest.approx(sextic, rel=0.1)


def test_sextic_form_term_by_term(generator):
    q = gaussian((3, 2, 5), generator)
    terms = 1 + q.logvar - (0.3 * q.mean) ** 6 - q.logvar.exp()
    torch.testing.assert_close(q.kl_sextic(), -0.5 * terms.flatten(1).sum(dim=1))


def test_bfloat16_divergence_is_summed_in_float32(generator):
    q = gaussian((2, 4, 32, 32), generator)
    half = DiagonalGaussian(q.mean.bfloat16(), q.logvar.bfloat16())
    same = DiagonalGaussian(half.mean.double(), half.logvar.double())
    torch.testing.assert_close(half.kl().double(), same.kl(), rtol=1e-5, atol=0)


def test_sample_has_the_mean_and_sigma_asked_for(generator):
    mean, sigma = torch.tensor([-2.0, 0.5]).double(), torch.tensor([0.3, 2.0]).double()
    q = DiagonalGaussian(mean.expand(1_000_000, 2), (2 * sigma.log()).expand(1_000_000, 2))
    z = q.sample(generator)
    torch.testing.assert_close(z.mean(dim=0), mean, rtol=0, atol=2 * MILLION_DRAWS)
    torch.testing.assert_close(z.std(dim=0), sigma, rtol=0, atol=2 * MILLION_DRAWS)


def test_a_seed_gives_mean_plus_sigma_times_its_noise(generator):
    q = gaussian((2, 3, 5), generator)
    eps = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = q.mean + (0.5 * q.logvar).exp() * eps
    torch.testing.assert_close(q.sample(torch.Generator().manual_seed(1)), expected)


def test_temperature_scales_the_distance_to_the_mean(generator):
    q = gaussian((2, 3, 5), generator)
    full = q.sample(torch.Generator().manual_seed(1))
    half = q.sample(torch.Generator().manual_seed(1), temperature=0.5)
    torch.testing.assert_close(half - q.mean, 0.5 * (full - q.mean))
    torch.testing.assert_close(q.sample(temperature=0.0), q.mean)
    with pytest.raises(ValueError, match=r"-1.*0 gives the mean"):
        q.sample(temperature=-1.0)


def test_sample_passes_gradients_to_mean_and_logvar():
    mean, logvar = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    z = DiagonalGaussian(mean, logvar).sample(torch.Generator().manual_seed(0))
    z.sum().backward()
    assert mean.grad.item() == 1
    assert logvar.grad.item() == pytest.approx(z.item() / 2)  # d/dlogvar exp(logvar / 2) eps at logvar = 0


def test_kl_stays_finite_and_pulls_a_runaway_logvar_back():
    logvar = torch.tensor([[1e4, -1e4]], requires_grad=True)
    q = DiagonalGaussian(torch.zeros(1, 2), logvar)
    q.kl().sum().backward()
    assert q.kl().isfinite().all()
    assert logvar.grad[0, 0] > 0 > logvar.grad[0, 1]


def test_statistics_of_a_batch_with_known_answers():
    mean = torch.tensor([[1.0, -1.0], [3.0, -1.0]])  # the second dimension says nothing
    q = DiagonalGaussian(mean.requires_grad_(), torch.full((2, 2), 2 * torch.log(torch.tensor(0.5)).item()))
    found = {name: value.item() for name, value in q.statistics().items()}
    expected = {"mean_abs": 1.5, "mean_std": 0.5, "sigma": 0.5, "snr": 0.5 / 0.25, "active": 0.5}
    assert found == pytest.approx(expected)
    assert not any(value.requires_grad for value in q.statistics().values())


def test_a_dimension_is_active_where_its_mean_varies_by_more_than_a_hundredth():
    spread = torch.tensor([0.0, 0.09, 0.11, 3.0]).double()  # variances 0, 0.0081, 0.0121, 9
    q = DiagonalGaussian(torch.stack([spread, -spread]), torch.zeros(2, 4).double())
    assert q.statistics()["active"] == 0.5


@pytest.mark.parametrize(("form", "penalty"), [("paper", 4.0), ("released", 0.3**6 * 2**6)])
def test_each_divergence_is_found_by_its_name(form, penalty):
    q = DiagonalGaussian(torch.full((1, 3), 2.0).double(), torch.zeros(1, 3).double())
    assert KL_FORMS[form](q, "sum").item() == pytest.approx(1.5 * penalty)
    assert KL_FORMS[form](q, "mean").item() == pytest.approx(0.5 * penalty)


def test_a_collapsed_encoder_shows_as_no_spread_over_the_batch():
    q = DiagonalGaussian(torch.ones(5, 3), torch.zeros(5, 3))
    assert q.statistics()["mean_std"] == 0
    assert q.statistics()["snr"] == 0


def test_unknown_reduction_lists_the_known():
    q = DiagonalGaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(Exception, match="sum"):  # ValueError; the type checks in tests see it first
        q.kl("max")

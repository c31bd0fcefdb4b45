import math
import sys

import pytest
import torch
from cf_encoders import DiagonalGaussian, LogScale
from cf_encoders.encoder_losses import EncoderLosses, collapse_warning, encoder_losses

HEALTHY = {"sigma": 0.5, "mean_abs": 0.4, "snr": 0.5, "active": 0.9, "readable": 1.0}


def posterior(
    b: int, generator: torch.Generator, sigma: float = 0.5, dtype: torch.dtype = torch.float64
) -> DiagonalGaussian:
    mean, logvar = torch.randn(2, b, 3, 5, 7, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(mean.to(dtype), (0.1 * logvar + 2 * math.log(sigma)).to(dtype))


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return torch.dot(x.flatten(), y.flatten()).item() / (x.norm().item() * y.norm().item())


def nearest_is_own(x: torch.Tensor, y: torch.Tensor) -> float:
    """The share of x_i with y_i the most similar, one pair at a time."""
    best = [max(range(len(y)), key=lambda j: cosine(x[i], y[j])) for i in range(len(x))]
    return sum(i == j for i, j in enumerate(best)) / len(x)


def test_terms_and_statistics_are_the_formulas_written_out(generator):
    q, target = posterior(5, generator, sigma=2.0), torch.randn(5, 3, 5, 7, generator=generator).double()
    z, scale = q.sample(generator), math.log(1 / 0.2)
    found = encoder_losses(q, z, target=target, log_scale=torch.tensor(scale).double())
    mean, var = q.mean, q.logvar.exp()
    kl = -0.5 * (1 + q.logvar - mean**2 - var).flatten(1).sum(1).mean()
    exps = [[math.exp(cosine(z[i], target[j]) / 0.2) for j in range(5)] for i in range(5)]
    rows = -sum(math.log(exps[i][i] / sum(exps[i])) for i in range(5)) / 5
    columns = -sum(math.log(exps[i][i] / sum(row[i] for row in exps)) for i in range(5)) / 5
    assert list(found.terms) == ["kl", "contrastive"]
    torch.testing.assert_close(found.terms["kl"], kl)
    assert found.terms["contrastive"].item() == pytest.approx((rows + columns) / 2)
    spread = (mean - mean.mean(dim=0)).square().mean(dim=0)
    expected = {
        "mean_abs": mean.abs().mean().item(),
        "mean_std": spread.sqrt().mean().item(),
        "sigma": var.sqrt().mean().item(),
        "snr": (spread.mean() / var.mean()).item(),
        "active": (spread > 0.01).double().mean().item(),
        "readable": nearest_is_own(z, mean),
        "retrieval": nearest_is_own(mean, target),
    }
    assert {name: value.item() for name, value in found.statistics.items()} == pytest.approx(expected)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_kl_has_the_form_and_the_reduction_asked_for(form, reduction, generator):
    q = posterior(4, generator)
    found = encoder_losses(q, q.sample(generator), kl=form, kl_reduction=reduction).terms
    penalty = q.mean**2 if form == "paper" else (0.3 * q.mean) ** 6
    terms = -0.5 * (1 + q.logvar - penalty - q.logvar.exp())
    expected = terms.mean() if reduction == "mean" else terms.sum() / 4
    torch.testing.assert_close(found["kl"], expected)
    assert list(found) == ["kl"]


def test_negatives_and_retrieval_are_those_of_the_group(generator, monkeypatch):
    q, groups = posterior(3, generator), []

    def counted(*args, **kwargs):
        groups.append((args + tuple(kwargs.values()))[-2:])
        return torch.tensor(0.5)

    for name in ("info_nce", "retrieval_accuracy"):
        # the package exports the function under its module's name
        monkeypatch.setattr(sys.modules[EncoderLosses.__module__], name, counted)
    scale = torch.tensor(1.0).double()
    found = encoder_losses(q, q.mean, target=q.mean, log_scale=scale, group="all ranks", sizes=(3, 4))
    # `readable` too: among fewer means a latent finds its own more easily, so it would depend on the number of ranks
    assert groups == [("all ranks", (3, 4))] * 3
    assert found.statistics["retrieval"] == 0.5


def test_a_reconstruction_loss_per_sample_becomes_its_mean(generator):
    q = posterior(3, generator)
    per_sample = torch.tensor([1.0, 2.0, 6.0]).double()
    found = encoder_losses(q, q.mean, reconstruction=per_sample)
    assert found.terms["reconstruction"].item() == 3.0
    assert list(found.terms) == ["kl", "reconstruction"]


def test_terms_carry_gradients_and_statistics_none(generator):
    mean = torch.randn(4, 6, generator=generator, requires_grad=True)
    q, scale = DiagonalGaussian(mean, torch.zeros(4, 6, requires_grad=True)), LogScale()
    target = torch.randn(4, 6, generator=generator, requires_grad=True)
    found = encoder_losses(q, q.sample(generator), target=target, log_scale=scale())
    assert all(term.requires_grad and term.shape == () for term in found.terms.values())
    assert not any(value.requires_grad for value in found.statistics.values())
    found.total({"kl": 0.1, "contrastive": 1.0}).backward()
    assert target.grad is not None
    assert scale.log_scale.grad is not None


def test_the_total_is_the_weighted_sum_and_forgets_no_term(generator):
    losses = EncoderLosses({"kl": torch.tensor(2.0), "contrastive": torch.tensor(3.0)}, {})
    assert losses.total({"kl": 0.1, "contrastive": 10.0}).item() == pytest.approx(30.2)
    with pytest.raises(ValueError, match=r"losses are contrastive, kl, got weights for kl"):
        losses.total({"kl": 0.1})
    with pytest.raises(ValueError, match=r"got weights for contrastive, kl, reconstruction"):
        losses.total({"kl": 0.1, "contrastive": 1.0, "reconstruction": 1.0})


def test_bfloat16_posteriors_give_float32_terms_near_those_of_float64(generator):
    q = posterior(4, generator, dtype=torch.bfloat16)
    z = q.sample()
    wide = DiagonalGaussian(q.mean.double(), q.logvar.double())
    narrow, exact = encoder_losses(q, z), encoder_losses(wide, z.double())
    assert narrow.terms["kl"].dtype == torch.float32
    assert narrow.terms["kl"].item() == pytest.approx(exact.terms["kl"].item(), rel=1e-5)
    assert narrow.statistics["snr"].item() == pytest.approx(exact.statistics["snr"].item(), rel=0.02)


def test_a_target_without_its_temperature_and_a_strange_sample_are_refused(generator):
    q = posterior(3, generator)
    with pytest.raises(ValueError, match="log_scale is None"):
        encoder_losses(q, q.mean, target=q.mean)
    with pytest.raises(ValueError, match="target is None"):
        encoder_losses(q, q.mean, log_scale=torch.tensor(1.0).double())
    with pytest.raises(ValueError, match=r"\(3, 105\).*\(3, 3, 5, 7\).*posterior\.sample"):
        encoder_losses(q, q.mean.flatten(1))


def test_a_healthy_posterior_draws_no_warning(generator):
    assert collapse_warning(HEALTHY) is None
    q = posterior(16, generator)
    assert collapse_warning(encoder_losses(q, q.sample(generator)).statistics) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 0.001}, ["sigma is 0.001", "raise the KL weight"]),
        ({"readable": 0.1}, ["10 % of", "forgotten", "lower the KL weight"]),
        ({"mean_abs": 5.0}, ["|mean| is 5", "raise the KL weight"]),
        ({"sigma": float("nan")}, ["sigma is nan", "learning rate"]),
    ],
)
def test_each_collapse_is_named_with_its_remedy(change, words):
    warning = collapse_warning({name: torch.tensor(value) for name, value in (HEALTHY | change).items()})
    assert warning is not None
    for word in words:
        assert word in warning


def test_a_source_that_became_noise_or_a_point_is_noticed_from_its_samples(generator):
    noise = DiagonalGaussian(1e-3 * torch.randn(32, 3, 5, 7, generator=generator), torch.zeros(32, 3, 5, 7))
    warning = collapse_warning(encoder_losses(noise, noise.sample(generator)).statistics)
    assert warning is not None
    assert "forgotten" in warning
    point = DiagonalGaussian(torch.randn(8, 3, 5, generator=generator), torch.full((8, 3, 5), -12.0))
    warning = collapse_warning(encoder_losses(point, point.sample(generator)).statistics)
    assert warning is not None
    assert "sigma" in warning


def test_missing_statistics_are_named():
    with pytest.raises(ValueError, match=r"readable.*encoder_losses"):
        collapse_warning({"sigma": torch.tensor(0.5), "mean_abs": torch.tensor(0.4)})

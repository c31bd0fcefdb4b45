import math

import pytest
import torch
from cf_encoders.reconstruction import reconstruction_l1, reconstruction_mse, token_cosine, token_mse

ELEMENTWISE = {
    "mse": (reconstruction_mse, lambda a, b: (a - b) ** 2),
    "l1": (reconstruction_l1, lambda a, b: abs(a - b)),
}


def text(
    b: int, n: int, d: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, another's, and a mask: sample i keeps n - i tokens."""
    features, other = torch.randn(2, b, n, d, generator=generator, dtype=torch.float64)
    return features, other, torch.arange(n)[None] < n - torch.arange(b)[:, None]


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (2, 3)])
def test_each_sample_has_its_own_sum_or_mean_of_the_errors_written_out(name, shape, generator):
    loss, error = ELEMENTWISE[name]
    x, y = torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)
    pairs = [zip(a.flatten().tolist(), b.flatten().tolist(), strict=True) for a, b in zip(x, y, strict=True)]
    sums = torch.tensor([math.fsum(error(a, b) for a, b in pair) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(loss(x, y, "sum"), sums)
    torch.testing.assert_close(loss(x, y), sums / math.prod(shape))


def test_the_summed_square_is_a_gaussians_log_likelihood_up_to_a_constant(generator):
    x, y, z = torch.randn(3, 2, 4, 3, generator=generator, dtype=torch.float64)
    half = math.sqrt(0.5)
    log_p = [torch.distributions.Normal(mean, half).log_prob(x).flatten(1).sum(1) for mean in (y, z)]
    torch.testing.assert_close(
        reconstruction_mse(x, y, "sum") - reconstruction_mse(x, z, "sum"), log_p[1] - log_p[0]
    )


def test_token_losses_are_means_over_the_real_tokens_of_each_caption(generator):
    features, other, mask = text(3, 5, 4, generator)
    for i in range(3):
        real = range(5 - i)
        squares = [(features[i, k] - other[i, k]).square().mean().item() for k in real]
        dots = [torch.dot(features[i, k], other[i, k]) for k in real]
        lengths = [features[i, k].norm() * other[i, k].norm() for k in real]
        cosines = [(dot / length).item() for dot, length in zip(dots, lengths, strict=True)]
        assert token_mse(features, other, mask)[i].item() == pytest.approx(sum(squares) / len(real))
        assert token_cosine(features, other, mask)[i].item() == pytest.approx(sum(cosines) / len(real))


def test_weighed_by_their_tokens_the_captions_give_the_mean_over_all_tokens(generator):
    features, other, mask = text(3, 5, 4, generator)
    count = mask.sum(dim=1)
    pooled = (token_cosine(features, other, mask) * count).sum() / count.sum()
    torch.testing.assert_close(pooled, torch.cosine_similarity(features[mask], other[mask], dim=-1).mean())


def test_what_stands_behind_the_mask_touches_neither_value_nor_gradient(generator):
    features, other, mask = text(3, 5, 4, generator)
    spoilt = features.masked_fill(~mask[..., None], float("nan"))
    for loss in (token_mse, token_cosine):
        reconstructed = other.clone().requires_grad_()
        found = loss(spoilt, reconstructed, mask)
        found.sum().backward()
        torch.testing.assert_close(found, loss(features, other, mask))
        assert (reconstructed.grad[~mask] == 0).all()
        assert reconstructed.grad.isfinite().all()


def test_cosine_is_blind_to_length_and_knows_the_sign(generator):
    features, _, mask = text(2, 3, 4, generator)
    torch.testing.assert_close(token_cosine(features, 7 * features, mask), torch.ones(2).double())
    torch.testing.assert_close(token_cosine(features, -features, mask), -torch.ones(2).double())
    assert token_cosine(features, 0 * features, mask).tolist() == [0, 0]


def test_a_caption_without_tokens_counts_nothing(generator):
    features, other, _ = text(2, 3, 4, generator)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert token_mse(features, other, mask)[1] == 0
    assert token_cosine(features, other, mask)[1] == 0


def test_bfloat16_errors_are_summed_in_float32(generator):
    x, y = torch.randn(2, 2, 4, 33, 31, generator=generator).bfloat16()
    exact = reconstruction_mse(x.double(), y.double(), "sum")
    torch.testing.assert_close(reconstruction_mse(x, y, "sum").double(), exact, rtol=1e-5, atol=0)

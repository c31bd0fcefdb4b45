"""Token reconstruction accuracy against a plain loop and torch's cosine, and what padding does to it."""

import math

import pytest
import torch
from cf_eval.reconstruction import TokenReconstruction, token_cosine

EXACT = 1e-12


@pytest.fixture
def captions():
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 7, 6, generator=g, dtype=torch.float64)
    decoded = tokens + 0.7 * torch.randn(5, 7, 6, generator=g, dtype=torch.float64)
    return decoded, tokens, torch.arange(7) < torch.tensor([1, 7, 3, 4, 2])[:, None]


def test_the_cosine_is_torchs(captions):
    decoded, tokens, _ = captions
    expected = torch.cosine_similarity(decoded, tokens, dim=-1)
    assert torch.allclose(token_cosine(decoded, tokens), expected, rtol=EXACT)


def test_masked_is_the_mean_over_the_captions_own_tokens_and_unmasked_over_all(captions):
    decoded, tokens, mask = captions
    metric = TokenReconstruction()
    metric.add_batch(decoded, tokens, mask)
    own, every = [], []
    for i in range(5):
        for j in range(7):
            a, b = decoded[i, j].tolist(), tokens[i, j].tolist()
            cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
            every.append(cosine)
            if mask[i, j]:
                own.append(cosine)
    result = metric.compute()
    assert result.values["masked"] == pytest.approx(100 * sum(own) / 17, rel=EXACT)
    assert result.values["unmasked"] == pytest.approx(100 * sum(every) / 35, rel=EXACT)
    assert (result.count, result.details["tokens"], result.details["slots"]) == (5, 17, 35)


def test_a_decoder_that_only_knows_the_padding_scores_high_unmasked_only(captions):
    _, tokens, mask = captions
    padding = torch.ones(6, dtype=torch.float64)
    tokens = torch.where(mask[..., None], tokens, padding)
    metric = TokenReconstruction()
    metric.add_batch(padding.expand_as(tokens), tokens, mask)
    values = metric.compute().values
    assert values["unmasked"] > 50 > values["masked"]


def test_length_does_not_matter_and_direction_does(captions):
    _, tokens, mask = captions
    same, opposite = TokenReconstruction(), TokenReconstruction()
    same.add_batch(3 * tokens, tokens, mask)
    opposite.add_batch(-tokens, tokens, mask)
    assert same.compute().values["masked"] == pytest.approx(100)
    assert opposite.compute().values["masked"] == pytest.approx(-100)


def test_a_zero_vector_has_no_direction_and_counts_as_none():
    zero, one = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert token_cosine(zero, one).tolist() == [[0, 0]]
    assert token_cosine(one, zero).tolist() == [[0, 0]]


def test_ranks_merge_to_the_whole(captions):
    decoded, tokens, mask = captions
    names = [*"abcde"]
    whole = TokenReconstruction()
    whole.add_batch(decoded, tokens, mask, names)
    parts = [TokenReconstruction() for _ in range(3)]
    parts[0].add_batch(decoded[3:], tokens[3:], mask[3:], names[3:])
    parts[2].add_batch(decoded[:4], tokens[:4], mask[:4], names[:4])
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].compute().values == pytest.approx(dict(whole.compute().values), rel=EXACT)
    assert parts[0].compute().details["duplicates_dropped"] == 1


def test_misuse_is_named(captions):
    decoded, tokens, mask = captions
    metric = TokenReconstruction()
    with pytest.raises(ValueError, match="no captions were added"):
        metric.compute()
    mask = mask.clone()
    mask[3] = False
    with pytest.raises(ValueError, match="caption 3 of the batch has no token"):
        metric.add_batch(decoded, tokens, mask)
    decoded = decoded.clone()
    decoded[2, 1, 0] = math.nan
    with pytest.raises(ValueError, match="reconstructed of caption 2 of the batch are not finite"):
        metric.add_batch(decoded, tokens, mask)

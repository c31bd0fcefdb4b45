from dataclasses import replace

import pytest
import torch
from cf_encoders import LogScale, info_nce, retrieval_accuracy
from cf_encoders.towers.pooling import POOLS, AttentionPool, MeanPool
from cf_encoders.towers.text import TextTower, TextTowerConfig

TINY = TextTowerConfig(9, (2, 3, 5), width=12, heads=3, mlp_hidden=16, hidden=16)


def words(b: int, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and a mask with a different number of words in every caption."""
    tokens = torch.randn(b, n, 9, generator=generator)
    return tokens, torch.arange(n) <= torch.arange(b)[:, None]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("depth", "conv_depth"), [(0, 0), (1, 1), (2, 0)])
def test_padding_changes_nothing(pool, depth, conv_depth, generator):
    torch.manual_seed(0)
    tower = TextTower(replace(TINY, pool=pool, depth=depth, conv_depth=conv_depth))
    tokens, mask = words(3, 5, generator)
    other = torch.where(mask[..., None], tokens, 7.0)
    found = tower(tokens, mask)
    assert found.shape == (3, 2, 3, 5)
    torch.testing.assert_close(tower(other, mask), found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tower(tokens[:1, :1], mask[:1, :1]), found[:1], atol=1e-5, rtol=1e-5)


def test_word_order_matters_through_the_convolution_alone(generator):
    torch.manual_seed(0)
    tokens = torch.randn(1, 5, 9, generator=generator)
    mask, backwards = torch.ones(1, 5, dtype=torch.bool), tokens.flip(1)
    ordered, bag = TextTower(TINY), TextTower(replace(TINY, conv_depth=0))
    assert (ordered(tokens, mask) - ordered(backwards, mask)).abs().max() > 1e-3
    torch.testing.assert_close(bag(tokens, mask), bag(backwards, mask), atol=1e-5, rtol=1e-5)


def test_it_learns_to_find_the_pair_of_each_latent(generator):
    torch.manual_seed(0)
    tower = TextTower(TINY)
    tokens, mask = words(12, 12, generator)
    z = torch.randn(12, 2, 3, 5, generator=generator)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        info_nce(z, tower(tokens, mask), LogScale()()).backward()
        optimiser.step()
    assert retrieval_accuracy(z, tower(tokens, mask)) == 1.0


def test_the_mean_is_over_the_words_there_are(generator):
    pool = MeanPool(4, 1, 1)
    x = torch.randn(2, 3, 4, generator=generator)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    expected = torch.stack([(x[0, 0] + x[0, 1]) / 2, x[1, 1]])
    torch.testing.assert_close(pool(x, mask), torch.nn.functional.layer_norm(expected, (4,)))


def test_attention_pooling_ignores_the_order_of_what_it_reads(generator):
    pool = AttentionPool(8, 2, 16).double()
    x = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, False, True, False, True]])
    order = torch.randperm(5, generator=generator)
    torch.testing.assert_close(pool(x, mask), pool(x[:, order], mask[:, order]))


@pytest.mark.parametrize("pool", POOLS)
def test_a_caption_without_words_is_finite(pool):
    tower = TextTower(replace(TINY, pool=pool))
    found = tower(torch.zeros(1, 3, 9), torch.zeros(1, 3, dtype=torch.bool))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in tower.parameters())


def test_its_config_comes_back_from_a_dict():
    assert TextTowerConfig.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "max"}, "'max'; known: attention, mean"),
        ({"width": 13}, "multiple of heads 3"),
        ({"conv_kernel": 4}, "conv_kernel odd"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_tokens_of_another_width_are_refused():
    with pytest.raises(ValueError, match="8 wide, the tower reads token_width=9"):
        TextTower(TINY)(torch.zeros(1, 2, 8), torch.ones(1, 2, dtype=torch.bool))

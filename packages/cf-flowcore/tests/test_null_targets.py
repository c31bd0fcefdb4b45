import math

import pytest
import torch
from cf_flowcore import draw_null, null_targets
from cf_flowcore.null_targets import random_cycle


@pytest.mark.parametrize("b", [1, 2, 4, 33])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_null_rate_is_exact_whatever_the_batch_size(b, rate, generator):
    draws = 10_000 // b
    nulls = torch.stack([draw_null(b, rate, generator=generator) for _ in range(draws)])
    assert abs(nulls.double().mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / nulls.numel())


def test_rates_zero_and_one_are_never_and_always(generator):
    assert not draw_null(1000, 0.0, generator=generator).any()
    assert draw_null(1000, 1.0, generator=generator).all()
    with pytest.raises(ValueError, match=r"got 1\.5"):
        draw_null(3, 1.5)


@pytest.mark.parametrize("b", [2, 3, 7, 64])
def test_a_null_sample_gets_the_data_of_another_and_the_rest_keep_theirs(b, generator):
    x_1 = torch.arange(float(b))[:, None].expand(b, 3).contiguous()
    for _ in range(20):
        is_null = draw_null(b, 0.5, generator=generator)
        changed = null_targets(x_1, is_null, generator=generator)
        assert torch.equal(changed != x_1, is_null[:, None].expand(b, 3))
        assert len(changed[is_null].unique(dim=0)) == int(is_null.sum())  # nobody is chosen twice


def test_the_other_sample_is_uniform_over_the_rest_of_the_batch(generator):
    b, n = 5, 6_000
    counts = torch.zeros(b, b)
    for _ in range(n):
        counts[torch.arange(b), random_cycle(b, generator=generator, device=None)] += 1
    assert counts.diagonal().sum() == 0
    off = counts[~torch.eye(b, dtype=torch.bool)] / n
    assert (off - 1 / (b - 1)).abs().max() < 4 * math.sqrt(0.25 * 0.75 / n)


def test_the_batch_itself_is_never_edited(generator):
    x_1 = torch.randn(6, 2, 3, generator=generator)
    before = x_1.clone()
    null_targets(x_1, torch.ones(6, dtype=torch.bool), generator=generator)
    assert torch.equal(x_1, before)


def test_a_null_sample_alone_in_its_batch_is_refused_and_a_conditional_one_is_not():
    x_1 = torch.ones(1, 3)
    with pytest.raises(ValueError, match="got a batch of 1"):
        null_targets(x_1, torch.tensor([True]))
    assert torch.equal(null_targets(x_1, torch.tensor([False])), x_1)

from dataclasses import replace

import torch
from cf_transformer import DiMR, Indicator


def test_is_null_picks_the_unconditional_vector(shaken):
    indicator = shaken(Indicator(4, "paper"))
    tokens = indicator(torch.tensor([True, False, True]))
    null, cond = indicator.unconditional, indicator.conditional
    assert torch.equal(tokens[:, 0], torch.stack([null, cond, null]))


def test_the_released_indicator_is_minus_one_when_null_and_plus_one_otherwise(config):
    indicator = DiMR(replace(config, indicator="released")).indicator
    tokens = indicator(torch.tensor([True, False]))
    assert torch.equal(tokens, torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 1, 8))


def test_each_vector_learns_from_its_own_samples_only():
    indicator = Indicator(2, "paper")
    torch.nn.init.zeros_(indicator.conditional)
    torch.nn.init.zeros_(indicator.unconditional)
    indicator(torch.tensor([True, True, False])).sum().backward()
    assert torch.equal(indicator.unconditional.grad, torch.full((2,), 2.0))
    assert torch.equal(indicator.conditional.grad, torch.full((2,), 1.0))


def test_the_indicator_acts_through_its_token_alone(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    x_t, t = torch.randn(2, 3, 6, 18, generator=generator), torch.rand(2, generator=generator)
    null, cond = torch.tensor([True, True]), torch.tensor([False, False])
    assert not torch.allclose(model(x_t, t, null), model(x_t, t, cond))
    with torch.no_grad():
        model.indicator.unconditional.copy_(model.indicator.conditional)
    assert torch.equal(model(x_t, t, null), model(x_t, t, cond))


def test_without_a_flag_every_sample_is_conditional(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    x_t, t = torch.randn(2, 3, 6, 18, generator=generator), torch.rand(2, generator=generator)
    assert torch.equal(model(x_t, t), model(x_t, t, torch.zeros(2, dtype=torch.bool)))

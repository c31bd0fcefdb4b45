import copy
from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, Indicator, StageConfig, initialise
from cf_transformer.position import LearnedPosition
from torch import nn

WIDE = DiMRConfig(
    3, (16, 16), (StageConfig("transformer", 128, 3, 2, 2), StageConfig("convnext", 64, 3, 1)), kernel_size=3
)


def test_linear_weights_and_embeddings_are_normal_with_deviation_0_02():
    model = DiMR(WIDE)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, LearnedPosition):
            assert module.table.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(module, Indicator):
            assert module.conditional.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(("width", "std"), [(64, 0.08), (256, 0.04)])
def test_scaled_weights_have_the_papers_gain_at_every_width(width, std):
    """0.02 sqrt(1024) = 0.64 = std sqrt(width)"""
    stages = (StageConfig("transformer", width, 3, 2, 2),)
    model = DiMR(
        DiMRConfig(3, (16, 16), stages, kernel_size=3, init="scaled"), torch.Generator().manual_seed(1)
    )
    qkv = model.stages[0].blocks[0].attention.qkv.weight
    assert qkv.std().item() == pytest.approx(std, rel=0.05)
    assert model.stages[0].embed.position.table.std().item() == pytest.approx(0.5, rel=0.05)
    assert model.indicator.conditional.std().item() == pytest.approx(0.5, rel=0.3)


def test_convolutions_keep_pytorchs_default():
    model = DiMR(WIDE)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
            default = copy.deepcopy(module)
            default.reset_parameters()
            largest = default.weight.abs().max().item()
            assert largest == pytest.approx(module.weight.abs().max().item(), rel=0.05)


def test_a_generator_decides_every_weight(config):
    first, second, other = (DiMR(config, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.stages[0].embed.position.table, other.stages[0].embed.position.table)


def test_initialise_undoes_training(config, shaken):
    model = DiMR(config, torch.Generator().manual_seed(7))
    before = [p.clone() for p in model.parameters()]
    initialise(shaken(model), torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_fresh_model_speaks_unless_its_heads_start_at_zero(config, generator):
    x_t, t = torch.randn(2, 3, 6, 18, generator=generator), torch.rand(2, generator=generator)
    assert all(v.std() > 0.1 for v in DiMR(config).scales(x_t, t))
    assert not any(v.any() for v in DiMR(replace(config, zero_init_head=True)).scales(x_t, t))

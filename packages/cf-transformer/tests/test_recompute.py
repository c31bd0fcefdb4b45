from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR
from torch.utils.flop_counter import FlopCounterMode

T = torch.tensor([0.2, 0.7])


def made(config, recompute):
    """A model, and its loss on one batch."""
    model = DiMR(replace(config, recompute=recompute, attention="matmul"), torch.Generator().manual_seed(1))
    x_t = torch.randn(2, 3, 6, 18, generator=torch.Generator().manual_seed(2))
    return model, lambda: model(x_t, T).square().mean()


def gradients(config, recompute):
    model, loss = made(config, recompute)
    loss().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def flops(config, recompute):
    _, loss = made(config, recompute)
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("recompute", ["cheap", "blocks"])
def test_recomputing_changes_no_gradient(config, recompute):
    for ours, plain in zip(gradients(config, recompute), gradients(config, "nothing"), strict=True):
        assert torch.equal(ours, plain)


def test_cheap_repeats_no_product_and_blocks_repeats_them(config):
    assert flops(config, "nothing") == flops(config, "cheap") < flops(config, "blocks")


def test_a_block_that_is_computed_twice_keeps_its_input_only(config, kept_by):
    kept = {}
    for recompute in ("nothing", "blocks"):
        model, loss = made(replace(config, mlp_ratio=8.0), recompute)  # gates outweigh what every way keeps
        kept[recompute] = kept_by(loss, [*model.parameters()])
    assert kept["blocks"] < 0.5 * kept["nothing"]


@pytest.mark.parametrize("recompute", ["cheap", "blocks"])
def test_without_gradients_nothing_is_prepared(config, recompute):
    _, loss = made(config, recompute)
    _, plain = made(config, "nothing")
    with torch.no_grad():
        assert torch.equal(loss(), plain())

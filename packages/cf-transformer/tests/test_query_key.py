import math
from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR, no_decay_names
from cf_transformer.attention import SelfAttention
from cf_transformer.query_key import AxialRoPE, QKNorm, QueryKey, cell_centres

GRID = (2, 3)
E = 8  # head width
PLACES = 1e-5  # places on the grid are fp32 numbers, and turned by up to 16 radians


def packed(generator: torch.Generator, n: int, heads: int = 2) -> torch.Tensor:
    return torch.randn(2, n, 3, heads, E, generator=generator, dtype=torch.float64)


def logits(qkv: torch.Tensor) -> torch.Tensor:
    """As attention takes them."""
    q, k, _ = qkv.unbind(2)
    return torch.einsum("bnke,bmke->bknm", q, k) / E**0.5


def test_a_logit_is_exp_s_times_the_cosine_of_the_angle(shaken, generator):
    layer = shaken(QueryKey(2, E).double())
    qkv = packed(generator, 5)
    q, k, _ = qkv.unbind(2)
    cosine = torch.nn.functional.cosine_similarity(q[:, :, None], k[:, None], dim=-1)  # (b, n, m, k)
    expected = cosine * layer.norm.log_scale.exp()
    torch.testing.assert_close(logits(layer(qkv)), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_an_equal_pair_starts_at_10_and_never_passes_100():
    norm = QKNorm(3, E).double()
    assert ((norm.gain() ** 2 * E**0.5) - 10).abs().max() < 1e-5  # s was set in fp32
    with torch.no_grad():
        norm.log_scale.fill_(7.0)
    assert ((norm.gain() ** 2 * E**0.5) - 100).abs().max() < 1e-10


def test_the_scale_of_q_and_k_does_not_matter_and_v_passes_through(shaken, generator):
    layer = shaken(QueryKey(2, E, GRID).double())
    qkv = packed(generator, 7)
    larger = qkv * torch.tensor([16.0, 32.0, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(layer(larger), layer(qkv), rtol=1e-5, atol=1e-6)
    assert torch.equal(layer(qkv)[:, :, 2], qkv[:, :, 2])


def test_a_logit_depends_on_how_far_apart_two_cells_are_not_on_where(shaken, generator):
    """The identity of rotary positions, on a grid: R(a)^T R(b) = R(b - a)."""
    layer = shaken(QueryKey(1, E, (4, 5)).double())
    token = torch.randn(1, 1, 3, 1, E, generator=generator, dtype=torch.float64)
    table = logits(layer(token.expand(1, 20, 3, 1, E)))[0, 0].reshape(4, 5, 4, 5)
    torch.testing.assert_close(table[0, 1, 2, 3], table[1, 2, 3, 4], rtol=0, atol=10 * PLACES)
    torch.testing.assert_close(table[3, 0, 1, 2], table[2, 2, 0, 4], rtol=0, atol=10 * PLACES)
    assert (
        table[0, 0, 0, 1] - table[0, 0, 1, 0]
    ).abs() > 1e-3  # rows and columns turn by their own frequencies


def test_an_angle_is_a_frequency_times_the_place_of_the_cell(shaken):
    rope = shaken(AxialRoPE(E, GRID).double())
    cos, sin = rope(1 + 6)
    y, x = (2 * 1 + 1) / 2 - 1, (2 * 2 + 1) / 3 - 1  # the centre of row 1, column 2
    angle = torch.cat([y * rope.frequencies[0], x * rope.frequencies[1]])
    torch.testing.assert_close(cos[-1], angle.cos(), rtol=0, atol=PLACES)
    torch.testing.assert_close(sin[-1], angle.sin(), rtol=0, atol=PLACES)
    assert cos[0].tolist() == [1.0] * (E // 2)  # the indicator has no place
    assert sin[0].tolist() == [0.0] * (E // 2)


def test_frequencies_start_log_spaced_from_pi_to_5_pi():
    first = AxialRoPE(16, GRID).frequencies[1] / math.pi
    torch.testing.assert_close(first, torch.tensor([1.0, 5 ** (1 / 3), 5 ** (2 / 3), 5.0]))


def test_centres_are_symmetric_and_row_major():
    centres = cell_centres((1, 2))
    assert torch.equal(centres, torch.tensor([[0.0, -0.5], [0.0, 0.5]]))
    torch.testing.assert_close(cell_centres((3, 4)).flip(0), -cell_centres((3, 4)))


@pytest.mark.parametrize("kind", ["sdpa", "matmul"])
def test_attention_uses_it(kind, shaken, generator):
    layer = shaken(SelfAttention(16, 2, kind, QueryKey(2, E, GRID)).double())
    x = torch.randn(2, 7, 16, generator=generator, dtype=torch.float64)
    qkv = layer.query_key(layer.qkv(x).unflatten(-1, (3, 2, E)))
    weights = torch.softmax(logits(qkv), dim=-1)
    expected = torch.einsum("bknm,bmke->bnke", weights, qkv[:, :, 2]).flatten(2)
    torch.testing.assert_close(layer(x), layer.out(expected))


@pytest.mark.parametrize("query_key", ["norm", "norm+rope"])
def test_a_model_with_an_indicator_token_takes_it(query_key, config, shaken, generator):
    stages = (replace(config.stages[0], n_heads=2, d_model=16, patch=3), *config.stages[1:])  # two rows
    model = shaken(DiMR(replace(config, stages=stages, query_key=query_key), generator))
    x_t, t = torch.randn(2, 3, 6, 18, generator=generator), torch.rand(2, generator=generator)
    v = model(x_t, t, torch.tensor([True, False]))
    v.square().sum().backward()
    attention = model.stages[0].blocks[1].attention.query_key
    for parameter in attention.parameters():
        assert parameter.grad.abs().min() > 0
    names = {name for name, _ in model.named_parameters()}
    assert ("stages.0.embed.position.table" in names) == (query_key == "norm")
    assert "stages.1.embed.position.table" in names
    assert not any("query_key" in name for name in names - no_decay_names(model))


def test_a_head_that_cannot_be_split_into_row_and_column_pairs_is_an_error(config):
    stages = (replace(config.stages[0], d_model=6, n_heads=1), *config.stages[1:])
    with pytest.raises(ValueError, match="head width d_model / n_heads must be a multiple of 4, got 6 / 1"):
        replace(config, stages=stages, query_key="norm+rope")

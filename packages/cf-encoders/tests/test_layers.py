import pytest
import torch
import torch.nn.functional as F
from cf_encoders.layers import CrossBlock, FeedForward, SelfBlock, attend


@pytest.mark.parametrize(("m", "n"), [(5, 5), (3, 7), (1, 2)])
def test_attention_is_torchs_own(m, n, generator):
    q = torch.randn(2, 3, m, 4, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, n, 4, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[0, n // 2 + 1 :] = False
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    torch.testing.assert_close(attend(q, k, v, mask), expected)


def test_a_sample_without_tokens_attends_evenly_instead_of_giving_nan(generator):
    q, k, v = torch.randn(3, 1, 1, 4, 2, generator=generator)
    out = attend(q, k, v, torch.zeros(1, 4, dtype=torch.bool))
    torch.testing.assert_close(out, v.mean(dim=2, keepdim=True).expand_as(out))


def test_feed_forward_is_silu_of_the_gate_times_the_value(generator):
    layer = FeedForward(3, 5).double()
    x = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    gate, value = layer.in_(x)[..., :5], layer.in_(x)[..., 5:]
    torch.testing.assert_close(layer(x), layer.out(gate / (1 + (-gate).exp()) * value))


def test_self_attention_without_positions_commutes_with_a_permutation_of_the_tokens(generator):
    block = SelfBlock(8, 2, 16, 0.0).double()
    x = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(5, generator=generator)
    mask = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(block(x, mask)[:, order], block(x[:, order], mask))


def test_cross_attention_ignores_the_order_of_its_context(generator):
    block = CrossBlock(8, 2, 16, 0.0).double()
    x = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(5, generator=generator)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    torch.testing.assert_close(block(x, context, mask), block(x, context[:, order], mask[:, order]))

import pytest
import torch
import torch.nn.functional as F
from cf_encoders import layers
from cf_encoders.layers import (
    Attention,
    CrossBlock,
    FeedForward,
    SelfBlock,
    attend,
    attend_between,
    readable,
    wide_linear,
)
from torch import nn

# (m, n, width, heads): few keys and many rows, and the other way round
BY_KEYS, BY_ROWS = [(40, 3, 12, 3), (77, 1, 8, 1), (31, 4, 24, 2)], [(5, 7, 12, 3), (9, 9, 8, 1)]


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


def between(m, n, width, heads, generator, dtype=torch.float64):
    torch.manual_seed(0)
    q, out = nn.Linear(width, width).to(dtype), nn.Linear(width, width).to(dtype)
    x = torch.randn(2, m, width, generator=generator, dtype=dtype)
    k, v = torch.randn(2, 2, n, width, generator=generator, dtype=dtype)
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[0, (n + 1) // 2 :] = False
    return q, out, x, k, v, mask, heads


@pytest.mark.parametrize(("m", "n", "width", "heads"), BY_KEYS + BY_ROWS)
def test_attention_through_its_projections_is_torchs_own_module(m, n, width, heads, generator):
    q, out, x, k, v, mask, heads = between(m, n, width, heads, generator)
    theirs = nn.MultiheadAttention(width, heads, batch_first=True).double()
    identity = torch.eye(width).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([q.weight, identity, identity]))
        theirs.in_proj_bias.copy_(torch.cat([q.bias, torch.zeros(2 * width)]))
    theirs.out_proj.load_state_dict(out.state_dict())
    expected, _ = theirs(x, k, v, key_padding_mask=~mask)
    torch.testing.assert_close(attend_between(q, out, x, k, v, mask, heads), expected)


@pytest.mark.parametrize(("m", "n", "width", "heads"), BY_KEYS)
def test_both_forms_of_attention_have_the_same_gradients(m, n, width, heads, generator, monkeypatch):
    q, out, x, k, v, mask, heads = between(m, n, width, heads, generator)
    assert layers._few_keys(x, k, heads)
    inputs = (x.requires_grad_(), k.requires_grad_(), v.requires_grad_(), *q.parameters(), *out.parameters())

    def gradients():
        loss = attend_between(q, out, x, k, v, mask, heads).sin().sum()
        return torch.autograd.grad(loss, inputs)

    by_keys = gradients()
    monkeypatch.setattr(layers, "_few_keys", lambda *_: False)
    for ours, expected in zip(by_keys, gradients(), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("m", "n", "width", "heads"), BY_ROWS)
def test_many_keys_are_read_in_the_usual_form(m, n, width, heads, generator):
    _, _, x, k, *_ = between(m, n, width, heads, generator)
    assert not layers._few_keys(x, k, heads)


class Adapted(nn.Linear):
    """Does more than its weights say, as a low-rank adapter does."""

    def forward(self, x):
        return super().forward(x) + 1.0


def test_an_adapter_in_place_of_a_projection_is_not_passed_over(generator):
    q, out, x, k, v, mask, heads = between(40, 3, 12, 3, generator)
    adapted = Adapted(12, 12).double()
    adapted.load_state_dict(out.state_dict())
    plain = attend_between(q, out, x, k, v, mask, heads)
    torch.testing.assert_close(attend_between(q, adapted, x, k, v, mask, heads), plain + 1)
    torch.testing.assert_close(wide_linear(adapted, x[0, :, :5]), wide_linear(out, x[0, :, :5]) + 1)


def test_sixteen_bit_keys_are_read_in_the_usual_form(generator):
    _, _, x, k, *_ = between(40, 3, 12, 3, generator)
    assert layers._few_keys(x, k, 3)
    assert not layers._few_keys(x, k.bfloat16(), 3)


@pytest.mark.parametrize(("m", "n"), [(40, 3), (5, 7)])
def test_attention_dropout_thins_the_weights_of_both_forms_without_bias(m, n, generator):
    q, out, x, k, v, mask, heads = between(m, n, 12, 3, generator)
    exact = attend_between(q, out, x, k, v, mask, heads)
    torch.manual_seed(1)
    x, k, v, mask = (torch.cat(1000 * [each[:1]]) for each in (x, k, v, mask))
    draws = attend_between(q, out, x, k, v, mask, heads, 0.4)
    error = (draws.mean(dim=0) - exact[0]).abs() / (draws.std(dim=0) / 1000**0.5)
    assert draws.std(dim=0).min() > 0.01
    assert error.max() < 5  # standard errors, over some hundred values


def test_a_sample_without_tokens_gets_a_finite_answer_in_both_forms(generator, monkeypatch):
    q, out, x, k, v, mask, heads = between(40, 3, 12, 3, generator)
    nothing = torch.zeros_like(mask)
    by_keys = attend_between(q, out, x, k, v, nothing, heads)
    monkeypatch.setattr(layers, "_few_keys", lambda *_: False)
    torch.testing.assert_close(by_keys, attend_between(q, out, x, k, v, nothing, heads))
    torch.testing.assert_close(by_keys, out(v.mean(dim=1, keepdim=True)).expand_as(x))


def test_attention_projects_the_context_to_keys_then_values(generator):
    attention = Attention(6, 2).double()
    x, context = (torch.randn(2, n, 6, generator=generator, dtype=torch.float64) for n in (3, 5))
    mask = torch.ones(2, 5, dtype=torch.bool)
    k, v = attention.kv(context)[..., :6], attention.kv(context)[..., 6:]
    expected = attend_between(attention.q, attention.out, x, k, v, mask, 2)
    torch.testing.assert_close(attention(x, context, mask), expected)


@pytest.mark.parametrize(
    ("rows", "n"),
    [
        (["11000", "11100"], 3),
        (["00010", "10000"], 4),
        (["11111"], 5),
        (["10000"], 1),
        (["00000", "11000"], 5),  # the first attends to all its padding
    ],
)
def test_what_a_batch_reads_ends_with_its_last_token(rows, n):
    assert readable(torch.tensor([[digit == "1" for digit in row] for row in rows])) == n


def test_a_batch_without_samples_reads_all_of_nothing():
    assert readable(torch.zeros(0, 5, dtype=torch.bool)) == 5


@pytest.mark.parametrize("rows", [3, layers.FEW_ROWS])
def test_columns_that_a_wide_linear_lacks_count_as_zeros(rows, generator):
    linear = nn.Linear(9, 4).double()
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(wide_linear(linear, x), linear(F.pad(x, (0, 4))))
    gradient = torch.autograd.grad(wide_linear(linear, x).sum(), linear.weight)[0]
    torch.testing.assert_close(gradient[0], F.pad(x, (0, 4)).sum(dim=0))


def test_under_autocast_a_wide_linear_of_few_rows_keeps_float32(generator):
    linear = nn.Linear(9, 4)
    x = torch.randn(3, 9, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        few, many = wide_linear(linear, x), wide_linear(linear, x.repeat(30, 1))
    torch.testing.assert_close(few, linear(x))
    assert many.dtype == torch.bfloat16


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

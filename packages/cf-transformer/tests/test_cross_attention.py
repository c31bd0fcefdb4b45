import pytest
import torch
from cf_transformer import td_rms_norm
from cf_transformer.blocks import TransformerBlock
from cf_transformer.cross_attention import CrossAttention, CrossAttentionBlock, TextOrNull

SEEN = torch.tensor(
    [[True, True, False, True, False, False, True], [False, True, True, True, True, True, True]]
)


def inputs(generator: torch.Generator, d: int = 6, c: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples of 4 tokens and 7 text tokens."""
    x = torch.randn(2, 4, d, generator=generator, dtype=torch.float64)
    return x, torch.randn(2, 7, c, generator=generator, dtype=torch.float64)


def cross_attention_by_hand(layer: CrossAttention, x: torch.Tensor, text: torch.Tensor, seen: torch.Tensor):
    """One query of one head at a time, over the text tokens that are there; rows of kv are [k | v], head-major."""
    e = x.shape[-1] // layer.n_heads
    k_rows, v_rows = layer.kv.weight.split(x.shape[-1])
    out = torch.zeros_like(x)
    for i in range(len(x)):
        tokens = [text[i, j] for j in range(text.shape[1]) if seen[i, j]]
        for head in range(layer.n_heads):
            own = slice(head * e, (head + 1) * e)
            for n in range(x.shape[1]):
                q = layer.q.weight[own] @ x[i, n]
                logits = torch.stack([q @ (k_rows[own] @ token) for token in tokens]) / e**0.5
                values = torch.stack([v_rows[own] @ token for token in tokens])
                out[i, n, own] = torch.softmax(logits, dim=0) @ values
    return out @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize("kind", ["sdpa", "matmul"])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_cross_attention_is_the_formula_head_by_head(kind, n_heads, shaken, generator):
    layer = shaken(CrossAttention(6, 5, n_heads, kind).double())
    x, text = inputs(generator)
    expected = cross_attention_by_hand(layer, x, text, SEEN)
    torch.testing.assert_close(layer(x, text, SEEN), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["sdpa", "matmul"])
def test_a_masked_token_has_no_influence(kind, shaken, generator):
    layer = shaken(CrossAttention(6, 5, 2, kind).double())
    x, text = inputs(generator)
    other = torch.where(SEEN[..., None], text, 100 * torch.randn(2, 7, 5, generator=generator).double())
    assert torch.equal(layer(x, other, SEEN), layer(x, text, SEEN))
    assert not torch.allclose(layer(x, other, torch.ones_like(SEEN)), layer(x, text, torch.ones_like(SEEN)))


def test_padding_changes_nothing(shaken, generator):
    layer = shaken(CrossAttention(6, 5, 2, "sdpa").double())
    x, text = inputs(generator)
    longer = torch.cat([text, torch.ones(2, 3, 5).double()], dim=1)
    seen = torch.cat([SEEN, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(layer(x, longer, seen), layer(x, text, SEEN))


def test_the_order_of_text_tokens_does_not_matter(shaken, generator):
    layer = shaken(CrossAttention(6, 5, 2, "matmul").double())
    x, text = inputs(generator)
    order = torch.randperm(7, generator=generator)
    torch.testing.assert_close(layer(x, text[:, order], SEEN[:, order]), layer(x, text, SEEN))


def test_the_order_of_the_asking_tokens_is_kept(shaken, generator):
    layer = shaken(CrossAttention(6, 5, 3, "sdpa").double())
    x, text = inputs(generator)
    order = torch.randperm(4, generator=generator)
    torch.testing.assert_close(layer(x[:, order], text, SEEN), layer(x, text, SEEN)[:, order])


def test_equal_text_tokens_say_what_one_of_them_says(shaken, generator):
    """What lets the null vector stand at every position."""
    layer = shaken(CrossAttention(6, 5, 2, "sdpa").double())
    x, text = inputs(generator)
    one = text[:, :1]
    many = layer(x, one.expand(-1, 7, -1), torch.ones(2, 7, dtype=torch.bool))
    torch.testing.assert_close(many, layer(x, one, torch.ones(2, 1, dtype=torch.bool)))


def test_a_block_attends_reads_and_thinks_each_after_its_own_norm(shaken, generator):
    inner = TransformerBlock(6, 12, 2, "gelu", "sdpa")
    block = shaken(CrossAttentionBlock(inner, CrossAttention(6, 5, 2, "sdpa")).double())
    x, text = inputs(generator)
    gamma = torch.randn(3, 2, 1, 6, generator=generator, dtype=torch.float64)
    attended = x + block.attention(td_rms_norm(x, gamma[0]))
    read = attended + block.cross(td_rms_norm(attended, gamma[1]), text, SEEN)
    torch.testing.assert_close(block(x, gamma, text, SEEN), read + block.mlp(td_rms_norm(read, gamma[2])))


def test_a_block_that_says_nothing_of_the_text_is_the_transformer_block(shaken, generator):
    inner = shaken(TransformerBlock(6, 12, 2, "gelu", "sdpa").double())
    block = CrossAttentionBlock(inner, CrossAttention(6, 5, 2, "sdpa").double())
    torch.nn.init.zeros_(block.cross.out.weight)
    torch.nn.init.zeros_(block.cross.out.bias)
    x, text = inputs(generator)
    gamma = torch.randn(3, 2, 1, 6, generator=generator, dtype=torch.float64)
    assert torch.equal(block(x, gamma, text, SEEN), inner(x, gamma[[0, 2]]))


def test_text_is_left_as_it_is_where_there_is_any(shaken, generator):
    text = shaken(TextOrNull(5).double())
    _, context = inputs(generator)
    features, seen = text(context, SEEN, torch.tensor([False, False]))
    assert torch.equal(features, context)
    assert torch.equal(seen, SEEN)


def test_the_null_vector_stands_everywhere_in_a_null_row_and_in_one_without_text(shaken, generator):
    text = shaken(TextOrNull(5).double())
    context = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)
    mask = torch.stack([SEEN[0], torch.zeros(7, dtype=torch.bool), SEEN[1]])
    features, seen = text(context, mask, torch.tensor([True, False, False]))
    for row in (0, 1):
        assert torch.equal(features[row], text.null.expand(7, 5))
        assert seen[row].all()
    assert torch.equal(features[2], context[2])
    assert torch.equal(seen[2], SEEN[1])


def test_without_a_mask_every_token_is_text(shaken, generator):
    text = shaken(TextOrNull(5).double())
    _, context = inputs(generator)
    assert text(context, None, torch.tensor([True, False])).seen.all()


def test_features_of_any_precision_become_the_weights(generator):
    text = TextOrNull(5)
    context = torch.randn(2, 7, 5, generator=generator).bfloat16()
    assert text(context, SEEN, torch.tensor([True, False])).features.dtype == torch.float32

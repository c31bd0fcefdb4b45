from dataclasses import replace

import pytest
import torch
from cf_encoders import TextVE, TextVEConfig, released_text_ve, text_ve_preset
from cf_encoders.released_text_ve import PostNormLayer

TINY = TextVEConfig(
    kind="released", token_width=16, max_tokens=5, latent=(2, 3, 5), width=16, heads=2, depth=2, bottleneck=2
)


def tiny() -> TextVE:
    torch.manual_seed(0)
    return TextVE(TINY).double().eval()


def test_a_layer_is_torchs_post_norm_layer_but_for_its_norm(generator):
    ours = PostNormLayer(12, 3, 0.0).double().eval()
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 1024, 0.0, batch_first=True).double()
    attention, feed_forward = ours.attn, ours.feed_forward
    rows = (attention.W_Q, attention.W_K, attention.W_V)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([linear.weight for linear in rows]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([linear.bias for linear in rows]))
    theirs.self_attn.out_proj.load_state_dict(attention.W_O.state_dict())
    theirs.linear1.load_state_dict(feed_forward.ffn_1.state_dict())
    theirs.linear2.load_state_dict(feed_forward.ffn_2.state_dict())
    theirs.norm1, theirs.norm2 = ours.norm1, ours.norm2  # the one difference, tested above
    x = torch.randn(2, 6, 12, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [True, True, True, True, False, False]])
    expected = theirs(x, src_key_padding_mask=~mask)  # in train mode, off its fused path; dropout is 0
    torch.testing.assert_close(ours(x, mask), expected)


def test_first_half_of_the_projection_is_the_mean_in_channel_row_column_order(generator):
    ve = tiny()
    flat = torch.arange(60, dtype=torch.float64)
    with torch.no_grad():
        ve.body.linear.weight.zero_()
        ve.body.linear.bias.copy_(flat / 10)
    q = ve(torch.randn(1, 5, 16, generator=generator).double(), torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(q.mean[0], flat[:30].reshape(2, 3, 5) / 10)
    torch.testing.assert_close(q.logvar[0], flat[30:].reshape(2, 3, 5) / 10)


def test_masked_keys_are_not_read_but_padded_queries_are_flattened(generator):
    ve, mask = tiny(), torch.tensor([[True, True, True, False, False]])
    tokens = torch.randn(1, 5, 16, generator=generator).double()
    other = tokens.clone()
    other[:, 4] += 1.0
    layer = ve.body.layers[0]
    torch.testing.assert_close(layer(tokens, mask)[:, :4], layer(other, mask)[:, :4])
    assert (ve(tokens, mask).mean - ve(other, mask).mean).abs().max() > 1e-4


def test_keys_beyond_the_longest_caption_are_left_out_and_nothing_changes(generator, monkeypatch):
    torch.manual_seed(0)
    ve = TextVE(replace(TINY, max_tokens=33)).double().eval()
    tokens = torch.randn(2, 33, 16, generator=generator, dtype=torch.float64)
    mask = torch.arange(33)[None] < torch.tensor([[3], [4]])
    seen = []
    ve.body.layers[0].attn.W_K.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))

    def with_gradients():
        q = ve(tokens, mask)
        return q.mean, q.logvar, *torch.autograd.grad(q.kl().sum(), list(ve.parameters()))

    short = with_gradients()
    monkeypatch.setattr(released_text_ve, "readable", lambda mask: mask.shape[1])
    long = with_gradients()
    assert seen == [4, 33]
    for found, expected in zip(short, long, strict=True):
        torch.testing.assert_close(found, expected)


def test_in_training_residuals_are_thinned_although_the_config_says_no_dropout(generator):
    layer = PostNormLayer(16, 2, 0.0).double()
    x, mask = torch.randn(1, 5, 16, generator=generator).double(), torch.ones(1, 5, dtype=torch.bool)
    torch.manual_seed(0)
    assert not torch.equal(layer(x, mask), layer(x, mask))
    assert torch.equal(layer.eval()(x, mask), layer(x, mask))


@pytest.mark.parametrize("variation", ["none", "noise"])
@pytest.mark.parametrize("latent", [(2, 3, 5), (4, 64, 64)])
def test_without_a_learned_sigma_the_tail_writes_the_mean_only(variation, latent, generator):
    ve = TextVE(replace(TINY, latent=latent, variation=variation, sigma=1.0))
    q = ve(torch.randn(1, 5, 16, generator=generator), torch.ones(1, 5, dtype=torch.bool))
    assert q.mean.shape == q.logvar.shape == (1, *latent)
    tail = ve.body.linear or ve.body.adaptor.conv3
    assert len(tail.bias) == (2 * 3 * 5 if ve.body.linear else 4)


def test_t5s_tokens_are_narrowed_first(generator):
    ve = TextVE(replace(TINY, token_width=40))
    assert ve.body.compressor.fc1.weight.shape == (16, 40)
    q = ve(torch.randn(2, 5, 40, generator=generator), torch.ones(2, 5, dtype=torch.bool))
    assert q.mean.shape == (2, 2, 3, 5)


def test_a_64_by_64_latent_takes_the_convolutional_adaptor(generator):
    ve = TextVE(replace(TINY, latent=(4, 64, 64)))
    q = ve(torch.randn(1, 5, 16, generator=generator), torch.ones(1, 5, dtype=torch.bool))
    assert q.mean.shape == q.logvar.shape == (1, 4, 64, 64)
    (q.mean.sum() + q.logvar.sum()).backward()
    assert all(p.grad is not None for p in ve.parameters())


def test_its_names_are_those_of_the_public_checkpoint():
    with torch.device("meta"):
        names = set(TextVE(text_ve_preset("released-512-t5")).body.state_dict())
    expected = {
        "compressor.ln_fc1.bias",
        "layers.10.attn.W_Q.weight",
        "layers.0.feed_forward.ffn_2.bias",
        "layers.0.norm2.g",
        "reduction_layers.2.reduction.weight",
        "adaptor.ln_conv2.weight",
        "adaptor.conv3.bias",
    }
    assert expected <= names


def test_it_needs_exactly_its_token_count():
    with pytest.raises(ValueError, match=r"4 tokens, `released` needs exactly 5"):
        tiny()(torch.zeros(1, 4, 16).double(), torch.ones(1, 4, dtype=torch.bool))


def test_a_bottleneck_that_halving_never_reaches_is_refused():
    with pytest.raises(ValueError, match="halving width 16 never gives bottleneck 3"):
        TextVE(replace(TINY, bottleneck=3))

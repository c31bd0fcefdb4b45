import os
from dataclasses import replace

import pytest
import torch
from cf_encoders import TextVE, TextVEConfig, text_ve
from cf_encoders.layers import NeighbourBlock
from hypothesis import given, settings
from hypothesis import strategies as st

ODD = TextVEConfig(token_width=10, max_tokens=7, latent=(3, 6, 9), patch=3, width=12, heads=3, mlp_hidden=8)
SMALL = {
    "compact": ODD,
    "neighbours": replace(ODD, conv_depth=2, conv_kernel=3),  # compact too
    "paper": replace(ODD, kind="paper", bottleneck=5),
}
SIZE = {"width": 96, "heads": 4, "mlp_hidden": 96, "latent": (3, 24, 24)}


KINDS = {**SMALL, "released": replace(ODD, kind="released", width=12, heads=3, bottleneck=3)}
ULPS_OF_THE_PLAIN_ENCODER = 2e-6  # sigma 3e-7, six of them


def features(b: int, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens; sample i keeps n - i of them."""
    tokens = torch.randn(b, n, 10, generator=generator, dtype=torch.float64)
    return tokens, torch.arange(n)[None] < n - torch.arange(b)[:, None]


def encoder(kind: str) -> TextVE:
    torch.manual_seed(0)
    return TextVE(KINDS[kind]).double()


@pytest.mark.parametrize("kind", SMALL)
def test_the_posterior_has_the_latents_shape(kind, generator):
    q = encoder(kind)(*features(2, 7, generator))
    assert q.mean.shape == q.logvar.shape == (2, 3, 6, 9)


@pytest.mark.parametrize("kind", SMALL)
def test_a_padded_token_changes_nothing(kind, generator):
    ve = encoder(kind)
    tokens, mask = features(3, 7, generator)
    noise = torch.randn(tokens.shape, generator=generator, dtype=torch.float64)
    other = torch.where(mask[..., None], tokens, noise)
    torch.testing.assert_close(ve(tokens, mask).mean, ve(other, mask).mean)
    torch.testing.assert_close(ve(tokens, mask).logvar, ve(other, mask).logvar)


@pytest.mark.parametrize("kind", SMALL)
def test_padding_to_more_tokens_changes_nothing(kind, generator):
    ve = encoder(kind)
    tokens, mask = features(1, 4, generator)
    longer = torch.nn.functional.pad(tokens, (0, 0, 0, 3)), torch.nn.functional.pad(mask, (0, 3))
    torch.testing.assert_close(ve(tokens, mask).mean, ve(*longer).mean)


@pytest.mark.parametrize("kind", SMALL)
def test_every_real_token_and_the_order_of_tokens_matter(kind, generator):
    ve = encoder(kind)
    tokens, mask = features(1, 7, generator)
    mean = ve(tokens, mask).mean
    for i in range(7):
        other = tokens.clone()
        other[:, i] = torch.randn(10, generator=generator, dtype=torch.float64)
        assert (ve(other, mask).mean - mean).abs().max() > 1e-4
    assert (ve(tokens.flip(1), mask).mean - mean).abs().max() > 1e-4


@given(
    st.sampled_from(["compact", "paper", "released"]),
    st.integers(1, 9),
    st.integers(1, 11),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    st.sampled_from(["learned", "none", "noise"]),
)
@settings(max_examples=40, deadline=None)
def test_any_tokens_become_a_posterior_of_any_latents_shape(kind, token_width, n, cells, variation):
    c, h, w = cells
    config = TextVEConfig(
        token_width, n, (c, 2 * h, 2 * w), kind, 8, 2, 1, 5, bottleneck=2, patch=2, variation=variation
    )
    torch.manual_seed(0)
    ve = TextVE(config)
    tokens, lengths = torch.randn(3, n, token_width), torch.tensor([n, 1, 0])  # the last is all padding
    q = ve(tokens, torch.arange(n)[None] < lengths[:, None])
    assert q.mean.shape == q.logvar.shape == (3, c, 2 * h, 2 * w)
    q.sample(torch.Generator().manual_seed(0)).sum().backward()
    grads = [p.grad for p in ve.parameters() if p.grad is not None]
    assert all(value.isfinite().all() for value in (q.mean, q.logvar, *grads))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_in_padding_is_not_read(kind, value, generator):
    ve = encoder(kind)
    tokens, mask = features(3, 7, generator)
    spoilt = tokens.masked_fill(~mask[..., None], value)
    torch.testing.assert_close(ve(spoilt, mask).mean, ve(tokens, mask).mean)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_not_finite_does_not_spoil_the_others(kind, generator):
    ve = encoder(kind).eval()
    tokens, mask = features(3, 7, generator)
    spoilt = tokens.clone()
    spoilt[1, 2] = torch.inf
    torch.testing.assert_close(ve(spoilt, mask).mean[[0, 2]], ve(tokens, mask).mean[[0, 2]])
    assert not ve(spoilt, mask).mean[1].isfinite().all()


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("lengths", [(2, 3, 1), (2, 0, 3)])
def test_work_is_that_of_the_longest_caption_and_nothing_changes(kind, lengths, generator, monkeypatch):
    ve = encoder(kind)
    tokens, _ = features(3, 7, generator)
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    seen = []
    ve.body.embed.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))

    def with_gradients():
        q = ve(tokens, mask)
        return q.mean, q.logvar, *torch.autograd.grad(q.kl().sum(), list(ve.parameters()))

    short = with_gradients()
    monkeypatch.setattr(text_ve, "readable", lambda mask: mask.shape[1])
    long = with_gradients()
    assert seen == [7 if 0 in lengths else 3, 7]  # a sample of nothing but padding attends to all of it
    for found, expected in zip(short, long, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_encoder_samples_its_mean(kind, generator):
    torch.manual_seed(0)
    ve = TextVE(replace(KINDS[kind], variation="none")).double().eval()
    q = ve(*features(2, 7, generator))
    torch.testing.assert_close(q.sample(generator), q.mean, rtol=0, atol=ULPS_OF_THE_PLAIN_ENCODER)
    assert torch.equal(q.sample(generator, temperature=0.0), q.mean)
    assert torch.autograd.grad(q.kl().sum() - 0.5 * q.mean.square().sum(), q.mean)[0].abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_with_noise_has_the_sigma_of_its_config_and_never_another(kind, generator):
    torch.manual_seed(0)
    ve = TextVE(replace(KINDS[kind], variation="noise", sigma=1.3)).double().eval()
    q = ve(*features(2, 7, generator))
    torch.testing.assert_close(q.std, torch.full_like(q.std, 1.3))
    eps = torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(q.sample(torch.Generator().manual_seed(1)), q.mean + 1.3 * eps)
    assert not q.logvar.requires_grad


@pytest.mark.parametrize("kind", SMALL)
def test_the_same_seed_gives_all_variations_the_same_body(kind):
    def state(variation: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return TextVE(replace(SMALL[kind], variation=variation)).state_dict()

    learned, plain = state("learned"), state("none")
    assert set(learned) - set(plain) == {"body.logvar.weight", "body.logvar.bias"}
    shared = [name for name in plain if not name.startswith("body.mean")]
    assert all(torch.equal(learned[name], plain[name]) for name in shared)


def test_an_unknown_variation_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown variation 'nosie'; known: learned, none, noise"):
        replace(ODD, variation="nosie")


def test_each_query_of_the_compact_encoder_writes_its_own_patch(generator):
    ve = encoder("compact")
    before = ve(*features(1, 7, generator)).mean
    with torch.no_grad():
        ve.body.queries[4] += 1.0  # row 1, column 1 of the 2 x 3 patches
    changed = (ve(*features(1, 7, torch.Generator().manual_seed(0))).mean - before).abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros(6, 9, dtype=torch.bool)
    expected[3:6, 3:6] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("kind", SMALL)
def test_it_starts_with_the_sigma_and_the_spread_of_the_mean_of_its_config(kind, generator):
    torch.manual_seed(0)
    ve = TextVE(replace(SMALL[kind], **SIZE, mean_std=0.35, sigma=0.6)).double()
    q = ve(*features(4, 7, generator))
    torch.testing.assert_close(q.std, torch.full_like(q.std, 0.6))
    assert q.mean.std().item() == pytest.approx(0.35, rel=0.25)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_reach_every_parameter_and_the_tokens(kind, generator):
    ve = encoder(kind)
    tokens, mask = features(2, 7, generator)
    q = ve(tokens.requires_grad_(), mask)
    (q.sample(generator).square().sum() + q.kl().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ve.parameters())
    assert tokens.grad[mask].abs().sum() > 0
    assert tokens.grad[~mask].abs().sum() == 0


def test_the_scale_of_the_language_model_does_not_matter(generator):
    ve = encoder("compact")
    tokens, mask = features(2, 7, generator)
    torch.testing.assert_close(ve(tokens, mask).mean, ve(10 * tokens, mask).mean, rtol=1e-3, atol=1e-5)


def test_under_bfloat16_autocast_the_posterior_is_float32(generator):
    ve = encoder("compact").float()
    tokens, mask = features(2, 7, generator)
    with torch.autocast("cpu", torch.bfloat16):
        q = ve(tokens.float(), mask)
    assert q.mean.dtype == q.logvar.dtype == torch.float32


def test_tokens_the_encoder_cannot_read_are_refused(generator):
    ve = encoder("compact")
    with pytest.raises(ValueError, match=r"9 tokens.*max_tokens=7"):
        ve(*features(1, 9, generator))
    with pytest.raises(ValueError, match=r"6 wide.*token_width=10"):
        ve(torch.zeros(1, 7, 6).double(), torch.ones(1, 7, dtype=torch.bool))


@pytest.mark.compile
@pytest.mark.skipif(os.environ.get("CF_NO_TYPECHECK") != "1", reason="type checks break torch.compile")
@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_in_one_graph_and_agrees_with_itself(kind, generator):
    ve = encoder(kind).eval()
    tokens, mask = features(2, 7, generator)
    mask[:, 4:] = False  # run as it is, it leaves these out; a graph does not ask
    compiled = torch.compile(lambda t, m: ve(t, m).kl(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, mask), ve(tokens, mask).kl())


@pytest.mark.compile
@pytest.mark.skipif(os.environ.get("CF_NO_TYPECHECK") != "1", reason="type checks break torch.compile")
@pytest.mark.parametrize("kind", ["compact", "released"])
def test_training_with_dropout_compiles_in_one_graph(kind, generator):
    torch.manual_seed(0)
    ve = TextVE(replace(KINDS[kind], dropout=0.3)).double()
    tokens, mask = features(2, 7, generator)
    compiled = torch.compile(lambda t, m: ve(t, m).kl(), fullgraph=True, backend="aot_eager")
    compiled(tokens, mask).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ve.parameters())
    assert not torch.equal(compiled(tokens, mask), compiled(tokens, mask))


def test_the_convolutions_see_neighbours_and_no_one_else():
    torch.manual_seed(0)
    block = NeighbourBlock(8, kernel=3)
    x = torch.randn(1, 9, 8, requires_grad=True)
    mask = torch.ones(1, 9, dtype=torch.bool)
    block(x, mask)[0, 4].sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum(1) > 0).nonzero().flatten().tolist() == [3, 4, 5]


def test_the_gated_convolution_is_the_sum_written_by_hand():
    torch.manual_seed(0)
    block = NeighbourBlock(4, kernel=3).double()
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    normed = torch.nn.functional.layer_norm(x[0], (4,)) * mask[0][:, None]
    padded = torch.cat([torch.zeros(1, 4), normed, torch.zeros(1, 4)])
    weight, bias = block.conv.weight, block.conv.bias
    assert bias is not None
    for i in range(3):
        value, gate = (sum(weight[:, :, k] @ padded[i + k] for k in range(3)) + bias).chunk(2)
        torch.testing.assert_close(block(x, mask)[0, i], x[0, i] + value * gate * torch.sigmoid(gate))

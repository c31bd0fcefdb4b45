import os
from dataclasses import replace

import pytest
import torch
from cf_encoders import TextVE, TextVEConfig
from cf_encoders.layers import NeighbourBlock

ODD = TextVEConfig(token_width=10, max_tokens=7, latent=(3, 6, 9), patch=3, width=12, heads=3, mlp_hidden=8)
SMALL = {
    "compact": ODD,
    "neighbours": replace(ODD, conv_depth=2, conv_kernel=3),  # compact too
    "paper": replace(ODD, kind="paper", bottleneck=5),
}
SIZE = {"width": 96, "heads": 4, "mlp_hidden": 96, "latent": (3, 24, 24)}


def features(b: int, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens; sample i keeps n - i of them."""
    tokens = torch.randn(b, n, 10, generator=generator, dtype=torch.float64)
    return tokens, torch.arange(n)[None] < n - torch.arange(b)[:, None]


def encoder(kind: str) -> TextVE:
    torch.manual_seed(0)
    return TextVE(SMALL[kind]).double()


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
@pytest.mark.parametrize("kind", SMALL)
def test_it_compiles_in_one_graph_and_agrees_with_itself(kind, generator):
    ve = encoder(kind)
    tokens, mask = features(2, 7, generator)
    compiled = torch.compile(lambda t, m: ve(t, m).kl(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, mask), ve(tokens, mask).kl())


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

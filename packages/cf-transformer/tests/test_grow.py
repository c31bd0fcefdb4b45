import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cf_transformer import DiMR, DiMRConfig, StageConfig, preset
from cf_transformer.cross_attention_dimr import CrossAttentionConfig, CrossAttentionDiMR
from cf_transformer.grow import grow_resolution, grown_config, widen_context

SIZE = (4, 10)


def small(generator: torch.Generator) -> DiMR:
    """Two stages on 2 x 5 and 4 x 10 cells."""
    stages = StageConfig("transformer", 8, 3, patch=2, n_heads=2), StageConfig("convnext", 6, 3, patch=1)
    return DiMR(DiMRConfig(3, SIZE, stages, kernel_size=3), generator).double()


def sample(generator: torch.Generator, size: tuple[int, int]):
    x_t = torch.randn(3, 3, *size, generator=generator, dtype=torch.float64)
    return x_t, torch.rand(3, generator=generator, dtype=torch.float64), torch.tensor([True, False, False])


@pytest.mark.parametrize("n", [1, 2])
def test_the_old_stages_see_every_input_pooled(n, shaken, generator):
    model = shaken(small(generator))
    grown = grow_resolution(model, n)
    x_t, t, is_null = sample(generator, grown.config.size)
    expected = model.scales(F.avg_pool2d(x_t, 2**n), t, is_null)
    for ours, theirs in zip(grown.scales(x_t, t, is_null)[:-n], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_the_old_stages_say_the_same_of_an_enlarged_input(n, shaken, generator):
    model = shaken(small(generator))
    grown = grow_resolution(model, n)
    x_t, t, is_null = sample(generator, SIZE)
    enlarged = F.interpolate(x_t, scale_factor=2**n, mode="nearest")
    for ours, theirs in zip(
        grown.scales(enlarged, t, is_null)[:-n], model.scales(x_t, t, is_null), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_new_stage_says_nothing_at_first_and_all_of_it_learns(shaken, generator):
    grown = grow_resolution(shaken(small(generator)), generator=generator)
    x_t, t, is_null = sample(generator, grown.config.size)
    assert not grown(x_t, t, is_null).any()
    optimiser = torch.optim.SGD(grown.parameters(), lr=0.1)
    for _ in range(3):  # the head first, then the rest, then w and b of its norms, whose ends have separated
        optimiser.zero_grad()
        (grown(x_t, t, is_null) - x_t).square().mean().backward()
        optimiser.step()
    new = [p for part in (grown.stages[-1], grown.cascades[-1], grown.heads[-1]) for p in part.parameters()]
    assert all(p.grad.any() for p in new)


def test_the_old_model_is_left_as_it_was_and_shares_nothing(shaken, generator):
    model = shaken(small(generator))
    before = copy.deepcopy(model.state_dict())
    grown = grow_resolution(model)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.config.size == SIZE


def test_the_published_model_grows_into_the_published_512_pixel_model():
    assert grown_config(preset("dimr-951m")) == preset("dimr-951m-512")
    assert grown_config(preset("dimr-951m"), 2) == grown_config(preset("dimr-951m-512"))


def test_all_but_the_patches_of_the_published_model_carries_over_unchanged():
    """As in the public 256 to 512 surgery: two patch convolutions change their shape, one stage is new."""
    with torch.device("meta"):
        model = DiMR(preset("dimr-951m"))
    before, after = model.state_dict(), grow_resolution(model).state_dict()
    changed = {name for name, tensor in before.items() if after[name].shape != tensor.shape}
    assert changed == {f"stages.{s}.embed.project.weight" for s in (0, 1)}
    assert all(
        name.startswith(("stages.2.", "cascades.1.", "heads.2.")) for name in after.keys() - before.keys()
    )


def test_a_generator_decides_the_new_stage(generator):
    model = small(generator)
    one, same, other = (grow_resolution(model, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    name = "stages.2.blocks.0.mlp.w_in.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


def test_the_grown_model_keeps_the_precision_and_the_switches_of_the_old(generator):
    config = replace(small(generator).config, indicator="released", activation="silu", attention="matmul")
    grown = grow_resolution(DiMR(config, generator).bfloat16())
    assert {parameter.dtype for parameter in grown.parameters()} == {torch.bfloat16}
    assert replace(grown.config, size=config.size, stages=config.stages) == config


@pytest.mark.parametrize("query_key", ["norm", "norm+rope"])
def test_models_with_qk_norm_and_rope_grow_too(query_key, shaken, generator):
    config = replace(small(generator).config, query_key=query_key)
    model = shaken(DiMR(config, generator).double())
    grown = grow_resolution(model)
    x_t, t, is_null = sample(generator, grown.config.size)
    expected = model(F.avg_pool2d(x_t, 2), t, is_null)
    torch.testing.assert_close(grown.scales(x_t, t, is_null)[1], expected, rtol=1e-12, atol=1e-12)


def test_what_cannot_grow_is_refused(generator):
    coarse = DiMRConfig(3, (4, 6), (StageConfig("transformer", 8, 1, patch=2, n_heads=2),))
    with pytest.raises(ValueError, match="whose last stage has patch 1 can grow, got patch 2"):
        grow_resolution(DiMR(coarse, generator))
    with pytest.raises(ValueError, match="n_new_stages must be at least 1, got 0"):
        grow_resolution(small(generator), 0)


def test_wider_text_is_read_as_its_first_channels_were(shaken, generator):
    model = shaken(CrossAttentionDiMR(CrossAttentionConfig(small(generator).config, 5), generator).double())
    before = copy.deepcopy(model.state_dict())
    widened = widen_context(model, 8)
    x_t, t, is_null = sample(generator, SIZE)
    context = torch.randn(3, 7, 8, generator=generator, dtype=torch.float64)
    expected = model(x_t, t, is_null, context=context[..., :5])
    v = widened(x_t, t, is_null, context=context)
    torch.testing.assert_close(v, expected, rtol=1e-12, atol=1e-12)
    v.square().mean().backward()
    assert all(block.cross.kv.weight.grad[:, 5:].any() for block in widened.dimr.stages[0].blocks)
    with torch.no_grad():
        widened.text.null.fill_(3.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert widened.config == CrossAttentionConfig(model.config.dimr, 8)


def test_the_same_width_is_a_copy_and_a_smaller_one_is_refused(generator):
    model = CrossAttentionDiMR(CrossAttentionConfig(small(generator).config, 5), generator)
    copied = widen_context(model, 5).state_dict()
    assert all(torch.equal(tensor, copied[name]) for name, tensor in model.state_dict().items())
    assert copied["text.null"].data_ptr() != model.text.null.data_ptr()
    with pytest.raises(ValueError, match="context_width can only grow: 5 to 4"):
        widen_context(model, 4)

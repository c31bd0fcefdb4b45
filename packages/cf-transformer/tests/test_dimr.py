import copy
from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, StageConfig

AUTOCAST_TOLERANCE = 0.05  # bf16 keeps 8 bits; errors of a dozen products add up


def sample(config: DiMRConfig, generator: torch.Generator, b: int = 3):
    x_t = torch.randn(b, config.channels, *config.size, generator=generator)
    return x_t, torch.rand(b, generator=generator), torch.rand(b, generator=generator) < 0.5


def test_a_fresh_model_does_not_depend_on_t(config, generator):
    model = DiMR(config, generator)
    x_t, t, is_null = sample(config, generator)
    assert torch.equal(model(x_t, t, is_null), model(x_t, 1 - t, is_null))


def test_one_step_breaks_the_symmetry_of_time(config, generator):
    model = DiMR(config, generator)
    x_t, t, is_null = sample(config, generator)
    model(x_t, t, is_null).square().mean().backward()
    for name, parameter in model.named_parameters():
        if name.endswith((".w", ".b")):
            assert parameter.grad is None or not parameter.grad.any()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.allclose(model(x_t, t, is_null), model(x_t, 1 - t, is_null))


def test_every_parameter_but_the_lower_heads_reaches_the_velocity(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    model(*sample(config, generator)).square().mean().backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    lower_heads = ("heads.0.", "heads.1.")
    assert unused == {name for name, _ in model.named_parameters() if name.startswith(lower_heads)}


def test_every_parameter_reaches_the_scales(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    sum(v.square().mean() for v in model.scales(*sample(config, generator))).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_the_last_scale_is_the_velocity_and_the_others_have_their_stages_grid(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    x_t, t, is_null = sample(config, generator)
    scales = model.scales(x_t, t, is_null)
    assert [tuple(v.shape) for v in scales] == [(3, 3, 1, 3), (3, 3, 2, 6), (3, 3, 6, 18)]
    assert torch.equal(scales[-1], model(x_t, t, is_null))


def test_the_velocity_does_not_wait_for_the_lower_heads(config, generator):
    model = DiMR(config, generator)
    del model.heads[0].conv, model.heads[1].conv
    assert model(*sample(config, generator)).shape == (3, 3, 6, 18)


def test_samples_of_a_batch_do_not_meet(config, shaken, generator):
    model = shaken(DiMR(config, generator).double())
    x_t, t, is_null = sample(config, generator, b=5)
    together = model(x_t.double(), t.double(), is_null)
    alone = [model(x_t[i, None].double(), t[i, None].double(), is_null[i, None]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_input_is_left_as_it_was(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    inputs = sample(config, generator)
    before = copy.deepcopy(inputs)
    model.scales(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize(
    ("size", "stages"),
    [
        ((5, 3), [("transformer", 6, 1, 1, 1)]),
        ((9, 6), [("transformer", 6, 3, 3, 3)]),
        ((4, 10), [("transformer", 8, 3, 2, 2), ("transformer", 4, 1, 1, 1)]),
        ((6, 10), [("transformer", 8, 3, 2, 2), ("convnext", 5, 3, 2, None)]),
        ((7, 7), [("transformer", 8, 1, 7, 2), ("convnext", 5, 1, 1, None), ("convnext", 3, 1, 1, None)]),
        ((16, 8), [("transformer", 8, 1, 8, 2), ("convnext", 5, 1, 4, None), ("transformer", 6, 1, 2, 3)]),
    ],
)
@pytest.mark.parametrize("channels", [1, 5])
def test_any_stages_fit_any_size_that_their_patches_divide(size, stages, channels, generator):
    config = DiMRConfig(channels, size, tuple(StageConfig(*stage) for stage in stages))
    x_t, t, is_null = sample(config, generator)
    model = DiMR(config, generator)
    assert model(x_t, t, is_null).shape == (3, channels, *size)
    for v, stage in zip(model.scales(x_t, t, is_null)[:-1], config.stages, strict=False):
        assert v.shape == (3, channels, size[0] // stage.patch, size[1] // stage.patch)


def test_both_attentions_are_the_same_model(config, shaken, generator):
    model = shaken(DiMR(config, generator).double())
    twin = DiMR(replace(config, attention="matmul")).double()
    twin.load_state_dict(model.state_dict())
    x_t, t, is_null = sample(config, generator)
    args = x_t.double(), t.double(), is_null
    torch.testing.assert_close(twin(*args), model(*args))


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_bf16_autocast_stays_close_and_returns_the_inputs_precision(attention, config, shaken, generator):
    model = shaken(DiMR(replace(config, attention=attention), generator))
    x_t, t, is_null = sample(config, generator)
    exact = model(x_t, t, is_null)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x_t, t, is_null)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < AUTOCAST_TOLERANCE * exact.norm()
    rough.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("autocast", [False, True])
def test_a_model_with_bf16_weights_stays_close(autocast, config, shaken, generator):
    model = shaken(DiMR(config, generator))
    x_t, t, is_null = sample(config, generator)
    exact = model(x_t, t, is_null)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough = model.bfloat16()(x_t if autocast else x_t.bfloat16(), t, is_null)
    assert (rough - exact).norm() < AUTOCAST_TOLERANCE * exact.norm()


def test_a_model_can_be_copied_and_reloaded(config, shaken, generator):
    model = shaken(DiMR(config, generator))
    args = sample(config, generator)
    twin = DiMR(DiMRConfig.from_dict(config.to_dict()))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(copy.deepcopy(model)(*args), twin(*args))


def test_the_first_map_of_a_middle_stage_holds_what_it_was_handed(config, shaken, generator):
    """m = 0 is patch + position plus the cascade contribution, without the indicator token."""
    model = shaken(DiMR(config, generator))
    x_t, t, is_null = sample(config, generator)
    seen = []
    hand_over = model.cascades[1].forward

    def watch(maps, t):
        seen.extend(maps)
        return hand_over(seen, t)

    model.cascades[1].forward = watch
    model(x_t, t, is_null)
    low, middle, _ = model.stages
    maps = low.features(low.embed(x_t), t, model.indicator(is_null))
    expected = middle.embed(x_t) + model.cascades[0](maps, t)[1]
    torch.testing.assert_close(seen[0], expected)
    assert len(seen) == config.stages[1].n_blocks + 1


@pytest.mark.parametrize(
    ("x_shape", "t_shape", "message"),
    [
        ((2, 3, 18, 6), (2,), r"x_t must be \(b, 3, 6, 18\), got \(2, 3, 18, 6\)"),
        ((2, 3, 6, 18), (1,), r"t must be \(b,\) = \(2,\), got \(1,\); use t.expand\(b\)"),
    ],
)
def test_a_wrong_shape_is_named_with_its_remedy(x_shape, t_shape, message, config):
    read = DiMR(config).read  # the public call is stopped earlier by the shape checks of these tests
    with pytest.raises(ValueError, match=message):
        read(torch.zeros(x_shape), torch.zeros(t_shape), None)

import copy
import json
from dataclasses import replace

import pytest
import torch
from cf_transformer import DiMR, DiMRConfig, StageConfig, no_decay_names
from cf_transformer.cross_attention_dimr import CrossAttentionConfig, CrossAttentionDiMR

AUTOCAST_TOLERANCE = 0.05  # bf16 keeps 8 bits; errors of a dozen products add up
NULL, COND = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)


@pytest.fixture
def reader(config: DiMRConfig) -> CrossAttentionConfig:
    """The odd little DiMR of these tests, reading tokens of width 5."""
    return CrossAttentionConfig(config, context_width=5)


@pytest.fixture
def model(reader, shaken, generator) -> CrossAttentionDiMR:
    return shaken(CrossAttentionDiMR(reader, generator).double())


def sample(generator: torch.Generator, dtype: torch.dtype = torch.float64):
    """x_t, t of four rows; text of 7 tokens and its mask, a different number of tokens in every row."""
    x_t = torch.randn(4, 3, 6, 18, generator=generator, dtype=dtype)
    t = torch.rand(4, generator=generator, dtype=dtype)
    context = torch.randn(4, 7, 5, generator=generator, dtype=dtype)
    return x_t, t, {"context": context, "context_mask": torch.arange(7) < torch.tensor([[1], [4], [6], [7]])}


def test_every_row_reads_its_own_text_and_no_other(model, generator):
    x_t, t, text = sample(generator)
    v = model(x_t, t, COND, **text)
    changed = {**text, "context": text["context"].clone()}
    changed["context"][2, 3] += 1.0
    other = model(x_t, t, COND, **changed)
    assert not torch.allclose(other[2], v[2])
    for row in (0, 1, 3):
        torch.testing.assert_close(other[row], v[row])


def test_masked_text_has_no_influence(model, generator):
    x_t, t, text = sample(generator)
    noise = 100 * torch.randn(4, 7, 5, generator=generator, dtype=torch.float64)
    other = torch.where(text["context_mask"][..., None], text["context"], noise)
    assert torch.equal(model(x_t, t, COND, **{**text, "context": other}), model(x_t, t, COND, **text))


def test_a_null_row_does_not_depend_on_its_text_at_all(model, generator):
    x_t, t, text = sample(generator)
    is_null = torch.tensor([True, False, True, False])
    context = text["context"].requires_grad_()
    scales = model.scales(x_t, t, is_null, **text)
    (gradient,) = torch.autograd.grad(sum(v.square().sum() for v in scales), context)
    assert [bool(row.any()) for row in gradient] == [False, True, False, True]
    other = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)  # shorter, too, and without a mask
    torch.testing.assert_close(model(x_t, t, NULL, context=other), model(x_t, t, NULL, **text))


def test_the_unconditional_velocity_comes_from_the_null_vector(model, generator):
    x_t, t, text = sample(generator)
    before = model(x_t, t, NULL, **text), model(x_t, t, COND, **text)
    with torch.no_grad():
        model.text.null.add_(1.0)
    after = model(x_t, t, NULL, **text), model(x_t, t, COND, **text)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_no_text_at_all_is_the_null_text(model, generator):
    """An empty caption and a null row differ by the indicator alone."""
    x_t, t, text = sample(generator)
    text["context_mask"][1] = False
    with torch.no_grad():
        model.dimr.indicator.unconditional.copy_(model.dimr.indicator.conditional)
    torch.testing.assert_close(model(x_t, t, COND, **text)[1], model(x_t, t, NULL, **text)[1])


def test_the_order_of_text_tokens_does_not_matter(model, generator):
    x_t, t, text = sample(generator)
    order = torch.randperm(7, generator=generator)
    shuffled = {name: value[:, order] for name, value in text.items()}
    torch.testing.assert_close(model(x_t, t, COND, **shuffled), model(x_t, t, COND, **text))


def test_a_model_that_ignores_the_text_is_the_dimr_of_the_same_seed(reader, generator):
    model = CrossAttentionDiMR(reader, torch.Generator().manual_seed(3))
    for stage in model.dimr.stages:
        for block in stage.blocks:
            if hasattr(block, "cross"):
                torch.nn.init.zeros_(block.cross.out.weight)
    x_t, t, text = sample(generator, torch.float32)
    is_null = torch.tensor([True, False, True, False])
    plain = DiMR(reader.dimr, torch.Generator().manual_seed(3))
    for v, expected in zip(model.scales(x_t, t, is_null, **text), plain.scales(x_t, t, is_null), strict=True):
        torch.testing.assert_close(v, expected)


def test_the_forward_pass_is_the_sum_of_its_parts(generator, shaken):
    """One transformer stage of one block, written out."""
    stages = (StageConfig("transformer", 8, 1, patch=2, n_heads=2),)
    reader = CrossAttentionConfig(DiMRConfig(3, (4, 6), stages), context_width=5)
    model = shaken(CrossAttentionDiMR(reader, generator).double())
    x_t, t, text = sample(generator)
    x_t, is_null = x_t[..., :4, :6], torch.tensor([False, True, False, True])
    (stage,), (head,) = model.dimr.stages, model.dimr.heads
    tokens = torch.cat([model.dimr.indicator(is_null), stage.embed(x_t)], dim=1)
    features, seen = model.text(text["context"], text["context_mask"], is_null)
    tokens = stage.blocks[0](tokens, stage.gains(t), features, seen)
    torch.testing.assert_close(model(x_t, t, is_null, **text), head(tokens[:, 1:], t))


def test_every_transformer_stage_reads_and_no_convnext_does():
    stages = (
        StageConfig("transformer", 8, 3, 4, 2),
        StageConfig("convnext", 6, 1, 2),
        StageConfig("transformer", 4, 1, 1, 1),
    )
    model = CrossAttentionDiMR(CrossAttentionConfig(DiMRConfig(3, (4, 8), stages, kernel_size=3), 5))
    readers = [[hasattr(block, "cross") for block in stage.blocks] for stage in model.dimr.stages]
    assert readers == [[True] * 3, [False], [True]]
    assert [len(stage.gains.w) for stage in model.dimr.stages] == [9, 1, 3]
    x_t, context = torch.randn(2, 3, 4, 8), torch.randn(2, 7, 5)
    assert model(x_t, torch.rand(2), context=context).shape == x_t.shape


def test_guidance_may_stack_its_two_halves(model, generator):
    x_t, t, text = sample(generator)
    v = model.given(**text)
    together = v(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([COND, NULL]))
    apart = torch.cat([model(x_t, t, is_null, **text) for is_null in (COND, NULL)])
    torch.testing.assert_close(together, apart)
    assert torch.equal(v(x_t, t), model(x_t, t, COND, **text))
    with pytest.raises(ValueError, match="4 texts were given for 3 rows; pass a multiple"):
        v(x_t[:3], t[:3])


def test_every_parameter_reaches_the_scales(model, generator):
    x_t, t, text = sample(generator)
    is_null = torch.tensor([True, False, True, False])
    sum(v.square().mean() for v in model.scales(x_t, t, is_null, **text)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("recompute", ["cheap", "blocks"])
def test_recomputing_changes_no_gradient(recompute, reader, model, generator):
    twin = CrossAttentionDiMR(replace(reader, dimr=replace(reader.dimr, recompute=recompute))).double()
    twin.load_state_dict(model.state_dict())
    x_t, t, text = sample(generator)
    gradients = []
    for network in (model, twin):
        context = text["context"].clone().requires_grad_()
        sum(v.square().sum() for v in network.scales(x_t, t, COND, **{**text, "context": context})).backward()
        gradients.append([context.grad, *(p.grad for p in network.parameters() if p.grad is not None)])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_call_leaves_the_model_and_its_inputs_as_they_were(model, generator):
    x_t, t, text = sample(generator)
    before = copy.deepcopy((x_t, t, text)), [vars(module).copy() for module in model.modules()]
    model.scales(x_t, t, NULL, **text)
    assert [vars(module) for module in model.modules()] == before[1]
    torch.testing.assert_close((x_t, t, text), before[0], rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_bf16_autocast_stays_close(attention, reader, shaken, generator):
    reader = replace(reader, dimr=replace(reader.dimr, attention=attention))
    model = shaken(CrossAttentionDiMR(reader, generator))
    x_t, t, text = sample(generator, torch.float32)
    exact = model(x_t, t, COND, **text)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x_t, t, COND, **text)
    assert (rough - exact).norm() < AUTOCAST_TOLERANCE * exact.norm()
    rough.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_generator_decides_every_weight(reader):
    first, second, other = (
        CrossAttentionDiMR(reader, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.text.null, other.text.null)


def test_norm_gains_and_the_null_vector_do_not_decay(reader):
    spared = no_decay_names(CrossAttentionDiMR(reader))
    assert {"text.null", "dimr.stages.0.gains.w", "dimr.stages.0.blocks.0.cross.out.bias"} < spared
    assert not any(
        name.endswith(("cross.q.weight", "cross.kv.weight", "cross.out.weight")) for name in spared
    )


def test_a_config_survives_json(reader):
    assert CrossAttentionConfig.from_dict(json.loads(json.dumps(reader.to_dict()))) == reader
    with pytest.raises(
        ValueError, match="unknown CrossAttentionConfig key 'width'; known: dimr, context_width"
    ):
        CrossAttentionConfig.from_dict({**reader.to_dict(), "width": 3})
    with pytest.raises(ValueError, match="context_width must be a whole number >= 1, got 0"):
        replace(reader, context_width=0)


@pytest.mark.parametrize(
    ("context", "mask", "message"),
    [
        ((4, 7, 6), None, r"context must be \(b, l, d\) = \(4, l >= 1, 5\), got \(4, 7, 6\)"),
        ((3, 7, 5), None, r"context must be .* got \(3, 7, 5\)"),
        ((4, 0, 5), None, r"context must be .* got \(4, 0, 5\)"),
        ((7, 5), None, r"context must be .* got \(7, 5\)"),
        ((4, 7, 5), (4, 6), r"context_mask must be \(b, l\) = \(4, 7\), got \(4, 6\)"),
    ],
)
def test_a_wrong_shape_is_named_with_its_remedy(context, mask, message, reader):
    read = CrossAttentionDiMR(reader)._read_text  # the public call is stopped earlier by the shape checks
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        read(torch.zeros(context), mask, torch.zeros(4, 3, 6, 18), None)


@pytest.mark.compile
def test_the_compiled_model_is_one_graph_and_equals_eager(shaken, generator):
    stages = (StageConfig("transformer", 8, 1, patch=2, n_heads=2), StageConfig("convnext", 4, 1, patch=1))
    reader = CrossAttentionConfig(DiMRConfig(3, (4, 6), stages, kernel_size=3), context_width=5)
    model = shaken(CrossAttentionDiMR(reader, generator))
    x_t, t, text = sample(generator, torch.float32)
    args = x_t[..., :4, :6], t, torch.tensor([True, False, True, False])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")  # no code generation: quick
    torch.testing.assert_close(compiled(*args, **text), model(*args, **text), rtol=1e-4, atol=1e-5)
    parameters = [p for name, p in model.named_parameters() if not name.startswith("dimr.heads.0.")]
    ours = torch.autograd.grad(compiled(*args, **text).square().sum(), parameters)
    eager = torch.autograd.grad(model(*args, **text).square().sum(), parameters)
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cf_transformer import count_parameters, no_decay_names
from cf_transformer.dit import DiT, DiTBlock
from cf_transformer.dit_config import DiTConfig

AUTOCAST_TOLERANCE = 0.05  # bf16 keeps 8 bits; errors of a dozen products add up


@pytest.fixture
def dit() -> DiTConfig:
    """Three channels on an odd, non-square grid of 2 x 5 tokens."""
    return DiTConfig(channels=3, size=(6, 15), d_model=12, n_blocks=3, n_heads=3, patch=3)


def sample(config: DiTConfig, generator: torch.Generator, b: int = 3, dtype: torch.dtype = torch.float32):
    x_t = torch.randn(b, config.channels, *config.size, generator=generator, dtype=dtype)
    return x_t, torch.rand(b, generator=generator, dtype=dtype), torch.arange(b) % 2 == 0


def norm_by_hand(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean()
    return centred / ((centred**2).mean() + 1e-6) ** 0.5


def linear_by_hand(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([row @ x for row in layer.weight]) + layer.bias


def block_by_hand(block: DiTBlock, tokens: list[torch.Tensor], condition: torch.Tensor, n_heads: int):
    """One sample, one token, one query of one head at a time; rows [shift, scale, gate] twice."""
    d, e = len(condition), len(condition) // n_heads
    rows = linear_by_hand(block.modulation, condition)
    h1, s1, g1, h2, s2, g2 = (rows[i * d : (i + 1) * d] for i in range(6))
    fused = [linear_by_hand(block.attention.qkv, norm_by_hand(x) * (1 + s1) + h1) for x in tokens]
    q, k, v = ([x[i * d : (i + 1) * d] for x in fused] for i in range(3))
    seen = []
    for query in q:
        heads = []
        for head in range(n_heads):
            own = slice(head * e, (head + 1) * e)
            weights = torch.softmax(torch.stack([key[own] @ query[own] for key in k]) / e**0.5, dim=0)
            heads.append(sum(w * value[own] for w, value in zip(weights, v, strict=True)))
        seen.append(torch.cat(heads))
    tokens = [x + g1 * linear_by_hand(block.attention.out, y) for x, y in zip(tokens, seen, strict=True)]
    outputs = []
    for x in tokens:
        u = linear_by_hand(block.w1, norm_by_hand(x) * (1 + s2) + h2)
        gelu = 0.5 * u * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (u + 0.044715 * u**3)))
        outputs.append(x + g2 * linear_by_hand(block.w2, gelu))
    return outputs


def velocity_by_hand(model: DiT, x_t: torch.Tensor, t: float, is_null: bool) -> torch.Tensor:
    """One sample, as the paper draws it."""
    config, d, p = model.config, model.config.d_model, model.config.patch
    rows, columns = config.grid
    frequencies = 10_000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    angles = config.time_scale * t * frequencies
    hidden = linear_by_hand(model.time.w1, torch.cat([torch.cos(angles), torch.sin(angles)]))
    time = linear_by_hand(model.time.w2, hidden / (1 + torch.exp(-hidden)))
    total = time + (model.indicator.unconditional if is_null else model.indicator.conditional)
    condition = total / (1 + torch.exp(-total))
    tokens = []
    for y in range(rows):
        for x in range(columns):
            cell = x_t[:, y * p : (y + 1) * p, x * p : (x + 1) * p]
            token = (model.embed.project.weight * cell).sum(dim=(1, 2, 3)) + model.embed.project.bias
            f = 10_000.0 ** (-torch.arange(d // 4, dtype=torch.float64) / (d // 4))
            tokens.append(token + torch.cat([(x * f).sin(), (x * f).cos(), (y * f).sin(), (y * f).cos()]))
    for block in model.blocks:
        tokens = block_by_hand(block, tokens, condition, config.n_heads)
    shift, scale = linear_by_hand(model.head.modulation, condition).split(d)
    v = torch.empty_like(x_t)
    for i, x in enumerate(tokens):
        pixels = linear_by_hand(model.head.project, norm_by_hand(x) * (1 + scale) + shift)
        for index, value in enumerate(pixels):  # index = (row in patch, column in patch, channel)
            row, column, channel = (
                index // (p * config.channels),
                index // config.channels % p,
                index % config.channels,
            )
            v[channel, i // columns * p + row, i % columns * p + column] = value
    return v


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
@pytest.mark.parametrize("time_scale", [1000.0, 1.0])
def test_the_velocity_is_the_formula_token_by_token(attention, time_scale, dit, shaken, generator):
    config = replace(dit, attention=attention, time_scale=time_scale, n_blocks=2, size=(6, 9))
    model = shaken(DiT(config, generator).double())
    x_t, t, is_null = sample(config, generator, b=2, dtype=torch.float64)
    with torch.no_grad():
        v = model(x_t, t, is_null)
        by_hand = [velocity_by_hand(model, x_t[i], t[i].item(), bool(is_null[i])) for i in range(2)]
    torch.testing.assert_close(v, torch.stack(by_hand), rtol=1e-9, atol=1e-10)


def test_a_fresh_model_is_zero_and_its_blocks_change_nothing(dit, generator):
    model = DiT(dit, generator)
    x_t, t, is_null = sample(dit, generator)
    assert not model(x_t, t, is_null).any()
    x, condition = (
        torch.randn(3, 10, 12, generator=generator),
        torch.randn(3, 1, 12, generator=generator),
    )
    for block in model.blocks:
        assert torch.equal(block(x, condition), x)


def test_the_first_steps_reach_every_parameter(dit, generator):
    """adaLN-Zero opens from the output inwards: first the output layer, then the gates, then all the rest."""
    model = DiT(dit, generator)
    x_t, t, is_null = sample(dit, generator)
    target = torch.randn(x_t.shape, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    moved = []
    for _ in range(3):
        optimizer.zero_grad()
        (model(x_t, t, is_null) - target).square().mean().backward()
        moved.append({name for name, p in model.named_parameters() if p.grad.any()})
        optimizer.step()
    assert moved[0] == {"head.project.weight", "head.project.bias"}
    assert moved[0] < moved[1] < moved[2] == {name for name, _ in model.named_parameters()}


def test_the_scales_of_a_dit_are_its_velocity_alone(dit, shaken, generator):
    model = shaken(DiT(dit, generator))
    args = sample(dit, generator)
    (scale,) = model.scales(*args)
    assert torch.equal(scale, model(*args))


def test_the_indicator_acts_through_its_vectors_alone(dit, shaken, generator):
    model = shaken(DiT(dit, generator))
    x_t, t, _ = sample(dit, generator)
    null, cond = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    assert not torch.allclose(model(x_t, t, null), model(x_t, t, cond))
    assert torch.equal(model(x_t, t), model(x_t, t, cond))
    with torch.no_grad():
        model.indicator.unconditional.copy_(model.indicator.conditional)
    assert torch.equal(model(x_t, t, null), model(x_t, t, cond))


def test_the_released_time_scale_hardly_tells_times_apart(dit, shaken, generator):
    t = torch.tensor([0.50, 0.52])
    model = shaken(DiT(dit, generator))
    twin = DiT(replace(dit, time_scale=1.0))
    twin.load_state_dict(model.state_dict())
    ours, released = (network.time(t) for network in (model, twin))
    assert (ours[0] - ours[1]).norm() > 10 * (released[0] - released[1]).norm()


def test_without_positions_a_dit_does_not_know_the_order_of_cells(dit, shaken, generator, monkeypatch):
    model = shaken(DiT(dit, generator).double())
    x_t, t, is_null = sample(dit, generator, dtype=torch.float64)
    order = torch.randperm(10, generator=generator)

    def shuffled(image: torch.Tensor) -> torch.Tensor:
        cells = F.unfold(image, kernel_size=3, stride=3)
        return F.fold(cells[..., order], dit.size, kernel_size=3, stride=3)

    assert not torch.allclose(model(shuffled(x_t), t, is_null), shuffled(model(x_t, t, is_null)))
    monkeypatch.setattr(
        "cf_transformer.dit.grid_positions", lambda grid, d, like: torch.zeros(10, d).to(like)
    )
    torch.testing.assert_close(model(shuffled(x_t), t, is_null), shuffled(model(x_t, t, is_null)))


def test_samples_of_a_batch_do_not_meet(dit, shaken, generator):
    model = shaken(DiT(dit, generator).double())
    x_t, t, is_null = sample(dit, generator, b=5, dtype=torch.float64)
    alone = [model(x_t[i, None], t[i, None], is_null[i, None]) for i in range(5)]
    torch.testing.assert_close(model(x_t, t, is_null), torch.cat(alone))


@pytest.mark.parametrize(("size", "patch"), [((5, 3), 1), ((9, 6), 3), ((4, 10), 2), ((7, 7), 7)])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_size_that_the_patch_divides(size, patch, channels, generator):
    config = DiTConfig(channels, size, d_model=8, n_blocks=1, n_heads=2, patch=patch)
    x_t, t, is_null = sample(config, generator)
    assert DiT(config, generator)(x_t, t, is_null).shape == (3, channels, *size)


@pytest.mark.parametrize("recompute", ["cheap", "blocks"])
def test_recomputing_changes_no_gradient(recompute, dit, shaken, generator):
    model = shaken(DiT(dit, generator))
    twin = DiT(replace(dit, recompute=recompute))
    twin.load_state_dict(model.state_dict())
    args = sample(dit, generator)
    for network in (model, twin):
        network(*args).square().sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_block_that_is_computed_twice_keeps_its_input_only(dit, generator, kept_by):
    kept = {}
    for recompute in ("nothing", "blocks"):
        model = DiT(replace(dit, recompute=recompute), generator)
        args = sample(dit, generator)
        kept[recompute] = kept_by(lambda model=model, args=args: model(*args), [*model.parameters(), *args])
    assert kept["blocks"] < 0.3 * kept["nothing"]


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_low_precision_stays_close_and_returns_the_inputs_precision(weights, dit, shaken, generator):
    model = shaken(DiT(dit, generator))
    x_t, t, is_null = sample(dit, generator)
    exact = model(x_t, t, is_null)
    model, x_t = model.to(weights), x_t.to(weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        rough = model(x_t, t, is_null)
    assert rough.dtype == weights
    assert (rough - exact).norm() < AUTOCAST_TOLERANCE * exact.norm()
    rough.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_generator_decides_every_weight(dit):
    first, second, other = (DiT(dit, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.blocks[0].w1.weight, other.blocks[0].w1.weight)


def test_products_start_xavier_uniform_and_embeddings_normal():
    model = DiT(DiTConfig(4, (8, 8), d_model=128, n_blocks=1, n_heads=2))
    weights = {
        "qkv": model.blocks[0].attention.qkv.weight,
        "w1": model.blocks[0].w1.weight,
        "embed": model.embed.project.weight.flatten(1),
    }
    for weight in weights.values():
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    for weight in (model.time.w1.weight, model.time.w2.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.indicator.conditional.std().item() == pytest.approx(0.02, rel=0.3)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_indicator_and_biases_do_not_decay(dit):
    model = DiT(dit)
    decayed = {name for name, _ in model.named_parameters()} - no_decay_names(model)
    assert all(name.endswith(".weight") for name in decayed)
    assert sum(model.get_parameter(name).numel() for name in decayed) > 0.9 * count_parameters(model)


def test_nothing_but_parameters_is_stored(dit):
    model = DiT(dit)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.compile
def test_the_compiled_dit_is_one_graph_and_equals_eager(dit, shaken, generator):
    model = shaken(DiT(replace(dit, n_blocks=1), generator))
    args = sample(dit, generator)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")  # no code generation: quick
    torch.testing.assert_close(compiled(*args), model(*args), rtol=1e-4, atol=1e-5)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(compiled(*args).square().sum(), parameters)
    eager = torch.autograd.grad(model(*args).square().sum(), parameters)
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

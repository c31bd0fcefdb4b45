"""As in test_public_weights, the oracle is the public model written again, in its own names."""

import math

import pytest
import torch
import torch.nn.functional as F
from cf_transformer.dit import DiT
from cf_transformer.dit_config import DiTConfig
from cf_transformer.public_dit import from_public_dit, load_public_dit, save_public_dit, to_public_dit
from cf_transformer.public_files import split_public
from cf_transformer.weight_files import shapes

CHANNELS, D, BLOCKS, HEADS, PATCH, SIZE = 3, 12, 3, 3, 2, (6, 10)


def public_shapes(d: int, blocks: int, channels: int, patch: int, cells: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the DiT as the public code prints them."""
    weights = {
        "x_embedder.proj": (d, channels, patch, patch),
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
        "final_layer.linear": (patch * patch * channels, d),
    }
    for i in range(blocks):
        weights[f"blocks.{i}.attn.qkv"] = (3 * d, d)
        weights[f"blocks.{i}.attn.proj"] = (d, d)
        weights[f"blocks.{i}.mlp.fc1"] = (4 * d, d)
        weights[f"blocks.{i}.mlp.fc2"] = (d, 4 * d)
        weights[f"blocks.{i}.adaLN_modulation.1"] = (6 * d, d)
    table = {"pos_embed": (1, cells, d), "y_embedder.embedding_table.weight": (2, d)}
    for name, shape in weights.items():
        table |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return table


def positions(rows: int, columns: int, d: int) -> torch.Tensor:
    """x first, then y; each its sines, then its cosines."""
    n = d // 4
    table = [
        [
            wave(place / 10_000 ** (i / n))
            for place in (x, y)
            for wave in (math.sin, math.cos)
            for i in range(n)
        ]
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.tensor([table], dtype=torch.float64)


def public_velocity(state, x_t, t, is_null):
    def linear(name, x):
        return x @ state[f"{name}.weight"].mT + state[f"{name}.bias"]

    def modulate(x, shift, scale):
        x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    x = F.conv2d(x_t, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=PATCH)
    grid, x = x.shape[2:], x.flatten(2).mT + state["pos_embed"]
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    time = linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], dim=-1))
    time = linear("t_embedder.mlp.2", time * torch.sigmoid(time))
    c = (time + state["y_embedder.embedding_table.weight"][is_null.long()])[:, None]
    c = c * torch.sigmoid(c)
    for i in range(BLOCKS):
        at = f"blocks.{i}"
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = linear(f"{at}.adaLN_modulation.1", c).chunk(
            6, -1
        )
        q, k, v = linear(f"{at}.attn.qkv", modulate(x, shift, scale)).chunk(3, dim=-1)
        heads = zip(*(y.chunk(HEADS, dim=-1) for y in (q, k, v)), strict=True)
        mixed = [torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v for q, k, v in heads]
        x = x + gate * linear(f"{at}.attn.proj", torch.cat(mixed, dim=-1))
        h = linear(f"{at}.mlp.fc1", modulate(x, shift_mlp, scale_mlp))
        h = h / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (h + 0.044715 * h**3)))
        x = x + gate_mlp * linear(f"{at}.mlp.fc2", h)
    shift, scale = linear("final_layer.adaLN_modulation.1", c).chunk(2, dim=-1)
    x = (
        linear("final_layer.linear", modulate(x, shift, scale))
        .unflatten(1, grid)
        .unflatten(-1, (PATCH, PATCH, -1))
    )
    return torch.einsum("nhwpqc->nchpwq", x).reshape(x_t.shape)


@pytest.fixture
def state(generator) -> dict[str, torch.Tensor]:
    table = public_shapes(D, BLOCKS, CHANNELS, PATCH, 15)
    random = {
        name: 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in table.items()
    }
    return random | {"pos_embed": positions(3, 5, D)}


def test_a_loaded_model_is_the_public_model(state, generator):
    config, ours = from_public_dit(state, HEADS, SIZE)
    assert config == DiTConfig(CHANNELS, SIZE, D, BLOCKS, HEADS, PATCH, time_scale=1.0)
    model = DiT(config).double()
    model.load_state_dict(ours)
    x_t = torch.randn(3, CHANNELS, *SIZE, generator=generator, dtype=torch.float64)
    t, is_null = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), torch.tensor([True, False, True])
    expected = public_velocity(state, x_t, t, is_null)
    torch.testing.assert_close(model(x_t, t, is_null), expected, rtol=1e-10, atol=1e-10)


def test_a_file_survives_loading_and_saving_to_the_bit(state, tmp_path):
    torch.save(state | {"open_clip.logit_scale": torch.zeros(())}, tmp_path / "in.pth")
    model = load_public_dit(tmp_path / "in.pth", n_heads=HEADS, size=SIZE)
    with (tmp_path / "in.pth").open("rb+") as file:  # the model has left its file
        file.write(bytes((tmp_path / "in.pth").stat().st_size))
    save_public_dit(model, tmp_path / "out.pth")
    again = torch.load(tmp_path / "out.pth", weights_only=True)
    assert shapes(again) == shapes(state)
    torch.testing.assert_close(again.pop("pos_embed"), state.pop("pos_embed"))  # computed
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_published_model_has_every_name_and_shape_of_the_public_code():
    """DiT-H/2 at 512 pixels; both counts are those of the public code."""
    table = public_shapes(1280, 36, 4, 2, 1024)
    assert len(table) == 372
    assert sum(map(math.prod, table.values())) == 1_068_977_936
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in table.items()}
        config, ours = from_public_dit(state)
        model = DiT(config)
    assert config == DiTConfig(4, (64, 64), 1280, 36, 20, time_scale=1.0)
    assert shapes(ours) == shapes(model.state_dict())
    assert shapes(to_public_dit(model)) == table


def test_positions_in_another_order_are_refused(state):
    from_public_dit(state | {"pos_embed": state["pos_embed"].bfloat16()}, HEADS, SIZE)
    with pytest.raises(
        ValueError, match=r"pos_embed does not hold the sines and cosines .* grid of \(3, 5\)"
    ):
        from_public_dit(state | {"pos_embed": state["pos_embed"].roll(D // 2, dims=-1)}, HEADS, SIZE)


def test_a_tensor_that_does_not_belong_is_named(state):
    name = "y_embedder.embedding_table.weight"
    with pytest.raises(
        ValueError, match=rf"1 unexpected: stages.0.x; 1 of .*: {name} is \(3, 12\), expected \(2, 12\)"
    ):
        from_public_dit(state | {"stages.0.x": torch.ones(1), name: torch.ones(3, D)}, HEADS, SIZE)
    with pytest.raises(
        ValueError, match=r"'x_embedder.proj.weight' is missing; the config is read from its shape"
    ):
        from_public_dit({})
    with pytest.raises(ValueError, match=r"15 cells are not a square grid; pass size="):
        from_public_dit(state, HEADS)
    assert split_public(state).keys() == {"backbone"}


def test_a_model_with_another_time_scale_is_refused():
    with pytest.raises(
        ValueError, match=r"the public layout means time_scale=1.0, got 1000.0; use save_pretrained"
    ):
        to_public_dit(DiT(DiTConfig(CHANNELS, SIZE, D, 1, HEADS)))

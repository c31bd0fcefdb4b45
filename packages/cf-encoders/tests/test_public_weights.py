"""The oracle is the public text encoder written again from its description, on a flat mapping of public names."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cf_encoders import TextVE, TextVEConfig, text_ve_preset
from cf_encoders.public_weights import (
    from_public,
    load_public_text_ve,
    read_public,
    save_public_text_ve,
    split_public,
    to_public,
)
from cf_encoders.towers.released import ReleasedTower, ReleasedTowerConfig
from cf_encoders.weight_files import shapes

HEADS, TOKENS, FFN = 2, 5, 1024
LATENT = (3, 2, 5)
CLIP = {"token_width": 16, "width": 16}
T5 = {"token_width": 20, "width": 12}


def public_shapes(token_width, width, tokens, values, depth=11, reductions=3, adaptor=False):
    """Names and shapes of `context_encoder.*` as the public code prints them."""
    table = {}

    def layer(name, *shape):
        table[f"context_encoder.{name}.weight"], table[f"context_encoder.{name}.bias"] = shape, shape[:1]

    def norm(name, *shape, leaves=("weight", "bias")):
        for leaf in leaves:
            table[f"context_encoder.{name}.{leaf}"] = shape

    def post_norm(name, d):
        for projection in "QKVO":
            layer(f"{name}.attn.W_{projection}", d, d)
        layer(f"{name}.feed_forward.ffn_1", FFN, d)
        layer(f"{name}.feed_forward.ffn_2", d, FFN)
        for which in ("norm1", "norm2"):
            norm(f"{name}.{which}", d, leaves=("g", "b"))

    if token_width != width:
        layer("compressor.fc1", width, token_width)
        norm("compressor.ln_fc1", width)
        layer("compressor.fc2", width, width)
    for i in range(depth):
        post_norm(f"layers.{i}", width)
    for r in range(reductions):
        post_norm(f"reduction_layers.{r}", width // 2**r)
        layer(f"reduction_layers.{r}.reduction", width // 2 ** (r + 1), width // 2**r)
    flat = tokens * width // 2**reductions
    if not adaptor:
        layer("linear", 2 * values, flat)
        return table
    layer("adaptor.fc1", 4096, flat)
    layer("adaptor.fc2", 4096, 4096)
    norm("adaptor.ln_fc1", 4096)
    norm("adaptor.ln_fc2", 4096)
    layer("adaptor.conv1", 32, 1, 3, 3)
    layer("adaptor.conv2", 64, 32, 3, 3)
    layer("adaptor.conv3", 2 * values // 64**2, 64, 3, 3)
    norm("adaptor.ln_conv1", 32, 64, 64)
    norm("adaptor.ln_conv2", 64, 64, 64)
    return table


class PublicEncoder:
    """mean and logvar from public names, head by head and key by key; no module of ours."""

    def __init__(self, state, n_heads):
        self.state, self.n_heads = state, n_heads

    def __call__(self, x, mask):
        if "context_encoder.compressor.fc1.weight" in self.state:
            x = self.standard("compressor.ln_fc1", self.linear("compressor.fc1", x)).relu()
            x = self.linear("compressor.fc2", x)
        for i in range(self.count("layers")):
            x = self.layer(f"layers.{i}", x, mask)
        for r in range(self.count("reduction_layers")):
            x = self.linear(f"reduction_layers.{r}.reduction", self.layer(f"reduction_layers.{r}", x, mask))
        x = torch.cat([x[:, i] for i in range(x.shape[1])], dim=-1)
        if "context_encoder.linear.weight" in self.state:
            return self.linear("linear", x).chunk(2, dim=-1)
        return self.adaptor(x).chunk(2, dim=-1)

    def layer(self, name, x, mask):
        x = self.own_norm(f"{name}.norm1", x + self.attention(f"{name}.attn", x, mask))
        hidden = self.linear(f"{name}.feed_forward.ffn_1", x).clamp(min=0)
        return self.own_norm(f"{name}.norm2", x + self.linear(f"{name}.feed_forward.ffn_2", hidden))

    def attention(self, name, x, mask):
        q, k, v = (self.linear(f"{name}.W_{which}", x).chunk(self.n_heads, dim=-1) for which in "QKV")
        mixed = []
        for q_h, k_h, v_h in zip(q, k, v, strict=True):
            weights = torch.exp(q_h @ k_h.mT / q_h.shape[-1] ** 0.5) * mask[:, None, :]
            mixed.append(weights / weights.sum(dim=-1, keepdim=True) @ v_h)
        return self.linear(f"{name}.W_O", torch.cat(mixed, dim=-1))

    def adaptor(self, x):
        x = self.standard("adaptor.ln_fc1", self.linear("adaptor.fc1", x)).relu()
        x = self.standard("adaptor.ln_fc2", self.linear("adaptor.fc2", x)).relu().reshape(-1, 1, 64, 64)
        for which in (1, 2):
            x = F.conv2d(x, *self.leaves(f"adaptor.conv{which}"), padding=1)
            x = self.standard(f"adaptor.ln_conv{which}", x, axes=(1, 2, 3)).relu()
        return F.conv2d(x, *self.leaves("adaptor.conv3"), padding=1).flatten(1)

    def own_norm(self, name, x):
        deviation = x - x.mean(dim=-1, keepdim=True)
        std = (deviation.square().sum(dim=-1, keepdim=True) / (x.shape[-1] - 1)).sqrt()
        return self[f"{name}.g"] * deviation / (std + 1e-5) + self[f"{name}.b"]

    def standard(self, name, x, axes=(-1,)):
        deviation = x - x.mean(dim=axes, keepdim=True)
        weight, bias = self.leaves(name)
        return weight * deviation / (deviation.square().mean(dim=axes, keepdim=True) + 1e-5).sqrt() + bias

    def linear(self, name, x):
        weight, bias = self.leaves(name)
        return x @ weight.mT + bias

    def leaves(self, name):
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def __getitem__(self, name):
        return self.state[f"context_encoder.{name}"]

    def count(self, name):
        return len({key.split(".")[2] for key in self.state if key.startswith(f"context_encoder.{name}.")})


def public_state(generator, dtype=torch.float64, **sizes):
    """Every tensor random and of a trained one's size, so that no swap goes unseen."""
    table = public_shapes(
        **{"tokens": TOKENS, "values": math.prod(LATENT), "depth": 3, "reductions": 2} | sizes
    )
    state = {}
    for name, shape in table.items():
        fan_in = shape[1] if len(shape) == 2 else 9
        state[name] = torch.randn(shape, generator=generator, dtype=dtype) / fan_in**0.5
    return state


@pytest.fixture
def state(generator):
    return public_state(generator, **CLIP)


@pytest.mark.parametrize("sizes", [CLIP, T5], ids=["clip", "t5"])
def test_a_loaded_encoder_is_the_public_encoder(sizes, generator):
    state = public_state(generator, **sizes)
    tokens = torch.randn(2, TOKENS, sizes["token_width"], generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * TOKENS, [True, True, False, False, False]])
    model = load_public_text_ve(state, heads=HEADS, latent=LATENT)
    posterior = model(tokens, mask)
    mean, logvar = PublicEncoder(state, HEADS)(tokens, mask)
    torch.testing.assert_close(posterior.mean.flatten(1), mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(posterior.logvar.flatten(1), logvar, rtol=1e-10, atol=1e-10)


def test_the_512_px_encoder_with_its_adaptor_is_the_public_one(generator):
    state = public_state(
        generator, **T5, values=4 * 64 * 64, depth=1, reductions=1, adaptor=True, dtype=torch.float32
    )
    state = {name: tensor.double() for name, tensor in state.items()}
    tokens = torch.randn(1, TOKENS, 20, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, True, False]])
    model = load_public_text_ve(state, heads=HEADS)
    assert model.config.latent == (4, 64, 64)
    mean, logvar = PublicEncoder(state, HEADS)(tokens, mask)
    posterior = model(tokens, mask)
    torch.testing.assert_close(posterior.mean.flatten(1), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.logvar.flatten(1), logvar, rtol=1e-9, atol=1e-9)
    again = to_public(model)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("released-256-clip", 232, 110_156_512),
        ("released-256-t5", 238, 165_197_440),
        ("released-512-clip", 248, 97_482_344),
        ("released-512-t5", 254, 142_430_728),
    ],
)
def test_the_published_encoders_have_every_name_and_shape_of_the_public_code(name, tensors, parameters):
    """Both counts are those of the public code."""
    config = text_ve_preset(name)
    table = public_shapes(
        config.token_width,
        config.width,
        77,
        math.prod(config.latent),
        adaptor=name.startswith("released-512"),
    )
    assert (len(table), sum(map(math.prod, table.values()))) == (tensors, parameters)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in table.items()}
        model = TextVE(config)
    assert shapes(to_public(model)) == table
    read, ours = from_public(state)
    assert read == config, "everything but the heads is read from the shapes"
    assert shapes(ours) == shapes(model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_survives_loading_and_saving_to_the_bit(dtype, prefix, generator, tmp_path):
    state = public_state(generator, **T5, dtype=dtype)
    others = {"stages.0.tensor_true": torch.ones(1), "open_clip.logit_scale": torch.ones(())}
    torch.save(
        {prefix + name: tensor for name, tensor in (others | state).items()}, tmp_path / "nnet_ema.pth"
    )
    model = load_public_text_ve(tmp_path / "nnet_ema.pth", heads=HEADS, latent=LATENT)
    assert not model.training, "the released encoders drop out a tenth in training"
    assert all(parameter.dtype == dtype and parameter.requires_grad for parameter in model.parameters())
    save_public_text_ve(model, tmp_path / "out.pth")
    again = torch.load(tmp_path / "out.pth", weights_only=True)
    assert shapes(again) == shapes(state)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert sum(tensor.untyped_storage().nbytes() for tensor in again.values()) == sum(
        tensor.nbytes for tensor in state.values()
    ), "views of a larger storage would write all of it"


def test_a_loaded_encoder_is_independent_of_its_file_and_of_the_mapping(state, tmp_path):
    torch.save(state, tmp_path / "in.pth")
    from_file = load_public_text_ve(tmp_path / "in.pth", heads=HEADS, latent=LATENT)
    from_mapping = load_public_text_ve(state, heads=HEADS, latent=LATENT)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    with (tmp_path / "in.pth").open("rb+") as file:
        file.write(bytes((tmp_path / "in.pth").stat().st_size))
    for tensor in state.values():
        tensor.zero_()
    for model in (from_file, from_mapping):
        again = to_public(model)
        assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


def test_files_of_the_old_format_and_another_precision_are_read(generator, tmp_path):
    state = public_state(generator, **CLIP, dtype=torch.float32)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = load_public_text_ve(tmp_path / "old.pth", heads=HEADS, latent=LATENT, dtype=torch.float64)
    name = "context_encoder.reduction_layers.1.attn.W_V.weight"
    assert torch.equal(to_public(model)[name], state[name].double())


FFN_BIAS = "context_encoder.layers.1.feed_forward.ffn_1.bias"
QUERY = "context_encoder.layers.0.attn.W_Q.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({FFN_BIAS: None}, f"the public text encoder does not fit its config; 1 missing: {FFN_BIAS}$"),
        (
            {"context_encoder.layers.1.norm1.weight": (16,)},
            "1 unexpected: context_encoder.layers.1.norm1.weight$",
        ),
        ({FFN_BIAS: (1023,)}, rf"1 of the wrong shape: {FFN_BIAS} is \(1023,\), expected \(1024,\)$"),
        (
            {"context_encoder.layers.3.norm1.g": (16,)},
            r"missing: context_encoder.layers.3.attn.W_Q.weight.* more",
        ),
        ({f"module.{FFN_BIAS}": (1024,)}, f"'{FFN_BIAS}' is there with and without 'module.' before it"),
        (
            {QUERY: None},
            f"'{QUERY}' is missing, and the config is read from its shape; give a public CrossFlow",
        ),
        ({QUERY: (16,)}, rf"'{QUERY}' must have 2 axes, got \(16,\)"),
        ({"context_encoder.linear.weight": (60, 21)}, "reads 21 values, which is no number of tokens 4 wide"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named(change, message, state):
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        load_public_text_ve(state, heads=HEADS, latent=LATENT)


def test_a_latent_that_is_no_square_of_four_channels_must_be_told(state):
    with pytest.raises(
        ValueError, match=r"30 values are not 4 channels of a square; pass latent=\(c, h, w\)"
    ):
        load_public_text_ve(state, heads=HEADS)
    with pytest.raises(ValueError, match=r"linear.weight is \(60, 20\), expected \(48, 20\)"):
        load_public_text_ve(state, heads=HEADS, latent=(4, 2, 3))


@pytest.mark.parametrize("change", [{"kind": "paper"}, {"variation": "noise"}])
def test_only_the_released_kind_with_its_learned_sigma_can_be_written(change, tmp_path):
    config = TextVEConfig(16, TOKENS, LATENT, kind="released", width=16, heads=2, depth=1, bottleneck=4)
    with pytest.raises(
        ValueError, match=r"a learned sigma, got kind='\w+', variation='\w+'; use save_pretrained"
    ):
        save_public_text_ve(TextVE(replace(config, **change)), tmp_path / "out.pth")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    config = replace(text_ve_preset("released-256-clip"), token_width=16, width=16, depth=1, bottleneck=8)
    model = TextVE(replace(config, max_tokens=3, latent=LATENT))
    (tmp_path / "out.pth").write_bytes(b"old")
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_public_text_ve(model, tmp_path / "out.pth")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_parts_are_told_apart_by_their_first_name():
    names = {
        "stages.0.tensor_true": "backbone",
        "module.x_embedder.proj.weight": "backbone",
        "context_encoder.linear.bias": "context_encoder",
        "open_clip.visual.trunk.norm.bias": "open_clip",
        "open_clip_output.fc1.bias": "open_clip_output",
    }
    parts = split_public({name: torch.full((1,), float(i)) for i, name in enumerate(names)})
    assert {part: list(tensors) for part, tensors in parts.items()} == {
        "backbone": ["stages.0.tensor_true", "x_embedder.proj.weight"],
        "context_encoder": ["context_encoder.linear.bias"],
        "open_clip": ["open_clip.visual.trunk.norm.bias"],
        "open_clip_output": ["open_clip_output.fc1.bias"],
    }
    assert parts["backbone"]["x_embedder.proj.weight"].item() == 1.0


def test_each_part_of_a_file_goes_to_the_model_that_it_belongs_to(state):
    torch.manual_seed(0)
    tower = ReleasedTower(ReleasedTowerConfig((4, 3, 3), 8, 4, width=16, depth=1, heads=2, hidden=12))
    whole = state | tower.to_public() | {"stages.0.tensor_true": torch.ones(1)}
    parts = split_public({f"module.{name}": tensor for name, tensor in whole.items()})
    image_half = ReleasedTower.from_public(parts["open_clip"] | parts["open_clip_output"], heads=2)
    text_half = load_public_text_ve(parts["context_encoder"], heads=HEADS, latent=LATENT)
    again = to_public(text_half) | image_half.to_public() | parts["backbone"]
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": {"context_encoder.linear.bias": torch.ones(1)}},
            "not one flat mapping .*; it holds state",
        ),
        ([torch.ones(1)], "not one flat mapping from names to tensors; it holds list"),
        ({"code": pytest.raises}, "is not a file of plain tensors, and nothing else is unpickled"),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        read_public(tmp_path / "other.pth")

"""The oracle of this file is the public model written again, from its description, in its own names."""

import logging
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cf_transformer import DiMR, DiMRConfig, StageConfig, preset
from cf_transformer.public_weights import from_public, load_public, save_public, to_public
from cf_transformer.weight_files import shapes

CHANNELS, HEADS = 3, 3
TINY = {
    #            width, blocks, patch
    "2 stages": [(12, 3, 2), (7, 3, 1)],
    "3 stages": [(12, 5, 4), (6, 3, 2), (5, 1, 1)],
}
SIZE = (12, 20)
TIME_LEAVES = ("param0", "param1", "nodecay_weight", "nodecay_bias")


def public_shapes(stages, channels, size, kernel=7):
    """Names and shapes of `stages.*` as the public code prints them."""
    table = {"stages.0.tensor_true": (1,), "stages.0.tensor_false": (1,)}

    def layer(name, *shape):
        table[f"{name}.weight"], table[f"{name}.bias"] = shape, shape[:1]

    def time(name, d):
        for leaf in TIME_LEAVES:
            table[f"{name}.{leaf}"] = (d,)

    for s, (d, n, p) in enumerate(stages):
        at = f"stages.{s}"
        layer(f"{at}.input_layer.1", d, channels, p, p)
        table[f"{at}.input_layer.3.position_embeddings.weight"] = (size[0] // p * (size[1] // p), d)
        if s > 0:
            d_low, n_low, p_low = stages[s - 1]
            time(f"{at}.upsample.0.weight", d_low * (n_low + 1))
            time(f"{at}.upsample.0.bias", d_low * (n_low + 1))
            layer(f"{at}.upsample.1.kernel", (p_low // p) ** 2 * d, d_low * (n_low + 1))
            time(f"{at}.upsample.2.weight", d)
            time(f"{at}.upsample.2.bias", d)
        for i in range(n):
            if s == 0:
                time(f"{at}.blocks.{i}.block1.norm.scale", d)
                table[f"{at}.blocks.{i}.block1.query_key_value.weight"] = (3 * d, d)
                layer(f"{at}.blocks.{i}.block1.dense", d, d)
            else:
                layer(f"{at}.blocks.{i}.block1.1", d, 1, kernel, kernel)
            time(f"{at}.blocks.{i}.block2.norm.scale", d)
            layer(f"{at}.blocks.{i}.block2.w0", 2 * d, d)
            layer(f"{at}.blocks.{i}.block2.w1", 2 * d, d)
            layer(f"{at}.blocks.{i}.block2.w2", d, 2 * d)
        for j in range(n // 2):
            layer(f"{at}.skip_denses.{j}", d, 2 * d)
        time(f"{at}.output_layer.0.weight", d)
        time(f"{at}.output_layer.0.bias", d)
        layer(f"{at}.output_layer.2", channels, d, 3, 3)
    return table


class PublicModel:
    """v_t of every stage from public names: everything concatenated, nothing streamed, no module of ours."""

    def __init__(self, state, stages, size, n_heads):
        self.state, self.stages, self.size, self.n_heads = state, stages, size, n_heads

    def __call__(self, x_t, t, is_null):
        self.t, self.is_null, velocities, features = t, is_null, [], []
        for s, (_, _, p) in enumerate(self.stages):
            at, grid = f"stages.{s}", self.grid(s)
            x = F.conv2d(x_t, *self.leaves(f"{at}.input_layer.1"), stride=p).flatten(2).mT
            x = x + self.state[f"{at}.input_layer.3.position_embeddings.weight"]
            if s > 0:
                x = x + self.hand_over(s, torch.cat(features, dim=-1))
            features = self.features(s, x)
            image = self.image(self.layer_norm(f"{at}.output_layer.0", features[-1]), grid)
            velocities.append(F.conv2d(image, *self.leaves(f"{at}.output_layer.2"), padding=1))
        return velocities

    def features(self, s, x):
        at, half, features, stack = f"stages.{s}", self.stages[s][1] // 2, [x], []
        if s == 0:
            true, false = self.state[f"{at}.tensor_true"], self.state[f"{at}.tensor_false"]
            token = torch.where(self.is_null, true, false)[:, None, None].expand(-1, 1, x.shape[-1])
            x = torch.cat([token, x], dim=1)
        for i in range(self.stages[s][1]):
            if i > half:
                x = self.linear(f"{at}.skip_denses.{i - half - 1}", torch.cat([x, stack.pop()], dim=-1))
            mix = self.attention if s == 0 else self.convolution
            x = self.mlp(f"{at}.blocks.{i}.block2", mix(f"{at}.blocks.{i}.block1", x, self.grid(s)))
            if i < half:
                stack.append(x)
            features.append(x[:, 1:] if s == 0 else x)
        return features

    def hand_over(self, s, x):
        at, r = f"stages.{s}.upsample", self.stages[s - 1][2] // self.stages[s][2]
        x = self.linear(f"{at}.1.kernel", self.layer_norm(f"{at}.0", x))
        x = x.unflatten(1, self.grid(s - 1)).unflatten(-1, (r, r, -1))  # b, y, x, row, column, channel
        x = F.pixel_shuffle(x.permute(0, 5, 3, 4, 1, 2).flatten(1, 3), r)  # takes channel, row, column
        return self.layer_norm(f"{at}.2", x.flatten(2).mT)

    def attention(self, name, x, _):
        normed = self.rms_norm(f"{name}.norm.scale", x)
        q, k, v = (normed @ self.state[f"{name}.query_key_value.weight"].mT).chunk(3, dim=-1)
        heads = zip(*(y.chunk(self.n_heads, dim=-1) for y in (q, k, v)), strict=True)
        mixed = [torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v for q, k, v in heads]
        return x + self.linear(f"{name}.dense", torch.cat(mixed, dim=-1))

    def convolution(self, name, x, grid):
        weight, bias = self.leaves(f"{name}.1")
        y = F.conv2d(self.image(x, grid), weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))
        return x + y.flatten(2).mT

    def mlp(self, name, x):
        normed = self.rms_norm(f"{name}.norm.scale", x)
        gate = self.linear(f"{name}.w0", normed)
        gate = gate * (1 + torch.erf(gate / 2**0.5)) / 2
        return x + self.linear(f"{name}.w2", gate * self.linear(f"{name}.w1", normed))

    def rms_norm(self, name, x):
        return self.gamma(name) * x / (x.square().mean(dim=-1, keepdim=True).sqrt() + 1e-8)

    def layer_norm(self, name, x):
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return self.gamma(f"{name}.weight") * x + self.gamma(f"{name}.bias")

    def gamma(self, name):
        first, second, w, b = (self.state[f"{name}.{leaf}"] for leaf in TIME_LEAVES)
        log_snr = 4 - 8 * self.t[:, None, None]
        s = 1 / (1 + torch.exp(-(log_snr / 4 * (w + 1) + b)))
        return s * first + (1 - s) * second

    def linear(self, name, x):
        weight, bias = self.leaves(name)
        return x @ weight.mT + bias

    def leaves(self, name):
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def grid(self, s):
        return self.size[0] // self.stages[s][2], self.size[1] // self.stages[s][2]

    @staticmethod
    def image(x, grid):
        return x.mT.unflatten(2, grid)


def public_state(stages, generator, size=SIZE, dtype=torch.float64, **kwargs):
    """Every tensor random, as large as it is in a trained model or larger, so that no swap goes unseen."""
    table = public_shapes(stages, CHANNELS, size, **kwargs)
    return {name: 0.3 * torch.randn(shape, generator=generator, dtype=dtype) for name, shape in table.items()}


def loaded(state, size=SIZE) -> DiMR:
    config, ours = from_public(state, HEADS, size)
    model = DiMR(config).double()
    model.load_state_dict(ours)
    return model


@pytest.mark.parametrize("stages", TINY.values(), ids=TINY)
def test_a_loaded_model_is_the_public_model(stages, generator):
    state = public_state(stages, generator)
    x_t = torch.randn(3, CHANNELS, *SIZE, generator=generator, dtype=torch.float64)
    t = torch.rand(3, generator=generator, dtype=torch.float64)
    is_null = torch.tensor([True, False, True])
    expected = PublicModel(state, stages, SIZE, HEADS)(x_t, t, is_null)
    model = loaded(state)
    torch.testing.assert_close(model(x_t, t, is_null), expected[-1], rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(model.scales(x_t, t, is_null), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stages", TINY.values(), ids=TINY)
def test_there_and_back_is_every_bit(stages, generator):
    state = public_state(stages, generator)
    again = to_public(loaded(state))
    assert shapes(again) == shapes(state)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "size", "widths_blocks_patches", "tensors", "parameters"),
    [
        ("dimr-951m", 32, [(1024, 65, 2), (512, 33, 1)], [1184, 459], [749_972_486, 200_806_404]),
        (
            "dimr-951m-512",
            64,
            [(1024, 65, 4), (512, 33, 2), (256, 33, 1)],
            [1184, 459, 459],
            [750_021_638, 200_812_548, 34_605_060],
        ),
        (
            "dimr-389m-512",
            64,
            [(960, 29, 4), (480, 15, 2), (240, 15, 1)],
            [536, 225, 225],
            [293_822_406, 80_442_724, 14_636_404],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_published_models_have_every_name_and_shape_of_the_public_code(
    name, size, widths_blocks_patches, tensors, parameters
):
    """Both counts are those of the public code, stage by stage."""
    table = public_shapes(widths_blocks_patches, 4, (size, size))
    for s, (n_tensors, n_parameters) in enumerate(zip(tensors, parameters, strict=True)):
        of_stage = [math.prod(shape) for key, shape in table.items() if key.startswith(f"stages.{s}.")]
        assert (len(of_stage), sum(of_stage)) == (n_tensors, n_parameters)
    with torch.device("meta"):
        model = DiMR(replace(preset(name), indicator="released"))
        state = {key: torch.empty(shape) for key, shape in table.items()}
    assert shapes(to_public(model)) == table
    config, ours = from_public(state)
    assert config == model.config
    assert shapes(ours) == shapes(model.state_dict())


def test_the_config_is_read_from_the_shapes(generator):
    stages = [(12, 5, 4), (6, 3, 2), (5, 1, 1)]
    config, _ = from_public(public_state(stages, generator, size=(12, 12), kernel=5), HEADS)
    tokens = StageConfig("transformer", 12, 5, 4, HEADS)
    cells = StageConfig("convnext", 6, 3, 2), StageConfig("convnext", 5, 1, 1)
    assert config == DiMRConfig(3, (12, 12), (tokens, *cells), indicator="released", kernel_size=5)


def test_a_file_survives_loading_and_saving_to_the_bit(generator, tmp_path):
    state = public_state(TINY["2 stages"], generator, dtype=torch.bfloat16)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "in.pth")
    model = load_public(tmp_path / "in.pth", n_heads=HEADS, size=SIZE)
    assert all(
        parameter.dtype == torch.bfloat16 and parameter.requires_grad for parameter in model.parameters()
    )
    save_public(model, tmp_path / "out.pth")
    again = torch.load(tmp_path / "out.pth", weights_only=True)
    assert shapes(again) == shapes(state)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "out.pth"]


def test_a_loaded_model_is_independent_of_its_file(generator, tmp_path):
    """The file is mapped while it is read; its bytes may change afterwards."""
    state = public_state(TINY["2 stages"], generator, dtype=torch.float32)
    torch.save(state, tmp_path / "in.pth")
    model = load_public(tmp_path / "in.pth", n_heads=HEADS, size=SIZE)
    with (tmp_path / "in.pth").open("rb+") as file:
        file.write(bytes((tmp_path / "in.pth").stat().st_size))
    assert all(torch.equal(tensor, state[name]) for name, tensor in to_public(model).items())


def test_files_of_the_old_format_and_another_precision_are_read(generator, tmp_path):
    state = public_state(TINY["2 stages"], generator, dtype=torch.float32)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = load_public(tmp_path / "old.pth", n_heads=HEADS, size=SIZE, dtype=torch.float64)
    name = "stages.1.blocks.2.block2.w1.weight"
    assert torch.equal(to_public(model)[name], state[name].double())


def test_what_belongs_to_other_packages_is_left_out_and_logged(generator, tmp_path, caplog):
    backbone = public_state(TINY["2 stages"], generator)
    others = {name: torch.zeros(2) for name in ("open_clip.logit_scale", "open_clip.visual.x")}
    torch.save(backbone | others, tmp_path / "all.pth")
    with caplog.at_level(logging.INFO):
        model = load_public(tmp_path / "all.pth", n_heads=HEADS, size=SIZE)
    assert to_public(model).keys() == backbone.keys()
    assert "2 tensors of open_clip, left out" in caplog.text
    assert f"{len(backbone)} tensors of backbone, read" in caplog.text


W1 = "stages.1.blocks.2.block2.w1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({W1: None}, f"1 missing: {W1}$"),
        ({"stages.1.blocks.3.block2.w1.bias": (14,)}, "missing: stages.1.blocks.3.block1.1.weight"),
        (
            {"stages.0.blocks.1.block1.norm.weight": (12,)},
            "1 unexpected: stages.0.blocks.1.block1.norm.weight$",
        ),
        ({W1: (13,)}, rf"1 of the wrong shape: {W1} is \(13,\), expected \(14,\)$"),
        ({"stages.0.tensor_true": (12,)}, r"stages.0.tensor_true is \(12,\), expected \(1,\)"),
        ({"pos_embed": (1, 4, 12)}, "1 unexpected: pos_embed$"),
        ({"module.stages.0.tensor_true": (1,)}, "'stages.0.tensor_true' is there with and without 'module.'"),
        ({"stages.1.input_layer.1.weight": None}, "'stages.1.input_layer.1.weight' is missing; the config"),
        ({"stages.1.input_layer.1.weight": (7, 3)}, r"must have 4 axes, got \(7, 3\)"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named(change, message, generator):
    state = public_state(TINY["2 stages"], generator)
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        from_public(state, HEADS, SIZE)


def test_a_long_list_of_complaints_is_cut(generator):
    state = public_state(TINY["2 stages"], generator)
    state = {name: tensor for name, tensor in state.items() if not name.endswith("nodecay_bias")}
    with pytest.raises(ValueError, match=r"missing: .*(, stages\S+){7} and \d+ more$"):
        from_public(state, HEADS, SIZE)


def test_a_grid_that_is_not_square_must_be_told(generator):
    with pytest.raises(ValueError, match=r"24 cells are not a square grid; pass size=\(height, width\)"):
        from_public(public_state(TINY["2 stages"], generator, size=(8, 12)), HEADS)


def test_a_file_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match=r"no tensor starts with 'stages.0.': this is no DiMR; a DiT is"):
        from_public({"context_encoder.linear.bias": torch.zeros(3)})


def test_a_failed_save_leaves_the_old_file(config, generator, tmp_path, monkeypatch):
    model = DiMR(replace(config, indicator="released"), generator)
    save_public(model, tmp_path / "model.pth")
    before = (tmp_path / "model.pth").read_bytes()

    def full_disk(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_public(model, tmp_path / "model.pth")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


TOKENS = StageConfig("transformer", 8, 3, patch=2, n_heads=2)
CELLS = StageConfig("convnext", 4, 1, patch=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"indicator": "paper"},
            "indicator='paper' learns a vector; train with .*'released'. or use save_pretrained",
        ),
        (
            {"activation": "silu"},
            "the public layout means activation='gelu', got 'silu'; use save_pretrained",
        ),
        ({"stages": (TOKENS,)}, "the last stage of the public layout has patch 1, got 2"),
        (
            {"stages": (TOKENS, replace(TOKENS, patch=1))},
            "stage 1 of the public layout is a convnext, got 'transformer'",
        ),
    ],
)
def test_a_model_that_the_public_layout_cannot_hold_is_refused(change, message):
    config = DiMRConfig(3, (6, 4), (TOKENS, CELLS), indicator="released", init="scaled", attention="matmul")
    to_public(DiMR(config))
    with pytest.raises(ValueError, match=message):
        to_public(DiMR(replace(config, **change)))

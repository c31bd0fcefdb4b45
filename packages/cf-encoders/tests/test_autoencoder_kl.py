import json
from copy import deepcopy

import pytest
import torch
from cf_encoders.codec import ImageCodec, PosteriorCodec
from cf_encoders.codecs.autoencoder_kl import AutoencoderKLCodec
from cf_encoders.codecs.options import CodecOptions
from safetensors.torch import load_file, save_file
from torch import nn

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'cf-encoders[diffusers]'")

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
DOUBLE = CodecOptions(dtype=torch.float64, decode_dtype=torch.float64)
ROUNDING = 1e-12  # float64, numbers near 1
OLD_NAMES = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))


def tiny_kl(levels=3, **changes):
    """A random AutoencoderKL that shrinks sides by 2^(levels - 1)."""
    torch.manual_seed(0)
    config = {
        "block_out_channels": (4, 8, 8)[:levels],
        "norm_num_groups": 2,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": 0.7,
        "shift_factor": 0.3,
    }
    vae = diffusers.AutoencoderKL(**config | changes).eval()
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(8)  # so that pixels leave [-1, 1] and the clamp shows
    return vae


@pytest.fixture(scope="module")
def vae():
    return tiny_kl()


@pytest.fixture(scope="module")
def folder(vae, tmp_path_factory):
    path = tmp_path_factory.mktemp("kl") / "vae"
    vae.save_pretrained(path)
    return path


@pytest.fixture
def images(generator):
    return torch.rand(3, 3, 20, 28, generator=generator)


@pytest.fixture
def latent(generator):
    return torch.randn(3, 4, 5, 7, generator=generator)


def copied(folder, to, state=None, **config):
    """The folder with other weights, or other entries of its config."""
    to.mkdir()
    said = json.loads((folder / CONFIG).read_text()) | config
    (to / CONFIG).write_text(json.dumps(said))
    save_file(load_file(folder / WEIGHTS) if state is None else state, to / WEIGHTS)
    return to


def test_latents_are_diffusers_mean_shifted_then_scaled(folder, vae, images):
    codec, images = AutoencoderKLCodec.from_pretrained(folder, options=DOUBLE), images.double()
    assert codec.latent_shape(20, 28) == (4, 5, 7)
    mean = deepcopy(vae).double().encode(2 * images - 1).latent_dist.mean
    torch.testing.assert_close(codec.encode(images), (mean - 0.3) * 0.7, atol=ROUNDING, rtol=ROUNDING)


def test_images_are_diffusers_decoded_and_clamped(folder, vae, latent):
    latent = latent.double()
    images = (deepcopy(vae).double().decode(latent / 0.7 + 0.3).sample + 1) / 2
    assert images.min() < 0
    assert images.max() > 1
    decoded = AutoencoderKLCodec.from_pretrained(folder, options=DOUBLE).decode(latent)
    torch.testing.assert_close(decoded, images.clamp(0, 1), atol=ROUNDING, rtol=ROUNDING)


def test_the_posterior_has_the_moments_and_the_samples_of_the_scaled_latent(folder, vae, images):
    posterior = AutoencoderKLCodec.from_pretrained(folder).posterior(images)
    raw = vae.encode(2 * images - 1).latent_dist
    torch.testing.assert_close(posterior.std, 0.7 * raw.std)
    sampled = (raw.sample(torch.Generator().manual_seed(5)) - 0.3) * 0.7
    torch.testing.assert_close(posterior.sample(torch.Generator().manual_seed(5)), sampled)


def test_cached_moments_give_the_posterior_of_any_scale(folder, vae, images):
    codec = AutoencoderKLCodec.from_pretrained(folder)
    moments = codec.moments(images)
    torch.testing.assert_close(moments, vae.encode(2 * images - 1).latent_dist.parameters)
    half = codec.from_moments(moments.half())
    assert half.mean.dtype == torch.float32
    torch.testing.assert_close(half.mean, codec.encode(images), atol=1e-3, rtol=1e-3)
    other = AutoencoderKLCodec(vae, scale=0.23010).from_moments(moments)
    torch.testing.assert_close(other.mean, 0.23010 * moments[:, :4])


@pytest.mark.parametrize(("logvar", "clamped"), [(25.0, 20.0), (-12.0, -12.0)])
def test_the_log_variance_is_clamped_as_the_public_code_does_before_it_is_scaled(vae, logvar, clamped):
    moments = torch.cat([torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), logvar)], dim=1)
    std = AutoencoderKLCodec(vae, scale=0.23010).from_moments(moments).std
    torch.testing.assert_close(std, 0.23010 * torch.full_like(std, clamped / 2).exp())


def test_scale_and_shift_of_config_json_hold_unless_others_are_given(folder):
    codec = AutoencoderKLCodec.from_pretrained(folder)
    assert (codec.scale, codec.shift) == (0.7, 0.3)
    codec = AutoencoderKLCodec.from_pretrained(folder, scale=0.23010, shift=0.0)
    assert (codec.scale, codec.shift) == (0.23010, 0.0)


def test_a_config_json_without_them_means_stable_diffusions(folder, tmp_path):
    copied(folder, tmp_path / "old")
    said = json.loads((folder / CONFIG).read_text())
    del said["scaling_factor"], said["shift_factor"]
    (tmp_path / "old" / CONFIG).write_text(json.dumps(said))
    codec = AutoencoderKLCodec.from_pretrained(tmp_path / "old")
    assert (codec.scale, codec.shift) == (0.18215, 0.0)


def test_autoencoders_without_the_convolutions_around_the_latent_come_through(tmp_path, images):
    vae = tiny_kl(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)  # as SD3's and FLUX's
    vae.save_pretrained(tmp_path)
    codec = AutoencoderKLCodec.from_pretrained(tmp_path)
    assert codec.latent_shape(20, 28) == (16, 5, 7)
    latent = codec.encode(images)
    torch.testing.assert_close(latent, (vae.encode(2 * images - 1).latent_dist.mean - 0.3) * 0.7)
    torch.testing.assert_close(
        codec.decode(latent), ((vae.decode(latent / 0.7 + 0.3).sample + 1) / 2).clamp(0, 1)
    )


def test_a_normalisation_by_channel_is_refused_unless_the_scale_is_given(folder, tmp_path):
    path = copied(folder, tmp_path / "p", latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    with pytest.raises(ValueError, match=r"latents_mean.*give scale="):
        AutoencoderKLCodec.from_pretrained(path)
    assert AutoencoderKLCodec.from_pretrained(path, scale=0.5).scale == 0.5


def test_pickled_weights_and_a_pipelines_subfolder_are_read(vae, folder, tmp_path, images):
    vae.save_pretrained(tmp_path / "vae", safe_serialization=False)
    codec = AutoencoderKLCodec.from_pretrained(tmp_path, subfolder="vae")
    torch.testing.assert_close(
        codec.encode(images), AutoencoderKLCodec.from_pretrained(folder).encode(images)
    )


def test_the_attentions_old_names_are_read(folder, tmp_path, images):
    state = load_file(folder / WEIGHTS)
    renamed = {}
    for name, weight in state.items():
        for new, old in OLD_NAMES:
            name = name.replace(new, old)
        renamed[name] = weight
    assert renamed.keys() != state.keys()
    old = AutoencoderKLCodec.from_pretrained(copied(folder, tmp_path / "old", renamed))
    torch.testing.assert_close(old.encode(images), AutoencoderKLCodec.from_pretrained(folder).encode(images))


def test_an_encoder_in_16_bits_leaves_the_decoder_in_32(folder, images, latent):
    full = AutoencoderKLCodec.from_pretrained(folder)
    mixed = AutoencoderKLCodec.from_pretrained(folder, options=CodecOptions(dtype=torch.bfloat16))
    assert {p.dtype for p in [*mixed.vae.encoder.parameters(), *mixed.vae.quant_conv.parameters()]} == {
        torch.bfloat16
    }
    encoded = mixed.encode(images)
    assert encoded.dtype == torch.float32
    assert not encoded.equal(full.encode(images))
    torch.testing.assert_close(encoded, full.encode(images), atol=0.05, rtol=0.05)
    torch.testing.assert_close(mixed.decode(latent), full.decode(latent), atol=0, rtol=0)


def test_autocast_does_not_lower_the_decoder(folder, images, latent):
    codec = AutoencoderKLCodec.from_pretrained(folder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = codec.decode(latent), codec.encode(images)
    assert inside[0].equal(codec.decode(latent))
    assert inside[1].equal(codec.encode(images))


def test_in_float64_nothing_is_rounded(folder, images):
    options = CodecOptions(dtype=torch.float64, decode_dtype=torch.float64)
    codec = AutoencoderKLCodec.from_pretrained(folder, options=options)
    latent = codec.encode(images.double())
    assert latent.dtype == codec.decode(latent).dtype == torch.float64


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_batch_in_pieces_is_the_batch_at_once(folder, images, latent, batch_size):
    whole = AutoencoderKLCodec.from_pretrained(folder)
    codec = AutoencoderKLCodec.from_pretrained(folder, options=CodecOptions(batch_size=batch_size))
    seen = []
    for part in (codec.vae.encoder, codec.vae.decoder):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    torch.testing.assert_close(codec.encode(images), whole.encode(images))
    torch.testing.assert_close(codec.decode(latent), whole.decode(latent))
    assert seen == 2 * {1: [1, 1, 1], 2: [2, 1]}[batch_size]


def local_kl():
    """One without attention and group norms: each pixel depends on a neighbourhood only."""
    vae = tiny_kl(levels=2, mid_block_add_attention=False)
    for module in list(vae.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return vae


def test_tiles_agree_with_the_whole_picture_away_from_their_seams(generator):
    images = torch.rand(1, 3, 112, 80, generator=generator)
    whole = AutoencoderKLCodec(local_kl(), scale=0.5)
    tiled = AutoencoderKLCodec(local_kl(), scale=0.5, options=CodecOptions(tile=64))
    assert tiled.latent_shape(112, 80) == (4, 56, 40)
    latent, expected = tiled.encode(images), whole.encode(images)
    assert latent.shape == expected.shape
    torch.testing.assert_close(latent[..., :20, :20], expected[..., :20, :20])  # the first seam is at 24
    assert not torch.allclose(latent, expected, atol=1e-4)
    decoded, expected = tiled.decode(latent), whole.decode(latent)
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded[..., :40, :40], expected[..., :40, :40])
    assert not torch.allclose(decoded, expected, atol=1e-4)


def test_tiles_are_diffusers_own(vae, generator):
    images = torch.rand(1, 3, 52, 36, generator=generator)
    codec = AutoencoderKLCodec(vae, scale=1.0, options=CodecOptions(tile=32))
    latent = codec.encode(images)
    peer = tiny_kl(sample_size=32)
    peer.enable_tiling()
    torch.testing.assert_close(latent, peer.encode(2 * images - 1).latent_dist.mean)
    torch.testing.assert_close(codec.decode(latent), ((peer.decode(latent).sample + 1) / 2).clamp(0, 1))
    AutoencoderKLCodec(vae, scale=1.0)
    assert not vae.use_tiling


@pytest.mark.parametrize("tile", [None, 16])
def test_the_codec_is_frozen_and_lets_gradients_through(folder, tile, generator):
    codec = AutoencoderKLCodec.from_pretrained(folder, options=CodecOptions(tile=tile))
    assert not any(p.requires_grad for p in codec.parameters())
    images = torch.rand(1, 3, 20, 28, generator=generator, requires_grad=True)
    codec.decode(codec.encode(images)).square().sum().backward()
    assert (images.grad.abs().amax(dim=1) > 0).all()


def test_it_is_a_codec_with_a_posterior(vae):
    codec = AutoencoderKLCodec(vae, scale=1.0)
    assert isinstance(codec, ImageCodec)
    assert isinstance(codec, PosteriorCodec)


def test_what_it_cannot_take_is_refused(vae, images):
    codec = AutoencoderKLCodec(vae, scale=1.0)
    with pytest.raises(ValueError, match=r"AutoencoderKLCodec needs.*divisible by 4, got 20 x 30"):
        codec.encode(torch.zeros(1, 3, 20, 30))
    with pytest.raises(ValueError, match=r"AutoencoderKLCodec takes images in \[0, 1\], got \[-1"):
        codec.encode(2 * images.round() - 1)
    with pytest.raises(ValueError, match="scale must be > 0, got 0"):
        AutoencoderKLCodec(vae, scale=0.0)
    with pytest.raises(ValueError, match=r"tile must be a multiple of 16 pixels.*got 24"):
        AutoencoderKLCodec(vae, scale=1.0, options=CodecOptions(tile=24))


def test_a_folder_that_holds_something_else_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no AutoencoderKL in .*config\.json missing; .*vae folder"):
        AutoencoderKLCodec.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no AutoencoderKL in .*nowhere/at/all, here or on the hub"):
        AutoencoderKLCodec.from_pretrained(tmp_path / "nowhere/at/all")
    other = copied(folder, tmp_path / "tiny", _class_name="AutoencoderTiny")
    with pytest.raises(ValueError, match="tiny holds an AutoencoderTiny, not an AutoencoderKL"):
        AutoencoderKLCodec.from_pretrained(other)
    nothing = copied(folder, tmp_path / "bert")
    (nothing / CONFIG).write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds no model of diffusers, not an AutoencoderKL"):
        AutoencoderKLCodec.from_pretrained(nothing)
    empty = copied(folder, tmp_path / "empty")
    (empty / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights of an AutoencoderKL in .*empty"):
        AutoencoderKLCodec.from_pretrained(empty)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder.conv_in.bias"), r"missing: decoder\.conv_in\.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda state: state.update({"quant_conv.bias": torch.zeros(3)}),
            r"(?s)do not fit.*quant_conv\.bias",
        ),
    ],
)
def test_weights_that_are_not_all_there_are_refused(folder, tmp_path, change, message):
    state = load_file(folder / WEIGHTS)
    change(state)
    with pytest.raises(ValueError, match=message):
        AutoencoderKLCodec.from_pretrained(copied(folder, tmp_path / "wrong", state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.uint8}, "dtype must be a floating-point type, got torch.uint8"),
        ({"decode_dtype": torch.int64}, "decode_dtype must be a floating-point type"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"tile": -8}, "tile must be a positive integer, got -8"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CodecOptions(**options)

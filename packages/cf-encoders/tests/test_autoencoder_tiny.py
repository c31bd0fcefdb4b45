import pytest
import torch
from cf_encoders.codec import ImageCodec, PosteriorCodec
from cf_encoders.codecs.autoencoder_tiny import AutoencoderTinyCodec
from cf_encoders.codecs.options import CodecOptions

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'cf-encoders[diffusers]'")


def tiny(**changes):
    """A random TAESD with 3 levels of 6 channels: sides shrink by 4."""
    torch.manual_seed(0)
    channels, blocks = (6, 6, 6), (1, 1, 2)
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        **changes,
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("taesd")
    tiny(latent_channels=5).save_pretrained(path)
    return path


@pytest.fixture
def images(generator):
    return torch.rand(3, 3, 20, 28, generator=generator)


def test_latents_and_images_are_diffusers_own_and_not_scaled_again(folder, images, generator):
    codec, peer = AutoencoderTinyCodec.from_pretrained(folder), tiny(latent_channels=5)
    latent = codec.encode(images)
    assert tuple(latent.shape[1:]) == codec.latent_shape(20, 28) == (5, 5, 7)
    torch.testing.assert_close(latent, peer.encode(2 * images - 1).latents, atol=1e-6, rtol=1e-6)
    z = 30 * torch.randn(2, 5, 3, 4, generator=generator)
    decoded = (peer.decode(z).sample + 1) / 2
    assert decoded.min() < 0
    torch.testing.assert_close(codec.decode(z), decoded.clamp(0, 1), atol=1e-6, rtol=1e-6)


def test_a_scale_and_shift_of_config_json_hold(tmp_path, images):
    plain = AutoencoderTinyCodec(tiny())
    tiny(scaling_factor=0.4, shift_factor=0.1).save_pretrained(tmp_path)
    codec = AutoencoderTinyCodec.from_pretrained(tmp_path)
    latent = codec.encode(images)
    torch.testing.assert_close(latent, (plain.encode(images) - 0.1) * 0.4)
    torch.testing.assert_close(codec.decode(latent), plain.decode(plain.encode(images)))


def test_a_batch_in_pieces_is_the_batch_at_once(folder, images):
    whole = AutoencoderTinyCodec.from_pretrained(folder)
    codec = AutoencoderTinyCodec.from_pretrained(folder, options=CodecOptions(batch_size=2))
    seen = []
    codec.vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    torch.testing.assert_close(codec.encode(images), whole.encode(images))
    torch.testing.assert_close(codec.decode(codec.encode(images)), whole.decode(whole.encode(images)))
    assert seen == [2, 1, 2, 1]


def test_an_encoder_in_16_bits_leaves_the_decoder_in_32(folder, images):
    codec = AutoencoderTinyCodec.from_pretrained(folder, options=CodecOptions(dtype=torch.bfloat16))
    latent = codec.encode(images)
    assert latent.dtype == torch.float32
    full = AutoencoderTinyCodec.from_pretrained(folder)
    assert not latent.equal(full.encode(images))
    assert codec.decode(latent).equal(full.decode(latent))


def test_the_codec_is_frozen_deterministic_and_lets_gradients_through(folder):
    codec = AutoencoderTinyCodec.from_pretrained(folder)
    assert isinstance(codec, ImageCodec)
    assert not isinstance(codec, PosteriorCodec)
    assert not any(p.requires_grad for p in codec.parameters())
    images = torch.rand(1, 3, 8, 12, requires_grad=True)
    codec.decode(codec.encode(images)).sum().backward()
    assert images.grad.abs().sum() > 0


def test_what_it_cannot_take_is_refused(folder, images, tmp_path):
    codec = AutoencoderTinyCodec.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"divisible by 4, got 20 x 30"):
        codec.encode(torch.zeros(1, 3, 20, 30))
    with pytest.raises(ValueError, match=r"takes images in \[0, 1\]"):
        codec.encode(255 * images)
    with pytest.raises(ValueError, match="takes pictures whole: it is small; leave tile=64 out"):
        AutoencoderTinyCodec.from_pretrained(folder, options=CodecOptions(tile=64))
    diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds an AutoencoderKL, not an AutoencoderTiny"):
        AutoencoderTinyCodec.from_pretrained(tmp_path)

import sys

import pytest
import torch
from cf_encoders import TAEF2, PatchDCTCodec, PixelCodec, image_codec
from cf_encoders.codecs.autoencoder_kl import AutoencoderKLCodec
from cf_encoders.codecs.autoencoder_tiny import AutoencoderTinyCodec
from cf_encoders.codecs.by_name import IMAGE_CODECS
from cf_encoders.codecs.ldm_layout import LDMSize, to_ldm
from cf_encoders.codecs.taef2 import DECODER_FILE, ENCODER_FILE, tiny_decoder, tiny_encoder
from safetensors.torch import save_file

WITHOUT_PATH = ("patch-dct", "pixels")
SCALES = {  # as each family publishes them
    "sd-vae": (0.18215, 0.0),
    "sdxl-vae": (0.13025, 0.0),
    "sd3-vae": (1.5305, 0.0609),
    "flux-vae": (0.3611, 0.1159),
    "released-vae": (0.23010, 0.0),
}


@pytest.fixture(scope="module")
def vae():
    pytest.importorskip("diffusers", reason="needs diffusers: pip install 'cf-encoders[diffusers]'")
    return LDMSize(widths=(2, 2), layers_per_block=1, norm_groups=1).build()


@pytest.fixture
def folder(vae, tmp_path):
    """Random weights; its config.json says what Stable Diffusion's does not: nothing of the scale."""
    vae.save_pretrained(tmp_path)
    said = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(said.replace('  "scaling_factor": 0.18215,\n', ""))
    return tmp_path


def test_codecs_without_a_network_need_no_path():
    assert isinstance(image_codec("pixels"), PixelCodec)
    assert isinstance(image_codec("patch-dct", dtype=torch.bfloat16, batch_size=3), PatchDCTCodec)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'pixel'; known: patch-dct, pixels, taef2, .*sd-vae.*taesdxl"):
        image_codec("pixel")


@pytest.mark.parametrize("name", [name for name in IMAGE_CODECS if name not in WITHOUT_PATH])
def test_a_codec_with_weights_says_what_path_it_needs(name):
    with pytest.raises(ValueError, match=f"{name} needs the path of"):
        image_codec(name)


def test_taef2_takes_the_published_files_and_the_options(tmp_path):
    torch.save(tiny_encoder().state_dict(), (tmp_path / ENCODER_FILE).with_suffix(".pth"))
    torch.save(tiny_decoder().state_dict(), (tmp_path / DECODER_FILE).with_suffix(".pth"))
    codec = image_codec("taef2", tmp_path, dtype=torch.bfloat16, batch_size=2)
    assert isinstance(codec, TAEF2)
    assert codec.batch_size == 2
    assert codec.encoder[0].weight.dtype == torch.bfloat16
    assert codec.decoder[1].weight.dtype == torch.float32
    save_file(tiny_encoder().state_dict(), tmp_path / ENCODER_FILE)  # one of the safe pair: it is meant
    with pytest.raises(FileNotFoundError, match=rf"no TAEF2 weights at .*{DECODER_FILE}"):
        image_codec("taef2", tmp_path)


@pytest.mark.parametrize("name", SCALES)
def test_a_family_of_autoencoders_has_its_scale_and_shift(name, folder):
    codec = image_codec(name, folder, dtype=torch.bfloat16, batch_size=4, tile=16)
    assert isinstance(codec, AutoencoderKLCodec)
    assert (codec.scale, codec.shift) == SCALES[name]
    assert codec.batch_size == 4
    assert codec.vae.use_tiling
    assert codec.vae.encoder.conv_in.weight.dtype == torch.bfloat16
    assert codec.vae.decoder.conv_in.weight.dtype == torch.float32


def test_the_scale_of_another_family_in_config_json_is_refused_but_for_the_released_one(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    assert image_codec("sd-vae", tmp_path).scale == 0.18215
    assert image_codec("released-vae", tmp_path).scale == 0.23010
    with pytest.raises(ValueError, match=r"sdxl-vae has scale 0\.13025.*says 0\.18215; take sd-vae"):
        image_codec("sdxl-vae", tmp_path)
    vae.register_to_config(scaling_factor=0.5)
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"says 0\.5; build it with AutoencoderKLCodec"):
        image_codec("sd-vae", tmp_path)


def test_the_released_autoencoder_is_also_read_from_its_state_dict(vae, tmp_path):
    torch.save(to_ldm(vae.state_dict()), tmp_path / "autoencoder_kl.pth")
    with pytest.raises(ValueError, match=r"autoencoder_kl\.pth does not fit"):  # it is not of the public size
        image_codec("released-vae", tmp_path / "autoencoder_kl.pth")


@pytest.mark.parametrize("name", ["taesd", "taesdxl"])
def test_tiny_autoencoders_by_name(name, tmp_path):
    diffusers = pytest.importorskip(
        "diffusers", reason="needs diffusers: pip install 'cf-encoders[diffusers]'"
    )
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(2, 2),
        decoder_block_out_channels=(2, 2),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path)
    codec = image_codec(name, tmp_path, batch_size=2)
    assert isinstance(codec, AutoencoderTinyCodec)
    assert codec.latent_shape(6, 10) == (4, 3, 5)


def test_without_diffusers_the_install_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'cf-encoders\[diffusers\]'"):
        image_codec("sd-vae", tmp_path)

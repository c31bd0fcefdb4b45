from pathlib import Path

import pytest
import torch
from cf_encoders import TAEF2
from cf_encoders.codecs.taef2 import DECODER_FILE, ENCODER_FILE, GlobalBlock, tiny_decoder, tiny_encoder
from safetensors.torch import save_file

SHIPPED = Path(__file__).parents[3] / "apps/src/cf_apps/assets/taef2"
needs_weights = pytest.mark.skipif(
    not (SHIPPED / ENCODER_FILE).is_file(),
    reason=f"the real weights ship with cf-apps, not found: {ENCODER_FILE}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights in the published format."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("taef2")
    for name, module in ((ENCODER_FILE, tiny_encoder()), (DECODER_FILE, tiny_decoder())):
        save_file({key: weight.half() for key, weight in module.state_dict().items()}, path / name)
    return path


def scenes(side: int) -> torch.Tensor:
    """Smooth colour ramps with a disc: pictures a photograph's autoencoder can carry."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05).float()
    ramps = torch.stack([x, y, 1 - x])
    return torch.stack([ramps * (1 - disc) + disc * 0.8, (ramps.flip(0) + disc * 0.3).clamp(0, 1)])


@needs_weights
def test_the_real_weights_reconstruct_pictures():
    codec, images = TAEF2.from_folder(SHIPPED), scenes(128)
    error = (codec.decode(codec.encode(images)) - images).square().mean(dim=(1, 2, 3))
    assert (-10 * error.log10()).min() > 27  # dB; one wrong layer gives less than 24


@needs_weights
def test_the_real_latents_have_about_unit_variance():
    assert 0.6 < TAEF2.from_folder(SHIPPED).encode(scenes(128)).std() < 1.2


def test_the_codec_is_frozen_and_lets_gradients_through(folder):
    codec = TAEF2.from_folder(folder)
    assert not any(p.requires_grad for p in codec.parameters())
    images = torch.rand(1, 3, 16, 24, requires_grad=True)
    latent = codec.encode(images)
    assert tuple(latent.shape[1:]) == codec.latent_shape(16, 24) == (32, 2, 3)
    codec.decode(latent).sum().backward()
    assert images.grad.abs().sum() > 0


def test_pth_and_safetensors_load_the_same_weights(folder, tmp_path):
    for name, module in (("e.pth", tiny_encoder()), ("d.pth", tiny_decoder())):
        torch.save(module.state_dict(), tmp_path / name)
    codec = TAEF2(tmp_path / "e.pth", tmp_path / "d.pth")
    assert codec.encoder.state_dict().keys() == TAEF2.from_folder(folder).encoder.state_dict().keys()


def test_published_layer_numbers():
    names = set(tiny_encoder().state_dict()) | {f"decoder.{name}" for name in tiny_decoder().state_dict()}
    assert {
        "11.pool.3.weight",
        "14.bias",
        "decoder.1.bias",
        "decoder.5.pool.1.bias",
        "decoder.19.weight",
    } <= names
    assert sum(p.numel() for p in [*tiny_encoder().parameters(), *tiny_decoder().parameters()]) == 2_677_027


def test_the_deep_blocks_see_the_whole_picture_the_others_do_not():
    torch.manual_seed(0)
    block, x = GlobalBlock(), torch.randn(1, 64, 9, 9)
    far = x.clone()
    far[..., 8, 8] += 10
    assert (block(far) - block(x))[..., 0, 0].abs().max() > 0
    assert (super(GlobalBlock, block).forward(far) - super(GlobalBlock, block).forward(x))[
        ..., 0, 0
    ].abs().max() == 0


def test_wrong_files_and_sizes_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no TAEF2 weights.*{ENCODER_FILE}"):
        TAEF2.from_folder(tmp_path)
    with pytest.raises(ValueError, match=f"{DECODER_FILE} is not this half"):
        TAEF2(folder / DECODER_FILE, folder / ENCODER_FILE)
    (tmp_path / ENCODER_FILE).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=f"{ENCODER_FILE} is not this half"):
        TAEF2(tmp_path / ENCODER_FILE, folder / DECODER_FILE)
    with pytest.raises(ValueError, match=r"TAEF2 needs.*divisible by 8, got 20 x 24"):
        TAEF2.from_folder(folder).encode(torch.zeros(1, 3, 20, 24))

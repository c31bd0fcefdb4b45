import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cf_encoders import TAEF2
from cf_encoders.codecs.options import CodecOptions
from cf_encoders.codecs.taef2 import DECODER_FILE, ENCODER_FILE, GlobalBlock, tiny_decoder, tiny_encoder
from safetensors.torch import save_file

SHIPPED = Path(__file__).parents[3] / "apps/src/cf_apps/assets/taef2"
needs_weights = pytest.mark.skipif(
    not (SHIPPED / ENCODER_FILE).is_file(),
    reason=f"the real weights ship with cf-apps, not found: {ENCODER_FILE}",
)

PHOTOS = os.environ.get("CF_PHOTOS")
needs_photos = pytest.mark.skipif(
    PHOTOS is None, reason="needs CF_PHOTOS=folder of 256 px photographs (.jpg)"
)
PHOTOGRAPHS_PSNR = 28.0  # dB; 76 photographs of COCO give 28.10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights in the published format."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("taef2")
    for name, module in ((ENCODER_FILE, tiny_encoder()), (DECODER_FILE, tiny_decoder())):
        for layer in module.modules():
            if isinstance(layer, torch.nn.GroupNorm):  # which starts as the identity
                torch.nn.init.normal_(layer.weight)
                torch.nn.init.normal_(layer.bias)
        save_file({key: weight.half() for key, weight in module.state_dict().items()}, path / name)
    return path


def scenes(side: int) -> torch.Tensor:
    """Smooth colour ramps with a disc: pictures a photograph's autoencoder can carry."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05).float()
    ramps = torch.stack([x, y, 1 - x])
    return torch.stack([ramps * (1 - disc) + disc * 0.8, (ramps.flip(0) + disc * 0.3).clamp(0, 1)])


def psnr(codec: TAEF2, images: torch.Tensor) -> torch.Tensor:
    """Of each picture, in dB."""
    error = (codec.decode(codec.encode(images)) - images).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


@needs_weights
def test_the_real_weights_reconstruct_pictures():
    assert psnr(TAEF2.from_folder(SHIPPED), scenes(128)).min() > 27  # one wrong layer gives less than 24


@needs_weights
@needs_photos
def test_the_real_weights_reconstruct_photographs():
    import numpy as np
    from PIL import Image

    codec, found = TAEF2.from_folder(SHIPPED), []
    for file in sorted(Path(PHOTOS).glob("*.jpg")):
        pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB")))
        found.append(psnr(codec, pixels.permute(2, 0, 1)[None].float() / 255))
    found = torch.cat(found)
    print(
        f"{len(found)} photographs: mean {found.mean():.2f}, median {found.median():.2f}, min {found.min():.2f} dB"
    )
    assert found.mean() > PHOTOGRAPHS_PSNR


def plain(state: dict[str, torch.Tensor], x: torch.Tensor, kinds: str) -> torch.Tensor:
    """The network from its numbered weights alone: t tanh, c conv, h halving conv, r ReLU, u upsampling, b block."""
    for number, kind in enumerate(kinds):
        layer = {
            name.removeprefix(f"{number}."): w for name, w in state.items() if name.startswith(f"{number}.")
        }
        match kind:
            case "t":
                x = 3 * (x / 3).tanh()
            case "r":
                x = x.clamp_min(0)
            case "u":
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            case "c" | "h":
                x = F.conv2d(x, layer["weight"], layer.get("bias"), stride=1 + (kind == "h"), padding=1)
            case "b":
                if "pool.0.weight" in layer:
                    wide = torch.einsum("oi,bihw->bohw", layer["pool.0.weight"][..., 0, 0], x)
                    groups = wide.unflatten(1, (4, -1))
                    centred = groups - groups.mean(dim=(2, 3, 4), keepdim=True)
                    normed = centred / (centred.square().mean(dim=(2, 3, 4), keepdim=True) + 1e-5).sqrt()
                    normed = normed.flatten(1, 2) * layer["pool.1.weight"][:, None, None]
                    normed = (normed + layer["pool.1.bias"][:, None, None]).clamp_min(0)
                    x = x + torch.einsum("oi,bihw->bohw", layer["pool.3.weight"][..., 0, 0], normed)
                y = x
                for i in (0, 2, 4):
                    y = F.conv2d(y, layer[f"conv.{i}.weight"], layer[f"conv.{i}.bias"], padding=1)
                    y = y.clamp_min(0) if i < 4 else y
                x = (x + y).clamp_min(0)
    return x


def test_both_halves_are_the_published_network_written_with_plain_functions(folder, generator):
    codec = TAEF2.from_folder(folder, CodecOptions(torch.float64, torch.float64))
    images = torch.rand(2, 3, 16, 24, generator=generator, dtype=torch.float64)
    latent = codec.encode(images)
    torch.testing.assert_close(latent, plain(codec.encoder.state_dict(), images, "cbhbbbhbbbhbbbc"))
    z = 4 * torch.randn(2, 32, 3, 5, generator=generator, dtype=torch.float64)
    decoded = plain(codec.decoder.state_dict(), z, "tcrbbbucbbbucbbbucbc")
    assert decoded.min() < 0
    torch.testing.assert_close(codec.decode(z), decoded.clamp(0, 1))


def test_a_batch_in_pieces_is_the_batch_at_once(folder, generator):
    whole, codec = TAEF2.from_folder(folder), TAEF2.from_folder(folder, CodecOptions(batch_size=2))
    seen = []
    for part in (codec.encoder, codec.decoder):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    images = torch.rand(3, 3, 16, 8, generator=generator)
    torch.testing.assert_close(codec.encode(images), whole.encode(images))
    torch.testing.assert_close(codec.decode(codec.encode(images)), whole.decode(whole.encode(images)))
    assert seen == [2, 1, 2, 1, 2, 1]


def test_an_encoder_in_16_bits_leaves_the_decoder_in_32(folder, generator):
    codec, full = TAEF2.from_folder(folder, CodecOptions(dtype=torch.bfloat16)), TAEF2.from_folder(folder)
    latent = codec.encode(torch.rand(1, 3, 16, 8, generator=generator))
    assert latent.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert codec.decode(latent).equal(full.decode(latent))


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


def test_the_published_pth_files_are_read(tmp_path):
    encoder, decoder = tiny_encoder(), tiny_decoder()
    for name, module in (("e.pth", encoder), ("d.pth", decoder)):
        torch.save(module.state_dict(), tmp_path / name)
    codec = TAEF2(tmp_path / "e.pth", tmp_path / "d.pth")
    for half, module in ((codec.encoder, encoder), (codec.decoder, decoder)):
        assert all(half.state_dict()[name].equal(weight) for name, weight in module.state_dict().items())


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
    with pytest.raises(ValueError, match=r"TAEF2 takes images in \[0, 1\], got \[0, 255\]"):
        TAEF2.from_folder(folder).encode(255 * torch.eye(8).expand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="TAEF2 takes pictures whole: its group norms see all of one"):
        TAEF2.from_folder(folder, CodecOptions(tile=64))

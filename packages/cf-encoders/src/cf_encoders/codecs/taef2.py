"""TAEF2, the tiny autoencoder of FLUX.2's latent space (madebyollin/taesd, MIT): 1.3 M + 1.3 M weights.

Images (b, 3, H, W) <-> latents (b, 32, H / 8, W / 8) of standard deviation about 0.9. The layers are rebuilt
here under the published names, so that its state dicts load as they are.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.codec import require_divisible, require_unit_range
from cf_encoders.codecs.options import DEFAULT, CodecOptions, run
from cf_encoders.public_weights import read_public

CHANNELS = 32
SHRINK = 8
WIDTH = 64
NORM_GROUPS = 4
ENCODER_FILE, DECODER_FILE = "taef2_encoder.safetensors", "taef2_decoder.safetensors"


class TAEF2(nn.Module):
    """The frozen codec: the published encoder and clamped decoder, for any sides divisible by 8.

    Reconstructs COCO photographs at 28.1 dB (mean over 76 at 256 px; 19.9 the hardest); smaller pictures worse.
    A picture of 1024 px takes 1 GiB in passing, and so on with its area.
    """

    def __init__(
        self, encoder_path: Path | str, decoder_path: Path | str, options: CodecOptions = DEFAULT
    ) -> None:
        """Load both state dicts, .safetensors or the published .pth; in float32 unless `options` say otherwise.

        FileNotFoundError or ValueError names the file that is missing or holds something else.
        """
        super().__init__()
        options.require_whole_pictures("TAEF2", "its group norms see all of one")
        self.batch_size = options.batch_size
        self.encoder, self.decoder = tiny_encoder(), tiny_decoder()
        load_weights(self.encoder, Path(encoder_path))
        load_weights(self.decoder, Path(decoder_path))
        options.freeze(self, encoder=[self.encoder], decoder=[self.decoder])

    @classmethod
    def from_folder(cls, folder: Path | str, options: CodecOptions = DEFAULT) -> "TAEF2":
        """The codec whose two files lie in this folder, as .safetensors or, where those are not, as .pth."""
        safe = [Path(folder) / name for name in (ENCODER_FILE, DECODER_FILE)]
        published = [path.with_suffix(".pth") for path in safe]
        there = not any(path.is_file() for path in safe) and all(path.is_file() for path in published)
        encoder, decoder = published if there else safe  # an error is about the safe ones
        return cls(encoder, decoder, options)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        require_divisible(height, width, SHRINK, "TAEF2")
        return CHANNELS, height // SHRINK, width // SHRINK

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 32 h w"]:
        require_unit_range(images, "TAEF2")
        self.latent_shape(images.shape[2], images.shape[3])
        return run(self.encoder, images, self.encoder, self.batch_size)

    def decode(self, latent: Float[Tensor, "b 32 h w"]) -> Float[Tensor, "b 3 H W"]:
        return run(self.decoder, latent, self.decoder, self.batch_size).clamp(0, 1)


def tiny_encoder() -> nn.Sequential:
    """One block at full size, then three times: halve, three blocks. The last three see the whole picture."""
    return nn.Sequential(
        conv(3, WIDTH),
        Block(),
        *(halve(), Block(), Block(), Block()),
        *(halve(), Block(), Block(), Block()),
        *(halve(), GlobalBlock(), GlobalBlock(), GlobalBlock()),
        conv(WIDTH, CHANNELS),
    )


def tiny_decoder() -> nn.Sequential:
    """The encoder in reverse, with nearest-neighbour upsampling."""
    return nn.Sequential(
        SoftClamp(),
        conv(CHANNELS, WIDTH),
        nn.ReLU(),
        *(GlobalBlock(), GlobalBlock(), GlobalBlock(), *double()),
        *(Block(), Block(), Block(), *double()),
        *(Block(), Block(), Block(), *double()),
        Block(),
        conv(WIDTH, 3),
    )


class SoftClamp(nn.Module):
    """3 tanh(z / 3): latents beyond +-3 are pressed into range."""

    def forward(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return 3 * torch.tanh(z / 3)


class Block(nn.Module):
    """ReLU(x + three convolutions of x)"""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return (x + self.conv(x)).relu()


class GlobalBlock(Block):
    """A Block of x + pool(x), where pool's group norm lets statistics of the whole picture in."""

    def __init__(self) -> None:
        super().__init__()
        hidden = 4 * WIDTH
        self.pool = nn.Sequential(
            nn.Conv2d(WIDTH, hidden, 1, bias=False),
            nn.GroupNorm(NORM_GROUPS, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, WIDTH, 1, bias=False),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x + self.pool(x))


def conv(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, padding=1)


def halve() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)


def double() -> tuple[nn.Upsample, nn.Conv2d]:
    return nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict strictly; FileNotFoundError or ValueError naming the file and what it should be."""
    if not path.is_file():
        raise FileNotFoundError(f"no TAEF2 weights at {path}; expected {ENCODER_FILE}, {DECODER_FILE}")
    try:
        module.load_state_dict(read_state(path))
    except Exception as error:  # torch, safetensors and pickle each have their own
        raise ValueError(f"{path} is not this half of TAEF2: {str(error).splitlines()[0]}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return read_public(path)

"""diffusers' AutoencoderTiny as an image codec: TAESD, a small net that speaks a large one's latents."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.codec import require_divisible, require_unit_range
from cf_encoders.codecs.diffusers_folder import load_autoencoder
from cf_encoders.codecs.options import DEFAULT, CodecOptions, run


class AutoencoderTinyCodec(nn.Module):
    """Images (b, 3, H, W) in [0, 1] <-> latents (b, c, h, w), deterministic. Frozen; gradients pass.

    TAESD was trained on latents already scaled: what it encodes is what `sd-vae` encodes, to its accuracy (TAESDXL:
    `sdxl-vae`), and its config.json says scaling_factor 1. It does not speak `released-vae`'s latents, which are
    0.23010 / 0.18215 as large.
    """

    def __init__(self, vae: Any, options: CodecOptions = DEFAULT) -> None:
        """`vae`: diffusers' AutoencoderTiny, which is kept, frozen and moved. It cannot be run in tiles."""
        super().__init__()
        options.require_whole_pictures("AutoencoderTinyCodec", "it is small")
        self.vae, config = vae, vae.config
        self.scale, self.shift, self.batch_size = (
            config.scaling_factor,
            config.shift_factor,
            options.batch_size,
        )
        self.channels = config.latent_channels
        self.shrink = 2 ** (len(config.encoder_block_out_channels) - 1)
        vae.disable_slicing()  # `batch_size` does it
        vae.disable_tiling()
        options.freeze(self, encoder=[vae.encoder], decoder=[vae.decoder])

    @classmethod
    def from_pretrained(
        cls, path: Path | str, *, subfolder: str | None = None, options: CodecOptions = DEFAULT
    ) -> "AutoencoderTinyCodec":
        """From a folder in diffusers' format, or a hub id such as madebyollin/taesd.

        FileNotFoundError or ValueError says what is not there or does not fit; ImportError how to install diffusers.
        """
        return cls(load_autoencoder("AutoencoderTiny", path, subfolder), options)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        require_divisible(height, width, self.shrink, "AutoencoderTinyCodec")
        return self.channels, height // self.shrink, width // self.shrink

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        require_unit_range(images, "AutoencoderTinyCodec")
        self.latent_shape(images.shape[2], images.shape[3])
        raw = run(self._raw_latent, 2 * images - 1, self.vae.encoder, self.batch_size)
        return (raw - self.shift) * self.scale

    def decode(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        raw = latent / self.scale + self.shift
        return ((run(self._raw_image, raw, self.vae.decoder, self.batch_size) + 1) / 2).clamp(0, 1)

    def _raw_latent(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latents

    def _raw_image(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent).sample

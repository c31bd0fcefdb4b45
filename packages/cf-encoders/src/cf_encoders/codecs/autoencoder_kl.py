"""diffusers' AutoencoderKL as an image codec: the variational autoencoder of Stable Diffusion and its successors.

The paper's latents are Stable Diffusion's (CrossFlow sec. 5.1): 4 channels, an eighth of each side.
"""

import math
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.codec import require_divisible, require_unit_range
from cf_encoders.codecs.diffusers_folder import load_autoencoder
from cf_encoders.codecs.ldm_layout import KL_F8, LDMSize, load_ldm
from cf_encoders.codecs.options import DEFAULT, CodecOptions, run
from cf_encoders.gaussian import LOGVAR_RANGE, DiagonalGaussian
from cf_encoders.numerics import clamp_keeping_gradient, widen

RELEASED_SCALE = 0.23010  # the public CrossFlow code's, from U-ViT's MS-COCO models; not the 0.18215 of SD


class AutoencoderKLCodec(nn.Module):
    """Images (b, 3, H, W) in [0, 1] <-> latents (b, c, h, w) = (raw latent - shift) scale.

    Frozen; gradients pass to images and latents. Latents come out in float32 or wider, whatever the network runs in.
    """

    def __init__(self, vae: Any, scale: float, shift: float = 0.0, options: CodecOptions = DEFAULT) -> None:
        """`vae`: diffusers' AutoencoderKL, which is kept, frozen and moved. ValueError for a scale of 0 or less."""
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}; Stable Diffusion's is 0.18215")
        self.vae = vae
        self.scale, self.shift, self.batch_size = scale, shift, options.batch_size
        self.channels = vae.config.latent_channels
        self.shrink = 2 ** (len(vae.config.block_out_channels) - 1)
        vae.disable_slicing()  # `batch_size` does it
        vae.disable_tiling()
        if options.tile is not None:
            self._cut_into_tiles(options.tile)
        # SD3 and FLUX have no convolution around the latent
        options.freeze(
            self,
            encoder=[part for part in (vae.encoder, vae.quant_conv) if part is not None],
            decoder=[part for part in (vae.decoder, vae.post_quant_conv) if part is not None],
        )

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        *,
        subfolder: str | None = None,
        scale: float | None = None,
        shift: float | None = None,
        options: CodecOptions = DEFAULT,
    ) -> "AutoencoderKLCodec":
        """From a folder in diffusers' format, or a hub id; `subfolder="vae"` for a whole pipeline.

        scale, shift: None takes config.json's `scaling_factor` and `shift_factor` (none there: 0.18215 and 0).
        FileNotFoundError or ValueError says what is not there or does not fit; ImportError how to install diffusers.
        """
        vae = load_autoencoder("AutoencoderKL", path, subfolder)
        if scale is None and vae.config.latents_mean is not None:
            raise ValueError(
                f"{path} normalises each channel by its own mean and std (latents_mean, latents_std), this codec all "
                "by one; give scale="
            )
        said = vae.config
        return cls(
            vae,
            said.scaling_factor if scale is None else scale,
            (said.shift_factor or 0.0) if shift is None else shift,
            options,
        )

    @classmethod
    def from_ldm(
        cls,
        path: Path | str,
        scale: float = RELEASED_SCALE,
        *,
        shift: float = 0.0,
        size: LDMSize = KL_F8,
        options: CodecOptions = DEFAULT,
    ) -> "AutoencoderKLCodec":
        """From a state dict with CompVis' names, as the public CrossFlow code reads it (`autoencoder_kl.pth`)."""
        return cls(load_ldm(path, size), scale, shift, options)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        require_divisible(height, width, self.shrink, "AutoencoderKLCodec")
        return self.channels, height // self.shrink, width // self.shrink

    def moments(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c2 h w"]:
        """Mean and log variance of the raw latent, stacked: (b, 2 c, h, w), neither clamped nor scaled.

        What to cache, in float16 if need be: it is what the public code stores, and it serves any scale.
        """
        require_unit_range(images, "AutoencoderKLCodec")
        self.latent_shape(images.shape[2], images.shape[3])
        return run(self._raw_moments, 2 * images - 1, self.vae.encoder, self.batch_size)

    def from_moments(self, moments: Float[Tensor, "b c2 h w"]) -> DiagonalGaussian:
        """mean' = (mean - shift) scale, logvar' = logvar + 2 log scale, logvar clamped to [-30, 20] before."""
        mean, logvar = widen(moments).chunk(2, dim=1)
        logvar = clamp_keeping_gradient(logvar, *LOGVAR_RANGE)
        return DiagonalGaussian((mean - self.shift) * self.scale, logvar + 2 * math.log(self.scale))

    def posterior(self, images: Float[Tensor, "b 3 H W"]) -> DiagonalGaussian:
        """q(x_1 | image) in latent units; `posterior(images).sample(generator)` is the public trainer's x_1."""
        return self.from_moments(self.moments(images))

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """The posterior's mean."""
        return self.posterior(images).mean

    def decode(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Clamped to [0, 1]; in `decode_dtype`, float32 unless the options say otherwise."""
        raw = widen(latent) / self.scale + self.shift
        return ((run(self._raw_image, raw, self.vae.decoder, self.batch_size) + 1) / 2).clamp(0, 1)

    def _raw_moments(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent_dist.parameters

    def _raw_image(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent).sample

    def _cut_into_tiles(self, tile: int) -> None:
        """diffusers' own tiling: tiles overlap by a quarter and are blended there."""
        step = 4 * self.shrink  # a quarter of a tile must be whole latent pixels
        if tile % step:
            raise ValueError(f"tile must be a multiple of {step} pixels for this autoencoder, got {tile}")
        self.vae.enable_tiling()
        self.vae.tile_sample_min_size, self.vae.tile_latent_min_size = tile, tile // self.shrink

"""The image variational encoder: images (b, c, H, W) -> q(z_0 | x) of the target's shape, and back.

CrossFlow sec. 5.3: RGB into the shape of a depth map, trained with a reconstruction loss; for super-resolution an
enlarged image into an image. Convolutions only, so one encoder reads images of many sizes.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.gaussian import DiagonalGaussian
from cf_encoders.image_ve_config import ImageVEConfig
from cf_encoders.numerics import widen
from cf_encoders.pretrained import Pretrained


class ImageVE(Pretrained, nn.Module, config=ImageVEConfig):
    """images (b, c, H, W) in [-1, 1] -> DiagonalGaussian over (b, *config.latent_shape(H, W)).

    At the start sigma is the config's everywhere and the mean carries the image: with std mean_std, a linear
    reading of normalised features, or as the image itself (mean_from). Both sides then learn from the first step.
    """

    def __init__(self, config: ImageVEConfig) -> None:
        super().__init__()
        self.config = config
        level, width = config.level, config.widths[config.level]
        self.body = UBody(config, config.image[0], level_in=0, level_out=level)
        self.mean = nn.Conv2d(width, config.latent[0], 1)
        self.logvar = nn.Conv2d(width, config.latent[0], 1)
        self.decoder = ImageDecoder(config) if config.decoder else None
        self._init_heads()

    def _init_heads(self) -> None:
        """As TextVE's: from unit-variance features, std(mean) = mean_std, and sigma as given."""
        std = self.config.mean_std / math.sqrt(self.mean.in_channels)
        nn.init.normal_(self.mean.weight, std=0.0 if self.config.mean_from == "image" else std)
        nn.init.zeros_(self.logvar.weight)
        for head, value in ((self.mean, 0.0), (self.logvar, 2 * math.log(self.config.sigma))):
            assert head.bias is not None
            nn.init.constant_(head.bias, value)

    def forward(self, images: Float[Tensor, "b c h w"]) -> DiagonalGaussian:
        if images.shape[1] != self.config.image[0]:
            raise ValueError(
                f"images have {images.shape[1]} channels, the encoder reads {self.config.image[0]}"
            )
        self.config.latent_shape(images.shape[2], images.shape[3])
        features = self.body(images)
        mean, logvar = widen(self.mean(features)), widen(self.logvar(features))
        return DiagonalGaussian(images + mean if self.config.mean_from == "image" else mean, logvar)

    def decode(self, z_0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k H W"]:
        """z_0 -> images of the encoder's range, not clamped: for the reconstruction loss."""
        if self.decoder is None:
            raise ValueError("this encoder was built without a decoder; set decoder=True in its config")
        return self.decoder(z_0)


class ImageDecoder(nn.Module):
    """z_0 -> images: the encoder's body the other way round, and one convolution."""

    def __init__(self, config: ImageVEConfig) -> None:
        super().__init__()
        self.body = UBody(config, config.latent[0], level_in=config.level, level_out=0)
        self.image = nn.Conv2d(config.widths[0], config.image[0], 1)

    def forward(self, z_0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k H W"]:
        return widen(self.image(self.body(z_0)))


class UBody(nn.Module):
    """From a map at `level_in` (size / 2^level) down to the smallest level and up to `level_out`, normalised.

    On the way up each level also reads what it held on the way down. `receptive_field` says how far it sees.
    """

    def __init__(self, config: ImageVEConfig, channels: int, *, level_in: int, level_out: int) -> None:
        super().__init__()
        widths, groups = config.widths, config.groups
        bottom = len(widths) - 1

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width, groups) for _ in range(config.blocks)))

        self.stem = nn.Conv2d(channels, widths[level_in], 3, padding=1)
        self.down_blocks = nn.ModuleList(blocks(width) for width in widths[level_in:])
        self.downs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1) for i in range(level_in, bottom)
        )
        up = range(bottom - 1, level_out - 1, -1)
        self.ups = nn.ModuleList(
            Up(widths[i + 1], widths[i], skip=widths[i] if i >= level_in else 0) for i in up
        )
        self.up_blocks = nn.ModuleList(blocks(widths[i]) for i in up)
        self.norm = nn.GroupNorm(groups, widths[level_out])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e m n"]:
        x = self.down_blocks[0](self.stem(x))
        held = []
        for down, blocks in zip(self.downs, self.down_blocks[1:], strict=True):
            held.append(x)
            x = blocks(down(x))
        for up, blocks in zip(self.ups, self.up_blocks, strict=True):
            x = blocks(up(x, held.pop() if held else None))
        return self.norm(x)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(GN conv(SiLU(GN x))))"""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class Up(nn.Module):
    """Double the size: nearest neighbours (no checkerboard), then a convolution that also reads the skip."""

    def __init__(self, channels: int, width: int, skip: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + skip, width, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s m n"] | None
    ) -> Float[Tensor, "b e m n"]:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x if skip is None else torch.cat([x, skip], dim=1))


def receptive_field(config: ImageVEConfig) -> int:
    """Side in pixels of the square that one number of mean or logvar can see through the encoder's convolutions.

    At most; it depends on the place within the coarsest cell. GroupNorm adds each image's own averages, which see
    all of it.
    """
    bottom, side = len(config.widths) - 1, 1
    for _ in range(config.level, bottom):
        side += (
            4 * config.blocks + 2
        )  # from the latent's level back down to the smallest: blocks, convolution,
        side = side // 2 + 1  # and neighbours of one coarse cell fall together
    side += 4 * config.blocks
    for _ in range(bottom):
        side = 2 * side + 1 + 4 * config.blocks
    return side + 2

"""The image side of the contrastive loss: images or latents -> z_hat of z_0's shape (CrossFlow sec. 4.4.1).

Trained jointly with the text encoder and not needed for sampling.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.configs import config_from_dict, require_positive, require_shape
from cf_encoders.pretrained import Pretrained
from cf_encoders.towers.heads import ProjectionHead

NORM_GROUPS = 8


@dataclass(frozen=True)
class ImageTowerConfig:
    """`stages`: the channels of each stage; every stage halves the image's height and width."""

    image: tuple[int, int, int]  # (c, h, w) of what it sees
    latent: tuple[int, int, int]  # (c, h, w) of z_0
    stages: tuple[int, ...] = (32, 64, 128)
    hidden: int = 256

    def __post_init__(self) -> None:
        require_shape(self, "image")
        require_shape(self, "latent")
        require_positive(self, "hidden")
        if not self.stages or any(channels < 1 or channels % NORM_GROUPS for channels in self.stages):
            raise ValueError(f"stages must be positive multiples of {NORM_GROUPS}, got {self.stages}")
        _, h, w = self.image
        shrink = 2 ** len(self.stages)
        if h % shrink or w % shrink:
            raise ValueError(
                f"{len(self.stages)} stages need height and width divisible by {shrink}, got {h} x {w}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageTowerConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)


class ImageTower(Pretrained, nn.Module, config=ImageTowerConfig):
    """Strided convolutional stages, flattened (where things are matters), and a projection head."""

    def __init__(self, config: ImageTowerConfig) -> None:
        super().__init__()
        self.config, self.latent = config, config.latent
        channels, h, w = config.image
        shrink = 2 ** len(config.stages)
        ins = (channels, *config.stages[:-1])
        self.stages = nn.ModuleList(Stage(*sizes) for sizes in zip(ins, config.stages, strict=True))
        features = config.stages[-1] * (h // shrink) * (w // shrink)
        self.head = ProjectionHead(features, config.hidden, math.prod(config.latent))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        if tuple(images.shape[1:]) != self.config.image:
            raise ValueError(f"images are {tuple(images.shape[1:])}, the tower sees {self.config.image}")
        x = images
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(1)).unflatten(1, self.latent)


class Stage(nn.Module):
    """Halve the size with a strided convolution, then x + conv(SiLU(GN x))."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e m n"]:
        x = self.down(x)
        return x + self.conv(F.silu(self.norm(x)))

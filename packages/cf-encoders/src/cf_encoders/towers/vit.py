"""A small vision transformer, trained with the text encoder: images or latents -> z_hat (CrossFlow sec. 4.4.1)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cf_encoders.configs import config_from_dict, require_positive, require_shape
from cf_encoders.layers import SelfBlock
from cf_encoders.pretrained import Pretrained
from cf_encoders.towers.heads import ProjectionHead
from cf_encoders.towers.pooling import AttentionPool

POSITIONS = ("learned", "fixed")
LONGEST_WAVE = 10_000.0  # in patches, over 2 pi


@dataclass(frozen=True)
class ViTTowerConfig:
    """Both kinds of positions start as sines and cosines of the row and the column; `learned` ones are trained."""

    image: tuple[int, int, int]  # (c, h, w) of what it sees, an image or a latent
    latent: tuple[int, int, int]  # (c, h, w) of z_0
    patch: int = 4
    width: int = 192
    depth: int = 4
    heads: int = 4
    mlp_hidden: int = 384
    positions: str = "learned"
    hidden: int = 256  # of the projection head
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_shape(self, "image")
        require_shape(self, "latent")
        require_positive(self, "patch", "width", "depth", "heads", "mlp_hidden", "hidden")
        if self.positions not in POSITIONS:
            raise ValueError(f"unknown positions {self.positions!r}; known: {', '.join(POSITIONS)}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 and of heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        _, h, w = self.image
        if h % self.patch or w % self.patch:
            raise ValueError(f"patch {self.patch} must divide the image's height {h} and width {w}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ViTTowerConfig":
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)


class ViTTower(Pretrained, nn.Module, config=ViTTowerConfig):
    """Patches, positions, pre-norm blocks, one query that reads them all, and a projection head."""

    def __init__(self, config: ViTTowerConfig) -> None:
        super().__init__()
        self.config, self.latent = config, config.latent
        (channels, h, w), patch, width = config.image, config.patch, config.width
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        table = waves(h // patch, w // patch, width)
        # where they are fixed they are stored all the same: a file then says by itself what it computes
        self.positions = nn.Parameter(table, requires_grad=config.positions == "learned")
        size = (width, config.heads, config.mlp_hidden)
        self.blocks = nn.ModuleList(SelfBlock(*size, config.dropout) for _ in range(config.depth))
        self.pool = AttentionPool(*size)
        self.head = ProjectionHead(width, config.hidden, math.prod(config.latent))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        if tuple(images.shape[1:]) != self.config.image:
            raise ValueError(f"images are {tuple(images.shape[1:])}, the tower sees {self.config.image}")
        x = rearrange(self.embed(images), "b d h w -> b (h w) d") + self.positions
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            x = block(x, everywhere)
        return self.head(self.pool(x, everywhere)).unflatten(1, self.latent)


def waves(rows: int, columns: int, width: int) -> Float[Tensor, "n d"]:
    """Sines and cosines of the column, then of the row, width/4 of each, from short to long waves; row by row."""
    rates = LONGEST_WAVE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [rearrange(place, "h w -> (h w) 1") * rates for place in (across, down)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()

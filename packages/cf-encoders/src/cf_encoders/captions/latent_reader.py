"""What every decoder here is made of: positions that read a latent's patches and one another."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_encoders.configs import config_from_dict, require_positive, require_shape
from cf_encoders.layers import CrossBlock

ReaderConfig = TypeVar("ReaderConfig", bound="LatentReaderConfig")


@dataclass(frozen=True, kw_only=True)
class LatentReaderConfig:
    """Shape and size of what a decoder reads and of its body."""

    latent: tuple[int, int, int]  # (c, h, w)
    max_tokens: int  # the most positions it writes
    patch: int = 8  # the body sees the latent as tokens of c x patch x patch numbers
    width: int = 192
    heads: int = 4
    depth: int = 2  # times the positions read the latent, then one another
    mlp_hidden: int = 384
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "max_tokens", "patch", "width", "heads", "depth", "mlp_hidden")
        require_shape(self, "latent")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        _, h, w = self.latent
        if h % self.patch or w % self.patch:
            raise ValueError(f"patch {self.patch} must divide the latent's height {h} and width {w}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls: type[ReaderConfig], values: Mapping[str, Any]) -> ReaderConfig:
        """The inverse of `to_dict`; an unknown key is a ValueError that lists the known ones."""
        return config_from_dict(cls, values)


class LatentPatches(nn.Module):
    """Latent (b, c, h, w) -> one token per patch, each with a learned position."""

    def __init__(self, config: LatentReaderConfig) -> None:
        super().__init__()
        c, h, w = config.latent
        self.latent, self.patch = config.latent, config.patch
        self.linear = nn.Linear(c * config.patch**2, config.width)
        self.positions = nn.Parameter(0.3 * torch.randn(h * w // config.patch**2, config.width))

    def forward(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        if latent.shape[1:] != self.latent:
            found = tuple(latent.shape[1:])
            raise ValueError(f"the latent is {found}, the decoder reads {self.latent}")
        patches = rearrange(latent, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)
        return self.linear(patches) + self.positions


class LatentReader(nn.Module):
    """x (b, l, width) at learned positions, `depth` times: read the latent's patches, then one another.

    `block` is how the positions read one another: a SelfBlock, or one that does not look ahead.
    """

    def __init__(self, config: LatentReaderConfig, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        size = (config.width, config.heads, config.mlp_hidden, config.dropout)
        self.patches = LatentPatches(config)
        self.positions = nn.Parameter(0.5 * torch.randn(config.max_tokens, config.width))
        self.cross_blocks = nn.ModuleList(CrossBlock(*size) for _ in range(config.depth))
        self.self_blocks = nn.ModuleList(block(*size) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        patches: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b l d"]:
        """`patches` is `self.patches(latent)`, so that many readings cost it once; nobody looks outside `mask`."""
        x = x + self.positions[: x.shape[1]]
        every_patch = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        for cross_block, self_block in zip(self.cross_blocks, self.self_blocks, strict=True):
            x = self_block(cross_block(x, patches, every_patch), mask)
        return self.norm(x)

"""Word order for the cross-attention baseline where the language model has none."""

from dataclasses import dataclass

import torch
from cf_encoders import TextFeatures
from cf_encoders.layers import NeighbourBlock, SelfBlock
from jaxtyping import Float
from torch import Tensor, nn

from cf_apps.engine.checks import require_count
from cf_apps.engine.errors import ConfigError


@dataclass(frozen=True)
class ReaderConfig:
    """Layers over the tokens before the baseline's cross-attention reads them: the text encoder's, without its queries.

    A `vocab` token is one word's vector and knows neither its place nor its neighbours. CLIP, T5 and the others have
    mixed their tokens already and need no reader.
    """

    token_width: int  # of the language model
    max_tokens: int
    width: int = 128  # of the tokens that come out: the backbone's context_width
    conv_depth: int = 2  # gated convolutions over neighbouring tokens
    conv_kernel: int = 5
    depth: int = 1  # self-attention layers
    heads: int = 4
    mlp_hidden: int = 256

    def __post_init__(self) -> None:
        for name in ("token_width", "max_tokens", "width", "conv_kernel", "heads", "mlp_hidden"):
            require_count(f"reader.{name}", getattr(self, name), 1)
        for name in ("conv_depth", "depth"):
            require_count(f"reader.{name}", getattr(self, name), 0)
        if self.width % self.heads:
            raise ConfigError(f"reader.width {self.width} must be a multiple of reader.heads {self.heads}")
        if self.conv_kernel % 2 == 0:
            raise ConfigError(f"reader.conv_kernel must be odd, got {self.conv_kernel}")


class Reader(nn.Module):
    """tokens (b, n, d), mask (b, n) -> tokens (b, n, width) that know their place and their neighbours, same mask."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        width = config.width
        self.norm, self.linear = nn.LayerNorm(config.token_width), nn.Linear(config.token_width, width)
        self.positions = nn.Parameter(0.3 * torch.randn(config.max_tokens, width))
        self.neighbours = nn.ModuleList(
            NeighbourBlock(width, config.conv_kernel) for _ in range(config.conv_depth)
        )
        self.self_blocks = nn.ModuleList(
            SelfBlock(width, config.heads, config.mlp_hidden, dropout=0.0) for _ in range(config.depth)
        )
        self.out = nn.LayerNorm(width)

    def forward(self, text: TextFeatures) -> TextFeatures:
        """Padding changes nothing."""
        x = self.embed(text.tokens)
        for block in (*self.neighbours, *self.self_blocks):
            x = block(x, text.mask)
        return TextFeatures(self.out(x), text.mask)

    def embed(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
        """Each token by itself, at its place."""
        return self.linear(self.norm(tokens)) + self.positions[: tokens.shape[1]]

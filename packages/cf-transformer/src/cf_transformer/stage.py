"""One resolution of the cascade: a U-ViT of blocks that keep the grid (DiMR)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.blocks import ConvNeXtBlock, TransformerBlock
from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.position import PatchEmbed
from cf_transformer.td_norm import TimeLerp


def build_block(config: DiMRConfig, stage: StageConfig) -> TransformerBlock | ConvNeXtBlock:
    """The block of a stage's kind."""
    d, hidden = stage.d_model, config.hidden(stage)
    if stage.n_heads is not None:
        return TransformerBlock(d, hidden, stage.n_heads, config.activation, config.attention)
    return ConvNeXtBlock(d, hidden, config.grid(stage), config.kernel_size, config.activation)


class Stage(nn.Module):
    """N blocks, N odd: the first half pushes its outputs, the last half pops them, last in first out.

    After the middle block, each block sees Linear([x ; popped skip]) (U-ViT).
    """

    def __init__(self, config: DiMRConfig, stage: StageConfig) -> None:
        super().__init__()
        d, n_blocks = stage.d_model, stage.n_blocks
        self.embed = PatchEmbed(config.channels, d, stage.patch, config.grid(stage))
        self.blocks = nn.ModuleList(build_block(config, stage) for _ in range(n_blocks))
        self.skips = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(n_blocks // 2))
        self.norms_per_block = {"transformer": 2, "convnext": 1}[stage.kind]
        self.gains = TimeLerp(n_blocks * self.norms_per_block, d, init=1.0)

    def features(
        self, x: Float[Tensor, "b n d"], t: Float[Tensor, "b"], token: Float[Tensor, "b 1 d"] | None = None
    ) -> Iterator[Float[Tensor, "b n d"]]:
        """Yield the N + 1 maps that the next stage receives: the embedding x, then each block's output.

        `token` is put before the n tokens and taken off every map. The last map is the stage's output.
        """
        yield x
        first = 0 if token is None else 1
        x = x if token is None else torch.cat([token.to(x.dtype), x], dim=1)
        gammas = self.gains(t).unflatten(0, (-1, self.norms_per_block)).unbind(0)
        half = len(self.blocks) // 2
        pushed: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i > half:
                x = self.skips[i - half - 1](torch.cat([x, pushed.pop()], dim=-1))
            x = block(x, gammas[i])
            if i < half:
                pushed.append(x)
            yield x[:, first:]

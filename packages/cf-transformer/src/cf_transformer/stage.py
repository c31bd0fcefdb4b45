"""One resolution of the cascade: a U-ViT of blocks that keep the grid (DiMR)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cf_transformer.blocks import ConvNeXtBlock, TransformerBlock
from cf_transformer.config import DiMRConfig, StageConfig
from cf_transformer.position import PatchEmbed
from cf_transformer.query_key import QueryKey
from cf_transformer.recompute import RECOMPUTE
from cf_transformer.td_norm import Time, TimeLerp


def build_block(config: DiMRConfig, stage: StageConfig) -> TransformerBlock | ConvNeXtBlock:
    """The block of a stage's kind."""
    d, hidden = stage.d_model, config.hidden(stage)
    if stage.n_heads is not None:
        query_key = build_query_key(config, stage, stage.n_heads)
        return TransformerBlock(d, hidden, stage.n_heads, config.activation, config.attention, query_key)
    return ConvNeXtBlock(d, hidden, config.grid(stage), config.kernel_size, config.activation)


def build_query_key(config: DiMRConfig, stage: StageConfig, n_heads: int) -> QueryKey | None:
    """What the config has q and k go through before they meet."""
    if config.query_key == "plain":
        return None
    grid = config.grid(stage) if config.query_key == "norm+rope" else None
    return QueryKey(n_heads, stage.d_model // n_heads, grid)


def has_table(config: DiMRConfig, stage: StageConfig) -> bool:
    """Whether a stage learns a position for each cell: not where its attention turns with the cell's place."""
    return stage.kind == "convnext" or config.query_key != "norm+rope"


class Stage(nn.Module):
    """N blocks, N odd: the first half pushes its outputs, the last half pops them, last in first out.

    After the middle block, each block sees Linear([x ; popped skip]) (U-ViT).
    """

    def __init__(self, config: DiMRConfig, stage: StageConfig) -> None:
        super().__init__()
        d, n_blocks = stage.d_model, stage.n_blocks
        self.embed = PatchEmbed(
            config.channels, d, stage.patch, config.grid(stage), positions=has_table(config, stage)
        )
        self.blocks = nn.ModuleList(build_block(config, stage) for _ in range(n_blocks))
        self.skips = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(n_blocks // 2))
        self.kind = stage.kind
        self.norms_per_block = {"transformer": 2, "convnext": 1}[stage.kind]
        self.gains = TimeLerp(n_blocks * self.norms_per_block, d, init=1.0)
        self.run = RECOMPUTE[config.recompute]

    def features(
        self,
        x: Float[Tensor, "b n d"],
        t: Time,
        token: Float[Tensor, "b 1 d"] | None = None,
        context: tuple[Tensor, ...] = (),
    ) -> Iterator[Float[Tensor, "b n d"]]:
        """Yield the N + 1 maps that the next stage receives: the embedding x, then each block's output.

        `token` is put before the n tokens and taken off every map; `context` is handed to every block of a transformer
        stage. The last map is the stage's output.
        """
        yield x
        first = 0 if token is None else 1
        x = x if token is None else torch.cat([token.to(x.dtype), x], dim=1)
        gammas = self.gains(t).unflatten(0, (-1, self.norms_per_block)).unbind(0)
        context = context if self.kind == "transformer" else ()
        half = len(self.blocks) // 2
        pushed: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i > half:
                x = self.skips[i - half - 1](torch.cat([x, pushed.pop()], dim=-1))
            x = self.run(block, x, gammas[i], *context)
            if i < half:
                pushed.append(x)
            yield x[:, first:]

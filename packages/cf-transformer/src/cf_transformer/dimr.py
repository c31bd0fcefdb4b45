"""DiMR: the multi-resolution velocity network v(x_t, t, 1_c) of CrossFlow."""

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_transformer.cascade import Cascade
from cf_transformer.config import DiMRConfig
from cf_transformer.head import VelocityHead
from cf_transformer.indicator import Indicator
from cf_transformer.init import initialise
from cf_transformer.stage import Stage


class DiMR(nn.Module):
    """Stages from low to high resolution; all see the full x_t, each adds what the one below hands over.

    Time enters through the norms only, the indicator through one token of the first stage only.
    `generator` seeds the initial weights; without one they come from PyTorch's default generator.
    """

    def __init__(self, config: DiMRConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.indicator = Indicator(config.stages[0].d_model, config.indicator)
        self.stages = nn.ModuleList(Stage(config, stage) for stage in config.stages)
        self.cascades = nn.ModuleList(
            Cascade(low.n_blocks + 1, low.d_model, high.d_model, low.patch // high.patch, config.grid(low))
            for low, high in zip(config.stages, config.stages[1:], strict=False)
        )
        *lower, top = config.stages
        upscales = [1] * len(lower) + [top.patch]
        heads = [
            VelocityHead(config.channels, stage.d_model, config.grid(stage), upscale)
            for stage, upscale in zip(config.stages, upscales, strict=True)
        ]
        self.heads = nn.ModuleList(heads)
        initialise(self, generator, config.init)
        if config.zero_init_head:
            for head in heads:
                head.zero()

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The velocity at x_t: towards the paired x_1, or towards any x_1 where `is_null`.

        Raises ValueError when x_t or t does not have the shape of the config.
        """
        finest = last(self._stage_outputs(x_t, t, is_null))
        return self.heads[-1](finest, t).to(x_t.dtype)

    def scales(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b c _ _"], ...]:
        """The velocity of every stage, low to high: (b, c, h / patch, w / patch), the last (b, c, h, w)."""
        outputs = self._stage_outputs(x_t, t, is_null)
        return tuple(head(x, t).to(x_t.dtype) for head, x in zip(self.heads, outputs, strict=True))

    def _stage_outputs(self, x_t: Tensor, t: Tensor, is_null: Tensor | None) -> Iterator[Tensor]:
        """Yield the last feature map of every stage, low to high."""
        self._check(x_t, t)
        if is_null is None:
            is_null = torch.zeros_like(t, dtype=torch.bool)
        first, *higher = cast("list[Stage]", list(self.stages))  # a ModuleList forgets the type
        maps = first.features(first.embed(x_t), t, self.indicator(is_null))
        for stage, cascade in zip(higher, self.cascades, strict=True):
            x, hand_over = cascade(maps, t)
            yield x
            maps = stage.features(stage.embed(x_t) + hand_over, t)
        yield last(maps)

    def _check(self, x_t: Tensor, t: Tensor) -> None:
        expected = (self.config.channels, *self.config.size)
        if tuple(x_t.shape[1:]) != expected:
            raise ValueError(f"x_t must be (b, {', '.join(map(str, expected))}), got {tuple(x_t.shape)}")
        if tuple(t.shape) != (x_t.shape[0],):
            raise ValueError(f"t must be (b,) = ({x_t.shape[0]},), got {tuple(t.shape)}; use t.expand(b)")


def last(maps: Iterable[Tensor]) -> Tensor:
    """The final tensor of a stream; those before it are let go as they pass."""
    return reduce(lambda _, x: x, maps)

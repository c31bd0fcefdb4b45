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
from cf_transformer.inputs import require_inputs
from cf_transformer.pretrained import Pretrained
from cf_transformer.stage import Stage
from cf_transformer.td_norm import Clock, TimeLerp


class DiMR(Pretrained, nn.Module, config=DiMRConfig):
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
        return self.read(x_t, t, is_null)

    def scales(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Float[Tensor, "b c _ _"], ...]:
        """The velocity of every stage, low to high: (b, c, h / patch, w / patch), the last (b, c, h, w)."""
        return self.read_scales(x_t, t, is_null)

    def read(self, x_t: Tensor, t: Tensor, is_null: Tensor | None, *context: Tensor) -> Tensor:
        """`forward`; `context` goes to every block of the transformer stages, for blocks that read one."""
        clock = self._clock(x_t, t)
        finest = last(self._stage_outputs(x_t, clock, is_null, *context))
        return self.heads[-1](finest, clock).to(x_t.dtype)

    def read_scales(
        self, x_t: Tensor, t: Tensor, is_null: Tensor | None, *context: Tensor
    ) -> tuple[Tensor, ...]:
        """`scales`, with a context as in `read`."""
        clock = self._clock(x_t, t)
        outputs = self._stage_outputs(x_t, clock, is_null, *context)
        return tuple(head(x, clock).to(x_t.dtype) for head, x in zip(self.heads, outputs, strict=True))

    def _clock(self, x_t: Tensor, t: Tensor) -> Clock:
        require_inputs(x_t, t, self.config.channels, self.config.size)
        return Clock(self._lerps(), t)

    def _lerps(self) -> Iterator[TimeLerp]:
        """Everything in the model that time moves."""
        for stage in cast("list[Stage]", list(self.stages)):
            yield stage.gains
        for cascade in cast("list[Cascade]", list(self.cascades)):
            yield from (cascade.gain, cascade.shift, cascade.norm.gain, cascade.norm.shift)
        for head in cast("list[VelocityHead]", list(self.heads)):
            yield from (head.norm.gain, head.norm.shift)

    def _stage_outputs(
        self, x_t: Tensor, clock: Clock, is_null: Tensor | None, *context: Tensor
    ) -> Iterator[Tensor]:
        """Yield the last feature map of every stage, low to high."""
        if is_null is None:
            is_null = torch.zeros_like(clock.t, dtype=torch.bool)
        first, *higher = cast("list[Stage]", list(self.stages))  # a ModuleList forgets the type
        maps = first.features(first.embed(x_t), clock, self.indicator(is_null), context)
        for stage, cascade in zip(higher, self.cascades, strict=True):
            x, hand_over = cascade(maps, clock)
            yield x
            maps = stage.features(stage.embed(x_t) + hand_over, clock, context=context)
        yield last(maps)


def last(maps: Iterable[Tensor]) -> Tensor:
    """The final tensor of a stream; those before it are let go as they pass."""
    return reduce(lambda _, x: x, maps)

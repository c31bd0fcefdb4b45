"""The paper's baseline: DiMR from noise, with the text by cross-attention (CrossFlow section 5.1, table 1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cf_transformer.blocks import TransformerBlock
from cf_transformer.config import DiMRConfig, StageConfig, require_fields, require_positive
from cf_transformer.cross_attention import CrossAttention, CrossAttentionBlock, Text, TextOrNull
from cf_transformer.dimr import DiMR
from cf_transformer.init import STD, initialise
from cf_transformer.pretrained import Pretrained
from cf_transformer.stage import Stage
from cf_transformer.td_norm import TimeLerp

Velocity = Callable[..., Tensor]


@dataclass(frozen=True)
class CrossAttentionConfig:
    """A DiMR whose transformer stages read text tokens of width `context_width` (768: CLIP ViT-L/14)."""

    dimr: DiMRConfig
    context_width: int = 768

    def __post_init__(self) -> None:
        require_positive("context_width", self.context_width)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values, as a checkpoint's config.json holds them."""
        return {"dimr": self.dimr.to_dict(), "context_width": self.context_width}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CrossAttentionConfig":
        """The inverse of `to_dict`; a key that is not a field is an error that lists the fields."""
        require_fields(cls, values)
        return cls(**{**values, "dimr": DiMRConfig.from_dict(values["dimr"])})


class CrossAttentionDiMR(Pretrained, nn.Module, config=CrossAttentionConfig):
    """A DiMR in which every self-attention is followed by a cross-attention to the text.

    It keeps the indicator token of DiMR. Where `is_null`, the text gives way to a learned vector as well, so nothing of
    it is left in the unconditional velocity. `generator` seeds the initial weights: those of the DiMR of the same
    generator first, then the cross-attention's.
    """

    def __init__(self, config: CrossAttentionConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.text = TextOrNull(config.context_width)
        self.dimr = DiMR(config.dimr, generator)
        for stage, row in zip(_stages(self.dimr), config.dimr.stages, strict=True):
            if row.n_heads is not None:
                _open_to_text(stage, row, row.n_heads, config, generator)
        nn.init.trunc_normal_(self.text.null, std=STD, generator=generator)

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Float[Tensor, "b"],
        is_null: Bool[Tensor, "b"] | None = None,
        *,
        context: Float[Tensor, "b l d"],
        context_mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The velocity at x_t, given the text of every row, or towards any x_1 where `is_null`.

        `context` holds the features of l text tokens, `context_mask` is true for text and false for padding (all text
        without it). A row without a single text token reads the null vector. Raises ValueError on wrong shapes.
        """
        return self.dimr.read(x_t, t, is_null, *self._read_text(context, context_mask, x_t, is_null))

    def scales(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Float[Tensor, "b"],
        is_null: Bool[Tensor, "b"] | None = None,
        *,
        context: Float[Tensor, "b l d"],
        context_mask: Bool[Tensor, "b l"] | None = None,
    ) -> tuple[Float[Tensor, "b c _ _"], ...]:
        """The velocity of every stage, low to high, as DiMR's."""
        return self.dimr.read_scales(x_t, t, is_null, *self._read_text(context, context_mask, x_t, is_null))

    def given(
        self, context: Float[Tensor, "b l d"], context_mask: Bool[Tensor, "b l"] | None = None
    ) -> Velocity:
        """v(x_t, t, is_null) of these texts, for a solver and classifier-free guidance.

        x_t may have a multiple of the b rows: guidance stacks the conditional and the unconditional half.
        """

        def v(x_t: Tensor, t: Tensor, is_null: Tensor | None = None) -> Tensor:
            copies, rest = divmod(len(x_t), len(context))
            if rest:
                raise ValueError(
                    f"{len(context)} texts were given for {len(x_t)} rows; pass a multiple of their number"
                )
            mask = None if context_mask is None else context_mask.repeat(copies, 1)
            return self(x_t, t, is_null, context=context.repeat(copies, 1, 1), context_mask=mask)

        return v

    def _read_text(self, context: Tensor, mask: Tensor | None, x_t: Tensor, is_null: Tensor | None) -> Text:
        _check(context, mask, len(x_t), self.config.context_width)
        if is_null is None:
            is_null = torch.zeros(len(x_t), dtype=torch.bool, device=x_t.device)
        return self.text(context, mask, is_null)


def _stages(model: DiMR) -> list[Stage]:
    return cast("list[Stage]", list(model.stages))  # a ModuleList forgets the type


def _open_to_text(
    stage: Stage,
    row: StageConfig,
    n_heads: int,
    config: CrossAttentionConfig,
    generator: torch.Generator | None,
) -> None:
    """Give every block of a transformer stage a cross-attention after its attention, and a third gain for its norm."""
    d = row.d_model

    def opened(block: nn.Module) -> CrossAttentionBlock:
        cross = CrossAttention(d, config.context_width, n_heads, config.dimr.attention)
        initialise(cross, generator, config.dimr.init)
        return CrossAttentionBlock(cast(TransformerBlock, block), cross)

    stage.blocks = nn.ModuleList(opened(block) for block in stage.blocks)
    stage.norms_per_block = 3
    stage.gains = TimeLerp(3 * row.n_blocks, d, init=1.0)


def _check(context: Tensor, mask: Tensor | None, b: int, width: int) -> None:
    if context.ndim != 3 or context.shape[::2] != (b, width) or context.shape[1] == 0:
        raise ValueError(f"context must be (b, l, d) = ({b}, l >= 1, {width}), got {tuple(context.shape)}")
    if mask is not None and mask.shape != context.shape[:2]:
        raise ValueError(f"context_mask must be (b, l) = {tuple(context.shape[:2])}, got {tuple(mask.shape)}")

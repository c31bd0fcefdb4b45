"""What CrossFlow is compared with: flow matching from noise that reads the text by cross-attention (Table 1, Fig. 3).

Same data, codec, language model, path, solver and training loop. Only the source and the way of the text differ.
"""

from dataclasses import dataclass, replace

import torch
from cf_encoders import DiagonalGaussian, TextFeatures
from cf_transformer import CrossAttentionDiMR
from jaxtyping import Bool, Float
from torch import Tensor

from cf_apps.engine.flow import FlowConfig, FlowLoss, flow_loss
from cf_apps.engine.ranks.draws import draws_of


def standard_normal(b: int, latent: tuple[int, int, int], device: torch.device) -> DiagonalGaussian:
    """The source of ordinary flow matching: N(0, I) for every caption."""
    zeros = torch.zeros(b, *latent, device=device)
    return DiagonalGaussian(zeros, zeros)


@dataclass(frozen=True)
class TextDropped:
    """The network with a batch's texts before it, some of them dropped: a backbone like any other."""

    network: CrossAttentionDiMR
    text: TextFeatures
    dropped: Bool[Tensor, "b"]

    def __call__(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """v(x_t, t) given the text, without one where it is dropped or `is_null`."""
        text = {"context": self.text.tokens, "context_mask": self.text.mask}
        return self.network(x_t, t, self._without(is_null), **text)

    def scales(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, "b"], is_null: Bool[Tensor, "b"] | None = None
    ) -> tuple[Tensor, ...]:
        """The same at every scale, low to high."""
        text = {"context": self.text.tokens, "context_mask": self.text.mask}
        return self.network.scales(x_t, t, self._without(is_null), **text)

    def _without(self, is_null: Bool[Tensor, "b"] | None) -> Bool[Tensor, "b"]:
        return self.dropped if is_null is None else self.dropped | is_null


def text_dropped_loss(
    network: CrossAttentionDiMR,
    text: TextFeatures,
    x_0: Float[Tensor, "b c h w"],
    x_1: Float[Tensor, "b c h w"],
    config: FlowConfig,
    generator: torch.Generator,
) -> FlowLoss:
    """L_FM where a share `null_rate` of the samples lose their text and keep their x_1.

    CrossFlow's indicator leads a null sample to another's x_1, for its source still says which is its own. Here the
    source says nothing, so the text is what must go.
    """
    dropped = draws_of(generator).is_null(config.null_rate, x_1)
    backbone = TextDropped(network, text, dropped)
    return flow_loss(backbone, x_0, x_1, replace(config, null_rate=0.0), generator)

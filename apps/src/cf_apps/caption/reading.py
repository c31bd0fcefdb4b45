"""The decoder learns to read what the flow writes: latents near those of captions, and between them.

Trained with the text autoencoder, a decoder has only seen latents that are some caption's. The flow's lie off them, and
where it hesitates, between two. It is cheaper to read those rightly than to have none.
"""

import torch
import torch.nn.functional as F
from cf_flowcore import CondOT
from jaxtyping import Float
from torch import Tensor

from cf_apps.caption.model import CaptionModel
from cf_apps.caption.text import TextModel
from cf_apps.engine.flow import TIMES, Backbone
from cf_apps.engine.ranks.draws import draws_of


@torch.no_grad()
def flowed_on(
    backbone: Backbone,
    x_t: Float[Tensor, "b c h w"],
    t: Float[Tensor, "b"],
    steps: int,
) -> Float[Tensor, "b c h w"]:
    """x_t carried from each sample's own t to 1 in so many Euler steps; with one, x_t + (1 - t) v(x_t, t)."""
    step = (1 - t) / steps
    nobody = torch.zeros_like(t, dtype=torch.bool)
    for k in range(steps):
        x_t = x_t + step[:, None, None, None] * backbone(x_t, t + k * step, nobody)
    return x_t


def reading_loss(
    model: CaptionModel,
    text: TextModel,
    captions: list[str],
    x_0: Float[Tensor, "b c h w"],
    x_1: Float[Tensor, "b c h w"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """L_read: cross-entropy of the captions' tokens, read out of where the flow goes from x_t; t is the flow's.

    Only the decoder gets a gradient: the flow is not bent towards what is easy to read.
    """
    config, draws, path = model.config.loss, draws_of(generator), CondOT(model.config.loss.sigma_min)
    t = draws.times(TIMES[config.times], x_1)
    flowed = flowed_on(model.backbone, path.x_t(x_0.detach(), x_1, t), t, config.decoder_steps)
    return seeing_loss(model, text, captions, flowed, generator)


def seeing_loss(
    model: CaptionModel,
    text: TextModel,
    captions: list[str],
    x_1: Float[Tensor, "b c h w"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Cross-entropy of the captions' tokens read out of x_1, mean over those of all ranks. L_see: of the mean of x_0.

    L_mean asks for all numbers of x_1 alike, this for those that decide words: which colour is whose, above all.
    """
    targets, real = text.autoencoder.targets(*text.tokens(captions))
    logits, told = model.decoder.training_logits(model.latent_of(x_1), targets, real, generator)
    return draws_of(generator).share_of(told.sum()) * F.cross_entropy(logits[told].float(), targets[told])

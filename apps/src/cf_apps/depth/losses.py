"""L = L_FM + w L_Enc + lambda L_KL, encoder and flow trained together (CrossFlow sec. 4.2 and 5.3)."""

import torch
from cf_encoders import encoder_losses, reconstruction_mse
from jaxtyping import Float
from torch import Tensor

from cf_apps.depth.model import DepthModel
from cf_apps.engine.flow import flow_loss
from cf_apps.engine.ranks.draws import draws_of
from cf_apps.engine.task import Losses


def depth_losses(
    model: DepthModel,
    pictures: Float[Tensor, "b 3 h w"],
    x_1: Float[Tensor, "b 1 h w"],
    known: Float[Tensor, "b 1 h w"] | None,
    generator: torch.Generator,
) -> Losses:
    """All losses of one batch. pictures: in [-1, 1]. known: 1 where x_1 is a reading, 0 where not; None: everywhere.

    Gradients of the flow loss reach the encoder through x_t and through the target: the source is learned.
    """
    config, draws = model.config.loss, draws_of(generator)
    if known is None and draws.is_part:  # other ranks' rows may have holes, and null samples bring theirs
        known = torch.ones_like(x_1)
    posterior = model.encode(pictures)
    x_0 = draws.sample(posterior)
    flow = flow_loss(model.backbone, x_0, x_1, config, generator, known)
    reconstruction = None
    if config.reconstruction_weight:
        reconstruction = reconstruction_mse(pictures, model.decode(x_0))
    encoder = encoder_losses(
        posterior, x_0, kl=config.kl_form, group=draws.group, sizes=draws.sizes, reconstruction=reconstruction
    )
    terms = {"flow": (1.0, flow.loss), "kl": (config.kl_weight, encoder.terms["kl"])}
    if config.reconstruction_weight:
        terms["reconstruction"] = (config.reconstruction_weight, encoder.terms["reconstruction"])
    return Losses(terms, {**encoder.statistics, **flow.stats})

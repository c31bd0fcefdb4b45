"""L = L_FM + w L_Enc + lambda L_KL (+ mu L_mean): the joint training of CrossFlow section 4.2, appendix A."""

import torch
from cf_encoders import encoder_losses
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.flow import flow_loss
from cf_apps.engine.task import Losses
from cf_apps.t2i.model import T2IModel


def t2i_losses(
    model: T2IModel,
    captions: list[str],
    x_1: Float[Tensor, "b c h w"],
    seen: Float[Tensor, "b k m n"],
    generator: torch.Generator,
    progress: float = 0.0,
) -> Losses:
    """All losses of one batch. seen: what the image tower looks at, x_1 or the image in [-1, 1].

    progress: the share of the run that is done, from 0 to 1.

    Gradients of the flow loss reach the text encoder through x_t and through the target: the source is learned.
    """
    config, modules = model.config.loss, model.modules
    posterior = model.encode_text(captions)
    x_0 = posterior.sample(generator)
    flow = flow_loss(model.backbone, x_0, x_1, config, generator)
    image_latent = modules["image_tower"](seen)
    encoder = encoder_losses(
        posterior, x_0, kl=config.kl_form, target=image_latent, log_scale=modules["log_scale"]()
    )
    terms = {
        "flow": (1.0, flow.loss),
        "encoder": (config.encoder_weight, encoder.terms["contrastive"]),
        "kl": (config.kl_weight, encoder.terms["kl"]),
    }
    if config.mean_weight:
        terms["mean"] = (config.mean_weight_at(progress), unexplained(posterior.mean, x_1))
    return Losses(terms, {**encoder.statistics, **flow.stats})


def unexplained(mean: Float[Tensor, "b c h w"], x_1: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """L_mean: the share of each channel's variance in this batch that `mean` leaves unexplained, over the channels.

    0 where mean = x_1, 1 where it knows the channel's average and no more. A floor keeps constant channels finite.
    """
    variance = x_1.var((0, 2, 3), correction=0, keepdim=True).clamp(min=1e-4)
    return ((mean - x_1).square() / variance).mean()

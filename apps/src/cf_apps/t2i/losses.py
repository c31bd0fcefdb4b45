"""L = L_FM + w L_Enc + lambda L_KL (+ mu L_mean): the joint training of CrossFlow section 4.2, appendix A."""

import torch
from cf_encoders import encoder_losses
from cf_flowcore import CondOT, draw_null, null_targets, scale_losses
from cf_flowcore.multiscale import weighted_sum
from jaxtyping import Float
from torch import Tensor

from cf_apps.engine.task import Losses
from cf_apps.t2i.config import TIMES
from cf_apps.t2i.model import T2IModel

T_BINS = 5


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
    path = CondOT(config.sigma_min)
    posterior = model.encode_text(captions)
    x_0 = posterior.sample(generator)
    is_null = draw_null(len(x_1), config.null_rate, generator=generator, device=x_1.device)
    target = null_targets(x_1, is_null, generator=generator)
    t = TIMES[config.times](len(x_1), generator=generator, device=x_1.device)

    x_t, v_t = path.x_t(x_0, target, t), path.v(x_0, target, t)
    per_scale = scale_losses(model.backbone.scales(x_t, t, is_null), v_t)  # (s, b), low to high
    image_latent = modules["image_tower"](seen)
    encoder = encoder_losses(
        posterior, x_0, kl=config.kl_form, target=image_latent, log_scale=modules["log_scale"]()
    )
    terms = {
        "flow": (1.0, weighted_sum(per_scale, config.scale_weights).mean()),
        "encoder": (config.encoder_weight, encoder.terms["contrastive"]),
        "kl": (config.kl_weight, encoder.terms["kl"]),
    }
    if config.mean_weight:
        terms["mean"] = (config.mean_weight_at(progress), unexplained(posterior.mean, x_1))
    stats = encoder.statistics | {
        "flow_full": per_scale[-1].mean().detach(),
        **_by_time("flow", per_scale[-1].detach(), t),
    }
    return Losses(terms, stats)


def unexplained(mean: Float[Tensor, "b c h w"], x_1: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """L_mean: the share of each channel's variance in this batch that `mean` leaves unexplained, over the channels.

    0 where mean = x_1, 1 where it knows the channel's average and no more. A floor keeps constant channels finite.
    """
    variance = x_1.var((0, 2, 3), correction=0, keepdim=True).clamp(min=1e-4)
    return ((mean - x_1).square() / variance).mean()


def _by_time(name: str, loss: Float[Tensor, "b"], t: Float[Tensor, "b"]) -> dict[str, Tensor]:
    """Mean loss in each fifth of t; NaN where the batch has no such t. The first fifth decides the image."""
    place = (t * T_BINS).long().clamp(max=T_BINS - 1)
    return {f"{name}_t{k}": loss[place == k].mean() for k in range(T_BINS)}

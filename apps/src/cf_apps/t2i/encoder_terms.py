"""What trains the text encoder besides the flow: L_Enc in its four kinds (CrossFlow Table 3b), L_KL, L_mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cf_encoders import (
    DiagonalGaussian,
    FeatureDecoder,
    ImageTower,
    LogScale,
    TextFeatures,
    TextTower,
    TextTowerConfig,
    TextVEConfig,
    encoder_losses,
    token_mse,
)
from cf_encoders.captions import FeatureDecoderConfig
from jaxtyping import Float
from torch import Tensor, nn

from cf_apps.engine.learned_source import unexplained
from cf_apps.engine.ranks.draws import Draws
from cf_apps.t2i.config import T2IConfig

Terms = dict[str, tuple[float, Float[Tensor, ""]]]


@dataclass(frozen=True)
class Pair:
    """A batch as the encoder's losses see it. seen: what the image tower looks at, x_1 or the image in [-1, 1]."""

    text: TextFeatures
    x_1: Float[Tensor, "b c h w"]
    seen: Float[Tensor, "b k m n"]


@dataclass(frozen=True)
class EncoderLossKind:
    """parts: the modules that only this loss needs. inputs: what it hands to `cf_encoders.encoder_losses`."""

    parts: Callable[[T2IConfig, TextVEConfig], dict[str, nn.Module]]
    inputs: Callable[[nn.ModuleDict, Pair, Tensor], dict[str, Any]]


def encoder_parts(config: T2IConfig) -> dict[str, nn.Module]:
    """The modules that only train the text encoder, by name: not needed to draw. None for the baseline."""
    return {} if config.text_ve is None else ENCODER_LOSSES[config.loss.encoder].parts(config, config.text_ve)


def encoder_terms(
    config: T2IConfig,
    modules: nn.ModuleDict,
    pair: Pair,
    posterior: DiagonalGaussian,
    x_0: Float[Tensor, "b c h w"],
    progress: float,
    draws: Draws,
) -> tuple[Terms, dict[str, Tensor]]:
    """The encoder's losses by name with their weights, and statistics. draws: of this step; negatives and variances are
    those of its whole batch.

    L_KL holds a learned sigma only. Where sigma is fixed (Table 3a's encoder, with and without noise), it would be no
    more than a pull of the mean towards zero, and is left out.
    """
    loss = config.loss
    inputs = ENCODER_LOSSES[loss.encoder].inputs(modules, pair, x_0)
    found = encoder_losses(posterior, x_0, kl=loss.kl_form, group=draws.group, sizes=draws.sizes, **inputs)
    terms: Terms = {}
    if "contrastive" in found.terms:
        terms["encoder"] = (loss.encoder_weight, draws.as_row_mean(found.terms["contrastive"]))
    elif "reconstruction" in found.terms:
        terms["encoder"] = (loss.encoder_weight, found.terms["reconstruction"])
    if config.text_ve is not None and config.text_ve.variation == "learned":
        terms["kl"] = (loss.kl_weight, found.terms["kl"])
    if loss.mean_weight:
        lost = unexplained(posterior.mean, pair.x_1, draws.everyone(pair.x_1))
        terms["mean"] = (loss.mean_weight_at(progress), lost)
    return terms, found.statistics


# ------------------------------------------------------------------------------------------------- the four kinds


def _image_parts(config: T2IConfig, text_ve: TextVEConfig) -> dict[str, nn.Module]:
    tower = nn.Identity() if config.image_tower is None else ImageTower(config.image_tower)
    return {"image_tower": tower, "log_scale": LogScale()}


def _image_inputs(modules: nn.ModuleDict, pair: Pair, x_0: Tensor) -> dict[str, Any]:
    """Contrast of x_0 with the picture."""
    return {"target": modules["image_tower"](pair.seen), "log_scale": modules["log_scale"]()}


def _text_parts(config: T2IConfig, text_ve: TextVEConfig) -> dict[str, nn.Module]:
    usual = TextTowerConfig(text_ve.token_width, config.latent)
    return {"text_tower": TextTower(config.text_tower or usual), "log_scale": LogScale()}


def _text_inputs(modules: nn.ModuleDict, pair: Pair, x_0: Tensor) -> dict[str, Any]:
    """Contrast of x_0 with another, small encoder of the same tokens."""
    target = modules["text_tower"](pair.text.tokens, pair.text.mask)
    return {"target": target, "log_scale": modules["log_scale"]()}


def _decoder_parts(config: T2IConfig, text_ve: TextVEConfig) -> dict[str, nn.Module]:
    usual = FeatureDecoderConfig(
        latent=config.latent,
        max_tokens=config.language.max_tokens,
        token_width=text_ve.token_width,
        patch=math.gcd(text_ve.patch, *config.latent[1:]),
    )
    return {"text_decoder": FeatureDecoder(config.text_decoder or usual)}


def _decoder_inputs(modules: nn.ModuleDict, pair: Pair, x_0: Tensor) -> dict[str, Any]:
    """Squared distance of the language model's tokens to those decoded from x_0.

    Without gradient through the target: trained word vectors would come closer to it by shrinking to zero.
    """
    tokens, mask = pair.text.tokens.detach(), pair.text.mask
    return {"reconstruction": token_mse(tokens, modules["text_decoder"](x_0), mask)}


ENCODER_LOSSES: dict[str, EncoderLossKind] = {
    "image-text": EncoderLossKind(_image_parts, _image_inputs),
    "text-text": EncoderLossKind(_text_parts, _text_inputs),
    "reconstruction": EncoderLossKind(_decoder_parts, _decoder_inputs),
    "none": EncoderLossKind(lambda config, text_ve: {}, lambda modules, pair, x_0: {}),
}

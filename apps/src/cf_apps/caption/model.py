"""The modules of a captioning model, and the road they serve: picture -> x_0 and x_1 -> words."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from cf_encoders import DiagonalGaussian, ImageCodec, ImageVE, LogScale, PosteriorCodec, Tokenizer
from cf_encoders.captions import DECODERS, AutoregressiveDecoder, CaptionDecoderConfig
from cf_encoders.gaussian import LOGVAR_RANGE
from cf_transformer import DiMR
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.caption.config import CaptionConfig
from cf_apps.caption.text import Decoder
from cf_apps.caption.tokens import described, restored, sentences
from cf_apps.engine.codecs import build_codec
from cf_apps.engine.errors import ConfigError
from cf_apps.engine.flow import Backbone

NAME = "caption"
SAMPLING_PARTS = ("image_ve", "backbone", "decoder")


@dataclass(frozen=True)
class CaptionModel:
    """A built model. modules: `backbone`, `decoder`, and for a learned source `image_ve` and `log_scale`."""

    config: CaptionConfig
    codec: ImageCodec
    tokenizer: Tokenizer
    modules: nn.ModuleDict

    def describe(self) -> dict[str, Any]:
        """What `rebuild` needs to make the same modules again."""
        return {
            "name": NAME,
            "config": self.config.to_dict(),
            "decoder": self.decoder.config.to_dict(),
            "decoder_kind": next(kind for kind, made in DECODERS.items() if isinstance(self.decoder, made)),
            "tokenizer": described(self.tokenizer),
        }

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "b 3 H W"]) -> DiagonalGaussian:
        """q(latent | picture) of the frozen codec; a point where it has no posterior."""
        floats = images.to(self.device).float() / 255
        if isinstance(self.codec, PosteriorCodec):
            return self.codec.posterior(floats)
        latent = self.codec.encode(floats)
        return DiagonalGaussian(latent, torch.full_like(latent, LOGVAR_RANGE[0]))

    def source(self, latent: DiagonalGaussian) -> DiagonalGaussian:
        """q(x_0 | picture): the codec's, or what image_ve makes of its mean; sigma^2 is added to the variance."""
        q = self.modules["image_ve"](latent.mean) if "image_ve" in self.modules else latent
        return DiagonalGaussian(q.mean, (q.logvar.exp() + self.config.sigma**2).log())

    def standardised(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """x_1 of a caption's latent: each channel with mean 0 and variance 1 over the training captions."""
        mean, std = self._statistics(z)
        return (z - mean) / std

    def latent_of(self, x_1: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """z of x_1: the inverse of `standardised`."""
        mean, std = self._statistics(x_1)
        return x_1 * std + mean

    def write(self, x_1: Float[Tensor, "b c h w"]) -> list[str]:
        """The caption that the decoder reads out of each x_1."""
        z, decoder = self.latent_of(x_1), self.decoder
        if isinstance(decoder, AutoregressiveDecoder):
            return sentences(self.tokenizer, decoder.write(z, self.config.beams))
        return sentences(self.tokenizer, decoder.write(z, self.config.redo))

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        assert self.config.mean is not None  # build refuses a config without
        mean, std = (like.new_tensor(values)[:, None, None] for values in (self.config.mean, self.config.std))
        return mean, std

    @property
    def backbone(self) -> Backbone:
        """The velocity network v(x_t, t, is_null)."""
        return cast(Backbone, self.modules["backbone"])

    @property
    def decoder(self) -> Decoder:
        return cast(Decoder, self.modules["decoder"])

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device


def build(
    config: CaptionConfig, decoder: Decoder, tokenizer: Tokenizer, device: torch.device, seed: int = 0
) -> CaptionModel:
    """Fresh modules around a decoder, their weights drawn from `seed`. The caller's generators stay as they were.

    Raises ConfigError for parts that do not fit.
    """
    if config.mean is None or config.std is None:
        raise ConfigError(
            "mean and std of the text latents are not known; `crossflow caption train` measures them"
        )
    codec = build_codec(config.codec, device)
    _require_fit(config, codec, decoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = nn.ModuleDict({"backbone": DiMR(config.backbone)})
        if config.image_ve is not None:
            modules["image_ve"] = ImageVE(config.image_ve)
            modules["log_scale"] = LogScale()
    # the text run's own stays as it is
    modules["decoder"] = deepcopy(decoder).requires_grad_(config.loss.decoder_weight > 0)
    return CaptionModel(config, codec, tokenizer, modules.to(device))


def rebuild(description: Mapping[str, Any], device: torch.device) -> CaptionModel:
    """The model that `describe` described, with fresh weights."""
    made = DECODERS[description.get("decoder_kind", "parallel")]  # runs from before there were two kinds
    decoder = made(CaptionDecoderConfig.from_dict(description["decoder"]))
    return build(
        CaptionConfig.from_dict(description["config"]), decoder, restored(description["tokenizer"]), device
    )


def _require_fit(config: CaptionConfig, codec: ImageCodec, decoder: Decoder) -> None:
    """Raise ConfigError unless picture, source, flow and decoder have the shapes that the next one takes."""
    if tuple(decoder.config.latent) != config.latent:
        raise ConfigError(
            f"the text run's latents are {tuple(decoder.config.latent)}, but the backbone flows {config.latent}; train "
            "a text run of the same preset"
        )
    try:
        latent = tuple(codec.latent_shape(config.image_size, config.image_size))
    except ValueError as error:
        raise ConfigError(f"image_size {config.image_size}: {error}") from error
    wanted = config.latent if config.image_ve is None else tuple(config.image_ve.image)
    if latent != wanted:
        reader = "the backbone flows" if config.image_ve is None else "image_ve reads"
        remedy = " or give an image_ve" if config.image_ve is None and math.prod(latent) else ""
        raise ConfigError(
            f"codec {config.codec.name} turns {config.image_size} px into {latent}, but {reader} {wanted}; change "
            f"image_size or codec{remedy}"
        )

"""The modules of a super-resolution model, and the codec around them."""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from cf_encoders import ImageCodec
from cf_transformer import DiMR
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.engine.codecs import build_codec
from cf_apps.engine.errors import ConfigError
from cf_apps.superres.config import SuperResConfig
from cf_apps.superres.degrade import enlarged
from cf_apps.superres.methods import METHODS, Method

NAME = "superres"


@dataclass(frozen=True)
class SuperResModel:
    """A built model. modules: what is trained and saved; the codec is frozen and outside."""

    config: SuperResConfig
    codec: ImageCodec
    modules: nn.ModuleDict

    def describe(self) -> dict[str, Any]:
        """What `build` needs to make the same modules again."""
        return {"name": NAME, "config": self.config.to_dict()}

    @property
    def backbone(self) -> DiMR:
        return cast("DiMR", self.modules["backbone"])

    @property
    def method(self) -> Method:
        return METHODS[self.config.method]

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device

    @torch.no_grad()
    def encode(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """x_1 of bytes."""
        return self.codec.encode(pictures.to(self.device).float() / 255)

    @torch.no_grad()
    def encode_enlarged(self, small: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c m n"]:
        """`up`: the small pictures at x_1's size, bicubic, through the codec."""
        return self.codec.encode(enlarged(small.to(self.device), self.config.factor))


def build(config: SuperResConfig, device: torch.device, seed: int = 0) -> SuperResModel:
    """Fresh modules on `device`, their initial weights drawn from `seed`. The caller's generators stay as they were.

    Raises ConfigError for parts that do not fit.
    """
    codec = build_codec(config.codec, device)
    try:
        latent = tuple(codec.latent_shape(config.image_size, config.image_size))
    except ValueError as error:
        raise ConfigError(f"image_size {config.image_size}: {error}") from error
    if latent != config.latent:
        raise ConfigError(
            f"codec {config.codec.name} turns {config.image_size} px into {latent}, but the model flows "
            f"{config.latent}; set backbone.channels and backbone.size"
        )
    channels = METHODS[config.method].inputs * config.backbone.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = DiMR(replace(config.backbone, channels=channels))
    return SuperResModel(config, codec, nn.ModuleDict({"backbone": backbone}).to(device))

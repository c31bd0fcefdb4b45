"""The modules of a depth model: picture -> x_0, and the velocity network that carries x_0 to x_1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from cf_encoders import DiagonalGaussian, ImageVE
from cf_transformer import DiMR
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cf_apps.depth.config import DepthConfig

NAME = "depth"
SAMPLING_PARTS = ("image_ve", "backbone")


@dataclass(frozen=True)
class DepthModel:
    """A built model. modules: `image_ve` and `backbone`, all of it trained."""

    config: DepthConfig
    modules: nn.ModuleDict

    def describe(self) -> dict[str, Any]:
        """What `build` needs to make the same modules again."""
        return {"name": NAME, "config": self.config.to_dict()}

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> DiagonalGaussian:
        """q(x_0 | picture), of the depth map's shape (b, 1, h, w), in float32 whatever the rest computes in.

        Shading of one per cent, which tells how far a thing is, would not survive bfloat16's eight bits.
        """
        with torch.autocast(pictures.device.type, enabled=False):
            return self.image_ve(with_fourier(pictures, self.config.fourier))

    def decode(self, x_0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The picture that x_0 still holds, in [-1, 1] and not clamped: for the reconstruction loss."""
        with torch.autocast(x_0.device.type, enabled=False):
            return self.image_ve.decode(x_0)[:, :3]

    @property
    def image_ve(self) -> ImageVE:
        return cast("ImageVE", self.modules["image_ve"])

    @property
    def backbone(self) -> DiMR:
        """The velocity network v(x_t, t, is_null)."""
        return cast("DiMR", self.modules["backbone"])

    @property
    def device(self) -> torch.device:
        return next(self.modules.parameters()).device


def build(config: DepthConfig, device: torch.device, seed: int = 0) -> DepthModel:
    """Fresh modules on `device`, their initial weights drawn from `seed`. The caller's generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = nn.ModuleDict({"image_ve": ImageVE(config.image_ve), "backbone": DiMR(config.backbone)})
    return DepthModel(config, modules.to(device))


def to_unit(images: UInt8[Tensor, "b 3 h w"], device: torch.device) -> Float[Tensor, "b 3 h w"]:
    """Bytes as the encoder reads them: [-1, 1]."""
    return images.to(device).float() / 127.5 - 1


def with_fourier(pictures: Float[Tensor, "b 3 h w"], octaves: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """x, then sin(2^k pi x) and cos(2^k pi x) for each k, channel by channel   (Kingma et al. 2021)"""
    waves = [wave(2**k * math.pi * pictures) for k in octaves for wave in (torch.sin, torch.cos)]
    return torch.cat([pictures, *waves], 1)
